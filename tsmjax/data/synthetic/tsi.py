"""TSI: series composed of a trend, seasons and an irregular part, as data of real calendars are.

The decomposition is that of Bahrpeyma et al., "A methodology for validating diversity in synthetic
time series generation" (2021); Ansari et al., "Chronos-2: From Univariate to Universal
Forecasting" (2025), section 4, generate training series from such components. Additive and
multiplicative composition, damped trends and local levels follow Hyndman et al., "Forecasting with
Exponential Smoothing" (2008), chapter 2; seasons of several periods with harmonics follow Taylor
and Letham, "Forecasting at Scale" (2018), section 3.2. Sizes and shares are our own.

Series number i is a function of the seed and i alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

DEFAULTS = {"series": 20_000, "min_length": 32, "max_length": 1024, "missing": 0, "seed": 0}
VERSION = 2  # of the series; to be raised when the same parameters make others
BLOCK = 2500  # series that one worker process makes at a time
_MEMORY = 200  # steps after which an autoregressive shock counts as forgotten


class Frequency(NamedTuple):
    """What series of one sampling frequency look like.

    Attributes:
      share: how often it is drawn.
      shortest: least length.
      longest: greatest length.
      periods: steps of its seasons, shortest first; empty when there is none.
      trend: median size of its trend beside its seasons; hourly series have little.
      walks: how often it is a random walk, as prices are.
    """

    share: float
    shortest: int
    longest: int
    periods: tuple[float, ...]
    trend: float
    walks: float


FREQUENCIES = {
    "quarter_hour": Frequency(0.02, 256, 1024, (96, 672), 0.15, 0.03),
    "half_hour": Frequency(0.06, 192, 1024, (48, 336), 0.15, 0.03),
    "hour": Frequency(0.24, 96, 1024, (24, 168), 0.15, 0.03),
    "day": Frequency(0.20, 64, 1024, (7, 365.25), 0.4, 0.06),
    "business_day": Frequency(0.06, 64, 1024, (5, 261), 0.4, 0.6),
    "week": Frequency(0.03, 64, 600, (52.18,), 0.6, 0.1),
    "month": Frequency(0.21, 40, 420, (12,), 0.7, 0.06),
    "quarter": Frequency(0.09, 32, 200, (4,), 0.7, 0.06),
    "year": Frequency(0.04, 32, 160, (), 0.8, 0.2),
    "other": Frequency(0.05, 64, 1024, (0,), 0.6, 0.06),  # 0: any period
}
_NAMES = tuple(FREQUENCIES)
_SHARES = np.cumsum([frequency.share for frequency in FREQUENCIES.values()])


def count(series: int, **_: int) -> int:
    """Return the number of rows that `rows` can make."""
    return series


def rows(
    first: int, last: int, series: int, min_length: int, max_length: int, missing: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1 of the data set."""
    for index in range(first, last):
        target = sample(seed, index, min_length, max_length, missing)
        yield {"item_id": f"tsi/{index}", "target": target}


def sample(
    seed: int, index: int, min_length: int = 32, max_length: int = 1024, missing: int = 0
) -> np.ndarray:
    """Return series number `index`, float32 of shape (length,); a function of the arguments.

    Args:
      seed: seed of the data set.
      index: number of the series.
      min_length: least length.
      max_length: greatest length; lengths are log-uniform in what their frequency allows.
      missing: per cent of the series that miss some of their values (NaN).
    """
    random = np.random.default_rng([seed, index])
    frequency = FREQUENCIES[_NAMES[np.searchsorted(_SHARES, random.random() * _SHARES[-1])]]
    low, high = np.clip((frequency.shortest, frequency.longest), min_length, max_length)
    length = round(float(np.exp(random.uniform(np.log(low), np.log(high)))))

    values = compose(random, length, frequency)
    if random.random() < missing / 100:
        values[gaps(random, length)] = np.nan
    return values.astype(np.float32)


def compose(random: np.random.Generator, length: int, frequency: Frequency) -> np.ndarray:
    """Return a series with all components, float64 of shape (length,), all finite."""
    if random.random() < frequency.walks:
        return walk(random, length)
    season = seasons(random, length, frequency.periods)
    # Strength of each component in units of the seasons'. Most real series follow one of them.
    signal = season + _strength(random, frequency.trend, 1.2) * trend(random, length)
    if random.random() < 0.25:
        signal += _strength(random, 0.05, 1.0) * np.cumsum(random.standard_normal(length))
    signal += _strength(random, 0.2, 1.2) * noise(random, length)
    if random.random() < 0.08:
        signal += level_shifts(random, length)

    kind = random.random()
    if kind < 0.45:  # additive, far from zero or around it
        values = signal + random.normal(0, 6)
    else:  # multiplicative: components are factors
        spread = max(float(signal.std()), 1e-9)
        swing = _strength(random, 0.25, 0.7)
        logarithm = signal * min(swing, 1.5 / spread)
        values = np.exp(np.clip(logarithm - logarithm.mean(), -20, 20))
        if kind > 0.85:
            return counts(random, values)
    if random.random() < 0.12:
        values = outliers(random, values)
    if random.random() < 0.05:  # demand, rain, solar power: never below some floor
        values = np.maximum(values, np.quantile(values, random.uniform(0, 0.5)))
    if random.random() < 0.08:  # coarse readings
        step = max(float(values.std()), 1e-9) * random.uniform(0.02, 0.5)
        values = np.round(values / step) * step
    return values * _strength(random, 30.0, 2.0)


def trend(random: np.random.Generator, length: int) -> np.ndarray:
    """Return a trend, of about unit size over the whole series; a fifth of them flat."""
    time = np.linspace(0, 1, length)
    direction = random.choice((-1.0, 1.0), p=(0.4, 0.6))
    kind = random.random()
    if kind < 0.2:
        return np.zeros(length)
    if kind < 0.45:
        curve = time
    elif kind < 0.7:  # slopes that change at a few times
        breaks = random.random(random.integers(1, 5))
        slopes = random.standard_normal(len(breaks))
        curve = random.normal() * time + np.maximum(time[:, None] - breaks, 0) @ slopes
    elif kind < 0.8:
        rate = random.uniform(0.5, 3)
        curve = np.expm1(rate * time) / np.expm1(rate)
    elif kind < 0.9:  # damped
        rate = random.uniform(1, 8)
        curve = -np.expm1(-rate * time)
    else:  # saturating growth
        curve = 1 / (1 + np.exp(-random.uniform(4, 20) * (time - random.random())))
    return direction * 3 * curve


def seasons(random: np.random.Generator, length: int, periods: tuple[float, ...]) -> np.ndarray:
    """Return the sum of the seasons, about unit standard deviation; zero in a tenth of cases."""
    total = np.zeros(length)
    if not periods or random.random() < 0.1:
        return total
    time = np.arange(length) + random.integers(0, 2**20)
    periods = tuple(period or _any_period(random, length) for period in periods)
    first = season(random, time, periods[0])
    kept = random.random() < 0.9 or len(periods) == 1
    total += first * kept
    for period in periods[1:]:
        if random.random() < 0.65 or not kept:
            if period == 7 * periods[0]:  # a week of days: one level a day, often a weekend
                level = weekdays(random)[(time // periods[0]).astype(int) % 7]
                if kept and random.random() < 0.5:
                    total *= np.exp(_strength(random, 0.3, 0.5) * level)
                else:
                    total += _strength(random, 0.5, 0.6) * level
            else:
                total += _strength(random, 0.7, 0.7) * season(random, time, period)
    if random.random() < 0.2:  # seasons that grow or fade
        total *= np.exp(random.normal(0, 0.7) * np.linspace(-1, 1, length))
    return total


def season(random: np.random.Generator, time: np.ndarray, period: float) -> np.ndarray:
    """Return one season at integer `time`, of random shape, mean 0 and deviation 1 in a period."""
    kind, seed = random.random(), random.integers(2**32)
    grid = np.arange(round(period)) / period if period < 64 else np.arange(256) / 256
    shapes = np.random.default_rng(seed)
    if period == 7 and kind < 0.7:
        levels = weekdays(shapes)

        def shape(phase: np.ndarray) -> np.ndarray:
            return levels[(phase * 7 + 1e-6).astype(int) % 7]

    elif kind < 0.5:
        highest = max(1, min(10, int(period / 2)))
        harmonics = np.arange(1, 1 + shapes.integers(1, highest + 1))
        waves = shapes.standard_normal((2, len(harmonics))) * harmonics ** -shapes.uniform(0.3, 2)

        def shape(phase: np.ndarray) -> np.ndarray:
            angle = 2 * np.pi * phase[:, None] * harmonics
            return np.cos(angle) @ waves[0] + np.sin(angle) @ waves[1]

    elif kind < 0.75:  # a level for each step of the period, or for each of at most 31 parts
        levels = shapes.standard_normal(min(max(round(period), 2), 31))
        if shapes.random() < 0.4:
            levels = np.cumsum(levels - levels.mean())

        def shape(phase: np.ndarray) -> np.ndarray:
            return levels[(phase * len(levels) + 1e-6).astype(int) % len(levels)]

    elif kind < 0.9:  # one to three peaks: rush hours, holidays, harvests
        centres = shapes.random(shapes.integers(1, 4))
        heights = shapes.normal(1, 0.5, len(centres))
        narrow = 1 / (0.5 / period + shapes.uniform(0.005, 0.12, len(centres)))

        def shape(phase: np.ndarray) -> np.ndarray:
            distance = np.abs((phase[:, None] - centres + 0.5) % 1 - 0.5)
            return np.exp(-0.5 * (distance * narrow) ** 2) @ heights

    else:  # days and nights: a sharpened or a cut sine
        power, cut = shapes.uniform(0.5, 4), shapes.random() < 0.5
        delay = shapes.random()

        def shape(phase: np.ndarray) -> np.ndarray:
            wave = np.sin(2 * np.pi * (phase - delay))
            return np.maximum(wave, 0) ** power if cut else np.exp(power * wave)

    period_values = shape(grid)
    spread = period_values.std()
    if spread < 1e-6:
        return np.zeros(len(time))
    return (shape(time % period / period) - period_values.mean()) / spread


def weekdays(random: np.random.Generator) -> np.ndarray:
    """Return a level for each day of a week, (7,), mean 0: often the weekend differs."""
    levels = random.standard_normal(7) * random.uniform(0.1, 1)
    if random.random() < 0.6:
        start = random.integers(7)
        levels[[start, (start + 1) % 7]] += random.choice((-2.0, 2.0), p=(0.7, 0.3))
    return levels - levels.mean()


def noise(random: np.random.Generator, length: int) -> np.ndarray:
    """Return a stationary irregular part of unit size: white, heavy-tailed, autoregressive."""
    shocks = random.standard_normal(length + _MEMORY)
    if random.random() < 0.2:
        shocks *= np.sqrt(3 / random.chisquare(4, length + _MEMORY))
    kind = random.random()
    response = np.ones(1)
    lags = np.arange(_MEMORY)
    if kind < 0.4:  # first order; the moving-average form, cut off
        response = random.uniform(-0.4, 0.98) ** lags
    elif kind < 0.5:  # second order with complex roots: a cycle that loses its phase
        angle = 2 * np.pi / np.exp(random.uniform(np.log(4), np.log(100)))
        response = random.uniform(0.8, 0.98) ** lags * np.cos(angle * lags)
    response = response / np.sqrt(response @ response)
    values = np.convolve(shocks, response)[_MEMORY : _MEMORY + length]
    if random.random() < 0.15:  # changing variance
        wander = np.cumsum(random.standard_normal(length)) * _strength(random, 0.05, 0.7)
        values = values * np.exp(np.clip(wander - wander.mean(), -3, 2))
    return values


def walk(random: np.random.Generator, length: int) -> np.ndarray:
    """Return a random walk, perhaps of prices: with drift, or changing or fat-tailed moves."""
    moves = noise(random, length) if random.random() < 0.4 else random.standard_normal(length)
    if random.random() < 0.3:
        moves = moves + random.normal(0, 0.15)
    path = np.cumsum(moves)
    if random.random() < 0.25:
        path = np.cumsum(0.05 * path) + _strength(random, 0.5, 1.0) * path
    if random.random() < 0.5:
        return path + random.normal(0, 30)
    return np.exp(np.clip(path / max(1.0, np.abs(path).max()) * random.uniform(0.02, 2), -20, 20))


def counts(random: np.random.Generator, rate: np.ndarray) -> np.ndarray:
    """Return counts with a mean that follows `rate`: frequent or rare, perhaps with idle steps."""
    level = np.exp(random.uniform(np.log(0.3), np.log(400)))
    expected = level * rate / rate.mean()
    if random.random() < 0.4:  # more variance than the Poisson distribution has
        shape = np.exp(random.uniform(0, 4))
        expected = expected * random.gamma(shape, 1 / shape, len(rate))
    if level < 20 and random.random() < 0.3:
        expected = expected * (random.random(len(rate)) < random.uniform(0.2, 0.8))
    return random.poisson(np.minimum(expected, 1e9)).astype(np.float64)


def level_shifts(random: np.random.Generator, length: int) -> np.ndarray:
    """Return one to three sudden changes of level that stay."""
    shifts = np.zeros(length)
    for at in random.integers(0, length, random.integers(1, 4)):
        shifts[at:] += random.normal(0, 1.5)
    return shifts


def outliers(random: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """Return `values` with a few spikes of either sign."""
    hit = random.random(len(values)) < random.uniform(0.002, 0.03)
    size = random.normal(0, 4, len(values)) * max(float(values.std()), 1e-9)
    return np.where(hit, values + (np.abs(size) if random.random() < 0.5 else size), values)


def gaps(random: np.random.Generator, length: int) -> np.ndarray:
    """Return a mask of what is missing: single steps, or a few runs; never the whole series."""
    if random.random() < 0.6:
        return random.random(length) < random.uniform(0.01, 0.2)
    mask = np.zeros(length, bool)
    for start in random.integers(0, length, random.integers(1, 5)):
        mask[start : start + random.integers(1, max(2, length // 8))] = True
    return mask


def _strength(random: np.random.Generator, median: float, spread: float) -> float:
    """Return a log-normal draw."""
    return float(median * np.exp(spread * random.standard_normal()))


def _any_period(random: np.random.Generator, length: int) -> int:
    """Return a whole period from 2 to a third of the series."""
    return round(float(np.exp(random.uniform(np.log(2), np.log(max(3, length / 3))))))
