import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmjax.errors import InputError
from tsmjax.evals import metrics

LEVELS = metrics.LEVELS


def gluonts_scores(pasts, labels, forecasts, season):
    """(WQL, MASE) of GluonTS for forecasts of shape (N, levels, H)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a faster json library
        from gluonts.dataset.split import split
        from gluonts.ev.metrics import MASE, MeanWeightedSumQuantileLoss
        from gluonts.model.evaluation import evaluate_forecasts
        from gluonts.model.forecast import QuantileForecast
    horizon = labels.shape[1]
    start = pd.Period("2000-01-01", "D")
    entries = [
        {"item_id": str(i), "start": start, "target": np.concatenate([past, label])}
        for i, (past, label) in enumerate(zip(pasts, labels, strict=True))
    ]
    test_data = split(entries, offset=-horizon)[1].generate_instances(horizon)
    answers = [
        QuantileForecast(row, start + len(past), list(map(str, LEVELS)), str(i))
        for i, (row, past) in enumerate(zip(forecasts, pasts, strict=True))
    ]
    table = evaluate_forecasts(
        answers,
        test_data=test_data,
        metrics=[MeanWeightedSumQuantileLoss(LEVELS), MASE()],
        seasonality=season,
    )
    return table["mean_weighted_sum_quantile_loss"].item(), table["MASE[0.5]"].item()


def our_scores(pasts, labels, forecasts, season):
    loss = metrics.quantile_loss_sums(labels, forecasts, LEVELS)
    scales = [metrics.seasonal_error(past, season) for past in pasts]
    error, count = metrics.scaled_error_sum(labels, forecasts[:, 4], scales)
    return (
        metrics.weighted_quantile_loss(loss, metrics.absolute_label_sum(labels)),
        metrics.mean_absolute_scaled_error(error, count),
    )


@pytest.mark.parametrize("season", [1, 4, 7, 12])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_gluonts(season, seed):
    rng = np.random.default_rng(seed)
    # Shorter than the season, as long as the season, and longer; the last but one is constant.
    lengths = [2, 5, 7, 12, 13, 40, 40, 40]
    pasts = [rng.normal(10, 3, n) for n in lengths]
    pasts[4][rng.random(13) < 0.3] = np.nan
    pasts[5][rng.random(40) < 0.5] = np.nan
    pasts[6] = np.full(40, 3.0)
    labels = rng.normal(10, 3, (len(lengths), 6))
    labels[rng.random(labels.shape) < 0.25] = np.nan
    labels[7] = np.nan
    forecasts = np.sort(rng.normal(10, 3, (len(lengths), len(LEVELS), 6)), axis=1)
    expected = gluonts_scores(pasts, labels, forecasts, season)
    np.testing.assert_allclose(our_scores(pasts, labels, forecasts, season), expected, rtol=1e-6)


def test_undefined_scales_leave_the_mean_and_missing_labels_the_sums():
    labels = np.array([[1.0, np.nan], [5.0, 5.0], [5.0, 5.0]])
    error, count = metrics.scaled_error_sum(labels, np.zeros((3, 2)), [2.0, 0.0, np.nan])
    assert (error, count) == (0.5, 1)
    assert np.isnan(metrics.mean_absolute_scaled_error(0.0, 0))
    assert np.isnan(metrics.weighted_quantile_loss(np.ones(9), 0.0))


def test_a_nan_forecast_makes_the_scores_nan():
    labels = np.array([[1.0, 2.0]])
    broken = np.full((1, len(LEVELS), 2), np.nan)
    assert np.isnan(metrics.quantile_loss_sums(labels, broken, LEVELS)).all()
    error, count = metrics.scaled_error_sum(labels, broken[:, 4], [1.0])
    assert np.isnan(error) and count == 2
    hidden = np.array([[1.0, np.nan]])
    forecast = np.array([[[1.0, np.nan]]])
    assert metrics.quantile_loss_sums(hidden, forecast, [0.5]) == 0.0


_FREQUENCIES = "s min 5min 7min 15min h 2h 5h 24h D W W-SUN 2W B M ME MS 2M Q QE-DEC QS-OCT Y YE YS"


@pytest.mark.parametrize("freq", _FREQUENCIES.split())
def test_season_length_equals_gluonts(freq):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # aliases that pandas renames
        from gluonts.time_feature import get_seasonality

        assert metrics.season_length(freq) == get_seasonality(freq)


@pytest.mark.parametrize("freq", ["", "hourly", "0h", "1.5h"])
def test_an_unknown_frequency_is_wrong_input(freq):
    with pytest.raises(InputError, match="season_length"):
        metrics.season_length(freq)


def test_old_spellings_mean_the_same():
    for old, new in {"H": "h", "T": "min", "15T": "15min", "S": "s", "A": "YE"}.items():
        assert metrics.season_length(old) == metrics.season_length(new)


def test_interpolation_copies_known_levels_and_is_linear_between_and_flat_beyond():
    levels = np.array([0.1, 0.3, 0.9], np.float32)
    values = np.array([[1.0, np.inf], [2.0, 4.0], [8.0, 6.0]], np.float32)
    got = metrics.interpolate(levels, values, [0.3, 0.2, 0.6, 0.01, 0.99, 0.1])
    np.testing.assert_allclose(got[:, 0], [2.0, 1.5, 5.0, 1.0, 8.0, 1.0], rtol=1e-6)
    assert got.dtype == np.float32
    assert got[0, 1] == 4.0 and got[3, 1] == np.inf  # a copied level is untouched by neighbours


@given(
    st.lists(st.integers(1, 99), min_size=2, max_size=8, unique=True),
    st.floats(0.005, 0.995),
)
@settings(deadline=None, max_examples=100)
def test_interpolation_follows_numpy(levels, wanted):
    levels = np.sort(levels) / 100
    values = np.cumsum(np.arange(1.0, len(levels) + 1))
    got = metrics.interpolate(levels, values[:, None], [wanted])[0, 0]
    assert got == pytest.approx(np.interp(wanted, levels, values), abs=1e-2)


def test_geometric_mean_of_relative_scores():
    assert metrics.geometric_mean([2.0, 1.0], [1.0, 2.0]) == pytest.approx(1.0)
    assert metrics.geometric_mean([8.0, 5.0, 5.0], [2.0, 0.0, np.nan]) == pytest.approx(4.0)
    assert np.isnan(metrics.geometric_mean([np.nan, 1.0], [1.0, 1.0]))
    assert np.isnan(metrics.geometric_mean([1.0], [0.0]))
    assert metrics.geometric_mean([0.0, 1.0], [1.0, 1.0]) == 0.0


def test_seasonal_naive_repeats_the_last_season_and_fills_gaps_forward():
    past = np.array([np.nan, 1.0, 2.0, 3.0, np.nan, 5.0])
    np.testing.assert_array_equal(metrics.seasonal_naive(past, 3, 7), [3, 3, 5, 3, 3, 5, 3])
    np.testing.assert_array_equal(metrics.seasonal_naive(past, 6, 3), [1, 1, 2])
    np.testing.assert_array_equal(metrics.seasonal_naive(past, 9, 2), [5, 5])  # longer than past
    np.testing.assert_array_equal(metrics.seasonal_naive(np.full(3, np.nan), 2, 2), [0, 0])
