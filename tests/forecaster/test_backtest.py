"""Backtests: what a forecast at the cutoff would have been, and how good it was."""

import re

import numpy as np
import pandas as pd
import pytest
from shops import frame

from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.forecasting import backtest

OPTIONS = {"windows": 2, "stride": 5, "quantile_levels": [0.5]}


def test_windows_are_what_predict_df_says_at_their_cutoffs(mixed):
    df = frame()
    found = mixed.backtest(df, 4, **OPTIONS)
    assert list(found.columns) == [
        *("item_id", "cutoff", "timestamp", "step", "target_name"),
        *("target", "predictions", "seasonal_error", "0.5"),
    ]
    assert len(found) == 2 * 2 * 4 and found["step"].tolist() == [1, 2, 3, 4] * 4
    for cutoff, rows in found.groupby("cutoff"):
        past = df[df["timestamp"] <= cutoff]
        end = cutoff + pd.Timedelta(hours=4)
        future = df[(df["timestamp"] > cutoff) & (df["timestamp"] <= end)]
        future = future[["item_id", "timestamp", "promotion"]]
        expected = mixed.predict_df(past, future, prediction_length=4, quantile_levels=[0.5])
        rows = rows.reset_index(drop=True)
        names = ["item_id", "timestamp", "target_name", "predictions", "0.5"]
        pd.testing.assert_frame_equal(rows[names], expected, rtol=1e-4)
        truth = df.set_index(["item_id", "timestamp"])["sales"]
        keys = list(zip(rows["item_id"], rows["timestamp"], strict=True))
        np.testing.assert_array_equal(rows["target"], truth.loc[keys])
        for item, mine in rows.groupby("item_id"):
            sales = past.loc[past["item_id"] == item, "sales"].to_numpy()
            assert mine["seasonal_error"].iloc[0] == metrics.seasonal_error(sales, 24)
    times = df["timestamp"].unique()
    assert found["cutoff"].unique().tolist() == [times[40 - 4 - 5 - 1], times[40 - 4 - 1]]


def test_nothing_behind_a_cutoff_is_seen(mixed):
    df = frame()
    found = mixed.backtest(df, 4, **OPTIONS)
    behind = df["timestamp"] > found["cutoff"].min()
    other = df.assign(
        sales=df["sales"].where(~behind, 1e4), visitors=df["visitors"].where(~behind, -1e4)
    )
    again = mixed.backtest(other, 4, **OPTIONS)
    first = found["cutoff"] == found["cutoff"].min()
    pd.testing.assert_series_equal(again["predictions"][first], found["predictions"][first])
    assert (again["predictions"] - found["predictions"])[~first].abs().min() > 0


def test_many_windows_go_through_in_parts(alone, monkeypatch):
    df = frame().rename(columns={"sales": "target"})[["item_id", "timestamp", "target"]]
    options = {"windows": 5, "stride": 2, "quantile_levels": [0.1, 0.5, 0.9]}
    whole = alone.backtest(df.sample(frac=1.0, random_state=0), 3, **options)
    assert len(whole) == 2 * 5 * 3
    monkeypatch.setattr(backtest, "_ROWS", 60)
    parts = alone.backtest(df.sample(frac=1.0, random_state=0), 3, **options)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)


def test_short_series_have_fewer_windows(alone):
    df = pd.concat([frame(("long",), 30), frame(("short",), 7)]).rename(
        columns={"sales": "target"}
    )[["item_id", "timestamp", "target"]]
    found = alone.backtest(df, 4, windows=3, quantile_levels=[0.5])
    assert found.groupby("item_id")["cutoff"].nunique().to_dict() == {"long": 3, "short": 1}
    with pytest.raises(InputError, match="the longest has 6 steps, and 6 are forecast"):
        alone.backtest(df[df["item_id"] == "short"].iloc[:6], 6, quantile_levels=[0.5])


def made_up():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"item_id": np.repeat(["a", "b"], 6), "step": [1, 2, 3] * 4})
    frame["target"], frame["predictions"] = rng.normal(size=(2, 12))
    frame["seasonal_error"] = np.repeat([0.5, 2.0], 6)
    frame["0.1"], frame["0.9"] = frame["predictions"] - 1, frame["predictions"] + 1
    frame.loc[4, "target"] = np.nan
    return frame


def test_scores_are_those_of_their_definitions():
    frame = made_up()
    (row,) = backtest.scores(frame).to_dict("records")
    seen = frame.dropna()
    error = seen["target"] - seen["predictions"]
    loss = 0.0
    for level in (0.1, 0.9):
        apart = seen["target"] - seen[str(level)]
        loss += 2 * np.maximum(level * apart, (level - 1) * apart).sum() / 2
    assert row == pytest.approx(
        {
            "mae": error.abs().mean(),
            "rmse": np.sqrt((error**2).mean()),
            "mase": (error.abs() / seen["seasonal_error"]).mean(),
            "wql": loss / seen["target"].abs().sum(),
        }
    )
    apart = backtest.scores(frame, by=["item_id", "step"])
    assert apart.index.names == ["item_id", "step"] and len(apart) == 6
    one = frame[(frame["item_id"] == "b") & (frame["step"] == 2)]
    assert apart.loc[("b", 2), "mae"] == pytest.approx(
        (one["target"] - one["predictions"]).abs().mean()
    )
    assert backtest.scores(frame, by="item_id").index.tolist() == ["a", "b"]


def test_a_broken_forecast_does_not_look_good():
    frame = made_up()
    frame.loc[2, ["predictions", "0.1"]] = np.nan
    assert backtest.scores(frame).isna().all(axis=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "windows is 0"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"season_length": -1}, "season_length is -1"),
        ({"cross_learning": True}, "what follows them"),
        ({"target": "profit"}, "trained to forecast 'sales' together"),
        ({"freq": "fortnight"}, "give season_length"),
    ],
)
def test_bad_arguments(mixed, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        mixed.backtest(frame(), 4, quantile_levels=[0.5], **options)
    with pytest.raises(InputError, match="no column 'day'"):
        backtest.scores(made_up(), by="day")
