"""Rows of a written corpus: blocks of `corpus`, exact Gaussian processes, mixtures of real series.

Row number n belongs to one of these parts, in proportion to their weights, and is the how-manieth
of it that `Mixture` says; so any process can make any rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.mixture import Mixture
from tsmjax.data.synthetic import corpus, kernel_synth, tsmixup

PARTS = ("corpus", "kernel_synth", "tsmixup")


def rows(
    first: int,
    last: int,
    *,
    weights: Mapping[str, float],
    parameters: Mapping[str, int],
    sources: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1.

    Args:
      first: number of the first row.
      last: number of the last row, and one.
      weights: of the parts that there are, positive.
      parameters: those of `corpus`; the other parts take lengths and seed from them.
      sources: Arrow folders whose series "tsmixup" mixes.
    """
    names = list(weights)
    part, ordinal = Mixture(list(weights.values()), parameters["seed"]).locate(
        np.arange(first, last)
    )
    made = [
        _part(name, ordinal[part == number], parameters, sources)
        for number, name in enumerate(names)
    ]
    for number in part.tolist():
        yield next(made[number])


def _part(
    name: str, ordinals: np.ndarray, parameters: Mapping[str, int], sources: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one part with the given ordinals, which have no holes."""
    if name == "corpus":
        begin, end = (ordinals[0], ordinals[-1] + 1) if len(ordinals) else (0, 0)
        yield from corpus.rows(int(begin), int(end), **parameters)
        return
    draw = _gaussian if name == "kernel_synth" else _Mixtures(sources)
    for ordinal in ordinals.tolist():
        yield {"item_id": f"{name}/{ordinal}", "target": draw(ordinal, parameters)}


def _gaussian(ordinal: int, parameters: Mapping[str, int]) -> np.ndarray:
    return kernel_synth.sample(parameters["seed"], ordinal, parameters["max_length"])


class _Mixtures:
    """Mixtures of the series of Arrow folders; each variate of an item is a series."""

    def __init__(self, sources: Sequence[str]):
        opened = [ArrowSource(path) for path in sources]
        self._series = [
            variate
            for source in opened
            for item in source.read(np.arange(len(source)))
            for variate in item.target
        ]

    def __call__(self, number: int, parameters: Mapping[str, int]) -> np.ndarray:
        random = np.random.default_rng([parameters["seed"], number])
        lengths = parameters["min_length"], parameters["max_length"]
        return tsmixup.mix(self._series, random, *lengths)
