"""Metrics of glucose forecasts and glucose control; all glucose in mg/dL.

Functions take NumPy arrays or JAX arrays and answer in kind; those that say nothing else run under
`jax.jit` and `jax.vmap`. A missing value (NaN) in the truth enters no score; a forecast that is NaN
where a truth exists makes the score NaN. Sources are named at each function.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError

MG_DL_PER_MMOL_L = 18.018  # molar mass of glucose, 180.18 g/mol, over 10
LOW, VERY_LOW, HIGH, VERY_HIGH = 70.0, 54.0, 180.0, 250.0  # mg/dL
EVENT_MINUTES = 15  # of low glucose that make an event, and of recovery that end it
ZONES = "ABCDE"

# Corners of the consensus error grid, (reference, predicted) in mg/dL: Parkes et al., "A new
# consensus error grid to evaluate the clinical significance of inaccuracies in the measurement of
# blood glucose" (Diabetes Care 2000), as tabulated by Pfützner et al. (J. Diabetes Sci. Technol.
# 2013). By type of diabetes; lines between A/B, B/C, C/D and D/E above the diagonal, then below.
PARKES_LINES = {
    1: (
        (
            ((0, 50), (30, 50), (140, 170), (280, 380), (430, 550)),
            ((0, 60), (30, 60), (50, 80), (70, 110), (260, 550)),
            ((0, 100), (25, 100), (50, 125), (80, 215), (125, 550)),
            ((0, 150), (35, 155), (50, 550)),
        ),
        (
            ((50, 0), (50, 30), (170, 145), (385, 300), (550, 450)),
            ((120, 0), (120, 30), (260, 130), (550, 250)),
            ((250, 0), (250, 40), (550, 150)),
        ),
    ),
    2: (
        (
            ((0, 50), (30, 50), (230, 330), (440, 550)),
            ((0, 60), (30, 60), (280, 550)),
            ((0, 80), (25, 80), (35, 90), (125, 550)),
            ((0, 200), (35, 200), (50, 550)),
        ),
        (
            ((50, 0), (50, 30), (90, 80), (330, 230), (550, 450)),
            ((90, 0), (260, 130), (550, 250)),
            ((250, 0), (250, 40), (410, 110), (550, 160)),
        ),
    ),
}


def to_mmol(glucose: Any) -> Any:
    """Return mmol/L for mg/dL."""
    return glucose / MG_DL_PER_MMOL_L


def to_mg(glucose: Any) -> Any:
    """Return mg/dL for mmol/L."""
    return glucose * MG_DL_PER_MMOL_L


def error_sums(truth: Any, forecast: Any) -> dict[str, Any]:
    """Sum errors over series, step by step; sums of batches may be added.

    Args:
      truth: (..., H) mg/dL, NaN = missing.
      forecast: (..., H).

    Returns:
      (H,) sums of: squared, absolute, relative (absolute over truth) and signed error; and their
      count.
    """
    xp, truth, forecast = _arrays(truth, forecast)
    observed = ~xp.isnan(truth)
    error = xp.where(observed, forecast - xp.where(observed, truth, 0.0), 0.0)
    over = tuple(range(error.ndim - 1))
    relative = xp.abs(error) / xp.where(observed, truth, 1.0)
    terms = {"squared": error**2, "absolute": xp.abs(error), "relative": relative, "signed": error}
    return {name: term.sum(over) for name, term in terms.items()} | {"count": observed.sum(over)}


def error_scores(sums: dict[str, Any], steps: Sequence[int] | None = None) -> dict[str, Any]:
    """Turn `error_sums` into scores, over all steps together or at single steps.

    Args:
      sums: from `error_sums`.
      steps: horizons as counts of steps, 1 for the first; None for all steps as one.

    Returns:
      mse, rmse, mae and bias (forecast minus truth) in mg/dL, and mard = mape, the mean absolute
      relative difference in percent; scalars, or (len(steps),). NaN where nothing was observed.
    """
    if steps is None:
        sums = {name: value.sum() for name, value in sums.items()}
    else:
        last = len(sums["count"])
        if not all(1 <= step <= last for step in steps):
            raise InputError(f"Steps are numbers from 1 to {last}, got {list(steps)}.")
        sums = {name: value[np.asarray(steps) - 1] for name, value in sums.items()}
    xp, count = _arrays(sums["count"])
    count = xp.where(count > 0, count, np.nan)
    mse, mard = sums["squared"] / count, 100.0 * sums["relative"] / count
    return {
        "mse": mse,
        "rmse": xp.sqrt(mse),
        "mae": sums["absolute"] / count,
        "bias": sums["signed"] / count,
        "mard": mard,
        "mape": mard,
    }


def clarke_zones(reference: Any, predicted: Any) -> Any:
    """Return the zones of the Clarke error grid, 0 (A) to 4 (E); -1 where a value is missing.

    Clarke et al., "Evaluating clinical accuracy of systems for self-monitoring of blood glucose"
    (Diabetes Care 1987). The zones overlap at their edges: A goes before C, C before D, D before E
    and all before B. Of the edges, E has 70 and 180; D a prediction of 70, not of 180, and no
    reference of 70 or 240; C a reference of 130 and 180, not its slanted lines; A 20 percent, but
    not 70.
    """
    xp, x, y = _arrays(reference, predicted)
    zone = xp.where(((x <= 70) & (y >= 180)) | ((x >= 180) & (y <= 70)), 4, 1)
    zone = xp.where(((x < 70) | (x > 240)) & (y >= 70) & (y < 180), 3, zone)
    # Lines in whole numbers, so that readings on an edge are told apart in any precision.
    too_low = (x >= 130) & (x <= 180) & (5 * y < 7 * (x - 130))
    too_high = (x > 70) & (y > 180) & (y > x + 110)
    zone = xp.where(too_low | too_high, 2, zone)
    zone = xp.where((5 * xp.abs(y - x) <= x) | ((x < 70) & (y < 70)), 0, zone)
    return xp.where(xp.isnan(x) | xp.isnan(y), -1, zone)


def parkes_zones(reference: Any, predicted: Any, diabetes: int = 1) -> Any:
    """Return the zones of the consensus error grid, 0 (A) to 4 (E); -1 where a value is missing.

    The lines are `PARKES_LINES`, each prolonged beyond its last corner. A point on a line belongs
    to the better zone.

    Args:
      reference: mg/dL.
      predicted: mg/dL, of the same shape.
      diabetes: 1 or 2, the type.
    """
    if diabetes not in PARKES_LINES:
        raise InputError(f"The Parkes grid is for diabetes of type 1 or 2, not {diabetes!r}.")
    xp, x, y = _arrays(reference, predicted)
    zone = xp.zeros(x.shape, int)
    above, below = PARKES_LINES[diabetes]
    for number, line in enumerate(above, 1):
        zone = xp.where(y > _height(xp, line, x), number, zone)
    for number, line in enumerate(below, 1):
        beyond = (x > line[0][0]) & (y < _height(xp, line, x))
        zone = xp.where(beyond, xp.maximum(zone, number), zone)
    return xp.where(xp.isnan(x) | xp.isnan(y), -1, zone)


def zone_shares(zones: Any) -> dict[str, Any]:
    """Return the share of each zone, A to E, among the points that are in one."""
    xp, zones = _arrays(zones)
    count = (zones >= 0).sum()
    count = xp.where(count > 0, count, np.nan)
    return {letter: (zones == number).sum() / count for number, letter in enumerate(ZONES)}


def ranges(glucose: Any) -> dict[str, Any]:
    """Return the shares of time in the ranges of the international consensus, over the last axis.

    Battelino et al., "Clinical targets for continuous glucose monitoring data interpretation"
    (Diabetes Care 2019). 70 and 180 are in range, 54 is not very low, 250 not very high.
    """
    xp, glucose = _arrays(glucose)
    count = (~xp.isnan(glucose)).sum(-1)
    count = xp.where(count > 0, count, np.nan)
    inside = {
        "below_54": glucose < VERY_LOW,
        "54_to_70": (glucose >= VERY_LOW) & (glucose < LOW),
        "below_70": glucose < LOW,
        "in_range": (glucose >= LOW) & (glucose <= HIGH),
        "above_180": glucose > HIGH,
        "180_to_250": (glucose > HIGH) & (glucose <= VERY_HIGH),
        "above_250": glucose > VERY_HIGH,
    }
    return {name: where.sum(-1) / count for name, where in inside.items()}


def control(glucose: Any) -> dict[str, Any]:
    """Return how well glucose is controlled, over the last axis.

    Returns:
      mean and sd (of the sample, n - 1) in mg/dL; cv, their ratio in percent; gmi, the glucose
      management indicator in percent (Bergenstal et al., Diabetes Care 2018); lbgi and hbgi, the
      low and high blood glucose index (Kovatchev et al., Diabetes Care 2006), means over all
      readings.
    """
    xp, glucose = _arrays(glucose)
    mean, sd = xp.nanmean(glucose, -1), xp.nanstd(glucose, -1, ddof=1)
    risk = 1.509 * (xp.log(glucose) ** 1.084 - 5.381)
    return {
        "mean": mean,
        "sd": sd,
        "cv": 100.0 * sd / mean,
        "gmi": 3.31 + 0.02392 * mean,
        "lbgi": 10.0 * xp.nanmean(xp.minimum(risk, 0.0) ** 2, -1),
        "hbgi": 10.0 * xp.nanmean(xp.maximum(risk, 0.0) ** 2, -1),
    }


def low_events(glucose: Any, every: int = 5, threshold: float = LOW) -> np.ndarray:
    """Return where a hypoglycaemic event is going on; NumPy only.

    An event begins with the first of 15 minutes of readings below the threshold, and is over with
    the first of 15 minutes at or above it. A missing reading belongs to neither.

    Args:
      glucose: (..., T) mg/dL on a regular grid.
      every: minutes between two readings.
      threshold: mg/dL.

    Returns:
      (..., T) bool.
    """
    glucose = np.asarray(glucose, np.float64)
    needed = -(-EVENT_MINUTES // every)
    begins = _runs(glucose < threshold, needed)
    turns = np.where(begins | _runs(glucose >= threshold, needed), np.arange(glucose.shape[-1]), -1)
    last = np.maximum.accumulate(turns, axis=-1)  # the last turn up to each reading
    return (last >= 0) & np.take_along_axis(begins, np.maximum(last, 0), -1)


def low_alarms(forecasts: Any, every: int = 5, threshold: float = LOW) -> np.ndarray:
    """Return which forecasts hold 15 minutes below the threshold: (..., H) -> (...); NumPy only."""
    needed = -(-EVENT_MINUTES // every)
    return _runs(np.asarray(forecasts) < threshold, needed).any(-1)


def event_scores(
    glucose: Any,
    alarms: Any,
    window: int,
    every: int = 5,
    threshold: float = LOW,
) -> dict[str, float]:
    """Score alarms against the hypoglycaemic events that followed; NumPy only.

    An event is foreseen by an alarm up to `window` minutes before its beginning. Alarms in
    successive readings are one alarm; alarms while an event is going on count for nothing, and so
    does an event that is going on at the first reading.

    Args:
      glucose: (..., T) mg/dL on a regular grid.
      alarms: (..., T) bool: whether an alarm is raised at that reading.
      window: minutes ahead that an alarm speaks of.
      every: minutes between two readings.
      threshold: mg/dL.

    Returns:
      events and alarms (counts), recall (share of events foreseen), precision (share of alarms
      that an event follows), f1, false_alarms_per_day (of observed time) and lead_minutes (mean
      time from the first alarm in the window to the event). Shares of nothing are NaN.
    """
    glucose, alarms = np.asarray(glucose, np.float64), np.asarray(alarms, bool)
    if glucose.shape != alarms.shape:
        raise InputError(f"glucose has shape {glucose.shape}, alarms {alarms.shape}: not the same.")
    glucose, alarms = (values.reshape(-1, values.shape[-1]) for values in (glucose, alarms))
    going_on = low_events(glucose, every, threshold)
    alarms = alarms & ~going_on
    ahead, length = window // every, glucose.shape[-1]

    begins = _first_of_runs(going_on)
    begins[:, 0] = False
    row, start = np.nonzero(begins)
    next_alarm = np.where(alarms, np.arange(length), length)
    next_alarm = np.minimum.accumulate(next_alarm[..., ::-1], axis=-1)[..., ::-1]
    first = next_alarm[row, np.maximum(start - ahead, 0)]
    foreseen = first < start

    row, raised = np.nonzero(_first_of_runs(alarms))
    _, lowered = np.nonzero(_first_of_runs(alarms[..., ::-1])[..., ::-1])  # its last reading
    so_far = begins.cumsum(-1)
    until = np.minimum(lowered + ahead, length - 1)
    right = so_far[row, until] > so_far[row, raised]

    recall, precision = _share(foreseen), _share(right)
    days = (~np.isnan(glucose)).sum() * every / (24 * 60)
    both = recall + precision
    return {
        "events": len(start),
        "alarms": len(raised),
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / both if both else both,
        "false_alarms_per_day": float((~right).sum() / days) if days else float("nan"),
        "lead_minutes": float((start - first)[foreseen].mean() * every)
        if foreseen.any()
        else float("nan"),
    }


def _arrays(*values: Any) -> tuple[ModuleType, ...]:
    """Return jax.numpy or numpy, whichever the values need, and the values as its arrays."""
    xp = jnp if any(isinstance(value, jax.Array) for value in values) else np
    return xp, *(xp.asarray(value) for value in values)


def _height(xp: ModuleType, line: Sequence[tuple[int, int]], x: Any) -> Any:
    """Return the height of a polyline at x; a vertical beginning is left out."""
    corners = line[1:] if line[0][0] == line[1][0] else line
    (x0, y0), (x1, y1) = corners[-2:]
    far = 1e4
    corners = [*corners, (far, y1 + (far - x1) * (y1 - y0) / (x1 - x0))]
    return xp.interp(x, *np.array(corners, float).T)


def _runs(condition: np.ndarray, needed: int) -> np.ndarray:
    """Return where a run of at least `needed` true values lies ahead, this one the first."""
    result = condition.copy()
    for ahead in range(1, needed):
        result[..., :-ahead] &= condition[..., ahead:]
        result[..., -ahead:] = False
    return result


def _first_of_runs(condition: np.ndarray) -> np.ndarray:
    """Return where a run of true values begins."""
    first = condition.copy()
    first[..., 1:] &= ~condition[..., :-1]
    return first


def _share(condition: np.ndarray) -> float:
    return float(condition.mean()) if len(condition) else float("nan")
