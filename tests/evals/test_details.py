"""Point errors and intervals as GluonTS computes them; calibration by counting."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tsmjax.evals import details, metrics
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator

LEVELS = (0.025, *metrics.LEVELS, 0.975)


def draw(seed):
    """Pasts, labels with gaps and zeros, and sorted quantiles of six series."""
    rng = np.random.default_rng(seed)
    pasts = [rng.normal(5, 3, n).astype(np.float32) for n in (30, 30, 13, 40, 25, 9)]
    pasts[2][:] = 4.0  # no seasonal error
    labels = rng.normal(5, 3, (6, 8)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    labels[0, :2] = 0.0
    forecasts = np.sort(rng.normal(5, 3, (6, len(LEVELS), 8)), axis=1).astype(np.float32)
    return pasts, labels, forecasts


def gluonts(pasts, labels, forecasts, season):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a faster json library
        from gluonts.dataset.split import split
        from gluonts.ev import metrics as theirs
        from gluonts.model.evaluation import evaluate_forecasts
        from gluonts.model.forecast import QuantileForecast
    start = pd.Period("2000-01-01", "D")
    entries = [
        {"item_id": str(i), "start": start, "target": np.concatenate(pair)}
        for i, pair in enumerate(zip(pasts, labels, strict=True))
    ]
    test_data = split(entries, offset=-8)[1].generate_instances(8)
    answers = [
        QuantileForecast(row, start + len(past), list(map(str, LEVELS)), str(i))
        for i, (row, past) in enumerate(zip(forecasts, pasts, strict=True))
    ]
    wanted = [theirs.MSE("0.5"), theirs.MAE(), theirs.RMSE("0.5"), theirs.NRMSE("0.5")]
    wanted += [theirs.ND(), theirs.MAPE(), theirs.SMAPE(), theirs.MSIS()]
    table = evaluate_forecasts(answers, test_data=test_data, metrics=wanted, seasonality=season)
    return {name.partition("[")[0]: table[name].item() for name in table}


def ours(pasts, labels, forecasts, season):
    series = [np.concatenate(pair) for pair in zip(pasts, labels, strict=True)]
    evaluator = ForecastEvaluator(
        "s",
        [EvalDataset("d", series, 8, season)],
        "test",
        quantiles=LEVELS,
        context_length=64,
        max_horizon=8,
        patch=8,
        batch_size=4,
    )
    return details.figures(evaluator.add_up(enumerate(forecasts)), 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("season", [1, 7])
def test_point_errors_and_intervals_equal_gluonts(seed, season):
    case = draw(seed)
    found, expected = ours(*case, season), gluonts(*case, season)
    assert len(expected) == 8
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_calibration_is_counted():
    forecast = np.repeat(np.arange(1.0, 10.0)[:, None], 8, axis=1)
    forecast[[4, 5], 3] = forecast[[5, 4], 3]  # one step crosses, far from its label
    label = np.array([0.5, 1.5, 4.5, 4.5, 8.5, 9.5, np.nan, 2.0], np.float32)
    total = details.zeros(1) | {"label": np.array([np.nansum(label)]), "cells": np.ones(1)}
    for name, value in details.sums(label, forecast, metrics.LEVELS, 1.0).items():
        total[name][0] += value
    found = details.figures(total, 0)
    assert found["crossing"] == 1 / 7
    assert found["interval_80"] == pytest.approx(5 / 7)  # all but 0.5 and 9.5
    seen = label[np.isfinite(label)]
    below = [np.mean(seen <= row[0]) for row in forecast]
    assert found["calibration_error"] == pytest.approx(
        np.abs(np.subtract(below, metrics.LEVELS)).mean()
    )


def test_nothing_observed_is_nan():
    total = details.zeros(1) | {"label": np.zeros(1), "cells": np.zeros(1)}
    assert all(np.isnan(value) for value in details.figures(total, 0).values())
