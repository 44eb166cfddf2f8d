"""Forecaster of models of tables: units, channels by name, horizons, and what bad input says."""

import re

import jax
import numpy as np
import pandas as pd
import pytest
from shops import MIXED, NAMES, SCALERS, ahead, frame, save

from tsmjax import Forecaster
from tsmjax.errors import InputError
from tsmjax.nn.functional import merge, split
from tsmjax.predict import main as predict_command


def by_hand(forecaster, context, future, scalers=SCALERS, target=0):
    """Standardise, call the model, and undo it: (channels, T), (channels, F) → (Q, F)."""
    model = forecaster._loaded.model
    mean, deviation = (np.array(scalers[name])[:, None] for name in ("mean", "deviation"))
    context, future = ((x - mean) / deviation for x in (context, future))
    graph, params, stats = split(model)
    predictions, loc_scale = jax.jit(lambda c, f: merge(graph, params, stats)(c, f))(
        context[None].astype(np.float32), future[None].astype(np.float32)
    )
    found = np.asarray(model.unscale(predictions, loc_scale))[0, 0]
    return found * deviation[target] + mean[target]


def test_a_frame_is_forecast_in_its_own_units_by_the_names_of_its_columns(mixed):
    df = frame().sample(frac=1.0, random_state=0)  # unsorted
    df.loc[df.index[3], "sales"] = np.nan
    shuffled = df[["promotion", "timestamp", "visitors", "sales", "item_id"]]
    with pytest.warns(UserWarning, match="nearest"):
        found = mixed.predict_df(shuffled, ahead(df), quantile_levels=[0.5, 0.9])
    assert list(found.columns) == [
        *("item_id", "timestamp", "target_name", "predictions", "0.5", "0.9")
    ]
    assert found["target_name"].unique().tolist() == ["sales"] and len(found) == 12
    for item, rows in df.sort_values("timestamp").groupby("item_id"):
        context = rows[NAMES].astype(float).to_numpy().T[:, -24:]
        future = np.full((3, 6), np.nan)
        future[2] = 1.0
        mine = found[found["item_id"] == item]
        expected = by_hand(mixed, context, future)[0]
        np.testing.assert_allclose(mine["predictions"], expected, rtol=1e-4)
        assert mine["timestamp"].iloc[0] == pd.Timestamp("2024-01-02 16:00")


def test_a_model_may_have_its_channels_in_any_order(tmp_path):
    scalers = {name: values[::-1] for name, values in SCALERS.items()}
    roles = MIXED | {"prediction_channels": (2,), "known_channels": (0,)}
    turned = Forecaster.from_pretrained(save(tmp_path / "m", roles, scalers))
    df = frame(("a",))
    found = turned.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"]
    future = np.full((3, 6), np.nan)
    future[0] = 1.0
    context = df[NAMES[::-1]].astype(float).to_numpy().T
    expected = by_hand(turned, context, future, scalers, target=2)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_is_known_ahead_and_the_past_of_covariates_matter(mixed):
    df = frame()
    base = mixed.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"]
    other = mixed.predict_df(df, ahead(df, value=0.0), quantile_levels=[0.5])["predictions"]
    assert np.abs(base - other).max() > 0.1
    df["visitors"] *= np.linspace(0.5, 2, len(df))
    other = mixed.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"]
    assert np.abs(base - other).max() > 0.1


def test_arrays_equal_frames_and_unknown_items_do_not_matter(mixed):
    df = frame(("never seen",))
    expected = mixed.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"]
    entry = {
        "target": df["sales"].to_numpy(),
        "past_covariates": {name: df[name].to_numpy() for name in ("promotion", "visitors")},
        "future_covariates": {"promotion": np.ones(6, bool)},
    }
    (found,) = mixed.predict([entry], 6)
    assert found.shape == (1, 1, 6) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


def test_short_contexts_are_missing_before_their_start(mixed, alone):
    df = frame(("a",), length=9)
    found = mixed.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"]
    context = np.full((3, 24), np.nan)
    context[:, -9:] = df[NAMES].astype(float).to_numpy().T
    future = np.full((3, 6), np.nan)
    future[2] = 1.0
    np.testing.assert_allclose(found, by_hand(mixed, context, future)[0], rtol=1e-4)
    values = np.random.default_rng(0).normal(size=60)
    (whole,), (cut,) = alone.predict([values], 6, context_length=9), alone.predict([values[-9:]], 6)
    np.testing.assert_array_equal(whole, cut)


def test_shorter_horizons_are_cut_and_longer_ones_rolled_on_the_median(alone):
    values = np.random.default_rng(0).normal(size=(2, 40)).cumsum(axis=1)
    (one,) = alone.predict([values], 6)
    (short,) = alone.predict([values], 4)
    np.testing.assert_allclose(short, one[..., :4], rtol=1e-6)
    with pytest.warns(UserWarning, match="one pass reaches 6 steps"):
        (long,) = alone.predict([values], 15)
    assert long.shape == (2, 3, 15) and (np.diff(long, axis=1) >= 0).all()
    np.testing.assert_allclose(long[..., :6], one, rtol=1e-5)
    # The median of the first window is the past of the second.
    (second,) = alone.predict([np.concatenate([values, one[:, 1]], axis=1)], 6)
    np.testing.assert_allclose(long[..., 6:12], second, rtol=1e-3, atol=1e-3)


def test_batches_of_a_long_horizon_change_nothing_and_are_counted_once(alone):
    values = np.random.default_rng(0).normal(size=(5, 40)).cumsum(axis=1)
    calls = []
    with pytest.warns(UserWarning, match="one pass reaches 6 steps"):
        (whole,) = alone.predict([values], 15)
    with pytest.warns(UserWarning, match="one pass reaches 6 steps"):
        (found,) = alone.predict([values], 15, batch_size=2, after_batch=lambda: calls.append(1))
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3


def test_a_model_of_single_channels_forecasts_any_number_in_any_unit(alone):
    values = np.random.default_rng(0).normal(size=(3, 40)).cumsum(axis=1)
    together = alone.predict([values, values[:1, 10:]], 6)
    apart = alone.predict([row[None] for row in values], 6, batch_size=2)
    np.testing.assert_allclose(together[0], np.concatenate(apart), rtol=1e-4, atol=1e-5)
    assert together[1].shape == (1, 3, 6)
    (tiny,) = alone.predict([1e-6 * values + 4e-6], 6)
    np.testing.assert_allclose(tiny, 1e-6 * together[0] + 4e-6, rtol=1e-3, atol=1e-9)


def test_the_step_length_is_told_to_models_that_ask(alone):
    df = frame(("a",)).rename(columns={"sales": "target"})[["item_id", "timestamp", "target"]]
    found = alone.predict_df(df, quantile_levels=[0.1, 0.5])
    values = [df["target"].to_numpy()]
    (any_step,), (hours,) = alone.predict(values, 6), alone.predict(values, 6, freq="60min")
    np.testing.assert_allclose(found["predictions"], hours[0, 1], rtol=1e-5)
    assert np.abs(hours - any_step).max() > 1e-3


def test_scales_are_found_by_name(tmp_path):
    artefacts = {"names": ["x", "y"], "mean": [3.0, 0.0], "deviation": [10.0, 1e4]}
    both = Forecaster.from_pretrained(save(tmp_path / "m", {"scaling": "none"}, artefacts))
    values = np.random.default_rng(0).normal(size=(2, 40))
    expected = by_hand(both, values, np.full((2, 6), np.nan), artefacts)[0]
    df = frame(("a",)).assign(x=values[0], y=values[1])[["item_id", "timestamp", "x", "y"]]
    found = both.predict_df(df, quantile_levels=[0.5])
    x = found.loc[found["target_name"] == "x", "predictions"]
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    alone_x = both.predict_df(df[["item_id", "timestamp", "x"]], target="x", quantile_levels=[0.5])
    np.testing.assert_allclose(alone_x["predictions"], expected, rtol=1e-5)
    np.testing.assert_allclose(both.predict([values], 6)[0][0, 0], expected, rtol=1e-5)
    named = both.predict([values[:1]], 6, targets=["x"])[0][0, 0]
    np.testing.assert_allclose(named, expected, rtol=1e-5)


def test_states_of_the_targets(mixed, alone):
    values = np.random.default_rng(0).normal(50, 5, size=(2, 40))
    (states,), ((loc, scale),) = alone.embed([values])
    assert states.shape == (2, 5, 8)  # four patches behind the token of the frequency
    np.testing.assert_allclose(loc[:, 0], values[:, -24:].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(scale[:, 0], values[:, -24:].std(axis=1), rtol=1e-4)
    names = ("visitors", "promotion")
    entry = {
        "target": values[0],
        "past_covariates": {name: values[1] for name in names},
        "future_covariates": {"promotion": None},
    }
    (states,), _ = mixed.embed([entry])
    assert states.shape == (1, 4, 8)


def test_names_and_scales_stay_with_the_model(mixed, tmp_path):
    mixed.save_pretrained(tmp_path / "again")
    again = Forecaster.from_pretrained(tmp_path / "again")
    df = frame()
    options = {"quantile_levels": [0.5]}
    expected = mixed.predict_df(df, ahead(df), **options)
    pd.testing.assert_frame_equal(again.predict_df(df, ahead(df), **options), expected)


def test_the_command_takes_the_columns_from_the_model(mixed, tmp_path, capsys):
    mixed.save_pretrained(tmp_path / "model")
    df = frame()
    df.to_csv(tmp_path / "past.csv", index=False)
    ahead(df, 4).to_csv(tmp_path / "future.csv", index=False)
    files = {"checkpoint": "model", "input": "past.csv", "output": "out.csv"}
    files |= {"future": "future.csv", "plot": "fan.png"}
    command = [f"--{name}={tmp_path / file}" for name, file in files.items()]
    assert predict_command([*command, "--quantiles=0.5"]) == 0
    assert "2 series × 4 steps" in capsys.readouterr().out
    expected = mixed.predict_df(df, ahead(df, 4), prediction_length=4, quantile_levels=[0.5])
    found = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(found["predictions"], expected["predictions"], rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "future", "options", "message"),
    [
        (lambda df: df.drop(columns="visitors"), ahead, {}, "no column 'visitors'"),
        (lambda df: df.rename(columns={"sales": "sale"}), ahead, {}, "did you mean 'sale'"),
        (lambda df: df.assign(visitors="many"), ahead, {}, "'visitors' is of type"),
        (lambda df: df, lambda df: None, {}, "'promotion' known ahead: give future_df"),
        (lambda df: df, lambda df: ahead(df).drop(columns="promotion"), {}, "'promotion'"),
        (lambda df: df, ahead, {"target": "visitors"}, "trained to forecast 'sales' together"),
        (lambda df: df, lambda df: ahead(df, 9), {"prediction_length": 9}, "nobody knows"),
        (lambda df: df.drop(index=7), ahead, {}, "series 'a' are irregular"),
        (lambda df: pd.concat([df, df.iloc[[3]]]), ahead, {}, "several rows for series 'a'"),
        (lambda df: df, ahead, {"cross_learning": True}, "leave them out"),
        (lambda df: df, ahead, {"max_output_patches": 2}, "leave it out"),
    ],
)
@pytest.mark.filterwarnings("ignore:prediction_length is 9")
def test_bad_frames(mixed, change, future, options, message):
    df = frame()
    with pytest.raises(InputError, match=re.escape(message)):
        mixed.predict_df(change(df), future(df), quantile_levels=[0.5], **options)


def task(**changes):
    values = {
        "target": np.arange(30.0),
        "past_covariates": {"visitors": np.ones(30), "promotion": np.ones(30)},
        "future_covariates": {"promotion": np.ones(6)},
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([np.arange(30.0)], "Input 0 has 1 targets and 0 covariates"),
        ([task(target=np.ones((2, 30)))], "Input 0 has 2 targets"),
        ([task(future_covariates={})], "lacks the future covariate 'promotion'"),
        ([task(), task(past_covariates={"promotion": np.ones(30)})], "Input 1 lacks the past"),
        ([task(future_covariates={"promotions": np.ones(6)})], "'promotion' (did you mean"),
        ([task(future_covariates={"promotion": np.array(["a"] * 6)})], "trained with numbers"),
        ([task(future_covariates={"promotion": np.ones(5)})], "prediction length is 6"),
        ([task(past_covariates=[1])], "of type list instead of a dict"),
        ([task(), np.ones(30)], "Input 1 is a ndarray"),
    ],
)
def test_bad_inputs(mixed, inputs, message):
    with pytest.raises(InputError, match=re.escape(message)):
        mixed.predict(inputs, 6)


def test_a_model_of_single_channels_takes_no_covariates(alone):
    entry = {"target": np.arange(30.0), "past_covariates": {"x": np.ones(30)}}
    with pytest.raises(InputError, match="has the past covariate 'x'"):
        alone.predict([entry], 6)
    with pytest.raises(InputError, match="targets names 'a', but an input has 2"):
        alone.predict([np.ones((2, 30))], 6, targets=["a"])
    df = frame(("a",)).rename(columns={"sales": "target"})
    with pytest.warns(UserWarning, match="does not look at 'visitors', 'promotion'"):
        alone.predict_df(df, quantile_levels=[0.5])


def test_what_such_a_forecaster_cannot_do_it_says(mixed):
    with pytest.raises(InputError, match="this one is of 'multivariate'"):
        mixed.fit([np.arange(30.0)], 6)
