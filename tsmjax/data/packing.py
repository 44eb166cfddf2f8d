"""Forecasting batches by step: draw tasks from a mixture of sources and pack them at fixed shape.

A batch is P packs of S slots; one slot holds one row (a variate or a covariate), one group of
slots is one task, and nothing ever attends across packs. Every pack comes from one source, whose
largest task has g rows, and holds m = S // g tasks. Pack k of a source holds its draws k·m … k·m +
m − 1, so nothing is dropped, no draw is skipped, and an epoch of a source is exact.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tsmjax.data.arrow import ArrowSource, Item
from tsmjax.data.counter import below
from tsmjax.data.mixture import Mixture
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.data.windows import Sampling, Windows
from tsmjax.errors import InputError

_HORIZON = 2  # keeps the hash of horizons apart from other uses of the seed


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set of the mixture.

    Attributes:
      path: an Arrow folder, an ``.arrow`` or ``.parquet`` file, or ``embedded:NAME`` (series that
        are generated on the spot: ``tsi``, ``kernel_synth``, ``tsmixup``, ``real``).
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
      holdout: steps at the end of each series that training never sees.
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
    holdout: int = 0
    max_series: int | None = None
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self):
        least = dict.fromkeys(("batch_size", "min_past", "min_future", "stride", "prefetch"), 1)
        least |= {"holdout": 0, "workers": 0}
        optional = dict.fromkeys(("context_length", "prediction_length", "slots", "max_series"), 1)
        least |= {name: low for name, low in optional.items() if getattr(self, name) is not None}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"The config field data.{name} is {getattr(self, name)}, "
                    f"but must be at least {low}."
                )
        for source in self.sources:
            if not 0 < source.weight < float("inf"):
                raise InputError(
                    f"The weight of {source.path} in data.sources is {source.weight}, but must be "
                    "positive; leave the source out to give it none."
                )


class ForecastBatches:
    """Batches of forecasting tasks by step, a pure function of (config, seed, step).

    ``batches[step]`` is this host's part, a dict of NumPy arrays, with P packs of S slots, context
    length C and H = `max_patches` · patch:

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
      steps_per_epoch: steps in which as many tasks are drawn as the sources hold.
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
        self.sources = [ArrowSource(resolve(source.path)) for source in config.sources]
        for source in self.sources:
            _check_finite(source)

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
        self._windows = [
            Windows(
                source.rows["length"][: config.max_series],
                name=str(source.path),
                sampling=config.sampling,
                seed=seed * len(self.sources) + number,
                horizon=prediction_length,
                min_past=config.min_past,
                min_future=config.min_future,
                stride=config.stride,
                holdout=config.holdout,
                min_length=source.min_length,
            )
            for number, source in enumerate(self.sources)
        ]
        # Weights are shares of rows, and packs of one source may be fuller than another's.
        fill = [m * source.mean_group for m, source in zip(self._tasks, self.sources, strict=True)]
        weights = [source.weight for source in config.sources] / np.asarray(fill)
        self._mixture = Mixture(weights, seed)
        tasks_per_step = self.packs * float(np.dot(weights / weights.sum(), self._tasks))
        self.steps_per_epoch = sum(windows.size for windows in self._windows) / tasks_per_step

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)

    def __len__(self) -> int:
        """Return the steps of an epoch, rounded up; steps beyond it continue without end."""
        return int(np.ceil(self.steps_per_epoch))

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's part of the batch of `step`, for any step from 0."""
        patches = self.max_patches
        if self.config.random_horizon:
            patches = 1 + int(below(patches, self._seed, _HORIZON, step))
        drawn = min(patches * self._patch, self._prediction_length)

        shape = (len(self._mine), self.slots)
        batch = {
            "context": np.full((*shape, self.context_length), np.nan, np.float32),
            "target": np.full((*shape, self.max_patches * self._patch), np.nan, np.float32),
            "future": np.full((*shape, self.max_patches * self._patch), np.nan, np.float32),
            "group": np.full(shape, -1, np.int32),
            "patches": np.full(shape[0], patches, np.int32),
        }
        chosen, ordinals = self._mixture.locate(step * self.packs + self._mine)
        for number in np.unique(chosen):
            packs = np.flatnonzero(chosen == number)
            # A float64 beyond float32 becomes infinite, and so missing.
            with np.errstate(over="ignore"):
                self._fill(batch, number, packs, ordinals[packs], drawn)
        for name in ("context", "target", "future"):
            values = batch[name]
            if np.isinf(values).any():
                values[np.isinf(values)] = np.nan
        return batch

    def _fill(
        self,
        batch: dict[str, np.ndarray],
        number: int,
        packs: np.ndarray,
        ordinals: np.ndarray,
        drawn: int,
    ) -> None:
        """Write the tasks of the packs with the given ordinals of one source."""
        source, windows, tasks = self.sources[number], self._windows[number], self._tasks[number]
        draws = (ordinals[:, None] * tasks + np.arange(tasks)).ravel()
        series, cuts = windows.locate(draws, drawn)
        places = ((pack, task) for pack in packs.tolist() for task in range(tasks))
        slot = 0
        for (pack, task), cut, item in zip(places, cuts.tolist(), source.read(series), strict=True):
            slot = 0 if task == 0 else slot
            used = sum(map(len, item))
            rows = slice(slot, slot + used)
            self._write(batch, pack, rows, item, cut, drawn)
            batch["group"][pack, rows] = task
            slot += used

    def _write(
        self,
        batch: dict[str, np.ndarray],
        pack: int,
        rows: slice,
        item: Item,
        cut: int,
        drawn: int,
    ) -> None:
        """Copy the window of one task into its slots."""
        begin = max(0, cut - self.context_length)
        end = min(cut + drawn, item.target.shape[1] - self.config.holdout)
        context, first = batch["context"][pack], rows.start
        for part in item:
            if len(part):
                context[first : first + len(part), begin - cut :] = part[:, begin:cut]
            first += len(part)
        targets, known = len(item.target), len(item.future)
        batch["target"][pack, rows.start : rows.start + targets, : end - cut] = item.target[
            :, cut:end
        ]
        if known:
            batch["future"][pack, rows.stop - known : rows.stop, : end - cut] = item.future[
                :, cut:end
            ]


def _check_finite(source: ArrowSource, sample: int = 100) -> None:
    """Raise when no row of an even sample has a finite target."""
    rows = np.unique(np.linspace(0, len(source) - 1, sample).astype(np.int64))
    if not any(np.isfinite(item.target).any() for item in source.read(rows)):
        raise InputError(
            f"{source.path} holds nothing but missing values (in {len(rows)} sampled rows): "
            "look at how it was made."
        )
