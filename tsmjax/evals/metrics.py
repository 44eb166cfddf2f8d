"""Forecast metrics as pure NumPy functions, with the definitions of GluonTS.

Metrics are built from sums that may be added over batches and hosts; the last division happens
once. A missing label (NaN) enters no sum; a forecast that is NaN where a label exists makes the
score NaN, so that a broken model can never look good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tsmjax.errors import InputError, closest

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # the levels that benchmarks score

# Steps of one season for each base frequency, as GluonTS counts them: daily and weekly data have
# none. Pandas renamed many of its aliases; both spellings are here.
_SEASONS = {
    **dict.fromkeys(("s", "S"), 3600),
    **dict.fromkeys(("min", "T"), 1440),
    **dict.fromkeys(("h", "H"), 24),
    **dict.fromkeys(("D", "W", "A", "AS", "Y", "YE", "YS"), 1),
    "B": 5,
    **dict.fromkeys(("M", "ME", "MS"), 12),
    **dict.fromkeys(("Q", "QE", "QS"), 4),
}


def season_length(freq: str) -> int:
    """Return the steps of one season of a pandas frequency such as ``"15min"`` or ``"QS-OCT"``.

    A multiple k of a base frequency has 1/k of its steps, or 1 when k does not divide them.

    Raises:
      InputError: when the frequency is unknown.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Z]+)?", freq.strip())
    if not match or match[2] not in _SEASONS or match[1] == "0":
        raise InputError(
            f"The frequency {freq!r} is not known{closest(freq, _SEASONS)}; "
            "give season_length, the steps of one season, instead."
        )
    steps, rest = divmod(_SEASONS[match[2]], int(match[1] or 1))
    return 1 if rest else steps


def quantile_loss_sums(
    labels: np.ndarray, forecasts: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """Sum 2·|(y − ŷ_q)·(1[ŷ_q ≥ y] − q)| over the observed labels, for each level q.

    Args:
      labels: (..., H), NaN = missing.
      forecasts: (..., Q, H), one row a level.
      levels: the Q levels, in (0, 1).

    Returns:
      (Q,) float64.
    """
    y = np.asarray(labels, np.float64)[..., None, :]
    forecasts = np.asarray(forecasts, np.float64)
    q = np.asarray(levels, np.float64)[:, None]
    loss = 2 * np.abs((y - forecasts) * ((forecasts >= y) - q))
    loss = np.where(np.isnan(y), 0.0, loss)
    return loss.sum(axis=(*range(loss.ndim - 2), -1))


def absolute_label_sum(labels: np.ndarray) -> float:
    """Sum |y| over the observed labels."""
    return float(np.nansum(np.abs(np.asarray(labels, np.float64))))


def weighted_quantile_loss(loss_sums: np.ndarray, label_sum: float) -> float:
    """WQL: the mean over levels of the quantile-loss sum over the sum of |labels|.

    NaN when all labels are zero or missing.
    """
    return float(np.mean(loss_sums) / label_sum) if label_sum > 0 else float("nan")


def seasonal_error(past: np.ndarray, season: int) -> float:
    """Mean |y_t − y_{t−m}| over the pairs of `past` (length,) where both values are observed.

    A season longer than the series counts as 1. NaN when there is no such pair.
    """
    past = np.asarray(past, np.float64)
    season = 1 if season > len(past) else season
    differences = np.abs(past[season:] - past[: len(past) - season])
    differences = differences[~np.isnan(differences)]
    return float(differences.mean()) if len(differences) else float("nan")


def scaled_error_sum(
    labels: np.ndarray, forecasts: np.ndarray, scales: np.ndarray
) -> tuple[float, int]:
    """Sum |y − ŷ| / seasonal error over observed labels, and count the terms.

    Args:
      labels: (N, H), NaN = missing.
      forecasts: (N, H) point forecasts (the median).
      scales: (N,) seasonal errors; rows where it is zero or NaN are left out.
    """
    labels, forecasts = np.asarray(labels, np.float64), np.asarray(forecasts, np.float64)
    scales = np.asarray(scales, np.float64)[:, None]
    usable = ~np.isnan(labels) & (scales > 0)
    errors = np.abs(labels - forecasts) / np.where(scales > 0, scales, 1.0)
    return float(np.where(usable, errors, 0.0).sum()), int(usable.sum())


def mean_absolute_scaled_error(error_sum: float, count: float) -> float:
    """MASE: the mean over (series, step) cells; NaN when no cell has a scale."""
    return float(error_sum / count) if count else float("nan")


def geometric_mean(scores: Sequence[float], baselines: Sequence[float]) -> float:
    """Geometric mean of score / baseline over data sets.

    Data sets whose baseline is zero or undefined are left out; NaN when none is left, or when a
    remaining score is NaN.
    """
    scores, baselines = np.asarray(scores, np.float64), np.asarray(baselines, np.float64)
    usable = np.isfinite(baselines) & (baselines > 0)
    if not usable.any():
        return float("nan")
    with np.errstate(divide="ignore"):  # a perfect score gives log 0, and the mean is 0
        return float(np.exp(np.mean(np.log(scores[usable] / baselines[usable]))))


def interpolate(levels: Sequence[float], values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Read quantiles at the `wanted` levels off those at `levels`.

    A level that exists is copied (compared with a tolerance: 0.1 in float32 is 0.1), one between
    two neighbours is interpolated linearly, one beyond the outermost takes the outermost.

    Args:
      levels: (Q,) ascending levels.
      values: (..., Q, H) quantiles.
      wanted: (q,) levels to return.

    Returns:
      (..., q, H) in the type of `values`.
    """
    known = np.asarray(levels, np.float64)
    rows = []
    for level in wanted:
        nearest = int(np.argmin(np.abs(known - level)))
        above = int(np.searchsorted(known, level))
        if abs(known[nearest] - level) < 1e-6 or above in (0, len(known)):
            rows.append(values[..., nearest, :])
            continue
        share = (level - known[above - 1]) / (known[above] - known[above - 1])
        low, high = values[..., above - 1, :], values[..., above, :]
        rows.append((low * (1 - share) + high * share).astype(values.dtype))
    return np.stack(rows, axis=-2)


def seasonal_naive(past: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Repeat the last season of `past` (length,) over `horizon` steps.

    Missing values are filled with the last value before them, leading ones with the first one
    after them, and a series without any value with zero. A season longer than the series counts
    as 1.

    Returns:
      (horizon,) float64.
    """
    past = np.asarray(past, np.float64)
    season = 1 if season > len(past) else season
    observed = np.flatnonzero(~np.isnan(past))
    if not len(observed):
        return np.zeros(horizon)
    last = np.searchsorted(observed, np.arange(len(past) - season, len(past)), side="right") - 1
    return np.resize(past[observed[np.maximum(last, 0)]], horizon)
