"""The training loss on the last window of each task of an Arrow data set, covariates included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsmjax.data.arrow import ArrowSource, Item
from tsmjax.errors import InputError
from tsmjax.evals.evaluator import Batch, Predict, Sums
from tsmjax.nn import instance_norm
from tsmjax.nn.losses import quantile_loss


class LossEvaluator:
    """Scores ``NAME/loss``: the training loss over observed steps, `loss_observed`.

    The label of a task is its last `horizon` steps; its covariates known ahead are seen there.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        quantiles: Sequence[float],
        context_length: int,
        horizon: int,
        patch: int,
        batch_size: int,
        arcsinh: bool,
    ):
        """Cut the windows.

        Args:
          name: prefix of the score.
          path: Arrow data set.
          quantiles: levels that the model predicts.
          context_length: longest past that the model sees.
          horizon: steps of a label.
          patch: steps of an output patch.
          batch_size: rows of one forward pass, on each host.
          arcsinh: whether the model compresses normalised values.

        Raises:
          InputError: when no task is longer than the horizon.
        """
        self.name = name
        self._quantiles, self._arcsinh = tuple(quantiles), arcsinh
        self._context_length, self._horizon = context_length, horizon
        self._patch, self._batch_size = patch, batch_size
        self._span = -(-horizon // patch) * patch
        source = ArrowSource(path)
        long_enough = np.flatnonzero(source.rows["length"] > horizon)
        self._windows = [_Window(item, horizon) for item in source.read(long_enough)]
        if not self._windows:
            raise InputError(
                f"No series of {path} is longer than the horizon of {horizon} steps: give longer "
                "ones for validation."
            )

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches: one task in each pack, and empty packs to fill up."""
        slots = max(len(window.past) for window in self._windows)
        packs = min(max(1, self._batch_size // slots), -(-len(self._windows) // hosts))
        steps = min(max(w.past.shape[1] for w in self._windows), self._context_length)
        steps = -(-steps // self._patch) * self._patch
        starts = range(host * packs, len(self._windows) + host * packs, packs * hosts)
        return [self._batch(start, packs, slots, steps) for start in starts]

    def _batch(self, start: int, packs: int, slots: int, steps: int) -> Batch:
        widths = {"context": steps, "target": self._span, "future": self._span}
        batch = {
            name: np.full((packs, slots, width), np.nan, np.float32)
            for name, width in widths.items()
        }
        batch["group"] = np.full((packs, slots), -1, np.int32)
        batch["patches"] = np.full(packs, self._span // self._patch, np.int32)
        for pack, window in enumerate(self._windows[start : start + packs]):
            rows, seen = len(window.past), window.past[:, -self._context_length :]
            batch["context"][pack, :rows, steps - seen.shape[1] :] = seen
            batch["target"][pack, : len(window.label), : self._horizon] = window.label
            known = len(window.future)
            batch["future"][pack, rows - known : rows, : self._horizon] = window.future
            batch["group"][pack, :rows] = 0
        return batch

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Sum the loss over the observed steps of the targets."""
        loc, scale = instance_norm.statistics(batch["context"])
        forecast = instance_norm.normalise(
            np.asarray(predict(batch)),
            (loc[:, :, None], scale[:, :, None]),
            arcsinh=self._arcsinh,
        )
        label = instance_norm.normalise(batch["target"], (loc, scale), arcsinh=self._arcsinh)
        counts = np.isfinite(label)
        losses = np.asarray(quantile_loss(forecast, label, counts, self._quantiles), np.float64)
        return {"loss": losses.sum(), "cells": np.float64(counts.sum())}

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into the mean loss; NaN when no label was observed."""
        cells = float(sums["cells"])
        return {f"{self.name}/loss": float(sums["loss"]) / cells if cells else math.nan}

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw nothing."""
        return []


class _Window:
    """The last window of one task.

    Attributes:
      past: (rows, length − horizon): targets, past covariates, covariates known ahead.
      future: (known, horizon) covariates known ahead.
      label: (targets, horizon).
    """

    def __init__(self, item: Item, horizon: int):
        self.past = np.concatenate([part[:, :-horizon] for part in item if len(part)])
        self.future, self.label = item.future[:, -horizon:], item.target[:, -horizon:]
