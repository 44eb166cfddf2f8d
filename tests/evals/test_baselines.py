"""Forecasts without training."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.forecasting.theta import ThetaModel

from tsmjax.evals import baselines, metrics

LEVELS = metrics.LEVELS
Z90 = 1.2815515655446004


def median(method, past, season, horizon):
    return method(np.asarray(past, float), season, horizon, LEVELS)[4]


def test_naive_spreads_with_the_root_of_the_step():
    past = np.array([1.0, 3, 2, 4, 3])  # steps 2, -1, 2, -1
    got = baselines.naive(past, 1, 4, LEVELS)
    np.testing.assert_allclose(got[4], 3)
    sigma = np.sqrt(10 / 4)
    np.testing.assert_allclose(got[8], 3 + Z90 * sigma * np.sqrt([1, 2, 3, 4]))
    np.testing.assert_allclose(got[0], 6 - got[8])


def test_drift_continues_the_line():
    np.testing.assert_allclose(median(baselines.drift, [2, 9, 1, 8], 1, 3), [10, 12, 14])
    straight = baselines.drift(np.arange(10.0), 1, 2, LEVELS)
    np.testing.assert_allclose(straight, np.broadcast_to([10.0, 11.0], (9, 2)))
    # FPP3, table 5.2: σ √(h (1 + h/(T−1))).
    past = np.array([0.0, 2, 1, 3])
    spread = baselines.drift(past, 1, 2, LEVELS)[8] - median(baselines.drift, past, 1, 2)
    sigma = np.sqrt(np.mean(np.square([1, -2, 1])))
    np.testing.assert_allclose(spread, Z90 * sigma * np.sqrt([1 * (1 + 1 / 3), 2 * (1 + 2 / 3)]))


def test_seasonal_mean_keeps_the_place_in_the_season():
    past = [1, 10, 3, 20, 5]
    np.testing.assert_allclose(median(baselines.seasonal_mean, past, 2, 3), [15, 3, 15])
    np.testing.assert_allclose(median(baselines.seasonal_mean, past, 9, 2), [7.8, 7.8])


@pytest.mark.parametrize("positive", [True, False])
def test_theta_agrees_with_statsmodels(positive):
    rng = np.random.default_rng(0)
    steps = np.arange(120)
    season = np.tile([0.7, 1.0, 1.4, 0.9], 30)
    level = 50 + 0.4 * steps + rng.normal(size=120).cumsum()
    y = level * season if positive else 10 * season + rng.normal(size=120).cumsum() - 10
    method = "multiplicative" if positive else "additive"
    index = pd.period_range("1990Q1", periods=120, freq="Q")
    theirs = ThetaModel(pd.Series(y, index), period=4, method=method).fit(use_mle=False)
    ours = median(baselines.theta, y, 4, 8)
    np.testing.assert_allclose(ours, theirs.forecast(8), rtol=0.01, atol=0.02 * np.ptp(y))


def test_theta_beats_naive_on_a_season_with_a_trend():
    y = (10 + np.arange(72)) * np.tile(np.linspace(0.5, 1.5, 12), 6)
    got = median(baselines.theta, y[:60], 12, 12)
    assert np.abs(got - y[60:]).mean() < 0.2 * np.abs(y[59] - y[60:]).mean()


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_any_past_gives_finite_ascending_quantiles(name):
    rng = np.random.default_rng(1)
    gaps = rng.normal(size=50)
    gaps[[0, 1, 20, 49]] = np.nan
    for past in (gaps, [3.0], [np.nan, 2.0], np.full(40, 5.0), np.full(6, np.nan), np.arange(2.0)):
        got = baselines.BASELINES[name](np.asarray(past, np.float32), 4, 7, LEVELS)
        assert got.shape == (9, 7) and np.isfinite(got).all()
        assert (np.diff(got, axis=0) >= -1e-9).all()


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_missing_values_are_filled_forward(name):
    method = baselines.BASELINES[name]
    gaps = np.array([np.nan, 1, 2, np.nan, 4, 3, np.nan])
    filled = np.array([1.0, 2, 2, 4, 3, 3])
    np.testing.assert_allclose(method(gaps, 1, 5, LEVELS), method(filled, 1, 5, LEVELS))
