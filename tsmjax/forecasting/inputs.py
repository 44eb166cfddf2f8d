"""Whatever a user hands in, as a list of `Series`: one entry for each task.

Accepted are a 3-D array, a list of 1-D or 2-D arrays, a list of dicts with covariates, and the
prepared dicts of chronos-forecasting. Anything that turns into a NumPy array will do; torch tensors
are taken as they are, without importing torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.forecasting.covariates import encode, is_categorical

_FIELDS = ("target", "past_covariates", "future_covariates")
_PREPARED = ("context", "future_covariates", "n_targets", "n_covariates", "n_future_covariates")


class Series(NamedTuple):
    """One task: targets and covariates that are forecast together.

    Attributes:
      past: (rows, length) float32, NaN = missing; rows are targets, covariates known in the past
        only, covariates known ahead.
      future: (rows, horizon) float32; NaN for all but the covariates known ahead.
      targets: number of target rows.
      known: number of covariates known ahead, the last rows.
    """

    past: np.ndarray
    future: np.ndarray
    targets: int
    known: int


def prepare(inputs: Any, horizon: int, order: Sequence[str] = ()) -> list[Series]:
    """Read `inputs` into tasks.

    Args:
      inputs: array or tensor (tasks, variates, length); list of arrays (length,) or (variates,
        length), all of them targets; list of dicts with `target`, `past_covariates` and
        `future_covariates`, which share their covariates and their number of targets; or a list of
        `Series` or of chronos-forecasting's prepared dicts.
      horizon: steps to forecast, and the length of future covariates.
      order: names of covariates in the order of their rows; others follow by the alphabet.

    Raises:
      InputError: when a shape, length or name is wrong; the sentence names the task.
    """
    if hasattr(inputs, "ndim") or hasattr(inputs, "detach"):
        values = to_numpy(inputs)
        if values.ndim != 3:
            raise InputError(
                f"The inputs are one array of shape {values.shape}, but must have three "
                "dimensions (tasks, variates, length); put single series into a list."
            )
        found = [_targets_only(entry, f"Input {n}", horizon) for n, entry in enumerate(values)]
    elif isinstance(inputs, Mapping) or not hasattr(inputs, "__getitem__"):
        raise InputError(
            f"The inputs are a {type(inputs).__name__}, but must be an array or a list of arrays "
            "or dicts; put a single dict into a list."
        )
    elif not len(inputs):
        found = []
    elif isinstance(inputs[0], Series):
        found = list(inputs)
    elif isinstance(inputs[0], Mapping) and "context" in inputs[0]:
        found = [_prepared(entry, f"Input {n}") for n, entry in enumerate(inputs)]
    elif isinstance(inputs[0], Mapping):
        found = _from_dicts(inputs, horizon, {name: rank for rank, name in enumerate(order)})
    else:
        found = [_targets_only(entry, f"Input {n}", horizon) for n, entry in enumerate(inputs)]
    if not found:
        raise InputError("The inputs are empty: give at least one series.")
    for number, series in enumerate(found):
        if not series.past.size:
            raise InputError(f"Input {number} has no values: give at least one past step.")
        if series.future.shape[1] != horizon:
            raise InputError(
                f"Input {number} has {series.future.shape[1]} future steps, but the prediction "
                f"length is {horizon}."
            )
    return found


def to_numpy(values: Any) -> np.ndarray:
    """Turn an array, list or tensor (on any device, with or without gradients) into an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(getattr(values, "dtype", "")) == "torch.bfloat16":
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def stacked(
    target: np.ndarray,
    past: Mapping[str, pd.Series],
    future: Mapping[str, pd.Series],
    known: Sequence[str],
    lengths: Sequence[int],
    horizon: int,
) -> list[Series]:
    """Build the tasks of series that lie one after the other in long columns.

    Args:
      target: (targets, Σ lengths) float32.
      past: covariate → its Σ lengths values.
      future: covariate → its tasks · horizon values, for those that have them.
      known: covariates known ahead; those not in `future` have unknown (NaN) values.
      lengths: steps of each task.
      horizon: steps ahead of each task.
    """
    order = [name for name in past if name not in known] + [n for n in past if n in known]
    tasks = np.arange(len(lengths))
    past_task, future_task = np.repeat(tasks, lengths), np.repeat(tasks, horizon)
    rows, ahead = [*target], [np.full(len(future_task), np.nan, np.float32)] * len(target)
    for name in order:
        values, later = past[name], future.get(name)
        if is_categorical(values):
            # One target gives categories a meaning of their own; several would disagree.
            mean_of = target[0] if len(target) == 1 else None
            values, later = encode(values, later, mean_of, past_task, future_task)
        else:
            values, later = _numbers(values, name), None if later is None else _numbers(later, name)
        rows.append(values)
        ahead.append(later if later is not None else ahead[0])
    past_rows, future_rows = np.stack(rows), np.stack(ahead)
    ends = np.cumsum(lengths)
    return [
        Series(
            past_rows[:, end - length : end],
            future_rows[:, task * horizon : (task + 1) * horizon],
            len(target),
            len(known),
        )
        for task, (end, length) in enumerate(zip(ends, lengths, strict=True))
    ]


def _targets_only(entry: Any, where: str, horizon: int) -> Series:
    values = _float32(to_numpy(entry), where)
    if values.ndim not in (1, 2):
        raise InputError(
            f"{where} has the shape {values.shape}, but must be (length,) or (variates, length)."
        )
    values = np.atleast_2d(values)
    return Series(values, np.full((len(values), horizon), np.nan, np.float32), len(values), 0)


def _prepared(entry: Any, where: str) -> Series:
    missing = [name for name in _PREPARED if name not in entry]
    if missing:
        raise InputError(f"{where} has a context, but lacks {', '.join(missing)}.")
    past = _float32(to_numpy(entry["context"]), where)
    future = _float32(to_numpy(entry["future_covariates"]), where)
    if past.ndim != 2 or future.ndim != 2 or len(past) != len(future):
        raise InputError(
            f"{where} has a context of shape {past.shape} and future covariates of shape "
            f"{future.shape}: both must be (rows, steps) with the same rows."
        )
    return Series(past, future, int(entry["n_targets"]), int(entry["n_future_covariates"]))


def _from_dicts(
    inputs: Sequence[Mapping[str, Any]], horizon: int, ranks: Mapping[str, int]
) -> list[Series]:
    """Read dicts; categories are encoded over all of them, so they must agree on covariates."""
    targets = [_dict_target(entry, f"Input {n}") for n, entry in enumerate(inputs)]
    past = [_covariates(entry, "past_covariates", f"Input {n}") for n, entry in enumerate(inputs)]
    future = [
        _covariates(entry, "future_covariates", f"Input {n}") for n, entry in enumerate(inputs)
    ]
    for number, (target, before, ahead) in enumerate(zip(targets, past, future, strict=True)):
        where = f"Input {number}"
        if len(target) != len(targets[0]):
            raise InputError(
                f"{where} has {len(target)} targets and input 0 has {len(targets[0])}: forecast "
                "inputs of different kinds in calls of their own."
            )
        for kind, mine, first in (
            ("past_covariates", before, past[0]),
            ("future_covariates", ahead, future[0]),
        ):
            if mine.keys() != first.keys():
                raise InputError(
                    f"{where} has the {kind} {sorted(mine)} and input 0 has {sorted(first)}: "
                    "forecast inputs of different kinds in calls of their own."
                )
        for name, values in before.items():
            if values.shape != (target.shape[1],):
                raise InputError(
                    f"Past covariate {name!r} of input {number} has the shape {values.shape}, but "
                    f"the target has {target.shape[1]} steps: they must agree."
                )
        for name, values in ahead.items():
            if name not in before:
                raise InputError(
                    f"Future covariate {name!r} of input {number} has no past: add it to "
                    f"past_covariates{closest(name, before)}."
                )
            if bool(values.size) != bool(future[0][name].size):
                raise InputError(
                    f"Future covariate {name!r} has values in some inputs and none in others "
                    f"(input {number}): give all of them or none."
                )
            if values.size and values.shape != (horizon,):
                raise InputError(
                    f"Future covariate {name!r} of input {number} has the shape {values.shape}, "
                    f"but the prediction length is {horizon}: give one value for each step."
                )
    known, names = (
        sorted(found, key=lambda name: (ranks.get(name, len(ranks)), name))
        for found in (future[0], past[0])
    )
    given = [name for name in known if future[0][name].size]
    return stacked(
        np.concatenate(targets, axis=1),
        {name: _column([entry[name] for entry in past]) for name in names},
        {name: _column([entry[name] for entry in future]) for name in given},
        known,
        [target.shape[1] for target in targets],
        horizon,
    )


def _dict_target(entry: Any, where: str) -> np.ndarray:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is a {type(entry).__name__} and input 0 is a dict.")
    for name in entry:
        if name not in _FIELDS:
            raise InputError(f"{where} has the key {name!r}{closest(str(name), _FIELDS)}.")
    if "target" not in entry:
        raise InputError(f"{where} has no target.")
    return _targets_only(entry["target"], f"The target of {where.lower()}", 0).past


def _covariates(entry: Mapping[str, Any], kind: str, where: str) -> dict[str, np.ndarray]:
    found = entry.get(kind)
    if not isinstance(found, Mapping | None):
        raise InputError(f"{where} has {kind} of type {type(found).__name__} instead of a dict.")
    # None and an empty list both say: known ahead, though not now.
    return {name: to_numpy([] if v is None else v) for name, v in (found or {}).items()}


def _column(parts: Sequence[np.ndarray]) -> pd.Series:
    values = np.concatenate(parts)
    # Booleans and texts are categories; everything that counts is a number.
    numeric = np.issubdtype(values.dtype, np.number)
    return pd.Series(values, dtype=np.float32 if numeric else "category")


def _numbers(values: pd.Series, name: str) -> np.ndarray:
    try:
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Covariate {name!r} is numeric in the past and is not in the future: {error}."
        ) from error


def _float32(values: np.ndarray, where: str) -> np.ndarray:
    try:
        return values.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} holds values that are not numbers: {error}.") from error
