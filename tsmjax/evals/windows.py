"""Squared and absolute error over rolling windows of a table, as the long-horizon benchmarks do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tsmjax.data.table import Table
from tsmjax.evals.evaluator import Batch, Predict, Sums

_PANELS = 9  # example forecasts in a plot


class WindowEvaluator:
    """Scores ``NAME/mse`` and ``NAME/mae`` of the point forecast, in the units of the table.

    Each is a mean over all observed labels: windows, channels and steps alike (Zhou et al., 2021,
    "Informer", section 5.1, and all who compare with it). When the table is standardised, so are
    they.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        split: str,
        *,
        quantiles: Sequence[float],
        channels: Sequence[int],
        context_length: int,
        horizon: int,
        min_past: int,
        stride: int,
        batch_size: int,
        extra: Mapping[str, np.ndarray] | None = None,
    ):
        """List the windows.

        Args:
          name: prefix of the scores.
          table: the data set.
          split: "validation" or "test".
          quantiles: levels that the model predicts; the one nearest 0.5 is the point forecast.
          channels: positions of the channels that the model forecasts.
          context_length: steps of the context.
          horizon: steps to forecast.
          min_past: least number of steps before a forecast.
          stride: steps between the windows of an item.
          batch_size: windows of one forward pass, on each host.
          extra: further entries of a batch, one row for each item.

        Raises:
          InputError: when there is no window.
        """
        self.name, self._split = name, split
        self._table, self._extra = table, dict(extra or {})
        self._quantiles, self._channels = tuple(quantiles), np.asarray(channels)
        self._point = int(np.argmin(np.abs(np.asarray(quantiles) - 0.5)))
        self._context_length, self._horizon = context_length, horizon
        self._batch_size = batch_size
        self._items, self._cuts = table.windows(split, horizon, min_past, stride)
        shown = np.linspace(0, len(self._items) - 1, _PANELS).astype(int)
        self._examples: dict[int, tuple[np.ndarray, ...]] = {}
        self._shown = set(shown.tolist())

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches; see `Table.read`, and `weight`, zero for padding."""
        rows = min(self._batch_size, -(-len(self._items) // hosts))
        starts = range(host * rows, len(self._items) + host * rows, rows * hosts)
        return _Lazy(self, list(starts), rows)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Sum errors, and count labels, over the windows of a batch."""
        inputs = {name: batch[name] for name in batch if name not in ("window", "weight")}
        forecasts = np.asarray(predict(inputs), np.float64)
        point = forecasts[:, :, self._point]
        label = batch["target"][:, self._channels]
        counts = np.isfinite(label) & (batch["weight"][:, None, None] > 0)
        error = np.where(counts, point - np.where(counts, label, 0.0), 0.0)
        for row, window in enumerate(batch["window"].tolist()):
            if window in self._shown and batch["weight"][row]:
                past = batch["context"][row, self._channels[0]]
                self._examples[window] = (past, label[row, 0], forecasts[row, 0])
        return {
            "squared": np.square(error).sum(),
            "absolute": np.abs(error).sum(),
            "cells": np.float64(counts.sum()),
        }

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into means; NaN when no label was observed."""
        cells = float(sums["cells"]) or math.nan
        return {
            f"{self.name}/mse": float(sums["squared"]) / cells,
            f"{self.name}/mae": float(sums["absolute"]) / cells,
        }

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw windows of the first forecast channel, spread over the part; none before a run."""
        from tsmjax.monitor import plots

        if not self._examples:
            return []
        panels = [
            plots.Panel(f"step {self._cuts[window]:,}", past, label, self._quantiles, forecast)
            for window, (past, label, forecast) in sorted(self._examples.items())
        ]
        path = Path(folder) / f"forecasts_{self.name}_{self._split}.png"
        return [plots.fan_chart(panels, path, title=f"{self.name}, {self._split} part")]

    def _batch(self, start: int, rows: int) -> Batch:
        """Read the windows from `start` on; the last one fills up, with weight zero."""
        wanted = start + np.arange(rows)
        window = np.minimum(wanted, len(self._items) - 1)
        items = self._items[window]
        batch = self._table.read(items, self._cuts[window], self._context_length, self._horizon)
        batch |= {name: values[items] for name, values in self._extra.items()}
        return batch | {"window": window, "weight": np.float32(wanted < len(self._items))}


class _Lazy(Sequence[Batch]):
    """Batches that are read when they are asked for."""

    def __init__(self, evaluator: WindowEvaluator, starts: list[int], rows: int):
        self._evaluator, self._starts, self._rows = evaluator, starts, rows

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Batch:
        return self._evaluator._batch(self._starts[index], self._rows)
