"""Shapes of an evaluation, against all ways to cut it."""

import functools
import itertools

import numpy as np
import pytest

from tsmjax.evals import shapes
from tsmjax.evals.shapes import Shape, by_length


def cost(parts):
    """Patches of all tasks in the shapes given, and what compiling those takes."""
    covered = [functools.reduce(Shape.covering, part) for part in parts]
    pairs = zip(covered, parts, strict=True)
    return sum(shapes._COMPILE_PATCHES + len(part) * shape.patches for shape, part in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_by_length_is_cheaper(monkeypatch, seed):
    monkeypatch.setattr(shapes, "_COMPILE_PATCHES", 40)
    rng = np.random.default_rng(seed)
    tasks = [
        Shape(*map(int, row))
        for row in zip(*(rng.integers(1, n, 12) for n in (30, 4, 3)), strict=True)
    ]
    dealt = by_length(dict(enumerate(tasks)))
    assert sorted(number for _, members in dealt for number in members) == [*range(12)]
    for shape, members in dealt:
        assert shape == functools.reduce(Shape.covering, (tasks[number] for number in members))
    ordered = sorted(tasks)
    places = [i for i in range(1, 12) if ordered[i].context != ordered[i - 1].context]
    cheapest = min(
        cost([ordered[a:b] for a, b in itertools.pairwise((0, *cuts, 12))])
        for count in range(len(places) + 1)
        for cuts in itertools.combinations(places, count)
    )
    assert cost([[tasks[number] for number in members] for _, members in dealt]) == cheapest
    assert 1 < len(dealt) < 12


def test_few_tasks_share_one_shape():
    tasks = {7: Shape(3, 1, 1), 2: Shape(20, 2, 1), 5: Shape(5, 1, 4)}
    assert by_length(tasks) == [(Shape(20, 2, 4), [7, 5, 2])]
    assert by_length({}) == []
