"""Categorical covariates as numbers, by the rules of chronos-forecasting.

With one target, a category becomes the mean of the target where it occurs, shrunk towards the mean
of the task as if that had been seen once more (Micci-Barreca 2001, "A preprocessing scheme for
high-cardinality categorical attributes"). With several targets, it becomes its ordinal.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

_SMOOTHING = 1.0  # weight of the task's mean, in observations


def is_categorical(values: pd.Series) -> bool:
    """Whether a prepared column holds categories."""
    return isinstance(values.dtype, pd.CategoricalDtype)


def encode(
    past: pd.Series,
    future: pd.Series | None,
    target: np.ndarray | None,
    past_task: np.ndarray,
    future_task: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Encode one categorical column of many tasks.

    A missing value is a category of its own. A category that only the future has becomes the mean
    of the task, or NaN among ordinals.

    Args:
      past: categorical values.
      future: values of the steps ahead, or None.
      target: the one target, as long as `past`, NaN = missing; None for ordinals.
      past_task: number of the task that each past value belongs to.
      future_task: the same for the future.

    Returns:
      float32 arrays as long as `past` and `future` (None without a future).
    """
    categories = past.cat.categories
    missing, unseen = len(categories), len(categories) + 1
    codes = past.cat.codes.to_numpy().astype(np.int64)
    codes[codes < 0] = missing
    ahead = None
    if future is not None:
        ahead = categories.get_indexer(pd.Index(future)).astype(np.int64)
        ahead[ahead < 0] = unseen
        ahead[future.isna().to_numpy()] = missing
    if target is None:
        ordinal = np.append(np.arange(unseen), np.nan).astype(np.float32)
        return ordinal[codes], None if ahead is None else ordinal[ahead]

    tasks, kinds = int(past_task.max()) + 1, unseen + 1
    seen = np.isfinite(target)
    cells = np.zeros((2, tasks, kinds))  # how often, and the sum of the target
    np.add.at(cells[0], (past_task[seen], codes[seen]), 1.0)
    np.add.at(cells[1], (past_task[seen], codes[seen]), target[seen].astype(np.float64))
    count, total = cells.sum(axis=2, keepdims=True)
    mean = total / np.maximum(count, 1)
    table = ((_SMOOTHING * mean + cells[1]) / (_SMOOTHING + cells[0])).astype(np.float32)
    return table[past_task, codes], None if ahead is None else table[future_task, ahead]
