"""Deal tasks into device batches of few shapes.

A batch is P packs of S slots; a task takes neighbouring slots of one pack, and nothing attends
across packs. Every size that a compiled function sees (P, S, context, horizon) is rounded up to
one of a few, and what is added is masked, which leaves forecasts as they are.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from tsmjax.forecasting.inputs import Series

_FEW = 32  # rows that are not worth a compilation
_WIDEST = 8  # a pack may be this many times wider than its widest task, to fill it better


@dataclasses.dataclass(frozen=True)
class Batch:
    """Tasks that go through the model together.

    Attributes:
      tasks: numbers of the tasks, in the order of the inputs.
      pack: pack of each task.
      slot: first slot of each task.
      context: (P, S, C) float32, padded on the left with NaN; C is a whole number of patches.
      future: (P, S, horizon) float32, NaN = unknown.
      group: (P, S) int32, number of the task inside its pack, −1 = empty slot.
      longest: patches of the longest context that the batch was made for; C may be longer.
    """

    tasks: Sequence[int]
    pack: np.ndarray
    slot: np.ndarray
    context: np.ndarray
    future: np.ndarray
    group: np.ndarray
    longest: int


def bucket(size: int, largest: int | None = None) -> int:
    """Round up to 1, 2, 3, 4, 6, 8, 12, 16, …: two sizes in an octave; at most `largest`."""
    power = 1 << max(0, size - 1).bit_length()
    rounded = power * 3 // 4 if power >= 4 and size <= power * 3 // 4 else power
    return rounded if largest is None else min(rounded, largest)


def deal(series: Sequence[Series], context_length: int, batch_size: int) -> list[list[int]]:
    """Split tasks into batches of about `batch_size` rows, of similar width and length.

    Args:
      series: the tasks.
      context_length: steps of the past that count.
      batch_size: rows of a batch; a task is never split, so that a wide one may exceed it.

    Returns:
      Numbers of the tasks of each batch.
    """
    classes = _width_classes([len(one.past) for one in series])

    def shape(number: int) -> tuple[int, int]:
        return classes[number], min(series[number].past.shape[1], context_length)

    ordered = sorted(range(len(series)), key=shape)
    batches: list[list[int]] = []
    width, rows = 0, 0
    for number in ordered:
        mine = shape(number)[0]
        size = len(series[number].past)
        if not batches or mine != width or rows + size > batch_size:
            batches.append([])
            width, rows = mine, 0
        batches[-1].append(number)
        rows += size
    return batches


def in_order(series: Sequence[Series], batch_size: int) -> list[list[int]]:
    """Split tasks into batches as they come, each closed when it has `batch_size` rows."""
    batches, rows = [[]], 0
    for number, one in enumerate(series):
        if rows >= batch_size:
            batches.append([])
            rows = 0
        batches[-1].append(number)
        rows += len(one.past)
    return batches


def build(
    series: Sequence[Series],
    tasks: Sequence[int],
    *,
    context_length: int,
    patch: int,
    horizon: int,
    together: bool = False,
) -> Batch:
    """Pack the given tasks.

    Args:
      series: all tasks.
      tasks: numbers of those to pack.
      context_length: steps of the past that count.
      patch: steps of a patch.
      horizon: steps of `Batch.future`, at least those of the tasks.
      together: make one group of all tasks, in one pack.
    """
    widths = [len(series[number].past) for number in tasks]
    if together:
        slots, pack = _power_of_two(sum(widths)), np.zeros(len(widths), int)
        first = np.cumsum(widths) - widths
    else:
        base = _power_of_two(max(widths))
        # Three tasks of 5 rows fill 15 of 16 slots, but only 5 of 8 each: take the fuller packs.
        choices = [base * factor for factor in (1, 2, 4, _WIDEST)] if base > 1 else [1]
        placed = {slots: _place(widths, slots) for slots in choices}
        slots = min(choices, key=lambda slots: (slots * (placed[slots][0][-1] + 1), slots))
        pack, first = placed[slots]
    packs = bucket(int(pack[-1]) + 1)
    longest = max(min(series[number].past.shape[1], context_length) for number in tasks)
    patches = -(-longest // patch)
    length = bucket(patches, -(-context_length // patch)) * patch

    context = np.full((packs, slots, length), np.nan, np.float32)
    future = np.full((packs, slots, horizon), np.nan, np.float32)
    group = np.full((packs, slots), -1, np.int32)
    rank, previous = 0, -1
    for number, at, start, width in zip(tasks, pack, first, widths, strict=True):
        one, rows = series[number], slice(start, start + width)
        seen = one.past[:, -context_length:]
        context[at, rows, length - seen.shape[1] :] = seen
        future[at, rows, : one.future.shape[1]] = one.future
        rank = rank + 1 if at == previous else 0
        group[at, rows] = 0 if together else rank
        previous = at
    for values in (context, future):
        values[np.isinf(values)] = np.nan
    return Batch(tasks, pack, first, context, future, group, patches)


def _power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


def _width_classes(widths: Sequence[int]) -> list[int]:
    """Round widths up to powers of two; a class of few rows joins the next one there is.

    Compiling for a class of its own takes longer than a few rows of padding.
    """
    rows = collections.Counter[int]()
    for width in widths:
        rows[_power_of_two(width)] += width
    joined, waiting, there = {}, [], sorted(rows)
    total = 0
    for width in there:
        waiting.append(width)
        total += rows[width]
        if total >= _FEW or width == there[-1]:
            joined |= dict.fromkeys(waiting, width)
            waiting, total = [], 0
    return [joined[_power_of_two(width)] for width in widths]


def _place(widths: Sequence[int], slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Put tasks into packs one after the other; return pack and first slot of each."""
    packs, firsts = np.zeros(len(widths), int), np.zeros(len(widths), int)
    pack = used = 0
    for number, width in enumerate(widths):
        if used + width > slots:
            pack, used = pack + 1, 0
        packs[number], firsts[number] = pack, used
        used += width
    return packs, firsts
