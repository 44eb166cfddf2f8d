"""TSI: series composed of a trend, seasons and an irregular part, as data of real calendars are.

The decomposition is that of Bahrpeyma et al., "A methodology for validating diversity in synthetic
time series generation" (2021); Ansari et al., "Chronos-2: From Univariate to Universal
Forecasting" (2025), section 4, generate training series from such components. Additive and
multiplicative composition, damped trends and local levels follow Hyndman et al., "Forecasting with
Exponential Smoothing" (2008), chapter 2. Sizes and shares are our own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic import arma
from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, choose, poisson


def sample(key: jax.Array, calendar: Calendar, season: jax.Array) -> jax.Array:
    """Return one series with all components, (length,), all finite."""
    keys = jax.random.split(key, 6)
    draws = Draws(keys[0], 64)
    length = calendar.time.shape[0]

    # Strength of each component in units of the seasons'. Most real series follow one of them.
    signal = season + draws.log_normal(0.6, 1.2) * trend(draws, calendar.share)
    level = jnp.cumsum(jax.random.normal(keys[1], (length,)))
    level = level * jnp.where(draws.chance(0.4), draws.log_normal(0.03, 1.2), 0.0)
    noise = arma.autoregressive(keys[2], draws, length)
    # Four in ten series are clean: what their seasons will be is nearly certain.
    size = choose(
        draws.pick((0.4, 0.4, 0.2)),
        draws.log_uniform(0.005, 0.12),
        draws.log_normal(0.3, 0.6),
        draws.log_normal(1.0, 0.7),
    )
    # Busy times are less certain than quiet ones.
    busy = jnp.exp(draws.normal(0.0, 0.4) * jnp.clip(season, -2, 3) * draws.chance(0.3))
    signal = signal + level + size * noise * busy

    added = signal + draws.normal(0.0, 6.0)
    spread = jnp.maximum(signal.std(), 1e-6)
    swing = jnp.minimum(draws.log_normal(0.25, 0.7), 1.5 / spread)
    multiplied = jnp.exp(jnp.clip(swing * (signal - signal.mean()), -12, 12))
    counted = counts(keys[3:], draws, multiplied)
    values = choose(draws.pick((0.42, 0.43, 0.15)), added, multiplied, counted)
    return values * draws.log_normal(30.0, 2.0)


def trend(draws: Draws, share: jax.Array) -> jax.Array:
    """Return a trend over the share of the series that has passed; a fifth of them flat.

    Takes 16 draws.
    """
    breaks, slopes = draws.uniform(shape=(4,)), draws.normal(shape=(4,))
    slopes = slopes * (jnp.arange(4) < draws.integer(1, 5))
    bent = draws.normal() * share + jnp.maximum(share[:, None] - breaks, 0) @ slopes
    rate = draws.uniform(0.5, 3.0)
    growth = jnp.expm1(rate * share) / jnp.expm1(rate)
    damped = -jnp.expm1(-draws.uniform(1.0, 8.0) * share)
    middle, speed = draws.uniform(), draws.uniform(4.0, 20.0)
    saturating = jax.nn.sigmoid(speed * (share - middle))
    kind = draws.pick((0.2, 0.25, 0.25, 0.1, 0.1, 0.1))
    curve = choose(kind, 0.0 * share, share, bent, growth, damped, saturating)
    return jnp.where(draws.chance(0.4), -3.0, 3.0) * curve


def counts(keys: jax.Array, draws: Draws, rate: jax.Array) -> jax.Array:
    """Return counts whose mean follows `rate`: frequent or rare, perhaps with idle steps.

    Args:
      keys: (3,).
      draws: 5 are taken.
      rate: (length,), positive.
    """
    level = draws.log_uniform(0.1, 400.0)
    expected = level * rate / jnp.maximum(rate.mean(), 1e-6)
    # More variance than the Poisson distribution has: a rate that is log-normal itself.
    extra = jnp.exp(draws.uniform(0.1, 0.8) * jax.random.normal(keys[0], rate.shape))
    expected = expected * jnp.where(draws.chance(0.4), extra, 1.0)
    # Intermittent demand: nothing at all at most steps.
    open_share = draws.uniform(0.1, 0.8)
    idle = jax.random.uniform(keys[1], rate.shape) > open_share
    rare = (level < 30) & draws.chance(0.35)
    expected = jnp.where(rare & idle, 0.0, expected)
    return poisson(keys[2], jnp.minimum(expected, 1e6))


def growth_curve(key: jax.Array, calendar: Calendar, season: jax.Array) -> jax.Array:
    """Return a running total: of cases, sales or members, that come in waves, (length,)."""
    keys = jax.random.split(key, 3)
    draws = Draws(keys[0], 32)
    centres, heights = draws.uniform(0.0, 1.3, shape=(4,)), draws.log_normal(1.0, 1.0, shape=(4,))
    heights = heights * (jnp.arange(4) < draws.integer(1, 5))
    widths = draws.uniform(0.03, 0.3, shape=(4,))
    waves = jnp.exp(-0.5 * ((calendar.share[:, None] - centres) / widths) ** 2) @ heights
    rate = waves + draws.uniform(0.0, 0.2)
    unrest = draws.log_normal(0.15, 0.8) * arma.autoregressive(keys[1], draws, len(rate))
    rate = rate * jnp.exp(unrest + draws.log_normal(0.1, 1.0) * draws.chance(0.5) * season)
    level = draws.log_uniform(0.1, 300.0)
    arriving = poisson(keys[2], jnp.clip(level * rate / rate.mean(), 0.0, 1e6))
    arriving = jnp.where(calendar.share > 0, arriving, 0.0)
    return jnp.where(draws.chance(0.7), jnp.cumsum(arriving), arriving)
