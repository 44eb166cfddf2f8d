"""Few shapes for many forecasts: padding weighed against compiling."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

_COMPILE_PATCHES = 2048  # padding that takes as long as compiling a shape more


class Shape(NamedTuple):
    """Size of a task.

    Attributes:
      context: patches of the past.
      future: patches to forecast.
      slots: rows.
    """

    context: int
    future: int
    slots: int

    @property
    def patches(self) -> int:
        """Patches of all rows."""
        return self.slots * (self.context + self.future)

    def covering(self, other: Shape) -> Shape:
        """Smallest shape in which both find room."""
        return Shape(*map(max, self, other))


def deal(tasks: Mapping[int, Shape]) -> list[tuple[Shape, list[int]]]:
    """Deal tasks to few shapes, by the length of their past.

    Args:
      tasks: shape of each task by its number.

    Returns:
      Shapes and the numbers of their tasks, short pasts first, so that the padding of all tasks is
      least, where the time to compile a shape counts as padding too.
    """
    members: dict[int, list[int]] = {}
    largest: dict[int, Shape] = {}
    for number, shape in tasks.items():
        members.setdefault(shape.context, []).append(number)
        largest[shape.context] = largest.get(shape.context, shape).covering(shape)
    sizes = sorted(members)
    # Of the first 0, 1, 2, … sizes: the least cost, and where the last of their shapes begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(sizes) + 1):
        shape, count, choices = largest[sizes[end - 1]], 0, []
        for begin in reversed(range(end)):
            shape = shape.covering(largest[sizes[begin]])
            count += len(members[sizes[begin]])
            choices.append((best[begin][0] + count * shape.patches + _COMPILE_PATCHES, begin))
        best.append(min(choices))
    found, end = [], len(sizes)
    while end:
        some = sizes[best[end][1] : end]
        shape = functools.reduce(Shape.covering, (largest[size] for size in some))
        found.append((shape, [number for size in some for number in members[size]]))
        end = best[end][1]
    return found[::-1]
