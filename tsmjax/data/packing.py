"""Forecasting batches by step: draw tasks from a mixture of sources and pack them at fixed shape.

A batch is P packs of S slots; one slot holds one row (a variate or a covariate), one group of
slots is one task, and nothing ever attends across packs. Every pack comes from one source, whose
largest task has g rows, and holds m = S // g tasks. Pack k of a source holds its draws k·m … k·m +
m − 1, so nothing is dropped, no draw is skipped, and an epoch of a source is exact.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import numpy as np

from tsmjax.data import gather
from tsmjax.data.arrow import ArrowSource
from tsmjax.data.counter import below, permute
from tsmjax.data.mixture import Mixture
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.data.synthetic.generated import PREFIX, GeneratedSource, GeneratedWindows
from tsmjax.data.windows import Sampling, Windows
from tsmjax.errors import InputError

_HORIZON, _ORDER = 2, 3  # keep the hashes of horizons and orders apart from other uses of the seed
_SHORTEST = 4  # the shortest context compiled for is this part of the longest


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set of the mixture.

    Attributes:
      path: an Arrow folder, an ``.arrow`` or ``.parquet`` file, ``embedded:NAME`` (data sets that
        are made at first use: ``corpus``, ``tsi``, ``kernel_synth``, ``tsmixup``, ``real`` …), or
        ``generated:corpus`` (series that are made during training, without end).
      weight: share of the batch's rows, relative to the other weights.
    """

    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The config section ``data`` of forecasting tasks.

    Attributes:
      sources: the data sets and their weights.
      batch_size: rows of a global batch (targets and covariates alike), over all hosts.
      context_length: steps before the cut; None for as many as the model takes. Shorter pasts are
        padded with NaN on the left.
      prediction_length: steps of the longest horizon to train for; None for as many as the model
        forecasts.
      validation: an Arrow folder or file; the training loss on the last horizon of each of its
        tasks becomes the score ``validation/loss``. Empty for none.
      slots: rows of a pack; None for the largest group of all sources.
      min_past: least number of steps before the cut. chronos-forecasting takes the horizon for
        fine-tuning.
      min_future: least number of steps after the cut; series shorter than min_past + min_future
        are left out.
      sampling: "series" draws each series equally often, with a random cut; "windows" draws each
        window equally often.
      stride: steps between the windows of a series, for sampling="windows".
      random_horizon: draw the number of output patches of each batch from 1 … the longest.
      group_by_length: consecutive steps whose tasks are sorted by the length of their pasts before
        they are dealt to these steps, in random order. Batches of short pasts get a half or a
        quarter of the context length and take as much less time; each length is one compilation.
        The gradient of a block of steps has the same expectation. 1 leaves tasks as drawn.
      holdout: steps at the end of each series that training never sees.
      long_share: least share of the rows that must come from series of at least half the context
        length, so that a long context is not trained on padding; 0 takes any series.
      max_series: use only the first series of each source; None for all.
      workers: processes that assemble batches; 0 assembles them in threads of this process.
      prefetch: batches that are kept ready on the host.
    """

    sources: tuple[Source, ...] = ()
    batch_size: int = 256
    context_length: int | None = None
    prediction_length: int | None = None
    validation: str = ""
    slots: int | None = None
    min_past: int = 16
    min_future: int = 1
    sampling: Sampling = "series"
    stride: int = 1
    random_horizon: bool = False
    group_by_length: int = 1
    holdout: int = 0
    long_share: float = 0.0
    max_series: int | None = None
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self):
        least = dict.fromkeys(("batch_size", "min_past", "min_future", "stride", "prefetch"), 1)
        least |= {"holdout": 0, "workers": 0, "group_by_length": 1}
        optional = dict.fromkeys(("context_length", "prediction_length", "slots", "max_series"), 1)
        least |= {name: low for name, low in optional.items() if getattr(self, name) is not None}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"The config field data.{name} is {getattr(self, name)}, "
                    f"but must be at least {low}."
                )
        if not 0 <= self.long_share <= 1:
            raise InputError(
                f"The config field data.long_share is {self.long_share}, but must be in [0, 1]."
            )
        for source in self.sources:
            if not 0 < source.weight < float("inf"):
                raise InputError(
                    f"The weight of {source.path} in data.sources is {source.weight}, but must be "
                    "positive; leave the source out to give it none."
                )


class _Packs(NamedTuple):
    """Packs to fill; P arrays each.

    Attributes:
      source: number of the source.
      ordinal: how-manieth pack of its source.
      patches: output patches in use.
    """

    source: np.ndarray
    ordinal: np.ndarray
    patches: np.ndarray


class ForecastBatches:
    """Batches of forecasting tasks by step, a pure function of (config, seed, step).

    ``batches[step]`` is this host's part, a dict of NumPy arrays, with P packs of S slots, context
    length C (a part of it in batches of short pasts, if tasks are grouped by length) and
    H = `max_patches` · patch:

    * ``context`` float32 (P, S, C): NaN = missing, padded on the left with NaN.
    * ``target`` float32 (P, S, H): NaN = no loss; all NaN for covariates.
    * ``future`` float32 (P, S, H): known future covariates, NaN = unknown.
    * ``group`` int32 (P, S): number of the task inside its pack, −1 for an empty slot.
    * ``patches`` int32 (P,): output patches in use.

    Rows of a task come in the order targets, past covariates, known-future covariates. Infinities
    become NaN.

    Attributes:
      rows: slots of one global batch, P · S.
      packs: packs of one global batch.
      slots: rows of a pack, S.
      context_length: steps of the context, C.
      max_patches: output patches of the longest horizon.
      sources: the opened data sets.
      steps_per_epoch: steps in which as many tasks are drawn as the sources hold; None when one of
        them is generated during training.
      skipped: source → (items that are too short to be drawn, all of its items).
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        prediction_length: int,
        patch: int,
        seed: int,
        context_length: int | None = None,
        host: int = 0,
        hosts: int = 1,
    ):
        """Open the sources of `config`.

        Args:
          config: the config section ``data``.
          prediction_length: longest horizon, in steps.
          patch: steps of an output patch.
          context_length: steps before the cut when `config` does not say.
          seed: chooses all draws.
          host: number of this host.
          hosts: number of hosts; host i reads the i-th part of every global batch.

        Raises:
          InputError: when there are no sources, one cannot be read or holds only missing values,
            or the sizes do not fit.
        """
        self._arguments = dict(
            config=config,
            prediction_length=prediction_length,
            patch=patch,
            seed=seed,
            context_length=context_length,
            host=host,
            hosts=hosts,
        )
        self.config, self._seed = config, seed
        self._patch, self._prediction_length = patch, prediction_length
        self.max_patches = -(-prediction_length // patch)
        self.context_length = config.context_length or context_length
        if not self.context_length:
            raise InputError("The config field data.context_length has no value and needs one.")
        if not config.sources:
            raise InputError("The config field data.sources is empty: name at least one data set.")
        reread = config.batch_size * config.group_by_length
        self.sources = [_open(source.path, reread, config.workers) for source in config.sources]

        largest = max(self.sources, key=lambda source: source.max_group)
        self.slots = config.slots or largest.max_group
        if self.slots < largest.max_group:
            raise InputError(
                f"The config field data.slots is {self.slots}, but {largest.path} holds an item of "
                f"{largest.max_group} variates and covariates: set it to that at least."
            )
        self.packs, rest = divmod(config.batch_size, self.slots)
        if rest or not self.packs or self.packs % hosts:
            unit = self.slots * hosts
            near = max(unit, config.batch_size // unit * unit)
            raise InputError(
                f"The config field data.batch_size is {config.batch_size}, but must be a multiple "
                f"of {self.slots} slots × {hosts} hosts = {unit}: take {near} or {near + unit}."
            )
        self.rows = self.packs * self.slots
        share = self.packs // hosts
        self._mine = np.arange(host * share, (host + 1) * share)

        self._tasks = [self.slots // source.max_group for source in self.sources]
        self._windows = [self._draws(number) for number in range(len(self.sources))]
        self._check_lengths()
        # Weights are shares of rows, and packs of one source may be fuller than another's.
        fill = [m * source.mean_group for m, source in zip(self._tasks, self.sources, strict=True)]
        weights = [source.weight for source in config.sources] / np.asarray(fill)
        self._mixture = Mixture(weights, seed)
        self._sorted = functools.lru_cache(maxsize=2)(self._sort)
        tasks_per_step = self.packs * float(np.dot(weights / weights.sum(), self._tasks))
        epoch = sum(windows.size for windows in self._windows) / tasks_per_step
        self.steps_per_epoch = epoch if np.isfinite(epoch) else None
        self.skipped = {
            self._name(number): (windows.skipped, len(source.rows[: config.max_series]))
            for number, (source, windows) in enumerate(
                zip(self.sources, self._windows, strict=True)
            )
            if isinstance(windows, Windows)
        }

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)

    def __len__(self) -> int:
        """Return the steps of an epoch, rounded up; steps beyond it continue without end."""
        if self.steps_per_epoch is None:
            raise TypeError("there is no epoch of generated series")
        return int(np.ceil(self.steps_per_epoch))

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's part of the batch of `step`, for any step from 0."""
        draws = step * self.packs + np.arange(self.packs)
        length = self.context_length
        if self.config.group_by_length > 1:
            draws, length = self._grouped(*divmod(step, self.config.group_by_length))
        packs = self._packs(draws[self._mine])

        shape = (len(self._mine), self.slots)
        horizon = self.max_patches * self._patch
        batch = {
            "context": np.full((*shape, length), np.nan, np.float32),
            "target": np.full((*shape, horizon), np.nan, np.float32),
            "future": np.full((*shape, horizon), np.nan, np.float32),
            "group": np.full(shape, -1, np.int32),
            "patches": packs.patches.astype(np.int32),
        }
        for number in np.unique(packs.source):
            self._fill(batch, number, packs)
        for name in ("context", "target", "future"):
            values = batch[name]
            if np.isinf(values).any():
                values[np.isinf(values)] = np.nan
        return batch

    def drawn(self, first: int, last: int) -> dict[str, float]:
        """Count the rows of each source in the batches of the steps first … last − 1.

        Exact for a whole number of `group_by_length` blocks; the rows of a pack are a mean.
        """
        packs = self._mixture.drawn(first * self.packs, last * self.packs)
        found: dict[str, float] = {}
        for number, source in enumerate(self.sources):
            name = self._name(number)
            rows = float(packs[number] * self._tasks[number] * source.mean_group)
            found[name] = found.get(name, 0.0) + rows
        return found

    def _name(self, number: int) -> str:
        """What reports call a source."""
        return re.split("[/:]", self.config.sources[number].path.rstrip("/"))[-1]

    def _draws(self, number: int) -> Windows | GeneratedWindows:
        """Return the draws of one source."""
        config, source = self.config, self.sources[number]
        shared = dict(
            seed=self._seed * len(self.sources) + number,
            min_past=config.min_past,
            min_future=config.min_future,
            holdout=config.holdout,
        )
        if isinstance(source, GeneratedSource):
            return GeneratedWindows(source, **shared)
        return Windows(
            source.rows["length"][: config.max_series],
            name=str(source.path),
            sampling=config.sampling,
            horizon=self._prediction_length,
            stride=config.stride,
            min_length=source.min_length,
            **shared,
        )

    def _check_lengths(self) -> None:
        """Raise when most of the context would be padding; see `DataConfig.long_share`."""
        if not self.config.long_share:
            return
        half = -(-self.context_length // 2)
        rows = np.array([source.weight for source in self.config.sources])
        long = [windows.share_of_long(half) for windows in self._windows]
        share = float(rows @ long / rows.sum())
        if share < self.config.long_share:
            raise InputError(
                f"Only {share:.1%} of the rows come from series of {half:,} steps or more, half of "
                f"the context length of {self.context_length:,}, and the config asks for "
                f"{self.config.long_share:.1%} (data.long_share): use longer series, or a shorter "
                "model.context_length."
            )

    def _packs(self, draws: np.ndarray) -> _Packs:
        """Say what fills the packs with the given numbers, counted from the first step."""
        source, ordinal = self._mixture.locate(draws)
        patches = np.full(len(draws), self.max_patches)
        if self.config.random_horizon:
            patches = 1 + below(self.max_patches, self._seed, _HORIZON, draws // self.packs)
        return _Packs(source, ordinal, patches)

    def _locate(self, number: int, packs: _Packs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (series, cut, steps to forecast) of the tasks in the packs of one source."""
        mine, tasks = packs.source == number, self._tasks[number]
        draws = (packs.ordinal[mine, None] * tasks + np.arange(tasks)).ravel()
        drawn = np.minimum(packs.patches[mine] * self._patch, self._prediction_length)
        drawn = np.repeat(drawn, tasks)
        return *self._windows[number].locate(draws, drawn), drawn

    def _grouped(self, block: int, index: int) -> tuple[np.ndarray, int]:
        """Return (numbers of the packs, context length) of a step of a block of steps."""
        draws, lengths = self._sorted(block)
        at = int(permute(np.int64(index), len(draws), self._seed, _ORDER, block))
        return draws[at], lengths[at]

    def _sort(self, block: int) -> tuple[np.ndarray, list[int]]:
        """Deal the packs of a block by the length of their longest past.

        Returns:
          Numbers of the packs (steps, packs), and the context length of each of these batches.
        """
        steps = self.config.group_by_length
        draws = (block * steps) * self.packs + np.arange(steps * self.packs)
        packs = self._packs(draws)
        needed = np.empty(len(draws), np.int64)
        for number in np.unique(packs.source):
            cuts = self._locate(number, packs)[1]
            needed[packs.source == number] = cuts.reshape(-1, self._tasks[number]).max(axis=1)
        order = np.argsort(needed, kind="stable").reshape(steps, self.packs)
        parts = [self.context_length]
        while parts[-1] > max(self.context_length / _SHORTEST, self._patch):
            parts.append(-(-parts[-1] // (2 * self._patch)) * self._patch)
        return draws[order], [
            min((part for part in parts if part >= longest), default=self.context_length)
            for longest in needed[order[:, -1]]
        ]

    def _fill(self, batch: dict[str, np.ndarray], number: int, packs: _Packs) -> None:
        """Write the tasks of one source into its packs."""
        source, tasks = self.sources[number], self._tasks[number]
        series, cuts, drawn = self._locate(number, packs)
        ends = np.minimum(cuts + drawn, source.lengths(series) - self.config.holdout)
        past, ahead = batch["context"].shape[-1], batch["target"].shape[-1]
        values, task, kind = source.windows(series, cuts, ends, past, ahead)
        pack = np.repeat(np.flatnonzero(packs.source == number), tasks)[task]
        slot = np.arange(len(pack)) - np.searchsorted(pack, pack)  # rows come pack by pack
        batch["group"][pack, slot] = task % tasks
        batch["context"][pack, slot] = values[:, :past]
        for name, mine in (("target", kind == gather.TARGET), ("future", kind == gather.FUTURE)):
            batch[name][pack[mine], slot[mine]] = values[mine, past:]


def _open(path: str, reread: int, workers: int) -> ArrowSource | GeneratedSource:
    """Open a source; see `GeneratedSource` for `reread`."""
    if path.startswith(PREFIX):
        if workers:
            raise InputError(
                f"{path} is made on the device of the training process: set data.workers to 0."
            )
        return GeneratedSource(path, reread)
    source = ArrowSource(resolve(path))
    _check_finite(source)
    return source


def _check_finite(source: ArrowSource, sample: int = 100) -> None:
    """Raise when no row of an even sample has a finite target."""
    rows = np.unique(np.linspace(0, len(source) - 1, sample).astype(np.int64))
    if not any(np.isfinite(item.target).any() for item in source.read(rows)):
        raise InputError(
            f"{source.path} holds nothing but missing values (in {len(rows)} sampled rows): "
            "look at how it was made."
        )
