"""Errors of a continuous glucose monitor, as simglucose 0.2.11 has them.

Every 15 minutes a first-order recursion of normal draws passes through Johnson's SU distribution,
after Breton and Kovatchev, "Analysis, modeling, and simulation of the accuracy of continuous
glucose sensors" (J. Diabetes Sci. Technol. 2008); between them a cubic spline, over ten points at a
time.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

LOWEST, HIGHEST = 39.0, 600.0  # mg/dL that a sensor shows
_APART = 15  # minutes between two draws
_PIECE = 10  # of them in one spline
_MEMORY = 0.7
_XI, _LAMBDA, _GAMMA, _DELTA = -5.47, 15.9574, -0.5444, 1.6898


def draws_needed(minutes: int) -> int:
    """Return how many normal draws `errors` takes for this many minutes."""
    return -(-minutes // (_APART * _PIECE)) * _PIECE + 1


def errors(normals: jax.Array, every: int = 5) -> jax.Array:
    """Return the errors of successive readings.

    Args:
      normals: (…, 10 k + 1) standard normal draws, enough for 150 k minutes.
      every: minutes between two readings, a divisor of 150.

    Returns:
      (…, 150 k / every) mg/dL.
    """

    def recursion(last: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
        last = _MEMORY * (last + draw)
        return last, last

    draws = jnp.moveaxis(jnp.asarray(normals), -1, 0)
    _, rest = jax.lax.scan(recursion, draws[0], draws[1:])
    levels = jnp.moveaxis(jnp.concatenate([draws[:1], rest]), 0, -1)
    points = _XI + _LAMBDA * jnp.sinh((levels - _GAMMA) / _DELTA)
    # Each piece begins at the last point of the piece before it.
    inner = points[..., 1:].reshape(*points.shape[:-1], -1, _PIECE)
    first = jnp.concatenate([points[..., :1, None], inner[..., :-1, -1:]], axis=-2)
    pieces = jnp.concatenate([first, inner], axis=-1)
    weights = jnp.asarray(_spline(every).T, pieces.dtype)
    readings = jnp.matmul(pieces, weights, precision="highest")
    return readings.reshape(*points.shape[:-1], -1)


def reading(glucose: jax.Array, error: jax.Array) -> jax.Array:
    """Return what a sensor shows, in mg/dL."""
    return jnp.clip(glucose + error, LOWEST, HIGHEST)


@functools.cache
def _spline(every: int) -> np.ndarray:
    """Return the (readings, 11) matrix from the points of one piece to the readings in it.

    A cubic spline that has one cubic over its first two intervals and one over its last two (not a
    knot). Its second derivatives M solve M[i-1] + 4 M[i] + M[i+1] = 6 (y[i-1] - 2 y[i] + y[i+1]).
    """
    if _APART * _PIECE % every:
        raise ValueError(f"{every} minutes do not divide {_APART * _PIECE}")
    points = _PIECE + 1
    identity, system, right = np.eye(points), np.zeros((points, points)), np.zeros((points, points))
    for i in range(1, points - 1):
        system[i, i - 1 : i + 2] = 1, 4, 1
        right[i] = 6 * (identity[i - 1] - 2 * identity[i] + identity[i + 1])
    system[0, :3] = system[-1, -3:] = 1, -2, 1
    second = np.linalg.solve(system, right)

    at = np.arange(every, _APART * _PIECE + 1, every) / _APART
    left = np.minimum(at.astype(int), _PIECE - 1)
    u = (at - left)[:, None]
    return (
        (1 - u) * identity[left]
        + u * identity[left + 1]
        + ((1 - u) ** 3 - (1 - u)) / 6 * second[left]
        + (u**3 - u) / 6 * second[left + 1]
    )
