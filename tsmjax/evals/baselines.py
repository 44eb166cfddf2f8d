"""Forecasts that need no training: what a model has to beat.

Each method takes the past of one series (length,), the steps of a season, the horizon and the
quantile levels, and returns quantiles (levels, horizon) in float64. Missing values are filled with
the last one before them. Except for seasonal naive, quantiles are normal around the point forecast
with the spread of the one-step residuals, which grows with the step as in Hyndman & Athanasopoulos,
"Forecasting: Principles and Practice" (3rd ed.), section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from tsmjax.evals import metrics

Baseline = Callable[[np.ndarray, int, int, Sequence[float]], np.ndarray]

_THETA_MEMORY = 2000  # values that smoothing sees: older ones have no weight in its level
_ALPHAS = np.linspace(0.02, 0.98, 49)


def seasonal_naive(
    past: np.ndarray, season: int, horizon: int, levels: Sequence[float]
) -> np.ndarray:
    """Repeat the last season at every level: a point forecast, as in the published results."""
    point = metrics.seasonal_naive(past, season, horizon)
    return np.broadcast_to(point, (len(levels), horizon))


def naive(past: np.ndarray, season: int, horizon: int, levels: Sequence[float]) -> np.ndarray:
    """Repeat the last value; the spread grows as √h."""
    y = _filled(past)
    steps = np.arange(1, horizon + 1)
    return _normal(np.full(horizon, y[-1]), _spread(np.diff(y)) * np.sqrt(steps), levels)


def drift(past: np.ndarray, season: int, horizon: int, levels: Sequence[float]) -> np.ndarray:
    """Continue the line from the first value to the last; the spread grows as √(h(1 + h/(T−1)))."""
    y = _filled(past)
    steps, gaps = np.arange(1, horizon + 1), max(len(y) - 1, 1)
    slope = (y[-1] - y[0]) / gaps
    spread = _spread(np.diff(y) - slope) * np.sqrt(steps * (1 + steps / gaps))
    return _normal(y[-1] + slope * steps, spread, levels)


def seasonal_mean(
    past: np.ndarray, season: int, horizon: int, levels: Sequence[float]
) -> np.ndarray:
    """Mean of all past values at the same place in the season (of all values without a season)."""
    y = _filled(past)
    season = season if season <= len(y) else 1
    phase = np.arange(len(y)) % season
    means = np.bincount(phase, y) / np.bincount(phase)
    spread = _spread(y - means[phase]) * np.sqrt(1 + season / len(y))
    ahead = means[np.arange(len(y), len(y) + horizon) % season]
    return _normal(ahead, np.full(horizon, spread), levels)


def theta(past: np.ndarray, season: int, horizon: int, levels: Sequence[float]) -> np.ndarray:
    """Theta method: simple exponential smoothing with half the slope of the trend line.

    Assimakopoulos & Nikolopoulos (2000), in the form of Hyndman & Billah (2003), "Unmasking the
    Theta method"; series with a significant season are adjusted by classical multiplicative
    decomposition first (additive where values are not positive), as for the M4 competition.
    """
    y = _filled(past)[-_THETA_MEMORY:]
    factors = _season_factors(y, season)
    ratio = factors is not None and bool((y > 0).all())
    if factors is not None:
        here = np.resize(factors, len(y) + horizon)
        y = y / here[: len(y)] if ratio else y - here[: len(y)]
    steps = np.arange(horizon)
    slope = np.polyfit(np.arange(len(y)), y, 1)[0] if len(y) > 1 else 0.0
    level, alpha, errors = _smooth(y)
    point = level + slope / 2 * (steps + (1 - (1 - alpha) ** len(y)) / alpha)
    spread = _spread(errors) * np.sqrt(1 + steps * alpha**2)
    if factors is not None:
        ahead = here[len(y) :]
        point, spread = (point * ahead, spread * ahead) if ratio else (point + ahead, spread)
    return _normal(point, spread, levels)


BASELINES: dict[str, Baseline] = {
    "seasonal-naive": seasonal_naive,
    "naive": naive,
    "drift": drift,
    "seasonal-mean": seasonal_mean,
    "theta": theta,
}


def _filled(past: np.ndarray) -> np.ndarray:
    """Missing values filled as `metrics.seasonal_naive` fills them, leading ones cut off."""
    past = np.asarray(past, np.float64)
    observed = np.flatnonzero(~np.isnan(past))
    if not len(observed):
        return np.zeros(1)
    last = np.searchsorted(observed, np.arange(observed[0], len(past)), side="right") - 1
    return past[observed[last]]


def _spread(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) else 0.0


def _normal(point: np.ndarray, spread: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    scores = np.array([NormalDist().inv_cdf(level) for level in levels])
    return point + scores[:, None] * spread


def _smooth(y: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Level, smoothing weight of the least squared error, and its one-step errors (T − 1,)."""
    level = np.full(len(_ALPHAS), y[0])
    errors = np.empty((len(y) - 1, len(_ALPHAS)))
    for step, value in enumerate(y[1:]):
        errors[step] = value - level
        level = level + _ALPHAS * errors[step]
    best = int(np.argmin(np.square(errors).sum(axis=0)))
    return float(level[best]), float(_ALPHAS[best]), errors[:, best]


def _season_factors(y: np.ndarray, season: int) -> np.ndarray | None:
    """One factor (or summand) for each place in the season, or None without a clear season.

    The season is clear when the autocorrelation at its lag exceeds its 90 % limit (M4 competition).
    """
    if season < 2 or len(y) < 2 * season + 1:
        return None
    centred = y - y.mean()
    total = centred @ centred
    lags = [centred[lag:] @ centred[:-lag] for lag in range(1, season + 1)]
    if total == 0:
        return None
    correlation = np.array(lags) / total
    limit = 1.645 * np.sqrt((1 + 2 * np.square(correlation[:-1]).sum()) / len(y))
    if abs(correlation[-1]) <= limit:
        return None
    width = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    trend = np.convolve(y, width / season, mode="valid")
    first = (len(y) - len(trend)) // 2
    inner = y[first : first + len(trend)]
    ratio = bool((y > 0).all())
    parts = inner / trend if ratio else inner - trend
    phase = np.arange(first, first + len(trend)) % season
    factors = np.bincount(phase, parts, season) / np.bincount(phase, minlength=season)
    return factors / factors.mean() if ratio else factors - factors.mean()
