"""Scores of glucose forecasts as papers of this field report them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsmjax.errors import InputError
from tsmjax.glucose import metrics


def forecast_scores(
    truth: np.ndarray,
    forecast: np.ndarray,
    every: int,
    minutes: Sequence[int] = (30, 60, 90, 120),
    diabetes: int = 1,
) -> dict[str, dict[str, float]]:
    """Score forecasts at single horizons.

    Args:
      truth: (N, H) mg/dL, NaN = missing.
      forecast: (N, H) mg/dL.
      every: minutes between two steps.
      minutes: horizons to report.
      diabetes: type, 1 or 2, of the Parkes grid.

    Returns:
      By horizon, as "60": rmse, mae and bias in mg/dL, rmse_mmol and mae_mmol in mmol/L, mard in
      percent, and the shares of the zones of both error grids, as clarke_A and parkes_B.

    Raises:
      InputError: when a horizon is no step of the forecast.
    """
    if wrong := [
        one for one in minutes if one % every or not every <= one <= truth.shape[1] * every
    ]:
        raise InputError(
            f"{wrong[0]} minutes is no horizon of a forecast of {truth.shape[1]} steps of {every} "
            "minutes."
        )
    steps = [one // every for one in minutes]
    found = metrics.error_scores(metrics.error_sums(truth, forecast), steps)
    scores = {}
    for place, (one, step) in enumerate(zip(minutes, steps, strict=True)):
        pair = truth[:, step - 1], forecast[:, step - 1]
        at = {name: float(found[name][place]) for name in ("rmse", "mae", "bias", "mard")}
        at |= {f"{name}_mmol": float(metrics.to_mmol(at[name])) for name in ("rmse", "mae")}
        grids = {
            "clarke": metrics.clarke_zones(*pair),
            "parkes": metrics.parkes_zones(*pair, diabetes),
        }
        for grid, zones in grids.items():
            shares = metrics.zone_shares(zones)
            at |= {f"{grid}_{zone}": float(share) for zone, share in shares.items()}
        scores[str(one)] = at
    return scores


def alarm_scores(
    series: Sequence[np.ndarray],
    items: np.ndarray,
    cuts: np.ndarray,
    forecast: np.ndarray,
    every: int,
    window: int = 60,
) -> dict[str, float]:
    """Score forecasts as alarms of hypoglycaemia, raised at their last known reading.

    Args:
      series: of each item (length,) mg/dL.
      items: (N,) number of the item that each forecast is of.
      cuts: (N,) readings of the item before the forecast; one forecast for each reading.
      forecast: (N, H) mg/dL.
      every: minutes between two readings.
      window: minutes of the forecast that count.

    Returns:
      As `metrics.event_scores` does, over the readings from the first forecast of each item on.
    """
    alarms = metrics.low_alarms(forecast[:, : window // every], every)
    chosen = np.unique(items)
    longest = max(len(series[item]) for item in chosen)
    glucose = np.full((len(chosen), longest), np.nan)
    raised = np.zeros((len(chosen), longest), bool)
    for row, item in enumerate(chosen.tolist()):
        last = cuts[items == item] - 1
        raised[row, last] = alarms[items == item]
        values = series[item][last.min() :]
        # Each item begins at its first forecast.
        glucose[row, : len(values)] = values
        raised[row] = np.roll(raised[row], -last.min())
    return metrics.event_scores(glucose, raised, window, every)
