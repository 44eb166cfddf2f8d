"""TSMixup: convex sums of scaled stretches of several series.

Ansari et al., "Chronos: Learning the Language of Time Series" (2024), section 4.1 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tsmjax.data.synthetic import real

DEFAULTS = {"series": 2048, "min_length": 128, "max_length": 2048, "seed": 0}
BLOCK = 1024  # series that one worker process makes at a time
MAX_SERIES = 3
CONCENTRATION = 1.5


def mix(
    series: Sequence[np.ndarray], random: np.random.Generator, min_length: int, max_length: int
) -> np.ndarray:
    """Return one mixed series, float32.

    One to three series are drawn, and from each a stretch of a length that is uniform in
    [min_length, max_length]; the shortest series drawn limits it. A stretch is divided by its mean
    absolute value and weighted by a draw from a symmetric Dirichlet distribution (1.5). A step is
    missing where one of the stretches misses it.

    Args:
      series: what to draw from, 1-D arrays; rows of any source.
      random: source of randomness.
      min_length: least length.
      max_length: greatest length.
    """
    chosen = [
        series[i] for i in random.integers(0, len(series), random.integers(1, MAX_SERIES + 1))
    ]
    length = random.integers(min_length, max_length + 1)
    length = min(length, *map(len, chosen))
    weights = random.dirichlet([CONCENTRATION] * len(chosen))
    total = np.zeros(length)
    for values, weight in zip(chosen, weights, strict=True):
        start = random.integers(0, len(values) - length + 1)
        stretch = values[start : start + length].astype(np.float64)
        known = np.abs(stretch[np.isfinite(stretch)])
        scale = known.mean() if known.any() else 1.0
        total += weight * stretch / scale
    return total.astype(np.float32)


def count(series: int, **_: int) -> int:
    """Return the number of rows that `rows` can make.

    Raises:
      InputError: when statsmodels is not installed.
    """
    real.series()
    return series


def rows(
    first: int, last: int, series: int, min_length: int, max_length: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1: mixtures of the training part of the real series."""
    base = [found.training_values for found in real.series()]
    for index in range(first, last):
        random = np.random.default_rng([seed, index])
        target = mix(base, random, min_length, max_length)
        yield {"item_id": f"tsmixup/{index}", "target": target}
