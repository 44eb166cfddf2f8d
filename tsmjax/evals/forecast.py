"""Scores of probabilistic forecasts on a suite of data sets, against seasonal naive.

WQL and MASE follow GluonTS and the published Chronos results: sums run over a whole data set before
they are divided, scores relative to seasonal naive are combined by their geometric mean over data
sets (Ansari et al. 2024, "Chronos: Learning the Language of Time Series", section 5).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.evals.evaluator import Batch, Predict, Sums

if TYPE_CHECKING:
    from tsmjax.monitor.plots import Panel

log = logging.getLogger(__name__)

_MODEL_INPUTS = ("context", "target", "future", "group", "patches")
_BUCKET_STEP = 4  # context lengths compiled for differ by this factor
_SHORTEST_BUCKET = 64
_PANELS = 9  # example forecasts in a plot


@dataclasses.dataclass(frozen=True)
class EvalDataset:
    """Series that are scored together.

    Attributes:
      name: unique name in its suite.
      series: values of each series, shape (length,); NaN = missing.
      horizon: steps to forecast.
      season_length: steps of one season, for MASE and for seasonal naive.
      offset: where the first test window begins, counted from the end (−96 with horizon 24 and one
        window leaves 72 steps unused); 0 means that the last window ends with the series.
      rolls: test windows of each series, one horizon apart; each sees all that lies before it.
    """

    name: str
    series: Sequence[np.ndarray]
    horizon: int
    season_length: int
    offset: int = 0
    rolls: int = 1

    def __post_init__(self) -> None:
        if min(self.horizon, self.season_length, self.rolls) < 1:
            raise InputError(
                f"Data set {self.name!r} has horizon {self.horizon}, season length "
                f"{self.season_length} and rolls {self.rolls}; each must be at least 1."
            )
        steps = self.horizon * self.rolls
        if self.offset and self.offset > -steps:
            raise InputError(
                f"Data set {self.name!r} has offset {self.offset}, which must be 0 or at most "
                f"{-steps}, so that its {steps} steps lie inside the series."
            )

    def windows(self, values: np.ndarray, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Cut one series into `rolls` pairs (past, label).

        The windows of "validation" lie right before those of "test". A past is empty when the
        series is too short.
        """
        first = len(values) + (self.offset or -self.horizon * self.rolls)
        first -= self.horizon * self.rolls if split == "validation" else 0
        begins = (first + self.horizon * roll for roll in range(self.rolls))
        return [
            (values[: max(begin, 0)], values[max(begin, 0) : max(begin + self.horizon, 0)])
            for begin in begins
        ]


class Window(NamedTuple):
    """One forecast to make and score.

    Attributes:
      dataset: position of its data set in the evaluator.
      name: title of its plot.
      past: (length,) float32, all of it, for the seasonal error; the model sees its end.
      label: (horizon,) float32 what happened.
    """

    dataset: int
    name: str
    past: np.ndarray
    label: np.ndarray


class _Lazy(Sequence[Batch]):
    """Batches that are built when they are asked for."""

    def __init__(self, plan: Sequence[tuple[int, int, Sequence[int]]], build: Callable[..., Batch]):
        self._plan, self._build = plan, build

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Batch:
        return self._build(*self._plan[index])


class ForecastEvaluator:
    """Scores quantile forecasts of single series.

    Attributes:
      name: name of the suite.
      split: "test" or "validation".
      datasets: what is scored.
      windows: every forecast to make, in the order of data sets, series and rolls.
      losses: (windows,) WQL of each window alone in the last evaluation, NaN where undefined.

    Scores are ``SUITE/DATASET/wql`` and ``SUITE/DATASET/mase``; over data sets, ``SUITE/wql`` and
    ``SUITE/mase`` are geometric means relative to seasonal naive (below 1 is better than it), and
    ``SUITE/avg_wql`` and ``SUITE/avg_mase`` plain means of the raw scores. Data sets on which
    seasonal naive is perfect or undefined take no part in the means.
    """

    def __init__(
        self,
        name: str,
        datasets: Sequence[EvalDataset],
        split: str,
        *,
        quantiles: Sequence[float],
        context_length: int,
        max_horizon: int,
        patch: int,
        batch_size: int,
    ):
        """Cut the windows.

        Args:
          name: name of the suite, prefix of every score.
          datasets: what to score.
          split: "test" scores the window at the end of each series, "validation" the window before
            it, and sees nothing later.
          quantiles: ascending levels that the model predicts.
          context_length: longest past that the model sees.
          max_horizon: longest forecast of the model.
          patch: steps of one output patch.
          batch_size: series in one forward pass, on each host.

        Raises:
          InputError: when a horizon is longer than the model's, or no series is long enough.
        """
        if split not in ("validation", "test"):
            raise InputError(f"The split is {split!r}, but must be 'validation' or 'test'.")
        for dataset in datasets:
            if dataset.horizon > max_horizon:
                raise InputError(
                    f"Data set {dataset.name!r} of suite {name!r} has horizon {dataset.horizon}, "
                    f"but the model forecasts {max_horizon} steps at most."
                )
        self.name = name
        self.split = split
        self.datasets = tuple(datasets)
        self._quantiles = tuple(quantiles)
        self._context_length = context_length
        self._patch = patch
        self._batch_size = batch_size
        self.windows = list(self._cut())
        self.losses = np.full(len(self.windows), np.nan)
        # Whole patches that cover the longest horizon of the suite: no shorter shape is compiled.
        longest = max(dataset.horizon for dataset in datasets)
        self._horizon = patch * math.ceil(longest / patch)
        self._examples: dict[int, np.ndarray | None] = dict.fromkeys(self._shown())

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches, with contexts padded to one of a few lengths.

        Batches have the layout of the forecasting task with one series in each pack (S = 1), and
        two entries of our own: `item` (P,) int32 and `weight` (P,) float32, zero for padding.
        """
        plan = []
        for length, members in sorted(self._buckets(range(len(self.windows))).items()):
            rows = min(self._batch_size, math.ceil(len(members) / hosts))
            for start in range(0, len(members), rows * hosts):
                begin = start + host * rows
                plan.append((length, rows, members[begin : begin + rows]))
        return _Lazy(plan, self._batch)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Sum losses and errors of the model and of seasonal naive for each data set.

        Args:
          predict: batch → quantiles (P, 1, Q, H) in the units of the series.
          batch: one of `batches`.

        Returns:
          float64 arrays over data sets (D,) or (D, levels).
        """
        forecasts = np.asarray(predict({name: batch[name] for name in _MODEL_INPUTS}))[:, 0]
        rows = np.flatnonzero(batch["weight"])
        return self.add_up((int(batch["item"][row]), forecasts[row]) for row in rows)

    def add_up(self, forecasts: Iterable[tuple[int, np.ndarray]]) -> Sums:
        """Sum losses and errors of forecasts made in any way, and of seasonal naive.

        Args:
          forecasts: pairs of the number of a window in `windows` and its quantiles (Q, ≥ horizon)
            at the evaluator's levels, in the units of the series.

        Returns:
          float64 arrays over data sets (D,) or (D, levels).
        """
        count = len(self.datasets)
        sums = {name: np.zeros((count, len(metrics.LEVELS))) for name in ("loss", "naive_loss")}
        sums |= {name: np.zeros(count) for name in ("label", "cells", "error", "naive_error")}
        for index, forecast in forecasts:
            item = self.windows[index]
            dataset = self.datasets[item.dataset]
            quantiles = forecast[:, : dataset.horizon]
            if index in self._examples:
                self._examples[index] = quantiles
            scored = metrics.interpolate(self._quantiles, quantiles, metrics.LEVELS)
            naive = metrics.seasonal_naive(item.past, dataset.season_length, dataset.horizon)
            flat = np.broadcast_to(naive, (len(metrics.LEVELS), dataset.horizon))
            scale = [metrics.seasonal_error(item.past, dataset.season_length)]
            at = item.dataset
            labels = metrics.absolute_label_sum(item.label)
            sums["label"][at] += labels
            median = scored[metrics.LEVELS.index(0.5)]
            for prefix, levels, point in (("", scored, median), ("naive_", flat, naive)):
                loss = metrics.quantile_loss_sums(item.label, levels, metrics.LEVELS)
                sums[f"{prefix}loss"][at] += loss
                if not prefix:
                    self.losses[index] = metrics.weighted_quantile_loss(loss, labels)
                error, cells = metrics.scaled_error_sum(item.label[None], point[None], scale)
                sums[f"{prefix}error"][at] += error
            sums["cells"][at] += cells
        return sums

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into scores; see the class for their names."""
        scores: dict[str, float] = {}
        means: dict[str, float] = {}
        for metric, values, baselines in (
            ("wql", self._wql(sums, ""), self._wql(sums, "naive_")),
            ("mase", self._mase(sums, ""), self._mase(sums, "naive_")),
        ):
            for dataset, value in zip(self.datasets, values, strict=True):
                scores[f"{self.name}/{dataset.name}/{metric}"] = value
            means[f"{self.name}/{metric}"] = metrics.geometric_mean(values, baselines)
            usable = [v for v, b in zip(values, baselines, strict=True) if np.isfinite(b) and b > 0]
            means[f"{self.name}/avg_{metric}"] = float(np.mean(usable)) if usable else math.nan
        return means | scores

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw a few series of the last evaluation with their forecasts; none before the first."""
        from tsmjax.monitor import plots

        panels = []
        for index, quantiles in self._examples.items():
            if quantiles is None:
                continue
            item = self.windows[index]
            panels.append(plots.Panel(item.name, item.past, item.label, self._quantiles, quantiles))
        if not panels:
            return []
        path = Path(folder) / f"forecasts_{self.name}_{self.split}.png"
        return [plots.fan_chart(panels, path, title=f"{self.name}, {self.split} window")]

    def _cut(self) -> Iterator[Window]:
        short = total = 0
        for index, dataset in enumerate(self.datasets):
            for number, values in enumerate(dataset.series):
                total += 1
                # An infinite value would poison the instance norm of its row: it is missing.
                values = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
                windows = dataset.windows(values, self.split)
                if not len(windows[0][0]):
                    short += 1
                    continue
                title = dataset.name if len(dataset.series) == 1 else f"{dataset.name} {number}"
                for past, label in windows:
                    yield Window(index, title, past, label)
        if short == total:
            raise InputError(
                f"No series of suite {self.name!r} is long enough for its {self.split} window and "
                "at least one step before it."
            )
        if short:
            log.warning(
                "Suite %s: %s of %s series are too short for the %s window and are left out.",
                self.name, short, total, self.split,
            )  # fmt: skip

    def _shown(self) -> list[int]:
        """Items to plot: the first of every data set, then the second of each, and so on."""
        seen = [0] * len(self.datasets)
        ranks = []
        for index, item in enumerate(self.windows):
            ranks.append((seen[item.dataset], index))
            seen[item.dataset] += 1
        return [index for _, index in sorted(ranks)[:_PANELS]]

    def panels(self, predict: Predict, windows: Sequence[int]) -> list[Panel]:
        """Forecast the given windows and return what a fan chart draws of each."""
        from tsmjax.monitor import plots

        drawn = {}
        for length, members in self._buckets(windows).items():
            batch = self._batch(length, len(members), members)
            forecasts = np.asarray(predict({name: batch[name] for name in _MODEL_INPUTS}))[:, 0]
            for index, forecast in zip(members, forecasts, strict=True):
                item = self.windows[index]
                quantiles = forecast[:, : len(item.label)]
                drawn[index] = plots.Panel(
                    item.name, item.past, item.label, self._quantiles, quantiles
                )
        return [drawn[index] for index in windows]

    def _buckets(self, windows: Iterable[int]) -> dict[int, list[int]]:
        """Windows by padded context length: whole patches, at most four times what is needed."""
        longest = self._patch * math.ceil(self._context_length / self._patch)
        lengths = [longest]
        while lengths[-1] // _BUCKET_STEP >= max(_SHORTEST_BUCKET, self._patch):
            lengths.append(self._patch * math.ceil(lengths[-1] // _BUCKET_STEP / self._patch))
        buckets: dict[int, list[int]] = {}
        for index in windows:
            needed = min(len(self.windows[index].past), self._context_length)
            length = min(length for length in lengths if length >= needed)
            buckets.setdefault(length, []).append(index)
        return buckets

    def _batch(self, length: int, rows: int, members: Sequence[int]) -> Batch:
        """Left-pad the contexts of `members` to `length` and fill up to `rows` rows."""
        missing = np.float32(np.nan)
        batch = {
            "context": np.full((rows, 1, length), missing),
            "target": np.full((rows, 1, self._horizon), missing),
            "future": np.full((rows, 1, self._horizon), missing),
            "group": np.full((rows, 1), -1, np.int32),
            "patches": np.ones(rows, np.int32),
            "item": np.full(rows, -1, np.int32),
            "weight": np.zeros(rows, np.float32),
        }
        for row, index in enumerate(members):
            item = self.windows[index]
            seen = item.past[-self._context_length :]
            batch["context"][row, 0, length - len(seen) :] = seen
            batch["target"][row, 0, : len(item.label)] = item.label
            batch["group"][row] = 0
            batch["patches"][row] = math.ceil(self.datasets[item.dataset].horizon / self._patch)
            batch["item"][row] = index
            batch["weight"][row] = 1.0
        return batch

    def _wql(self, sums: Sums, prefix: str) -> list[float]:
        pairs = zip(sums[f"{prefix}loss"], sums["label"], strict=True)
        return [metrics.weighted_quantile_loss(loss, label) for loss, label in pairs]

    def _mase(self, sums: Sums, prefix: str) -> list[float]:
        pairs = zip(sums[f"{prefix}error"], sums["cells"], strict=True)
        return [metrics.mean_absolute_scaled_error(error, cells) for error, cells in pairs]
