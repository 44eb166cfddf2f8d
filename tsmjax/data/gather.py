"""Windows of many items at once, copied out of the buffers that hold their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

TARGET, PAST, FUTURE = range(3)  # the three kinds of variates of an item, in this order


class Places(NamedTuple):
    """Where the values of T items lie. A column belongs to each kind of variates.

    The variates of one kind of an item lie one after the other, each of `length` values.

    Attributes:
      buffer: (T,) number of the buffer.
      length: (T,) steps of each item.
      variates: (T, 3) how many of each kind.
      at: (T, 3) byte position of the first value.
    """

    buffer: np.ndarray
    length: np.ndarray
    variates: np.ndarray
    at: np.ndarray


class Windows(NamedTuple):
    """Windows of R variates, in the order of their items, and of their kinds within an item.

    Attributes:
      values: (R, past + ahead) float32, NaN outside of the series.
      item: (R,) number of the item, from 0 to T − 1.
      kind: (R,) `TARGET`, `PAST` or `FUTURE`.
    """

    values: np.ndarray
    item: np.ndarray
    kind: np.ndarray


def windows(
    places: Places,
    buffers: Callable[[int, int], tuple[Any, np.dtype]],
    cuts: np.ndarray,
    ends: np.ndarray,
    past: int,
    ahead: int,
) -> Windows:
    """Copy the steps from `past` before the cut to `ahead` after it, of all variates of all items.

    Args:
      places: of the T items.
      buffers: the buffer of a number and a kind, and the type of the values in it.
      cuts: (T,) first step after the cut.
      ends: (T,) first step that is not to be read, at most the length.
      past: steps before the cut.
      ahead: steps after the cut.
    """
    counts = places.variates.ravel().astype(np.int64)
    cell = np.repeat(np.arange(counts.size), counts)
    number = np.arange(cell.size) - np.repeat(np.cumsum(counts) - counts, counts)
    item, kind = np.divmod(cell, places.variates.shape[1])
    steps = number * places.length[item] + cuts[item] - past  # from the item's first value

    values = np.empty((cell.size, past + ahead), np.float32)
    whose = places.buffer[item].astype(np.int64) * places.variates.shape[1] + kind
    order = np.argsort(whose, kind="stable")
    # What lies around a series may be any bits, and a float64 beyond float32 becomes infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in np.split(order, np.flatnonzero(np.diff(whose[order])) + 1):
            if rows.size:
                buffer, dtype = buffers(int(places.buffer[item[rows[0]]]), int(kind[rows[0]]))
                begin = places.at[item[rows], kind[rows]] + steps[rows] * dtype.itemsize
                values[rows] = _stretches(buffer, dtype, begin, past + ahead)

    rows = np.flatnonzero(((cuts < past) | (ends < cuts + ahead))[item])
    at = np.arange(past + ahead, dtype=np.int32)
    first, last = (past - cuts)[item[rows], None], (past - cuts + ends)[item[rows], None]
    values[rows] = np.where((at >= first) & (at < last), values[rows], np.float32(np.nan))
    return Windows(values, item, kind)


def _stretches(buffer: Any, dtype: np.dtype, begin: np.ndarray, length: int) -> np.ndarray:
    """Return `length` values from each byte position; zeros where that leaves the buffer."""
    size = memoryview(buffer).nbytes
    last = size - length * dtype.itemsize
    inside = (begin >= 0) & (begin <= last)
    if inside.all():
        # Every stretch of the buffer is a row of this view, so that one call copies them all.
        return np.ndarray((last + 1, length), dtype, buffer, strides=(1, dtype.itemsize))[begin]
    found = np.zeros((len(begin), length), dtype)
    if inside.any():
        found[inside] = _stretches(buffer, dtype, begin[inside], length)
    for row in np.flatnonzero(~inside).tolist():
        # Whole values before the buffer's beginning and after its end.
        before = max(0, -(begin[row] // dtype.itemsize))
        after = max(0, -((size - begin[row]) // dtype.itemsize - length))
        count = length - before - after
        part = np.frombuffer(buffer, dtype, count, begin[row] + before * dtype.itemsize)
        found[row, before : length - after] = part
    return found
