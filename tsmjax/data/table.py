"""Windows of tables: all channels of an item together, split in time.

An item is a row of an Arrow data set. Its channels are the targets, then the covariates known in
the past only, then those known ahead. Every item is cut in time into a part to train on, one to
validate on and one to test on; contexts of the later parts reach back into the earlier ones, labels
never do. Items may be held out instead: the test is then on them alone, from beginning to end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tsmjax.data import categories
from tsmjax.data.arrow import VALUE_COLUMNS, ArrowSource
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.data.windows import Windows
from tsmjax.errors import InputError, closest

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The config section ``data`` of tasks on tables.

    Attributes:
      path: an Arrow folder, an ``.arrow`` or ``.parquet`` file, or ``embedded:NAME``; all items
        have the same channels.
      split: length of the training, validation and test part of each item, in this order in time:
        either shares of the item, or numbers of steps. What is left over at the end is not used.
      held_out: values of the column ``subject``, or of ``item_id`` where there is no such column.
        All items of these subjects are the test part, from beginning to end; training, validation
        and the scales of the channels never see them, and the test part of all others is not used.
      batch_size: windows of a global batch, over all hosts.
      min_past: least number of steps before the first forecast step; None for the whole context,
        otherwise a shorter past is padded with missing values.
      stride: steps between the windows of an item in training; all are drawn once an epoch.
      eval_stride: steps between the windows of an item in evaluation.
      few_shot: share of the training part that is trained on; everything else stays, the scales of
        the channels included, so that scores compare.
      few_shot_from: which share: the "last" or "first" steps of each item, so many that the windows
        of a whole context shrink by the share; or "uniform": windows drawn once, by the seed.
      standardise: bring each channel to mean 0 and deviation 1 over the training parts of all
        items together, so that it serves items that training never saw.
      workers: processes that assemble batches; 0 assembles them in threads of this process.
      prefetch: batches that are kept ready on the host.
    """

    path: str = ""
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    held_out: tuple[str, ...] = ()
    batch_size: int = 64
    min_past: int | None = None
    stride: int = 1
    eval_stride: int = 1
    few_shot: float = 1.0
    few_shot_from: Literal["last", "first", "uniform"] = "last"
    standardise: bool = True
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self):
        least = dict.fromkeys(("batch_size", "stride", "eval_stride", "prefetch"), 1)
        least |= {"workers": 0} | ({} if self.min_past is None else {"min_past": 1})
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"The config field data.{name} is {getattr(self, name)}, "
                    f"but must be at least {low}."
                )
        if not 0 < self.few_shot <= 1:
            raise InputError(
                f"The config field data.few_shot is {self.few_shot}, but must be a share of the "
                "training part, above 0 and at most 1."
            )
        steps = max(self.split) > 1
        if (
            min(self.split) < 0
            or self.split[0] == 0
            or any(steps and part != int(part) for part in self.split)
            or (not steps and sum(self.split) > 1 + 1e-9)
        ):
            raise InputError(
                f"The config field data.split is {list(self.split)}, but must hold the training, "
                "validation and test part: shares that sum to at most 1, or numbers of steps, with "
                "something to train on."
            )


class Table:
    """An Arrow data set whose items have the same channels, and where its parts end.

    Attributes:
      path: what was opened.
      targets: number of channels to forecast; they come first.
      known: number of channels known ahead; they come last.
      channels: number of all channels.
      names: what the channels are called; `default_names` when the data set does not tell.
      ends: (items, 3) int64, where the training, validation and test part of each item end.
      mean: (channels,) float64 over the training parts; 0 when nothing is standardised.
      deviation: (channels,) float64; 1 when nothing is standardised, or a channel is constant.
    """

    def __init__(self, config: DataConfig):
        """Open the data set.

        Raises:
          InputError: when there is none, its items have different channels, or subjects to hold out
            are unknown, or all that there are.
        """
        if not config.path:
            raise InputError("The config field data.path is empty: name an Arrow folder.")
        self.path = config.path
        self._source = ArrowSource(resolve(config.path))
        rows = self._source.rows
        counts = [
            np.unique(rows[name]) if name in rows.dtype.names else np.zeros(1, np.int64)
            for name in ("targets", "past", "future")
        ]
        if any(len(found) > 1 for found in counts):
            raise InputError(
                f"The items of {config.path} have different numbers of channels; a table needs the "
                "same targets and covariates in each."
            )
        self.targets, past, self.known = (int(found[0]) for found in counts)
        self.channels = self.targets + past + self.known
        self.names = default_names(self.targets, past, self.known)
        stored = [name for column in VALUE_COLUMNS for name in self._source.names.get(column, ())]
        if len(stored) == self.channels:
            self.names = stored
        lengths = rows["length"].astype(np.int64)
        self.ends = _ends(lengths, config.split)
        if config.held_out:
            mine = np.isin(self.subjects(), self._known_subjects(config.held_out))
            if mine.all():
                raise InputError(
                    f"data.held_out names every subject of {config.path}, and nothing is left to "
                    "train on: hold out fewer."
                )
            self.ends[mine] = 0
            self.ends[:, 2] = np.where(mine, lengths, self.ends[:, 1])
        self.mean, self.deviation = np.zeros(self.channels), np.ones(self.channels)
        if config.standardise:
            self.mean, self.deviation = self._statistics()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._source)

    @property
    def category_names(self) -> list[str]:
        """What the static categories are called; empty when the data set does not tell."""
        return self._source.names.get(categories.COLUMN, [])

    def metadata(self, item: int) -> dict[str, Any]:
        """Return the columns of an item that are not values (item_id, start, freq, …)."""
        return self._source.metadata(item)

    def subjects(self) -> list[str]:
        """Return whom each item is of: its ``subject``, or its ``item_id`` where there is none."""
        items = [self.metadata(item) for item in range(len(self))]
        return [
            str(item.get("subject", item.get("item_id", number)))
            for number, item in enumerate(items)
        ]

    def series(self) -> list[np.ndarray]:
        """Return the targets (targets, length) of every item, as they are stored."""
        return [item.target for item in self._source.read(np.arange(len(self)))]

    def read(
        self,
        items: np.ndarray,
        cuts: np.ndarray,
        context_length: int,
        horizon: int,
        begins: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Cut windows: the context ends, and the forecast starts, at the cut.

        Args:
          items: (B,) numbers of the items.
          cuts: (B,) steps of the item before the forecast; `horizon` steps follow at least.
          context_length: steps of the context, T.
          horizon: steps of the forecast, F.
          begins: (B,) first step that a context may reach back to; None for that of the item.

        Returns:
          Standardised float32 arrays, NaN = missing: ``context`` (B, channels, T), padded on the
          left; ``target`` (B, channels, F), NaN but for targets; ``future`` (B, channels, F), NaN
          but for channels known ahead.
        """
        begins = np.zeros(len(items), np.int64) if begins is None else begins
        limits = np.maximum(begins, cuts - context_length).tolist()
        rows = zip(cuts.tolist(), limits, self._source.read(items), strict=True)
        span = np.full((len(items), self.channels, context_length + horizon), np.nan, np.float32)
        with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, and so missing
            for row, (cut, begin, item) in zip(span, rows, strict=True):
                first = 0
                place = slice(context_length - (cut - begin), None)
                for part in item:
                    row[first : first + len(part), place] = part[:, begin : cut + horizon]
                    first += len(part)
        span -= self.mean[:, None].astype(np.float32)
        span /= self.deviation[:, None].astype(np.float32)
        span[np.isinf(span)] = np.nan
        target, future = span[..., context_length:].copy(), span[..., context_length:].copy()
        target[:, self.targets :] = np.nan
        future[:, : self.channels - self.known] = np.nan
        return {
            "context": np.ascontiguousarray(span[..., :context_length]),
            "target": target,
            "future": future,
        }

    def windows(
        self, split: str, horizon: int, min_past: int, stride: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """List the windows whose labels lie in a part: (items, cuts), in order.

        Raises:
          InputError: when there are none.
        """
        number = SPLITS.index(split)
        begins = self.ends[:, number - 1] if number else np.zeros(len(self), np.int64)
        first = np.maximum(begins, min_past)
        counts = np.maximum((self.ends[:, number] - horizon - first) // stride + 1, 0)
        if not counts.any():
            longest = int((self.ends[:, number] - begins).max())
            raise InputError(
                f"The {split} part of {self.path} has no window: it is {longest} steps long at "
                f"most, and {horizon} steps are forecast from {min_past} steps before; change "
                "data.split, or give longer series."
            )
        items = np.repeat(np.arange(len(self)), counts)
        ordinals = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return items, first[items] + ordinals * stride

    def _known_subjects(self, names: Sequence[str]) -> list[str]:
        """Return `names` after checking that each of them is a subject."""
        subjects = dict.fromkeys(self.subjects())
        for name in map(str, names):
            if name not in subjects:
                raise InputError(
                    f"data.held_out names {name!r}, but {self.path} has no such subject"
                    f"{closest(name, subjects)}; it has {', '.join(list(subjects)[:8])}"
                    f"{', …' if len(subjects) > 8 else ''}."
                )
        return [str(name) for name in names]

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population deviation of each channel over the training parts."""
        count, total, squares = (np.zeros(self.channels) for _ in range(3))
        shift = None
        trained = np.flatnonzero(self.ends[:, 0])
        for item, end in zip(self._source.read(trained), self.ends[trained, 0], strict=True):
            values = np.concatenate([part[:, :end] for part in item]).astype(np.float64)
            seen = np.isfinite(values)
            if shift is None:  # squares of large offsets would cancel
                shift = np.where(seen, values, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
            apart = np.where(seen, values - shift[:, None], 0.0)
            count += seen.sum(axis=1)
            total += apart.sum(axis=1)
            squares += np.square(apart).sum(axis=1)
        count = np.maximum(count, 1)
        variance = squares / count - np.square(total / count)
        deviation = np.sqrt(np.maximum(variance, 0.0))
        return shift + total / count, np.where(deviation > 0, deviation, 1.0)


def default_names(targets: int, past: int, known: int) -> list[str]:
    """Names of channels that nobody named: those of the Arrow columns, numbered if several."""
    counts = dict(zip(VALUE_COLUMNS, (targets, past, known), strict=True))
    return [
        column if count == 1 else f"{column}_{number}"
        for column, count in counts.items()
        for number in range(count)
    ]


class TableBatches:
    """Training batches by step, a pure function of (config, seed, step): see `Table.read`.

    Every window of the training parts is drawn once an epoch, in an order that depends on (seed,
    epoch).

    Attributes:
      rows: windows of a global batch.
      steps_per_epoch: steps in which as many windows are drawn as there are.
      skipped: data set → (items whose training part is too short to be drawn, all of its items).
    """

    def __init__(
        self,
        table: Table,
        config: DataConfig,
        *,
        context_length: int,
        horizon: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
        extra: dict[str, np.ndarray] | None = None,
    ):
        """Index the windows.

        Args:
          table: the data set.
          config: the config section ``data``.
          context_length: steps of the context.
          horizon: steps to forecast.
          seed: chooses the order.
          host: number of this host.
          hosts: number of hosts; host i reads the i-th part of every global batch.
          extra: further entries of a batch, one row for each item.

        Raises:
          InputError: when no item is long enough, or hosts do not divide the batch.
        """
        if config.batch_size % hosts:
            raise InputError(
                f"The config field data.batch_size is {config.batch_size}, but must be a multiple "
                f"of {hosts} hosts."
            )
        self.rows = config.batch_size
        share = self.rows // hosts
        self._mine = np.arange(host * share, (host + 1) * share)
        self._table, self._extra = table, extra or {}
        self._context_length, self._horizon = context_length, horizon
        ends, kept, name = table.ends[:, 0], table.ends[:, 0], f"the training part of {table.path}"
        if config.few_shot < 1:
            name = f"data.few_shot = {config.few_shot} of {name}"
            if config.few_shot_from != "uniform":
                share = (config.few_shot * (ends - context_length)).astype(np.int64)
                kept = np.where(ends > context_length, share + context_length, ends)
        self._begins = ends - kept if config.few_shot_from == "last" else np.zeros_like(ends)
        self._windows = Windows(
            kept,
            name=name,
            sampling="windows",
            seed=seed,
            horizon=horizon,
            min_past=context_length if config.min_past is None else config.min_past,
            min_future=horizon,
            stride=config.stride,
            share=config.few_shot if config.few_shot_from == "uniform" else 1.0,
        )
        self.steps_per_epoch = self._windows.size / self.rows
        self.skipped = {
            config.path.rpartition("/")[2]: (self._windows.skipped, len(kept)),
        }

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's part of the batch of `step`, for any step from 0."""
        items, cuts = self._windows.locate(step * self.rows + self._mine, self._horizon)
        begins = self._begins[items]
        batch = self._table.read(
            items, begins + cuts, self._context_length, self._horizon, begins=begins
        )
        return batch | {name: values[items] for name, values in self._extra.items()}


def _ends(lengths: np.ndarray, split: tuple[float, float, float]) -> np.ndarray:
    """Where the parts of items of the given lengths end, (items, 3)."""
    if max(split) > 1:
        return np.minimum(np.cumsum(np.asarray(split, np.int64)), lengths[:, None])
    # Rounded, so that 0.7 + 0.1 + 0.2 ends where the item does.
    return np.rint(np.cumsum(split) * lengths[:, None]).astype(np.int64)
