"""Baselines against closed forms, and an LSTM against its equations in NumPy."""

import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import baselines


@pytest.fixture
def context():
    return np.random.default_rng(0).normal(150, 40, (20, 12)).astype(np.float32)


def test_persistence_repeats_the_last_reading(context):
    found = baselines.persistence(context, 4)
    assert found.shape == (20, 4)
    assert (found == context[:, -1:]).all()


def test_seasonal_naive_repeats_the_day_before_or_the_last_reading(context):
    context[3, :5] = np.nan
    found = baselines.seasonal_naive(context, 4, season=9)
    np.testing.assert_array_equal(found[0], context[0, 3:7])
    np.testing.assert_array_equal(found[3], [context[3, -1]] * 2 + context[3, 5:7].tolist())
    for season in (3, 13):
        with pytest.raises(InputError, match=f"season is {season} steps"):
            baselines.seasonal_naive(context, 4, season)


def test_least_squares_find_the_coefficients_that_made_the_labels(context):
    weights = np.random.default_rng(1).normal(size=(6, 3))
    target = context[:, -5:] @ weights[:-1] + weights[-1]
    context[2, -1], target[4, 1] = np.nan, np.nan  # left out
    found = baselines.fit_linear(context, target, 5)
    np.testing.assert_allclose(found, weights, atol=1e-3)
    np.testing.assert_allclose(baselines.linear(found, context)[0], target[0], atol=1e-3)
    with pytest.raises(InputError, match="4 complete windows are too few to fit 6"):
        baselines.fit_linear(context[:6], target[:6], 5)


def test_an_autoregression_of_order_one_decays_to_its_mean(context):
    slope, constant = 0.8, 30.0
    found = baselines.autoregression(np.array([[slope], [constant]]), context, 6)
    steps = np.arange(1, 7)
    expected = slope**steps * context[:, -1:] + constant * (1 - slope**steps) / (1 - slope)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_later_step_sees_the_forecasts_of_the_ones_before():
    rng = np.random.default_rng(2)
    a, b, c = 1.6, -0.7, 12.0
    steps = rng.normal(120, 20, (30, 2))
    for _ in range(10):
        following = b * steps[:, -2:-1] + a * steps[:, -1:] + c
        steps = np.concatenate([steps, following], axis=1)
    coefficients = baselines.fit_linear(steps[:, :2], steps[:, 2:3], 2)
    np.testing.assert_allclose(coefficients[:, 0], [b, a, c], rtol=1e-6)
    found = baselines.autoregression(coefficients, steps[:, :2], 10)
    np.testing.assert_allclose(found, steps[:, 2:], rtol=1e-6)


def test_the_lstm_follows_its_equations(context):
    rng = np.random.default_rng(3)
    shapes = {"input": (1, 12), "recurrent": (3, 12), "bias": (12,), "head": (3, 2), "offset": (2,)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    context[1, 8] = np.nan  # the mean
    model = baselines.Lstm(params, 6, 150.0, 40.0)
    found = baselines.lstm(model, context)

    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    x = np.nan_to_num((context[:, -6:] - 150.0) / 40.0)
    h = cell = np.zeros((20, 3))
    for reading in x.T:
        gates = reading[:, None] @ params["input"] + h @ params["recurrent"] + params["bias"]
        enter, keep, leave, new = np.split(gates, 4, axis=1)
        cell = sigmoid(keep) * cell + sigmoid(enter) * np.tanh(new)
        h = sigmoid(leave) * np.tanh(cell)
    expected = context[:, -1:] + 40.0 * (h @ params["head"] + params["offset"])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_lstm_learns_a_wave_and_goes_on_from_a_fitted_one():
    rng = np.random.default_rng(4)
    phase = rng.uniform(0, 2 * np.pi, (256, 1))
    wave = 140 + 50 * np.sin(phase + 2 * np.pi * np.arange(14) / 12)
    past, label = wave[:, :10], wave[:, 10:]
    data = past[:200], label[:200], (past[200:], label[200:])
    fitted = baselines.fit_lstm(*data, history=8, steps=100, hidden=8, learning_rate=2e-2)
    error = lambda forecast: np.sqrt(np.mean((forecast - label[200:]) ** 2))  # noqa: E731
    first = error(baselines.lstm(fitted, past[200:]))
    assert first < 0.5 * error(baselines.persistence(past[200:], 4))
    again = baselines.fit_lstm(*data, history=3, steps=10, start=fitted)
    assert again[1:] == fitted[1:]  # its own history and scales
    assert error(baselines.lstm(again, past[200:])) < 1.2 * first
