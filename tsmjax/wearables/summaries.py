"""Numbers that tell much about a channel of a window."""

from __future__ import annotations

import numpy as np

NUMBERS = ("mean", "deviation", "least", "greatest", "change")


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
