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

from tsmjax.data.arrow import Item
from tsmjax.errors import InputError
from tsmjax.evals import details, metrics
from tsmjax.evals.evaluator import Batch, Predict, Sums
from tsmjax.evals.shapes import Shape, by_length

if TYPE_CHECKING:
    from tsmjax.monitor.plots import Panel

log = logging.getLogger(__name__)

_MODEL_INPUTS = ("context", "target", "future", "group", "patches")
_PANELS = 9  # example forecasts in a plot


@dataclasses.dataclass(frozen=True)
class EvalDataset:
    """Series that are scored together.

    Attributes:
      name: unique name in its suite.
      series: values of each series, shape (length,), NaN = missing; or an `Item`, whose variates
        are forecast together from all its rows.
      horizon: steps to forecast.
      season_length: steps of one season, for MASE and for seasonal naive.
      offset: where the first test window begins, counted from the end (−96 with horizon 24 and one
        window leaves 72 steps unused); 0 means that the last window ends with the series.
      rolls: test windows of each series, one horizon apart; each sees all that lies before it.
    """

    name: str
    series: Sequence[np.ndarray | Item]
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
        """Cut one series (…, length) into `rolls` pairs (past, label).

        The windows of "validation" lie right before those of "test". A past is empty when the
        series is too short.
        """
        first = values.shape[-1] + (self.offset or -self.horizon * self.rolls)
        first -= self.horizon * self.rolls if split == "validation" else 0
        begins = [first + self.horizon * roll for roll in range(self.rolls)]
        cuts = [(max(begin, 0), max(begin + self.horizon, 0)) for begin in begins]
        return [(values[..., :begin], values[..., begin:end]) for begin, end in cuts]


class Window(NamedTuple):
    """One series to score the forecast of.

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


class Task(NamedTuple):
    """One forecast to make: windows that see each other.

    Attributes:
      windows: numbers of its windows.
      covariates: (covariates, length) float32 pasts, those known ahead last.
      known: (known ahead, horizon) float32 what is known.
    """

    windows: range
    covariates: np.ndarray
    known: np.ndarray


class _Lazy(Sequence[Batch]):
    """Batches that are built when they are asked for."""

    def __init__(
        self, plan: Sequence[tuple[Shape, int, Sequence[int]]], build: Callable[..., Batch]
    ):
        self._plan, self._build = plan, build

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Batch:
        return self._build(*self._plan[index])


class ForecastEvaluator:
    """Scores quantile forecasts, each target variate as a series of its own.

    Attributes:
      name: name of the suite.
      split: "test" or "validation".
      datasets: what is scored.
      windows: every series to score, in the order of data sets, series, rolls and variates.
      tasks: every forecast to make; each window is in one of them.
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
        self.windows: list[Window] = []
        self.tasks: list[Task] = []
        self._cut()
        self._task_of = [number for number, task in enumerate(self.tasks) for _ in task.windows]
        self.losses = np.full(len(self.windows), np.nan)
        self._examples: dict[int, np.ndarray | None] = dict.fromkeys(self._shown())

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches, in a few shapes.

        Batches have the layout of the forecasting task with one task in each pack, and two entries
        of our own: `item` (P,) int32 and `weight` (P,) float32, zero for padding.
        """
        plan: list[tuple[Shape, int, Sequence[int]]] = []
        for shape, members in by_length(dict(enumerate(map(self._shape, self.tasks)))):
            most = max(1, self._batch_size // shape.slots) * hosts
            # As many packs in each batch, so that the last one is as full as the first.
            packs = math.ceil(len(members) / math.ceil(len(members) / most) / hosts)
            starts = range(host * packs, len(members) + host * packs, packs * hosts)
            plan += [(shape, packs, members[start : start + packs]) for start in starts]
        return _Lazy(plan, self._batch)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Sum losses and errors of the model and of seasonal naive for each data set.

        Args:
          predict: batch → quantiles (P, S, Q, H) in the units of the series.
          batch: one of `batches`.

        Returns:
          float64 arrays over data sets (D,) or (D, levels).
        """
        return self.add_up(self._forecasts(predict, batch))

    def _forecasts(self, predict: Predict, batch: Batch) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each window in `batch` and its quantiles (Q, H)."""
        forecasts = np.asarray(predict({name: batch[name] for name in _MODEL_INPUTS}))
        for pack in np.flatnonzero(batch["weight"]):
            task = self.tasks[batch["item"][pack]]
            yield from zip(task.windows, forecasts[pack], strict=False)

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
        sums |= details.zeros(count)
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
            more = details.sums(item.label, quantiles, self._quantiles, scale[0])
            for name, value in more.items():
                sums[name][at] += value
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

        panels = [
            self._panel(index, quantiles)
            for index, quantiles in self._examples.items()
            if quantiles is not None
        ]
        if not panels:
            return []
        path = Path(folder) / f"forecasts_{self.name}_{self.split}.png"
        return [plots.fan_chart(panels, path, title=f"{self.name}, {self.split} window")]

    def _cut(self) -> None:
        """Fill `windows` and `tasks`."""
        nothing = np.empty((0, 0), np.float32)
        short = total = 0
        for index, dataset in enumerate(self.datasets):
            for number, one in enumerate(dataset.series):
                total += 1
                item = one if isinstance(one, Item) else Item(one[None], nothing, nothing)
                values = np.concatenate([part for part in item if len(part)])
                # An infinite value would poison the instance norm of its row: it is missing.
                values = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
                windows = dataset.windows(values, self.split)
                if not windows[0][0].size:
                    short += 1
                    continue
                title = dataset.name if len(dataset.series) == 1 else f"{dataset.name} {number}"
                targets, known = len(item.target), len(item.future)
                for past, label in windows:
                    begin = len(self.windows)
                    for variate in range(targets):
                        name = title if targets == 1 else f"{title}, variate {variate}"
                        self.windows.append(Window(index, name, past[variate], label[variate]))
                    self.tasks.append(
                        Task(
                            range(begin, begin + targets),
                            past[targets:],
                            label[len(label) - known :],
                        )
                    )
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
        tasks = sorted({self._task_of[index] for index in windows})
        found: dict[int, np.ndarray] = {}
        shapes = {number: self._shape(self.tasks[number]) for number in tasks}
        for shape, members in by_length(shapes):
            batch = self._batch(shape, len(members), members)
            found.update(self._forecasts(predict, batch))
        return [self._panel(index, found[index]) for index in windows]

    def _panel(self, index: int, quantiles: np.ndarray) -> Panel:
        """What a fan chart draws of a window and its forecast (Q, ≥ horizon)."""
        from tsmjax.monitor import plots

        window, task = self.windows[index], self.tasks[self._task_of[index]]
        horizon = len(window.label)
        ahead = np.full((len(task.covariates), horizon), np.nan, np.float32)
        ahead[len(ahead) - len(task.known) :] = task.known
        covariates = np.concatenate([task.covariates, ahead], axis=-1)
        return plots.Panel(
            *(window.name, window.past, window.label, self._quantiles, quantiles[:, :horizon]),
            covariates={f"covariate {number}": row for number, row in enumerate(covariates)},
        )

    def _shape(self, task: Task) -> Shape:
        """Size of a task without padding."""
        window = self.windows[task.windows[0]]
        return Shape(
            math.ceil(min(len(window.past), self._context_length) / self._patch),
            math.ceil(len(window.label) / self._patch),
            len(task.windows) + len(task.covariates),
        )

    def _batch(self, shape: Shape, packs: int, members: Sequence[int]) -> Batch:
        """Left-pad the contexts of the tasks `members` and fill up to `packs` packs."""
        slots, length = shape.slots, shape.context * self._patch
        horizon = shape.future * self._patch
        missing = np.float32(np.nan)
        batch = {
            "context": np.full((packs, slots, length), missing),
            "target": np.full((packs, slots, horizon), missing),
            "future": np.full((packs, slots, horizon), missing),
            "group": np.full((packs, slots), -1, np.int32),
            "patches": np.ones(packs, np.int32),
            "item": np.full(packs, -1, np.int32),
            "weight": np.zeros(packs, np.float32),
        }
        for pack, number in enumerate(members):
            task = self.tasks[number]
            windows = [self.windows[index] for index in task.windows]
            rows = [*(window.past for window in windows), *task.covariates]
            for slot, row in enumerate(rows):
                seen = row[-self._context_length :]
                batch["context"][pack, slot, length - len(seen) :] = seen
            for slot, window in enumerate(windows):
                batch["target"][pack, slot, : len(window.label)] = window.label
            known = slice(len(rows) - len(task.known), len(rows))
            batch["future"][pack, known, : task.known.shape[-1]] = task.known
            batch["group"][pack, : len(rows)] = 0
            batch["patches"][pack] = math.ceil(len(windows[0].label) / self._patch)
            batch["item"][pack] = number
            batch["weight"][pack] = 1.0
        return batch

    def _wql(self, sums: Sums, prefix: str) -> list[float]:
        pairs = zip(sums[f"{prefix}loss"], sums["label"], strict=True)
        return [metrics.weighted_quantile_loss(loss, label) for loss, label in pairs]

    def _mase(self, sums: Sums, prefix: str) -> list[float]:
        pairs = zip(sums[f"{prefix}error"], sums["cells"], strict=True)
        return [metrics.mean_absolute_scaled_error(error, cells) for error, cells in pairs]
