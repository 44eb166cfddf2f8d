"""Random numbers of one series, for generators that are vmapped over keys.

Every scalar that shapes a series (a period, a strength, a choice) comes out of one vector, because
a call of `jax.random` for each of hundreds of scalars costs more to compile and to run than the
series itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_LEAST = 1e-7  # keeps uniforms inside (0, 1), so that their normal quantiles are finite
# Taylor coefficients of cos(2π·√s) around 0.
_COSINE = [(-1) ** k * (2 * math.pi) ** (2 * k) / math.factorial(2 * k) for k in range(9)]
_COUNTED = 48  # terms of the Poisson distribution that are summed; the rest has no weight below
_EXACT_RATE = 16.0  # this rate, above which the normal distribution takes its place


class Draws:
    """Small draws of one row, taken one after the other from `size` uniforms."""

    def __init__(self, key: jax.Array, size: int):
        self._uniforms = uniforms(key, (size,))
        self._normals = normal_of(self._uniforms)
        self._used = 0

    def _take(self, values: jax.Array, shape: tuple) -> jax.Array:
        first, self._used = self._used, self._used + math.prod(shape)
        if self._used > len(values):
            raise ValueError(f"{len(values)} draws are too few: ask for more")
        return values[first : self._used].reshape(shape)

    def uniform(
        self, low: float | jax.Array = 0.0, high: float | jax.Array = 1.0, shape: tuple = ()
    ) -> jax.Array:
        """Return draws that are uniform in (low, high)."""
        return low + (high - low) * self._take(self._uniforms, shape)

    def normal(
        self, mean: float | jax.Array = 0.0, std: float | jax.Array = 1.0, shape: tuple = ()
    ) -> jax.Array:
        """Return normal draws."""
        return mean + std * self._take(self._normals, shape)

    def log_uniform(self, low: float | jax.Array, high: float | jax.Array) -> jax.Array:
        """Return one draw whose logarithm is uniform."""
        return jnp.exp(self.uniform(jnp.log(low), jnp.log(high)))

    def log_normal(self, median: float, spread: float, shape: tuple = ()) -> jax.Array:
        """Return draws whose logarithms are normal with standard deviation `spread`."""
        return median * jnp.exp(self.normal(0.0, spread, shape))

    def integer(self, low: int | jax.Array, high: int | jax.Array, shape: tuple = ()) -> jax.Array:
        """Return int32 draws from low … high − 1."""
        return jnp.floor(self.uniform(low, high, shape)).astype(jnp.int32)

    def chance(self, probability: float | jax.Array) -> jax.Array:
        """Return True with this probability."""
        return self.uniform() < probability

    def pick(self, weights: Sequence[float]) -> jax.Array:
        """Return int32 i with a probability in proportion to ``weights[i]``."""
        edges = np.cumsum(weights) / np.sum(weights)
        return (self.uniform() > edges[:-1].astype(np.float32)).sum().astype(jnp.int32)


def choose(kind: jax.Array, *cases: jax.Array) -> jax.Array:
    """Return ``cases[kind]``, all cases computed; `kind` is a scalar."""
    return jax.lax.select_n(kind, *jnp.broadcast_arrays(*cases))


def cosine(turns: jax.Array) -> jax.Array:
    """Return cos(2π·turns) to 1e-5 by a polynomial; on CPUs ten and more times faster."""
    square = (turns - jnp.round(turns)) ** 2
    total = jnp.full_like(square, _COSINE[-1])
    for coefficient in reversed(_COSINE[:-1]):
        total = total * square + coefficient
    return total


def uniforms(key: jax.Array, shape: tuple) -> jax.Array:
    """Return uniform draws inside (0, 1), away from both ends by 1e-7."""
    return jnp.clip(jax.random.uniform(key, shape), _LEAST, 1 - _LEAST)


def normal_of(uniform: jax.Array) -> jax.Array:
    """Return the standard normal quantiles of `uniform`."""
    return math.sqrt(2) * jax.lax.erf_inv(2 * uniform - 1)


def noise(key: jax.Array, length: int, heavy: jax.Array) -> jax.Array:
    """Return white noise of unit variance, normal or (where `heavy`) of Student's t(4)."""
    first, second, third = uniforms(key, (3, length))
    values = normal_of(first)
    # A χ² of four degrees is −2 log(u₁ u₂); t(4) has variance 2.
    return jnp.where(heavy, values * jax.lax.rsqrt(-jnp.log(second * third)), values)


def poisson(key: jax.Array, rate: jax.Array) -> jax.Array:
    """Return Poisson counts of the given rates, as floats of the same shape.

    By inversion of the distribution function up to a rate of 16, without any loop that depends on
    the data; rounded normal draws above it.
    """
    uniform = uniforms(key, rate.shape)
    small = jnp.clip(rate, 0.0, _EXACT_RATE)
    mass = jnp.exp(-small)
    below, count = mass, jnp.zeros_like(rate)
    for number in range(1, _COUNTED):
        count += uniform > below
        mass *= small / number
        below += mass
    large = jnp.round(rate + jnp.sqrt(jnp.maximum(rate, 0.0)) * normal_of(uniform))
    return jnp.where(rate <= _EXACT_RATE, count, jnp.maximum(large, 0.0))


def standardised(values: jax.Array, inside: jax.Array | float = 1.0) -> jax.Array:
    """Return `values` with mean 0 and standard deviation 1; a constant becomes 0.

    Args:
      values: (length,).
      inside: (length,) 1 for the steps that mean and deviation are taken over; all by default.
    """
    weight = jnp.broadcast_to(inside, values.shape) / jnp.sum(inside * jnp.ones_like(values))
    centred = values - jnp.sum(values * weight)
    spread = jnp.sqrt(jnp.sum(centred**2 * weight))
    return centred / jnp.where(spread > 1e-4, spread, jnp.inf)
