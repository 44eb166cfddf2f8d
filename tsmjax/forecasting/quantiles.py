"""Quantile levels: look them up, interpolate between them, and merge weighted samples into them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError

_UNIT = 2**30  # weights as integers: the largest power of two whose sums fit in 32 bits
_SAME = 1e-6  # levels closer than this are one level: 0.1 + 0.2 is 0.3


def find(levels: Sequence[float], wanted: float) -> int | None:
    """Return the index of `wanted` among `levels`, or None."""
    distance = np.abs(np.asarray(levels) - wanted)
    nearest = int(distance.argmin())
    return nearest if distance[nearest] < _SAME else None


def at_levels(forecast: np.ndarray, levels: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Read off a forecast at any levels: (…, Q, H) → (…, H, len(wanted)).

    Linear between the forecast's levels, and flat beyond them.

    Args:
      forecast: quantiles at `levels`.
      levels: the Q ascending levels.
      wanted: levels inside [0, 1], in any order.
    """
    indices = np.arange(len(levels), dtype=np.float64)
    places = np.interp(np.asarray(wanted, np.float64), levels, indices)
    nearest = np.round(places)
    places = np.where(np.abs(np.interp(nearest, indices, levels) - wanted) < _SAME, nearest, places)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, len(levels) - 1)
    weight = (places - low).astype(np.float32)
    values = np.moveaxis(forecast, -2, -1)
    lower = values[..., low]
    return np.where(weight == 0, lower, lower + weight * (values[..., high] - lower))


def check(wanted: Sequence[float], levels: Sequence[float]) -> None:
    """Refuse levels outside [0, 1]; warn of those beyond what the model predicts.

    Raises:
      InputError: for a level that is no number between 0 and 1, or when there are none.
    """
    if not len(wanted):
        raise InputError("quantile_levels is empty: ask for at least one level.")
    for level in wanted:
        if not isinstance(level, int | float | np.number) or not 0 <= level <= 1:
            raise InputError(
                f"quantile_levels holds {level!r}, but levels are numbers between 0 and 1, such "
                "as 0.9."
            )
    beyond = [q for q in wanted if q < levels[0] - _SAME or q > levels[-1] + _SAME]
    if beyond:
        warnings.warn(
            f"The model predicts the levels {levels[0]} to {levels[-1]}: {beyond} are set to the "
            "nearest of these, which understates the uncertainty.",
            stacklevel=3,
        )


def masses(levels: Sequence[float]) -> np.ndarray:
    """Probability that each level stands for: half the gap between its neighbours, summing to 1."""
    edges = np.concatenate([[0.0], levels, [1.0]])
    mass = (edges[2:] - edges[:-2]) / 2
    return mass / mass.sum()


def of_samples(samples: jax.Array, weights: np.ndarray, levels: Sequence[float]) -> jax.Array:
    """Quantiles of weighted samples, linear in the cumulative weight: (…, n) → (…, Q).

    Weights are added as integers, which is exact in any order: where samples lie far apart, the
    rounding of a float sum would move the result by as much as 1e-3 of the distance.

    Args:
      samples: n samples of each distribution.
      weights: (n,) positive weights that sum to 1, the same for all.
      levels: the Q levels.
    """
    n = samples.shape[-1]
    ticks = jnp.asarray(np.round(np.asarray(weights) * _UNIT), jnp.int32)
    wanted = jnp.asarray(np.round(np.asarray(levels) * _UNIT), jnp.int32)

    def one(values: jax.Array) -> jax.Array:
        order = jnp.argsort(values)
        values, reached = values[order], jnp.cumsum(ticks[order])
        upper = jnp.clip(jnp.searchsorted(reached, wanted, side="right"), 1, n - 1)
        below, above = reached[upper - 1], reached[upper]
        share = (wanted - below).astype(jnp.float32) / (above - below).astype(jnp.float32)
        low, high = values[upper - 1], values[upper]
        return low + jnp.clip(share, 0.0, 1.0) * (high - low)

    found = jax.vmap(one)(samples.reshape(-1, n))
    return found.reshape(*samples.shape[:-1], len(levels))
