"""What real data have and generators forget: shifts, outliers, rounding, limits, missing values.

Every function takes a row and returns one of the same shape; most rows pass as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic.draws import Draws, choose, normal_of, uniforms


def realistic(key: jax.Array, values: jax.Array, used: jax.Array) -> jax.Array:
    """Return `values`, (length,), with what befell them; all remain finite.

    Args:
      key: one row's.
      values: a series in the last `used` steps.
      used: length of the series.
    """
    draw_key, noise_key = jax.random.split(key)
    draws = Draws(draw_key, 32)
    inside = jnp.arange(values.shape[0]) >= values.shape[0] - used
    mean = jnp.sum(values * inside) / used
    spread = jnp.sqrt(jnp.sum((values - mean) ** 2 * inside) / used)
    positive = jnp.min(jnp.where(inside, values, jnp.inf)) >= 0
    whole = jnp.all(values == jnp.round(values))
    changed = jnp.where(draws.chance(0.07), level_shifts(draws, values, spread, used), values)
    spikes = outliers(noise_key, draws, changed, spread)
    changed = jnp.where(draws.chance(0.12), spikes, changed)
    changed = jnp.where(positive, jnp.maximum(changed, 0.0), changed)
    changed = jnp.where(whole, jnp.round(changed), changed)
    changed = jnp.where(draws.chance(0.05), clipped(draws, changed, mean, spread), changed)
    return jnp.where(draws.chance(0.1), quantised(draws, changed, spread), changed)


def level_shifts(draws: Draws, values: jax.Array, spread: jax.Array, used: jax.Array) -> jax.Array:
    """Return `values` with one to three sudden changes, that stay or (some) end again."""
    share = 1 + (jnp.arange(values.shape[0]) - values.shape[0]) / used
    sizes = draws.normal(0.0, 1.5, shape=(3,)) * (jnp.arange(3) < draws.integer(1, 4))
    begin = draws.uniform(shape=(3,))
    end = jnp.where(draws.uniform(shape=(3,)) < 0.3, begin + draws.uniform(0.0, 0.1, (3,)), 2.0)
    inside = (share[:, None] >= begin) & (share[:, None] < end)
    return values + spread * (inside @ sizes)


def outliers(key: jax.Array, draws: Draws, values: jax.Array, spread: jax.Array) -> jax.Array:
    """Return `values` with spikes at a few steps, of one sign or of both."""
    where, size = uniforms(key, (2, *values.shape))
    hit = where < draws.log_uniform(0.002, 0.03)
    size = draws.uniform(1.5, 6.0) * spread * normal_of(size)
    size = choose(draws.pick((0.5, 0.35, 0.15)), size, jnp.abs(size), -jnp.abs(size))
    return jnp.where(hit, values + size, values)


def clipped(draws: Draws, values: jax.Array, mean: jax.Array, spread: jax.Array) -> jax.Array:
    """Return `values` that never pass a floor, or a ceiling: capacities, detection limits."""
    limit = mean + spread * draws.uniform(-1.2, 0.3)
    ceiling = mean - spread * draws.uniform(-1.2, 0.3)
    return jnp.where(draws.chance(0.7), jnp.maximum(values, limit), jnp.minimum(values, ceiling))


def quantised(draws: Draws, values: jax.Array, spread: jax.Array) -> jax.Array:
    """Return `values` as multiples of a step: coarse readings, prices."""
    step = jnp.maximum(spread, 1e-9) * draws.log_uniform(0.01, 0.5)
    return jnp.round(values / step) * step


def missing(key: jax.Array, length: int, used: jax.Array, probability: float) -> jax.Array:
    """Return a mask of what is missing, (length,): single steps, or a few blocks.

    Args:
      key: one row's.
      length: steps of the array.
      used: length of the series.
      probability: share of the series that miss anything.
    """
    keys = jax.random.split(key, 2)
    draws = Draws(keys[0], 16)
    single = jax.random.uniform(keys[1], (length,)) < draws.log_uniform(0.005, 0.2)
    since = (jnp.arange(length) - (length - used))[:, None] - used * draws.uniform(shape=(4,))
    lasting = used * draws.uniform(0.0, 0.12, shape=(4,)) * (jnp.arange(4) < draws.integer(1, 5))
    blocks = ((since >= 0) & (since < lasting)).any(axis=1)
    return jnp.where(draws.chance(0.6), single, blocks) & draws.chance(probability)
