"""Numbers that tell much about a channel of a window."""

from __future__ import annotations

import numpy as np

NUMBERS = ("mean", "deviation", "least", "greatest", "change")
OCTAVES = 6  # bands of frequency, each half as high and half as wide as the one before
TOLD = len(NUMBERS) + OCTAVES  # numbers of a channel that a model is told

_LEAST_SPREAD, _LEAST_POWER = 1e-3, 1e-4  # of a standardised channel; quieter is nearly the same


def summaries(windows: np.ndarray) -> np.ndarray:
    """Return the five `NUMBERS` of each channel.

    Args:
      windows: (rows, channels, steps).

    Returns:
      (rows, channels, 5) float32; the change is the mean absolute difference of steps in a row.
    """
    x = windows.astype(np.float64)
    change = np.abs(np.diff(x, axis=2)).mean(axis=2)
    parts = (x.mean(axis=2), x.std(axis=2), x.min(axis=2), x.max(axis=2), change)
    return np.stack(parts, axis=-1).astype(np.float32)


def octaves(windows: np.ndarray) -> np.ndarray:
    """Return the mean power of each channel in bands of frequency, the highest first.

    The first band reaches from half the highest frequency to the highest, both included, and so on
    down; what is slower than the last band is left out. A short window has fewer frequencies than
    bands, and its lowest bands are then the same one.

    Args:
      windows: (rows, channels, steps).

    Returns:
      (rows, channels, `OCTAVES`) float32: squared magnitudes under a Hann window, over its steps.
    """
    x = windows.astype(np.float64)
    steps = x.shape[2]
    x = (x - x.mean(axis=2, keepdims=True)) * np.hanning(steps)
    power = np.abs(np.fft.rfft(x, axis=2)) ** 2 / steps
    highest = power.shape[2] - 1
    bands = []
    for number in range(OCTAVES):
        low, high = (max(highest >> shift, 1) for shift in (number + 1, number))
        bands.append(power[:, :, low : high + 1].mean(axis=2))
    return np.stack(bands, axis=-1).astype(np.float32)


def told(windows: np.ndarray) -> np.ndarray:
    """Return what a model is told of each channel of windows that are standardised by channel.

    Spreads, changes and powers differ by orders of magnitude among activities: they are told in
    decades.

    Args:
      windows: (rows, channels, steps).

    Returns:
      (rows, channels, `TOLD`) float32: the five `NUMBERS`, and the `octaves`.
    """
    found = summaries(windows)
    spreads = [NUMBERS.index("deviation"), NUMBERS.index("change")]
    found[..., spreads] = np.log10(np.maximum(found[..., spreads], _LEAST_SPREAD))
    return np.concatenate([found, np.log10(octaves(windows) + _LEAST_POWER)], axis=-1)
