"""Few shapes for many forecasts: padding weighed against compiling."""

from __future__ import annotations

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


def by_length(tasks: Mapping[int, Shape]) -> list[tuple[Shape, list[int]]]:
    """Put tasks into groups of neighbouring lengths of their past, each of one shape.

    Args:
      tasks: shape of each task by its number.

    Returns:
      The shape of each group and the numbers of its tasks, short pasts first. No other cut has
      less padding in all, where the time to compile a shape counts as padding too.
    """
    members: dict[int, list[int]] = {}
    largest: dict[int, Shape] = {}
    for number, shape in tasks.items():
        members.setdefault(shape.context, []).append(number)
        largest[shape.context] = largest.get(shape.context, shape).covering(shape)
    sizes = sorted(members)
    # Of the first 0, 1, 2, … sizes: the least cost; where their last group begins, and its shape.
    best = [(0, 0, Shape(0, 0, 0))]
    for end in range(1, len(sizes) + 1):
        shape, count, choices = best[0][2], 0, []
        for begin in reversed(range(end)):
            shape = shape.covering(largest[sizes[begin]])
            count += len(members[sizes[begin]])
            cost = best[begin][0] + count * shape.patches + _COMPILE_PATCHES
            choices.append((cost, begin, shape))
        best.append(min(choices))
    groups, end = [], len(sizes)
    while end:
        _, begin, shape = best[end]
        groups.append((shape, [number for size in sizes[begin:end] for number in members[size]]))
        end = begin
    return groups[::-1]
