"""Recordings of one person: time grid, gaps, missing values and lower rates."""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import numpy as np

UNLABELLED = -1
Antialias = Literal["none", "mean", "fir"]
ANTIALIAS = ("none", "mean", "fir")
_HALF = 4  # half length of the low-pass filter, in steps of the lower rate


class Recording(NamedTuple):
    """What one person wore for a time.

    Attributes:
      subject: the person; empty when the raw files name none.
      times: (steps,) int64 nanoseconds since 1970, ascending but for gaps and restarts.
      values: (steps, channels) float32, NaN = missing.
      labels: (steps,) int16, `UNLABELLED` or the id of the activity.
      split: the split that the raw files put it in; empty when they leave that open.
      info: facts about the person, in words.
    """

    subject: str
    times: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    split: str = ""
    info: str = ""


def runs(breaks: np.ndarray, steps: int) -> list[slice]:
    """Return the stretches between breaks; `breaks` (steps − 1,): one comes after this step."""
    edges = np.concatenate([[0], np.flatnonzero(breaks) + 1, [steps]])
    return [slice(int(first), int(last)) for first, last in itertools.pairwise(edges)]


def gaps(times: np.ndarray, rate: float) -> np.ndarray:
    """Tell after which steps time does not go on by one step: (steps − 1,) bool.

    Args:
      times: (steps,) int64 nanoseconds.
      rate: steps a second; a step may be 1.5 times as long as that says.
    """
    passed = np.diff(times)
    return (passed <= 0) | (passed > 1.5e9 / rate)


def interpolated(values: np.ndarray, longest: int) -> np.ndarray:
    """Draw straight lines over missing values, at most `longest` steps in a row.

    Longer gaps, and those at either end, stay missing. Infinite values count as missing.

    Args:
      values: (steps, channels) float32.
      longest: steps of a gap that is filled.
    """
    missing = ~np.isfinite(values)
    if not missing.any():
        return values
    values = np.where(missing, np.nan, values)
    steps = np.arange(len(values))
    for channel in np.flatnonzero(missing.any(axis=0)):
        known = steps[~missing[:, channel]]
        if len(known) < 2:
            continue
        holes = steps[missing[:, channel]]
        after = np.searchsorted(known, holes)
        inside = (after > 0) & (after < len(known))
        holes, after = holes[inside], after[inside]
        holes = holes[known[after] - known[after - 1] - 1 <= longest]
        values[holes, channel] = np.interp(holes, known, values[known, channel])
    return values


def on_grid(times: np.ndarray, values: np.ndarray, grid: np.ndarray, longest: float) -> np.ndarray:
    """Return values at other times, by straight lines; NaN in gaps longer than `longest` seconds.

    Args:
      times: (steps,) int64 nanoseconds, strictly ascending.
      values: (steps, channels).
      grid: (n,) int64 nanoseconds.
      longest: seconds between two values that a line may bridge.
    """
    # In float64, times since 1970 would be exact to 256 ns only: count from the first.
    origin, places = times[0], (grid - times[0]).astype(np.float64)
    known = (times - origin).astype(np.float64)
    found = np.stack([np.interp(places, known, column) for column in values.T], axis=1)
    after = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    bridged = times[after] - times[after - 1] > longest * 1e9
    outside = (grid < times[0]) | (grid > times[-1])
    exact = np.isin(grid, times)
    found[(bridged & ~exact) | outside] = np.nan
    return found.astype(np.float32)


def decimated(values: np.ndarray, factor: int, antialias: Antialias) -> np.ndarray:
    """Return every `factor`-th step, ``ceil(steps / factor)`` of them.

    Args:
      values: (steps, channels) without gaps in time.
      factor: how many steps become one.
      antialias: "none" picks the first of each `factor` steps and folds what oscillates faster
        than the lower rate can show onto lower frequencies; "mean" averages them; "fir" applies a
        low-pass filter first (a Hamming-windowed sinc that is down 6 dB at 0.8 of the new Nyquist
        frequency), centred, with the ends repeated.
    """
    if factor == 1:
        return values
    if antialias == "none":
        return values[::factor]
    if antialias == "mean":
        firsts = np.arange(0, len(values), factor)
        counts = np.diff(np.append(firsts, len(values)))[:, None]
        return (np.add.reduceat(values, firsts, axis=0, dtype=np.float64) / counts).astype(
            np.float32
        )
    half = _HALF * factor
    taps = np.sinc(0.8 * np.arange(-half, half + 1) / factor) * np.hamming(2 * half + 1)
    taps /= taps.sum()
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    places = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=0)[::factor]
    blocks = range(0, len(places), 2048)  # a view that a product would copy whole
    return np.concatenate([places[at : at + 2048] @ taps for at in blocks]).astype(np.float32)
