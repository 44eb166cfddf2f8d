"""ARMA and ARIMA series, seasonal ones too, without a loop over time.

A linear filter is a product in the frequency domain, on an array padded with as many zeros as the
series is long. Box and Jenkins, "Time Series Analysis" (1970); integrated and seasonal forms as
there in chapters 4 and 9.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic import draws as draws_lib
from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, choose, standardised


def sample(key: jax.Array, calendar: Calendar, season: jax.Array) -> jax.Array:
    """Return one ARIMA(p, d, q)(P, 1 or 0, 0) series with p, q ≤ 3 and d ≤ 2, (length,)."""
    keys = jax.random.split(key, 3)
    draws = Draws(keys[0], 32)
    period = jnp.where(calendar.day > 0, calendar.day, calendar.periods[0])
    length = calendar.time.shape[0]
    shocks = draws_lib.noise(keys[1], 2 * length, draws.chance(0.25))
    shocks = shocks * volatility(keys[2], draws, 2 * length)

    memory = choose(draws.pick((0.5, 0.25, 0.25)), 0.0, draws.uniform(0.3, 0.95), 1.0)
    values = filtered(shocks, arma_response(draws, 2 * length))
    stationary = standardised(seasonal_sum(values, period, memory)[length:])
    values = standardised(integrated(draws, stationary, draws.pick((0.4, 0.5, 0.1))))
    # A fixed season beside it, in some.
    values = values + draws.log_normal(0.5, 0.8) * draws.chance(0.2) * season
    # Prices and quantities: positive, moving in proportion to their level.
    swing = draws.log_normal(0.2, 1.0)
    factor = jnp.exp(jnp.clip(swing * values, -12, 12))
    return jnp.where(draws.chance(0.5), factor, values + draws.normal(0, 6))


def integrated(draws: Draws, stationary: jax.Array, order: jax.Array) -> jax.Array:
    """Return the running sum of `stationary`, (length,), taken `order` (0, 1, 2) times.

    With a drift in some. Takes 4 draws.
    """
    once = jnp.cumsum(stationary + draws.normal(0.0, 0.2) * draws.chance(0.4))
    # An integrated slope is far smoother than the level, which has shocks of its own.
    twice = once + draws.log_normal(0.05, 0.8) * jnp.cumsum(once - once.mean() * draws.uniform())
    return choose(order, stationary, once, twice)


def arma_response(draws: Draws, length: int) -> jax.Array:
    """Return the response to one shock of an ARMA(p ≤ 3, q ≤ 2) process, (length,).

    Its autoregressive roots are one real one and a pair, complex or real, all inside the unit
    circle; each may be absent. Takes 10 draws.
    """
    lag = jnp.arange(length)
    real = draws.uniform(-0.5, 0.99) * draws.chance(0.7)
    modulus = draws.uniform(0.5, 0.995)
    angle = 2 * jnp.pi / draws.log_uniform(2.5, length / 4)
    cycle = modulus**lag * jnp.sin((lag + 1) * angle) / jnp.sin(angle)
    pair = jnp.where(draws.chance(0.25), cycle, (lag == 0).astype(jnp.float32))
    moving = draws.normal(0.0, 0.5, shape=(2,)) * draws.chance(0.4)
    single = _powers(real, lag)
    smoothed = single + moving[0] * _shift(single, 1) + moving[1] * _shift(single, 2)
    return filtered(pair, smoothed)


def filtered(values: jax.Array, response: jax.Array) -> jax.Array:
    """Return the causal convolution of two arrays of one length, cut to that length."""
    length = values.shape[-1]
    spectrum = jnp.fft.rfft(values, 2 * length) * jnp.fft.rfft(response, 2 * length)
    return jnp.fft.irfft(spectrum, 2 * length)[..., :length]


def seasonal_sum(values: jax.Array, period: jax.Array, keep: jax.Array) -> jax.Array:
    """Return y with y_t = x_t + keep · y_{t − period}; x itself where the period is below 2."""
    lag = jnp.arange(values.shape[-1], dtype=jnp.float32)
    safe = jnp.where(period >= 2, jnp.round(period), values.shape[-1] + 1.0)
    cycles = jnp.round(lag / safe)
    response = jnp.where(cycles * safe == lag, _powers(keep, cycles), 0.0)
    return filtered(values, response)


def autoregressive(key: jax.Array, draws: Draws, length: int) -> jax.Array:
    """Return a stationary irregular part of unit size: white, heavy-tailed, or with memory.

    Takes 5 draws.
    """
    noise_key, walk_key = jax.random.split(key)
    shocks = draws_lib.noise(noise_key, 2 * length, draws.chance(0.2))
    first = draws.uniform(-0.4, 0.98) * draws.chance(0.5)
    values = filtered(shocks, _powers(first, jnp.arange(2 * length)))[length:]
    return standardised(values) * volatility(walk_key, draws, length)


def volatility(key: jax.Array, draws: Draws, length: int) -> jax.Array:
    """Return a standard deviation that changes slowly, one in most series, (length,).

    Takes 2 draws.
    """
    walk = jnp.cumsum(jax.random.normal(key, (length,)))
    # Half a log unit or so over the whole series.
    size = draws.log_normal(0.5, 0.6) / jnp.sqrt(1.0 * length)
    path = jnp.exp(jnp.clip(size * (walk - walk.mean()), -3.0, 2.0))
    return jnp.where(draws.chance(0.2), path, 1.0)


def _powers(base: jax.Array, exponents: jax.Array) -> jax.Array:
    """Return baseⁿ for whole n ≥ 0, with 0⁰ = 1, for bases of either sign."""
    sign = jnp.where((base < 0) & (jnp.mod(exponents, 2) == 1), -1.0, 1.0)
    size = jnp.exp(exponents * jnp.log(jnp.maximum(jnp.abs(base), 1e-30)))
    return sign * jnp.where(exponents == 0, 1.0, size)


def _shift(values: jax.Array, steps: int) -> jax.Array:
    """Return `values` moved to the right, with zeros before them."""
    return jnp.pad(values, (steps, 0))[: values.shape[-1]]
