"""Seasons: shapes of days, weeks and years, and how they change.

Harmonics follow Taylor and Letham, "Forecasting at Scale" (2018), section 3.2. Sizes and shares are
our own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, choose, cosine, standardised

_HARMONICS = 10
_LEVELS = 48


def seasonal(key: jax.Array, calendar: Calendar) -> jax.Array:
    """Return all seasons of a series together, (length,), of unit size; zero in some series."""
    draw_key, shape_key = jax.random.split(key)
    draws = Draws(draw_key, 96)
    first, second = calendar.periods
    # Two kinds of days, a short season (of a week of days, a year of months), a long one.
    periods = jnp.stack([calendar.day, calendar.day, first, second])
    smooth = jnp.asarray([False, False, False, True])
    workday, other, short, long = jax.vmap(season, in_axes=(0, None, 0, 0))(
        jax.random.split(shape_key, 4), calendar.time, periods, smooth
    )
    total = days(draws, calendar, workday, other)
    total = jnp.where(calendar.day > 0, total, short * draws.chance(0.9))
    added = long * draws.log_normal(0.5, 0.9) * draws.chance(0.6)
    # The year changes the height of a week's pattern, or adds to it.
    total = jnp.where(draws.chance(0.3), total * jnp.exp(0.5 * added), total + added)
    total = total + holidays(draws, calendar)
    # Seasons that grow, fade, or come and go.
    drift = draws.normal(0.0, 0.8) * (calendar.share - 0.5)
    cycles = draws.uniform(0.3, 3.0) * calendar.share + draws.uniform()
    wave = draws.normal(0.0, 0.4) * cosine(cycles)
    change = choose(draws.pick((0.7, 0.15, 0.15)), jnp.zeros_like(drift), drift, wave)
    return standardised(total * jnp.exp(change)) * draws.chance(0.93)


def season(
    key: jax.Array, time: jax.Array, period: jax.Array, smooth: jax.Array | bool = False
) -> jax.Array:
    """Return one season of unit size at `time`; zero where `period` is below 2.

    Args:
      key: chooses the shape.
      time: (length,) whole numbers ≥ 0.
      period: scalar, steps of a cycle.
      smooth: leave out the shapes that jump.
    """
    steps = jnp.maximum(period, 1.0)
    draws = Draws(key, 96)
    values = shape(draws, jnp.mod(time, steps) / steps, steps, smooth)
    return standardised(values) * (period >= 2)


def shape(draws: Draws, phase: jax.Array, steps: jax.Array, smooth: jax.Array | bool) -> jax.Array:
    """Return a function of the phase in [0, 1), of no particular size.

    Args:
      draws: chooses it; 89 draws are taken.
      phase: (length,).
      steps: scalar, steps of a cycle: what is finer than them is left out.
      smooth: harmonics and daylight only.
    """
    kind = jnp.where(smooth, draws.pick((0.8, 0.2)), draws.pick((0.37, 0.13, 0.2, 0.12, 0.18)))
    cos, sin = cosine(phase), cosine(phase - 0.25)

    # Harmonics, by Horner's rule in exp(2πi·phase).
    order = jnp.arange(1, _HARMONICS + 1)
    highest = jnp.minimum(draws.integer(1, _HARMONICS + 1), jnp.maximum(steps / 2, 1.0))
    size = jnp.where(order <= highest, order ** -draws.uniform(0.3, 2.0), 0.0)
    a, b = draws.normal(shape=(2, _HARMONICS)) * size
    real = imaginary = jnp.zeros_like(phase)
    for k in reversed(range(_HARMONICS)):
        real, imaginary = (
            (real + a[k]) * cos - (imaginary + b[k]) * sin,
            (real + a[k]) * sin + (imaginary + b[k]) * cos,
        )

    # Days and nights: a cut or a sharpened sine.
    wave = cosine(phase - draws.uniform())
    power = draws.log_uniform(0.5, 4.0)
    cut = jnp.maximum(wave, 1e-6) ** power
    daylight = jnp.where(draws.chance(0.5), cut, jnp.exp(power * wave))

    # A level for each step, or for each of a few parts of the cycle; sometimes a path of them.
    count = jnp.clip(jnp.round(steps), 2, _LEVELS)
    inside = jnp.arange(_LEVELS) < count
    levels = jnp.where(inside, draws.normal(shape=(_LEVELS,)), 0.0)
    path = jnp.cumsum(jnp.where(inside, levels - levels.sum() / count, 0.0))
    levels = jnp.where(draws.chance(0.4), path, levels)
    parts = levels[jnp.minimum(phase * count + 1e-3, count - 1).astype(jnp.int32)]

    # One to three peaks: rush hours, harvests, Christmas.
    centres, heights = draws.uniform(shape=(3,)), draws.normal(1.0, 0.5, shape=(3,))
    heights = heights * (jnp.arange(3) < draws.integer(1, 4))
    widths = 0.4 / steps + draws.uniform(0.005, 0.1, shape=(3,))
    distance = jnp.abs((phase[:, None] - centres + 0.5) % 1.0 - 0.5)
    peaks = jnp.exp(-0.5 * (distance / widths) ** 2) @ heights

    # On and off with edges: working hours, shops, commuters.
    plateau = jax.nn.sigmoid(draws.log_uniform(2.0, 30.0) * (wave - draws.uniform(-0.7, 0.7)))
    mixed = standardised(plateau) + standardised(peaks) * draws.uniform(0.0, 1.0)
    return choose(kind, real, daylight, parts, peaks, mixed)


def days(draws: Draws, calendar: Calendar, workday: jax.Array, other: jax.Array) -> jax.Array:
    """Return a season of days, most of them within weeks.

    The days of a week differ in level, in height and, at weekends, in shape.

    Args:
      draws: chooses the week; 26 draws are taken.
      calendar: of the series.
      workday: (length,) a day's course, repeated.
      other: (length,) another one, that free days go towards.
    """
    steps = jnp.maximum(calendar.day, 1.0)
    weekday = jnp.mod(jnp.floor(calendar.time / steps), 7)
    weekly = draws.chance(0.72)
    start, free = draws.integer(0, 7), draws.pick((0.15, 0.15, 0.7))  # none, one or two free days
    weekend = jnp.mod(jnp.arange(7) - start, 7) < free
    share = draws.uniform() * draws.chance(0.6)
    height = draws.normal(0.0, 0.2, shape=(7,)) * draws.uniform()
    height = jnp.exp(height + weekend * draws.normal(-0.5, 0.6))
    level = draws.normal(0.0, 0.3, shape=(7,)) * draws.uniform()
    level = level + weekend * draws.normal(-0.6, 0.8)
    at = jnp.arange(7) == weekday[:, None]
    free_day = jnp.sqrt(1 - share**2) * workday + share * other
    course = jnp.where((at & weekend).any(axis=1), free_day, workday)
    return jnp.where(weekly, at @ level + (at @ height) * course, workday)


def holidays(draws: Draws, calendar: Calendar) -> jax.Array:
    """Return what happens on a few days of each year, in units of the season, (length,).

    The days are the same in every year, and up to a week long. Zero where a step is longer than a
    day, and in most series. Takes 35 draws.
    """
    steps = jnp.maximum(calendar.day, 1.0)
    long = calendar.periods[1] / steps
    of_days = (calendar.day > 0) | (long > 200)
    # Series of minutes are shorter than a year: a year of 30 days gives them holidays too.
    year = jnp.where(long > 200, long, 30.0)
    today = jnp.mod(jnp.floor(calendar.time / steps), year)
    begin = jnp.floor(draws.uniform(shape=(8,)) * year)
    lasting = jnp.clip(jnp.floor(draws.log_normal(1.5, 0.7, shape=(8,))), 1, 7)
    effect = draws.normal(draws.normal(-1.5, 1.0), 1.0, shape=(8,))
    since = today[:, None] - begin
    hit = (since >= 0) & (since < lasting)
    return (hit @ effect) * (of_days & draws.chance(0.2))
