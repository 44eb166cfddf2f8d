"""Sampling frequencies: how long series of each are, and which seasons they have."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data.synthetic.draws import Draws

ANY = -1.0  # a period of the series' own


class Frequency(NamedTuple):
    """What series of one sampling frequency look like.

    Attributes:
      share: how often it is drawn.
      shortest: least length.
      longest: greatest length.
      day: steps of a day; 0 when a step is a day or more.
      periods: steps of the seasons other than those of a week of such days; 0 for none.
    """

    share: float
    shortest: int
    longest: int
    day: float
    periods: tuple[float, float]


_ALL = 1 << 20  # as long as asked for

FREQUENCIES = {
    "5min": Frequency(0.02, 288, _ALL, 288, (0, 0)),
    "10min": Frequency(0.01, 288, _ALL, 144, (0, 0)),
    "15min": Frequency(0.03, 192, _ALL, 96, (0, 0)),
    "30min": Frequency(0.09, 144, _ALL, 48, (0, 17532)),
    "h": Frequency(0.24, 72, _ALL, 24, (0, 8766)),
    "D": Frequency(0.18, 48, _ALL, 0, (7, 365.25)),
    "B": Frequency(0.03, 48, _ALL, 0, (5, 261)),
    "W": Frequency(0.04, 48, 1024, 0, (0, 52.18)),
    "MS": Frequency(0.20, 36, 480, 0, (12, 0)),
    "QS": Frequency(0.08, 24, 240, 0, (4, 0)),
    "YS": Frequency(0.04, 20, 160, 0, (0, 0)),
    "none": Frequency(0.04, 64, _ALL, 0, (ANY, 0)),
}
NAMES = tuple(FREQUENCIES)


class Calendar(NamedTuple):
    """The time axis of one series, in an array whose last `used` steps are the series.

    Attributes:
      frequency: int32, number of the frequency in `NAMES`.
      used: int32, length of the series.
      day: steps of a day, 0 when there are no days to tell apart.
      periods: (2,) steps of other seasons, shortest first, 0 for none.
      time: (length,) steps since some origin, whole numbers ≥ 0.
      share: (length,) from 0 at the first step of the series to 1 at its last; 0 before it.
    """

    frequency: jax.Array
    used: jax.Array
    day: jax.Array
    periods: jax.Array
    time: jax.Array
    share: jax.Array


def draw(key: jax.Array, length: int, min_length: int) -> Calendar:
    """Draw the frequency and the length of one series; lengths are log-uniform.

    Args:
      key: one row's.
      length: steps of the array, the greatest length.
      min_length: least length.
    """
    draws = Draws(key, 8)
    frequencies = list(FREQUENCIES.values())
    frequency = draws.pick([found.share for found in frequencies])
    table = np.asarray(
        [
            (
                min(max(found.shortest, min_length), length),
                min(max(found.longest, min_length), length),
                found.day,
                *found.periods,
            )
            for found in frequencies
        ],
        np.float32,
    )
    # A product with a one-hot row: cheaper than a gather when it is vmapped.
    row = (jnp.arange(len(table)) == frequency).astype(jnp.float32) @ table
    used = jnp.clip(jnp.round(draws.log_uniform(row[0], row[1])), 1, length).astype(jnp.int32)
    own = jnp.round(draws.log_uniform(2.0, jnp.maximum(used / 3.0, 3.0)))
    periods = jnp.where(row[3:] == ANY, own, row[3:])
    step = jnp.arange(length)
    origin = draws.integer(0, 1 << 12)
    share = (step - (length - used)) / jnp.maximum(used - 1, 1)
    return Calendar(
        frequency, used, row[2], periods, (step + origin).astype(jnp.float32), jnp.maximum(share, 0)
    )
