"""KernelSynth: series drawn from Gaussian processes with random kernels.

Ansari et al., "Chronos: Learning the Language of Time Series" (2024), section 4.2, with the bank of
33 kernels that its training corpus was made with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

DEFAULTS = {"series": 512, "length": 1024, "seed": 0}
BLOCK = 64  # series that one worker process makes at a time
MAX_KERNELS = 5

# Steps of a season: hourly, half-hourly and quarter-hourly days and weeks, days in a week, month,
# and year, weeks, months and quarters in a year. 4 is in three groups, so three times as likely.
PERIODS = (24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 4, 6, 12, 4, 40, 10)

# A stationary kernel is a function of the distance, which is 0 on the diagonal alone.
Kernel = Callable[[np.ndarray], np.ndarray]


def bank(length: int) -> list[Kernel | float]:
    """Return the 33 kernels for series of `length` points on [0, 1].

    A number stands for the one kernel that is not stationary, the dot product x·x' + number².
    """
    kernels: list[Kernel | float] = [np.ones_like]
    kernels += [lambda d, level=level: level * (d == 0) for level in (0.1, 1.0)]
    kernels += [0.0, 1.0, 10.0]
    kernels += [lambda d, scale=scale: np.exp(-0.5 * (d / scale) ** 2) for scale in (0.1, 1, 10)]
    kernels += [lambda d, a=alpha: (1 + d**2 / (2 * a)) ** -a for alpha in (0.1, 1.0, 10.0)]
    kernels += [
        lambda d, period=period / length: np.exp(-2 * np.sin(np.pi * d / period) ** 2)
        for period in PERIODS
    ]
    return kernels


def covariance(kernels: list[Kernel | float], products: np.ndarray, length: int) -> np.ndarray:
    """Return ((k₁ ∘ k₂) ∘ k₃) … on `length` points, float64 of shape (length, length).

    Args:
      kernels: entries of the bank.
      products: bool; entry i says that kernel i + 1 is multiplied, not added.
      length: number of points.
    """
    points = np.linspace(0, 1, length)
    total: np.ndarray | None = None
    for kernel, product in zip(kernels, [False, *products], strict=True):
        if callable(kernel):
            # Evaluated on the `length` distances that there are: row i is a window, length − i on.
            values = kernel(points)
            mirrored = np.concatenate([values[:0:-1], values])
            value = np.lib.stride_tricks.sliding_window_view(mirrored, length)[::-1]
        else:
            value = np.outer(points, points) + kernel**2
        total = value if total is None else (total * value if product else total + value)
    return total


def sample(seed: int, index: int, length: int) -> np.ndarray:
    """Return series number `index`, float32 of shape (length,); a function of the arguments."""
    random = np.random.default_rng([seed, index])
    kernels = bank(length)
    chosen = random.integers(0, len(kernels), random.integers(1, MAX_KERNELS + 1))
    products = random.random(len(chosen) - 1) < 0.5
    matrix = covariance([kernels[i] for i in chosen], products, length)
    noise = random.standard_normal(length)
    # Smooth kernels are singular in float64. The least noise that makes them definite is added.
    jitter = 1e-10 * np.trace(matrix) / length
    while True:
        try:
            factor = np.linalg.cholesky(matrix + np.diag(np.full(length, jitter)))
        except np.linalg.LinAlgError:
            jitter *= 10
        else:
            return (factor @ noise).astype(np.float32)


def count(series: int, length: int, seed: int) -> int:
    """Return the number of rows that `rows` can make."""
    return series


def rows(first: int, last: int, series: int, length: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1 of the data set."""
    for index in range(first, last):
        yield {"item_id": f"kernel_synth/{index}", "target": sample(seed, index, length)}
