"""Windows of recordings: where they begin, what activity they show, how many of each are kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from tsmjax.data.counter import permute
from tsmjax.errors import InputError
from tsmjax.wearables.recordings import (
    UNLABELLED,
    Antialias,
    Recording,
    decimated,
    gaps,
    interpolated,
    runs,
)

MAX_WINDOW = 512  # steps: the context of Chronos-T5, which would cut a longer window silently


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How recordings become windows.

    Attributes:
      rate: steps a second of the raw recording (Hz).
      seconds: length of a window.
      factor: how many raw steps become one.
      antialias: how; see `recordings.decimated`.
      order: whether the recording is brought to the lower rate and then cut, or cut and then
        brought to it: 99 steps to one make windows of 303 or 304 steps of 300 s at 100 Hz.
      overlap: share of a window that the next one repeats.
      within: a window lies within the recording (between two gaps), or within one activity.
      flush: a last window ends where the stretch ends, so that its end is not lost.
      min_fraction: least share of the steps that the most frequent activity of a window has.
      max_missing: seconds of missing values that a straight line replaces.
      ignore_gaps: drop steps without a label and close the gaps in time, as the published Stage-2
        preprocessing did: windows then join what hours lie between.
    """

    rate: float
    seconds: float
    factor: int = 1
    antialias: Antialias = "none"
    order: Literal["decimate_first", "window_first"] = "decimate_first"
    overlap: float = 0.5
    within: Literal["recording", "label"] = "recording"
    flush: bool = False
    min_fraction: float = 0.5
    max_missing: float = 0.25
    ignore_gaps: bool = False

    def __post_init__(self):
        checks = (
            ("sampling rate", self.rate, self.rate > 0, "above 0 Hz"),
            ("window", self.seconds, self.seconds > 0, "longer than 0 seconds"),
            ("downsample factor", self.factor, self.factor >= 1, "a whole number from 1 on"),
            ("overlap", self.overlap, 0 <= self.overlap < 1, "from 0 to below 1"),
            (
                "minimal label fraction",
                self.min_fraction,
                0 < self.min_fraction <= 1,
                "above 0 and at most 1",
            ),
        )
        for name, value, right, wanted in checks:
            if not right:
                raise InputError(f"The {name} is {value}, but must be {wanted}.")
        if self.window < 2:
            raise InputError(
                f"A window of {self.seconds:g} s has {self.window} steps at {self.low_rate:.4g} "
                "Hz, but needs two: make it longer, or lower the downsample factor."
            )
        if self.window > MAX_WINDOW:
            raise InputError(
                f"A window of {self.seconds:g} s has {self.window} steps at {self.low_rate:.4g} "
                f"Hz, but the time-series encoder reads {MAX_WINDOW} at most: make it shorter, or "
                "raise the downsample factor."
            )

    @property
    def low_rate(self) -> float:
        """Steps a second of the windows (Hz)."""
        return self.rate / self.factor

    @property
    def raw_window(self) -> int:
        """Raw steps of a window that is cut first."""
        return int(self.rate * self.seconds + 1e-9)

    @property
    def window(self) -> int:
        """Steps of a window."""
        if self.order == "window_first":
            return -(-self.raw_window // self.factor)
        return int(self.low_rate * self.seconds + 1e-9)


class Cut(NamedTuple):
    """Windows of one recording.

    Attributes:
      values: (steps, channels) float32; window i is ``values[starts[i] : starts[i] + window]``.
      starts: (n,) int64.
      labels: (n,) int16.
      fractions: (n,) float64, share of the window's steps with its label.
      times: (n,) int64 nanoseconds of the first step.
      dropped: why → how many windows, or stretches that are shorter than a window.
    """

    values: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    fractions: np.ndarray
    times: np.ndarray
    dropped: Counter[str]


class Stretch(NamedTuple):
    """Unbroken steps at the lower rate: values (steps, channels), labels and times (steps,)."""

    values: np.ndarray
    labels: np.ndarray
    times: np.ndarray


def cut(recording: Recording, cutting: Cutting) -> Cut:
    """Cut a recording into windows, in order of time.

    No window spans a gap in time (but see `Cutting.ignore_gaps`) or holds a missing value.
    """
    dropped: Counter[str] = Counter()
    first = cutting.order == "window_first"
    window = cutting.raw_window if first else cutting.window
    step = max(1, int(window * (1 - cutting.overlap) + 1e-9))
    values, starts, labels, fractions, times = [], [], [], [], []
    at = 0
    for stretch in stretches(recording, cutting, decimate=not first):
        if (stretch.labels == UNLABELLED).all():
            dropped["stretches without a label"] += 1
            continue
        if len(stretch.labels) < window:
            dropped["stretches shorter than a window"] += 1
            continue
        places = np.arange(0, len(stretch.labels) - window + 1, step)
        if cutting.flush and places[-1] + window < len(stretch.labels):
            places = np.append(places, len(stretch.labels) - window)
        label, fraction = majority(stretch.labels, places, window)
        broken = np.concatenate([[0], np.cumsum(~np.isfinite(stretch.values).all(axis=1))])
        whole = broken[places + window] == broken[places]
        keep = whole & (fraction >= cutting.min_fraction)
        dropped["windows with missing values"] += int((~whole).sum())
        dropped["windows without a label"] += int((whole & (fraction == 0)).sum())
        dropped["windows below the minimal label fraction"] += int(
            (whole & (fraction > 0) & ~keep).sum()
        )
        places = places[keep]
        if first:
            pieces = [
                decimated(stretch.values[place : place + window], cutting.factor, cutting.antialias)
                for place in places
            ]
            values += pieces
            starts.append(at + cutting.window * np.arange(len(places)))
            at += cutting.window * len(places)
        else:
            values.append(stretch.values)
            starts.append(at + places)
            at += len(stretch.values)
        labels.append(label[keep])
        fractions.append(fraction[keep])
        times.append(stretch.times[places])
    channels = recording.values.shape[1]
    return Cut(
        np.concatenate([np.zeros((0, channels), np.float32), *values]),
        np.concatenate([np.zeros(0, np.int64), *starts]),
        np.concatenate([np.zeros(0, np.int16), *labels]),
        np.concatenate([np.zeros(0), *fractions]),
        np.concatenate([np.zeros(0, np.int64), *times]),
        +dropped,
    )


def stretches(recording: Recording, cutting: Cutting, decimate: bool = True) -> list[Stretch]:
    """Return what lies between two gaps, or two activities, at the lower rate."""
    times, labels, values = recording.times, recording.labels, recording.values
    factor = cutting.factor if decimate else 1
    if cutting.ignore_gaps:
        values, labels, times = values[::factor], labels[::factor], times[::factor]
        known = labels != UNLABELLED
        return [Stretch(values[known], labels[known], times[known])] if known.any() else []
    breaks = gaps(times, cutting.rate)
    if cutting.within == "label":
        breaks |= labels[1:] != labels[:-1]
    longest = int(cutting.max_missing * cutting.rate)
    found = []
    for span in runs(breaks, len(times)):
        part = interpolated(values[span], longest)
        low = decimated(part, factor, cutting.antialias)
        found.append(Stretch(low, labels[span][::factor], times[span][::factor]))
    return found


def majority(labels: np.ndarray, places: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the most frequent label of each window, and the share of its steps that have it.

    Of equally frequent labels the one of the lowest id counts. Without any the share is 0.

    Args:
      labels: (steps,) int16.
      places: (n,) first steps of the windows.
      window: steps of a window.
    """
    best, label = np.zeros(len(places), np.int64), np.full(len(places), UNLABELLED, np.int16)
    for known in np.unique(labels[labels != UNLABELLED]):
        total = np.concatenate([[0], np.cumsum(labels == known)])
        count = total[places + window] - total[places]
        label = np.where(count > best, known, label).astype(np.int16)
        best = np.maximum(count, best)
    return label, best / window


def capped(
    labels: np.ndarray,
    groups: np.ndarray,
    ratio: float,
    selection: Literal["random", "first"],
    seed: int,
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Choose windows so that no class has more than a share of the largest class.

    The limit is ``int(largest class · ratio)``; a class that has more is shared out evenly among
    the groups (persons) that have it, the first ones taking what is left over.

    Args:
      labels: (n,) of the windows, in order of group and time.
      groups: (n,) int group of each.
      ratio: share of the largest class, above 0 and at most 1.
      selection: which windows of a group: the first in time, or random ones.
      seed: of the random choice.
      counts: windows of each class that the limit is taken from; those of `labels` by default.

    Returns:
      Their places in `labels`, ascending.

    Raises:
      InputError: when the limit is below one window.
    """
    counts = np.bincount(labels) if counts is None else counts
    limit = int(counts.max() * ratio + 1e-9)
    if limit < 1:
        raise InputError(
            f"A balance ratio of {ratio:g} leaves no window: the largest class has "
            f"{counts.max()}; raise it to {1 / counts.max():.2g} at least."
        )
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        cap = min(int(counts[label]), limit)
        if cap >= len(places):
            chosen.append(places)
            continue
        members = [places[groups[places] == group] for group in np.unique(groups[places])]
        quotas = np.full(len(members), cap // len(members))
        quotas[: cap % len(members)] += 1
        for number, (own, quota) in enumerate(zip(members, quotas, strict=True)):
            quota = min(int(quota), len(own))
            if selection == "first":
                chosen.append(own[:quota])
            else:
                order = permute(np.arange(quota), len(own), seed, int(label), number)
                chosen.append(own[order])
    return np.sort(np.concatenate(chosen))
