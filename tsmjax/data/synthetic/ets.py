"""ETS: the 30 exponential-smoothing models as generators.

Error (A, M) × trend (N, A, Ad, M, Md) × season (N, A, M), in the innovations form of Hyndman et
al., "Forecasting with Exponential Smoothing" (2008), tables 2.2 and 2.3. With y the new value, μ
its one-step forecast and l, b, s the states, every model is

    q = l + φb or l·b^φ,  μ = q, q + s or q·s,  y = μ + σε or μ(1 + σε),
    l ← q + α(y − μ)/(s if multiplicative),  b ← φb or b^φ, + β(y − μ)/(… and l if multiplicative),
    s ← s + γ(y − μ)/(q if multiplicative).

Sizes and shares are our own; states are kept where the models stay positive and finite.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic import draws as draws_lib
from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, cosine

LONGEST_SEASON = 48  # steps of the state; longer seasons are left out
ERRORS, TRENDS, SEASONS = ("A", "M"), ("N", "A", "Ad", "M", "Md"), ("N", "A", "M")
_LIMIT = 1e5


class Form(NamedTuple):
    """Which of the 30 models, each as a number in `ERRORS`, `TRENDS` or `SEASONS`."""

    error: jax.Array
    trend: jax.Array
    season: jax.Array


def sample(key: jax.Array, calendar: Calendar, season: jax.Array) -> jax.Array:
    """Return one series of a random form, (length,)."""
    draw_key, noise_key = jax.random.split(key)
    draws = Draws(draw_key, 80)
    form = Form(
        draws.pick((0.5, 0.5)), draws.pick((0.3, 0.2, 0.2, 0.1, 0.2)), draws.pick((0.25, 0.4, 0.35))
    )
    return path(noise_key, draws, form, calendar)


def path(key: jax.Array, draws: Draws, form: Form, calendar: Calendar) -> jax.Array:
    """Return one series of the given form with random parameters, (length,); takes 67 draws."""
    length = calendar.time.shape[0]
    period = jnp.where(calendar.day > 0, calendar.day, calendar.periods[0])
    seasonal = (form.season > 0) & (period >= 2) & (period <= LONGEST_SEASON)
    steps = jnp.where(seasonal, jnp.round(period), 1.0)
    with_factors = (form.error == 1) | (form.trend >= 3) | (form.season == 2)
    by_factor_season, by_factor_trend = seasonal & (form.season == 2), form.trend >= 3

    # Levels start at 1 where anything is a factor, and sizes are shares of it.
    size = jnp.where(with_factors, draws.log_uniform(0.02, 0.4), 1.0)
    first_level = jnp.where(with_factors, 1.0, draws.normal(0.0, 6.0))
    alpha = draws.uniform() ** 2
    beta = alpha * draws.uniform() ** 2 * 0.5
    gamma = (1 - alpha) * draws.uniform() ** 2 * 0.6
    sigma = size * draws.log_uniform(0.01, 1.0)
    damped = (form.trend == 2) | (form.trend == 4)
    phi = jnp.where(damped, draws.uniform(0.8, 0.98), 1.0)
    # A trend adds up to about one size over the series, and brings no factor model to zero.
    lowest = jnp.where(with_factors, -0.6, -9.0)
    steps_of_trend = calendar.used * jnp.where(damped, 0.1, 1.0)
    slope = size * jnp.maximum(draws.normal(0.0, 2.0), lowest) / steps_of_trend
    first_slope = jnp.where(by_factor_trend, jnp.exp(slope), slope)
    first_slope = jnp.where(form.trend == 0, by_factor_trend * 1.0, first_slope)
    beta = jnp.where(form.trend == 0, 0.0, beta)
    # A wave with steps of their own: smooth in some, nothing but steps in others.
    phase = jnp.arange(LONGEST_SEASON) / steps
    rough = draws.uniform()
    waves, free = cosine(phase + draws.uniform()), draws.normal(shape=(LONGEST_SEASON,))
    pattern = (1 - rough) * waves + rough * free
    pattern = pattern * size * draws.log_normal(0.8, 0.5)
    pattern = jnp.where(by_factor_season, jnp.exp(jnp.clip(pattern, -2, 2)), pattern)
    pattern = jnp.where(seasonal, pattern, 0.0)
    least = jnp.where(with_factors, 0.02, -_LIMIT)
    steepest = jnp.exp(4.0 / calendar.used)  # at most by e⁴ over the series
    shocks = draws_lib.noise(key, length, draws.chance(0.15))

    def step(
        old: tuple[jax.Array, jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        level, slope, seasons = old
        shock, number, inside = inputs
        at = jnp.arange(LONGEST_SEASON) == number
        now = jnp.sum(jnp.where(at, seasons, 0.0))
        grown = jnp.where(by_factor_trend, jnp.maximum(slope, 1e-3) ** phi, phi * slope)
        # What has fallen to the least level falls no further.
        grown = jnp.where(~by_factor_trend & (level + grown < least), 0.0, grown)
        base = jnp.where(by_factor_trend, level * grown, level + grown)
        mean = jnp.maximum(jnp.where(by_factor_season, base * now, base + now), least)
        error = sigma * shock * jnp.where(form.error == 1, mean, 1.0)
        # No factor model may cross zero, nor may one shock nearly double it.
        bound = jnp.where(with_factors, 0.8 * jnp.abs(mean), _LIMIT)
        error = jnp.clip(error, -bound, bound)
        of_level = error / jnp.where(by_factor_season, now, 1.0)
        slope = grown + beta * of_level / jnp.where(by_factor_trend, level, 1.0)
        slope = jnp.where(by_factor_trend, jnp.clip(slope, 1 / steepest, steepest), slope)
        level = jnp.clip(base + alpha * of_level, least, _LIMIT)
        now = now + gamma * error / jnp.where(by_factor_season, base, 1.0)
        now = jnp.where(by_factor_season, jnp.clip(now, 0.05, 20.0), now)
        new = level, jnp.clip(slope, -_LIMIT, _LIMIT), jnp.where(at & seasonal, now, seasons)
        # Nothing moves before the series begins.
        return jax.tree.map(lambda n, o: jnp.where(inside, n, o), new, old), mean + error

    inside = jnp.arange(length) >= length - calendar.used
    inputs = shocks, jnp.mod(calendar.time, steps), inside
    _, values = jax.lax.scan(step, (first_level, first_slope, pattern), inputs)
    return jnp.clip(values, -_LIMIT, _LIMIT) * draws.log_normal(30.0, 1.5)
