"""Scores of forecasts by horizon, and of the alarms in them."""

import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import metrics, scores


def test_each_horizon_is_scored_by_itself():
    truth = np.array([[100.0, 200.0, 50.0], [150.0, 120.0, np.nan]])
    forecast = np.array([[110.0, 150.0, 90.0], [150.0, 130.0, 100.0]])
    found = scores.forecast_scores(truth, forecast, 15, (15, 45), diabetes=2)
    assert set(found) == {"15", "45"}
    first, last = found["15"], found["45"]
    assert first["rmse"] == pytest.approx(np.sqrt(50)) and first["mae"] == pytest.approx(5)
    assert first["rmse_mmol"] == pytest.approx(np.sqrt(50) / 18.018)
    assert first["mard"] == pytest.approx(5) and first["bias"] == pytest.approx(5)
    assert (first["clarke_A"], first["parkes_A"]) == (1, 1)
    assert last["mae"] == 40 and last["clarke_D"] == 1 and last["parkes_B"] == 1
    zone = metrics.parkes_zones(np.array(50.0), np.array(90.0), 2)
    assert metrics.ZONES[int(zone)] == "B"
    for minutes in (20, 60, 0):
        with pytest.raises(InputError, match=f"{minutes} minutes is no horizon"):
            scores.forecast_scores(truth, forecast, 15, (minutes,))


def test_alarms_of_items_of_different_lengths_add_up():
    rng = np.random.default_rng(0)
    series = [75 + 12 * np.sin(np.arange(n) / 6) + rng.normal(0, 2, n) for n in (200, 90, 140)]
    past, horizon = 20, 12
    items, cuts, forecast = [], [], []
    for item in (0, 2):  # of item 1 there are no forecasts
        for cut in range(past, len(series[item]) - horizon + 1):
            items.append(item), cuts.append(cut)
            forecast.append(series[item][cut : cut + horizon] + rng.normal(0, 4, horizon))
    items, cuts, forecast = map(np.asarray, (items, cuts, forecast))
    found = scores.alarm_scores(series, items, cuts, forecast, 5, window=60)

    totals = np.zeros(3)
    for item in (0, 2):
        alarms = np.zeros(len(series[item]), bool)
        alarms[cuts[items == item] - 1] = metrics.low_alarms(forecast[items == item], 5)
        one = metrics.event_scores(series[item][past - 1 :], alarms[past - 1 :], 60, 5)
        foreseen = one["recall"] * one["events"]
        totals += one["events"], foreseen, foreseen * one["lead_minutes"]
    assert found["events"] == totals[0] > 4
    assert found["recall"] == pytest.approx(totals[1] / totals[0]) and found["recall"] > 0.5
    assert found["lead_minutes"] == pytest.approx(totals[2] / totals[1])
    # A shorter window sees less of the forecast.
    assert scores.alarm_scores(series, items, cuts, forecast, 5, window=15)["alarms"] > 0
