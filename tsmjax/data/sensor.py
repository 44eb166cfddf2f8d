"""Windows of wearable sensors with labels and texts: what `prepare capture24` and `har` write.

A sensor data set is an Arrow folder (`tsmjax.data.arrow`): memory-mapped here, and opened by
``datasets.load_from_disk`` too. Its rows are in the order of the splits: train, validation, test.
Its subjects are in one split each, unless the raw files name none (`SensorFacts.subjects` is then
empty).

Stage 2, activity recognition: one row a window, all windows of equal shape.

  item_id: string, ``SUBJECT/NUMBER``; the number counts the subject's windows in order of time.
  target: list<list<float32>>, (channels, steps); finite, in physical units, not standardised.
  label: string, name of the activity.
  label_id: int32, its place in `SensorFacts.labels`.
  label_fraction: float64, share of the steps of the window that have this label.
  subject: string; empty where the raw files name none.
  start: timestamp[ns], time of the first step; counted from 1970-01-01 where there is no clock.
  rate: float64, steps a second (Hz).
  split: string, ``train``, ``validation`` or ``test``.
  smry: string, mean and deviation of each channel, a line a channel.
  trend_text: string, rises and falls of each channel, a line a channel.
  corr_text: string, correlation of each pair of channels, a line a pair.
  Q: string, question for the activity.
  A: string, its answer: the label.
  info_text: string, facts about the wearer where there are any (age group, sex), else empty.

Stage 1, alignment: one row a question about one channel of a piece of a recording; lengths differ.

  item_id, label, label_id, subject, start, rate, split: as above.
  target: list<list<float32>>, (1, steps).
  channel: string, name of the channel; channel_id: int32, its place in `SensorFacts.channels`.
  qa_type: string, ``trend`` (listing, counts and summary), ``summary`` or ``question``.
  Q, A: string.

Facts about the whole set stand once, as JSON in the metadata of the Arrow schema, key ``sensor``:
the fields of `SensorFacts`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tsmjax.data.arrow import SENSOR, ArrowSource
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.errors import InputError, closest

SPLITS = ("train", "validation", "test")
TEXTS = ("smry", "trend_text", "corr_text", "Q", "A", "info_text")


@dataclasses.dataclass(frozen=True)
class SensorFacts:
    """What is the same for all rows of a sensor data set.

    Attributes:
      dataset: name, as ``capture24``.
      stage: 1 (alignment) or 2 (activity recognition).
      rate: steps a second (Hz).
      window: steps of a window in stage 2, of the longest piece in stage 1.
      channels: names of the channels in the order of `target`, letters, digits and ``_`` only, as
        ``x_acc``; names of markers are made of them.
      channel_texts: what texts call the channels, as ``x-axis accelerometer``.
      labels: names of the activities by id; all of the scheme, seen or not.
      subjects: split → names of its subjects.
      counts: split → windows of each label, in the order of `labels`.
      mean: mean of each channel over the training windows.
      std: their population deviation.
      settings: options that the set was prepared with.
    """

    dataset: str
    stage: int
    rate: float
    window: int
    channels: tuple[str, ...]
    channel_texts: tuple[str, ...]
    labels: tuple[str, ...]
    subjects: dict[str, list[str]]
    counts: dict[str, list[int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: dict[str, Any]

    @property
    def id2label(self) -> dict[int, str]:
        """Id → name of the activity."""
        return dict(enumerate(self.labels))


class SensorData:
    """A sensor data set of either stage. Pickles as a path.

    Attributes:
      path: what was opened: a folder, or ``embedded:capture24``.
      facts: what is the same for all rows.
      label_ids: (rows,) int32.
      lengths: (rows,) int64 steps.
    """

    def __init__(self, path: str | os.PathLike):
        """Open `path`.

        Raises:
          InputError: when there is no data set, or one that is not of sensors.
        """
        self.path = str(path)
        self._source = ArrowSource(resolve(self.path))
        facts = self._source.common(SENSOR)
        if not facts:
            raise InputError(
                f"{self.path} holds no facts about sensors in its schema: python -m tsmjax.prepare "
                "har and capture24 write sensor data sets, and copies made by other programs may "
                "lose them."
            )
        lists = ("channels", "channel_texts", "labels", "mean", "std")
        self.facts = SensorFacts(**facts | {name: tuple(facts[name]) for name in lists})
        self.label_ids = self.column("label_id").astype(np.int32)
        self.lengths = self._source.lengths(np.arange(len(self)))
        self._splits = self.column("split")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self._source)

    def rows(self, split: str) -> np.ndarray:
        """Return the numbers of the rows of a split, ascending; none when it is empty.

        Raises:
          InputError: for an unknown split.
        """
        if split not in SPLITS:
            raise InputError(
                f"There is no split {split!r}{closest(split, SPLITS)}; there are "
                f"{', '.join(SPLITS)}."
            )
        return np.flatnonzero(self._splits == split)

    def windows(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of equal length as float32 (len(rows), channels, steps)."""
        return np.stack([item.target for item in self._source.read(np.asarray(rows))])

    def series(self, row: int) -> np.ndarray:
        """Return a row without copying it, (channels, steps)."""
        return self._source[row].target

    def column(self, name: str) -> np.ndarray:
        """Return a column of all rows; an array of strings is of type object."""
        return self._source.column(name).to_numpy()

    def texts(self, name: str, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return a column of strings at `rows`, as ``smry`` or ``Q``."""
        return self._source.column(name).take(np.asarray(rows)).to_pylist()
