"""Forecaster: batching that changes nothing, levels, frames, fitting, and what bad input says."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import tsmjax
from tsmjax import Forecaster, weights
from tsmjax.errors import InputError
from tsmjax.forecasting import packing, quantiles
from tsmjax.forecasting.inputs import prepare
from tsmjax.nn.functional import unflatten

SIZE = {
    **{"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    **{"context_length": 128, "max_output_patches": 2, "time_encoding_scale": 128},
    "quantiles": (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model, with weights large enough that every input matters."""
    from tsmjax.config import build
    from tsmjax.models import chronos2
    from tsmjax.nn.functional import abstract, flatten

    rng = np.random.default_rng(0)
    config = build(chronos2.Config, SIZE, "model")
    shapes = flatten(abstract(lambda rngs: chronos2.Model(config, rngs=rngs))[1])
    params = {
        path: np.ones(leaf.shape, np.float32)
        if path.endswith("scale")
        else rng.normal(scale=0.3, size=leaf.shape).astype(np.float32)
        for path, leaf in shapes.items()
    }
    target = tmp_path_factory.mktemp("model") / "hf"
    weights.write(target, "chronos2", SIZE, unflatten(params))
    return target


@pytest.fixture(scope="module")
def forecaster(folder):
    return Forecaster.from_pretrained(folder)


def walk(length, variates=1, seed=0):
    return np.random.default_rng(seed + length).normal(size=(variates, length)).cumsum(axis=1)


def frame(items=("a", "b"), length=20, freq="h"):
    return pd.concat(
        pd.DataFrame(
            {
                "item_id": item,
                "timestamp": pd.date_range("2024-01-01", periods=length, freq=freq),
                "target": walk(length, seed=number)[0],
                "x": walk(length, seed=9 + number)[0],
            }
        )
        for number, item in enumerate(items)
    ).reset_index(drop=True)


def ahead(df, horizon=4, freq="h"):
    start = df["timestamp"].max()
    times = pd.date_range(start, periods=horizon + 1, freq=freq)[1:]
    return pd.concat(
        pd.DataFrame({"item_id": item, "timestamp": times, "x": 1.0})
        for item in df["item_id"].unique()
    ).reset_index(drop=True)


# ------------------------------------------------------------------------------------- batching


def test_forecasts_do_not_depend_on_the_company(forecaster):
    inputs = [walk(n, k) for n, k in [(50, 1), (9, 3), (120, 1), (300, 2), (17, 5), (64, 1)]]
    together = forecaster.predict(inputs, 24)
    split = forecaster.predict(inputs, 24, batch_size=8)
    for a, b in zip(together, split, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    again = forecaster.predict(inputs, 24)
    for a, b in zip(together, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_packs_hold_whole_groups_and_waste_little():
    inputs = prepare([walk(30, 5)] * 30, 16)
    batch = packing.build(inputs, range(30), context_length=64, patch=16, horizon=16)
    for series, pack, slot in zip(inputs, batch.pack, batch.slot, strict=True):
        group = batch.group[pack]
        assert len(set(group[slot : slot + 5])) == 1
        assert (group == group[slot]).sum() == 5
        np.testing.assert_array_equal(batch.context[pack, slot : slot + 5, -30:], series.past)
    assert (batch.group >= 0).mean() > 0.75


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 13, 33, 97])
def test_buckets_are_near_and_few(size):
    assert size <= packing.bucket(size) <= 1.5 * size
    assert packing.bucket(size, 8) <= 8
    assert len({packing.bucket(n) for n in range(1, 1025)}) == 20


def test_few_compilations_for_many_lengths(forecaster, folder):
    fresh = Forecaster.from_pretrained(folder)
    lengths = np.random.default_rng(0).integers(3, 128, 200)
    fresh.predict([walk(n)[0] for n in lengths], 16, batch_size=64)
    assert fresh._passes._start._cache_size() <= 4


def test_infinite_values_are_missing(forecaster):
    broken, gap = walk(60), walk(60)
    broken[0, 30], gap[0, 30] = np.inf, np.nan
    (a,), (b,) = forecaster.predict([broken], 8), forecaster.predict([gap], 8)
    np.testing.assert_array_equal(a, b)


def test_known_covariates_and_the_past_matter(forecaster):
    def forecast(future, past=0):
        task = {
            "target": walk(60)[0],
            "past_covariates": {"x": walk(60, seed=1)[0] + past * np.arange(60)},
            "future_covariates": {"x": future},
        }
        return forecaster.predict([task], 8)[0]

    base = forecast(np.zeros(8))
    assert np.abs(forecast(np.full(8, 5.0)) - base).max() > 1e-3
    assert np.abs(forecast(np.zeros(8), past=1) - base).max() > 1e-3


def test_the_callback_runs_after_each_batch(forecaster):
    calls = []
    forecaster.predict([walk(20)] * 5, 4, batch_size=2, after_batch=lambda: calls.append(1))
    assert len(calls) == 3


# --------------------------------------------------------------------------------------- levels


def test_levels_are_found_interpolated_and_flat_beyond(forecaster):
    inputs = [walk(50)]
    (raw,) = forecaster.predict(inputs, 8)
    with pytest.warns(UserWarning, match="nearest"):
        (found,), (median,) = forecaster.predict_quantiles(
            inputs, 8, [0.99, 0.1 + 0.2, 0.5, 0.4, 0.01]
        )
    assert found.shape == (1, 8, 5)
    np.testing.assert_array_equal(found[..., 0], raw[:, 6])
    np.testing.assert_array_equal(found[..., 1], raw[:, 2])  # 0.30000000000000004
    np.testing.assert_array_equal(found[..., 2], median)
    np.testing.assert_allclose(found[..., 3], (raw[:, 2] + raw[:, 3]) / 2, rtol=1e-5)
    np.testing.assert_array_equal(found[..., 4], raw[:, 0])


def test_weighted_quantiles_equal_a_loop():
    rng = np.random.default_rng(0)
    samples, weight = rng.normal(size=(5, 40)).astype(np.float32), rng.random(40) + 0.1
    weight /= weight.sum()
    levels = (0.001, 0.2, 0.5, 0.99)
    found = np.asarray(quantiles.of_samples(samples, weight, levels))
    for row, values in zip(found, samples, strict=True):
        order = np.argsort(values)
        expected = np.interp(levels, np.cumsum(weight[order]), values[order])
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_long_horizons_begin_like_short_ones_and_warn(forecaster):
    inputs = [walk(50), walk(20, 2)]
    with pytest.warns(UserWarning, match="one pass reaches 32 steps"):
        found = forecaster.predict(inputs, 100)
    for a, b in zip(found, forecaster.predict(inputs, 32), strict=True):
        assert a.shape == (b.shape[0], 7, 100) and np.isfinite(a).all()
        np.testing.assert_allclose(a[..., :32], b, rtol=1e-4, atol=1e-4)
    widths = found[0][0, -1] - found[0][0, 0]
    assert widths[32:].mean() > 0.5 * widths[:32].mean()  # uncertainty does not collapse


# --------------------------------------------------------------------------------------- frames


def test_frame_columns_and_order(forecaster):
    df = frame(("late", "early")).sample(frac=1.0, random_state=0)
    first = df["item_id"].iloc[0]
    found = forecaster.predict_df(df, prediction_length=4, quantile_levels=[0.9, 0.1])
    assert list(found.columns) == [
        *("item_id", "timestamp", "target_name", "predictions", "0.9", "0.1")
    ]
    assert found["item_id"].tolist()[0] == first and len(found) == 8
    assert found["timestamp"].iloc[0] == pd.Timestamp("2024-01-01 20:00")


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_series_may_end_at_different_times(forecaster, zone):
    df = pd.concat([frame(("a",), 30), frame(("b",), 12)])
    df["timestamp"] = df["timestamp"].dt.tz_localize(zone)
    found = forecaster.predict_df(df, prediction_length=3)
    last = df.groupby("item_id")["timestamp"].max()
    for item, rows in found.groupby("item_id"):
        expected = [last[item] + pd.Timedelta(hours=n) for n in (1, 2, 3)]
        assert rows["timestamp"].tolist() == expected


def test_frame_equals_arrays(forecaster):
    df = frame()
    found = forecaster.predict_df(df, ahead(df), prediction_length=4, quantile_levels=[0.5])
    tasks = [
        {
            "target": rows["target"].to_numpy(),
            "past_covariates": {"x": rows["x"].to_numpy()},
            "future_covariates": {"x": np.ones(4)},
        }
        for _, rows in df.groupby("item_id")
    ]
    _, median = forecaster.predict_quantiles(tasks, 4)
    np.testing.assert_allclose(found["predictions"], np.concatenate(median).ravel(), rtol=1e-5)


def without(df, column):
    return df.drop(columns=column)


def changed(df, row, column, value):
    df = df.copy()
    df.loc[row, column] = value
    return df


@pytest.mark.parametrize(
    ("df", "future", "options", "message"),
    [
        (frame().rename(columns={"target": "targets"}), None, {}, "did you mean 'targets'"),
        (without(frame(), "timestamp"), None, {}, "no column 'timestamp'"),
        (frame().iloc[:0], None, {}, "is empty"),
        (frame().assign(target="high"), None, {}, "must hold numbers"),
        (frame().assign(timestamp="soon"), None, {}, "does not hold times"),
        (frame().drop(index=7), None, {}, "series 'a' are irregular"),
        (pd.concat([frame(), frame().iloc[[3]]]), None, {}, "several rows for series 'a'"),
        (changed(frame(), 5, "timestamp", pd.NaT), None, {}, "no 'timestamp' in row 5"),
        (pd.concat([frame(("a",)), frame(("b",), freq="D")]), None, {}, "frequency"),
        (frame(length=2), None, {}, "say freq="),
        (frame(), None, {"freq": "fortnight"}, "freq is 'fortnight'"),
        (frame(), None, {"prediction_length": 0}, "prediction_length is 0"),
        (frame(), None, {"quantile_levels": [0.5, 1.2]}, "quantile_levels holds 1.2"),
        (frame(), None, {"quantile_levels": []}, "is empty"),
        (frame(), ahead(frame(), 3), {}, "3 rows for series 'a'"),
        (frame(), ahead(frame(("a",))), {}, "0 rows for series 'b'"),
        (frame(("a",)), ahead(frame()), {}, "series 'b' that the data frame lacks"),
        (frame(), ahead(frame(), freq="D"), {}, "where 2024-01-01 20:00:00 is forecast"),
        (frame(), ahead(frame()).rename(columns={"x": "xx"}), {}, "column 'xx'"),
        (frame(), ahead(frame()).assign(target=1.0), {}, "the target column"),
    ],
)
def test_bad_frames(forecaster, df, future, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        forecaster.predict_df(df, future, **{"prediction_length": 4, **options})


# --------------------------------------------------------------------------------------- inputs


def task(**changes):
    values = {
        "target": np.arange(20.0),
        "past_covariates": {"x": np.ones(20)},
        "future_covariates": {"x": np.ones(4)},
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "inputs are empty"),
        (np.ones((3, 20)), "must have three dimensions"),
        ({"target": np.ones(20)}, "put a single dict into a list"),
        (3.0, "must be an array or a list"),
        ([np.ones((2, 2, 2))], "Input 0 has the shape (2, 2, 2)"),
        ([np.ones(5), np.ones(0)], "Input 1 has no values"),
        ([np.array(["a", "b"])], "not numbers"),
        ([{"targets": np.ones(9)}], "key 'targets' (did you mean 'target'"),
        ([{"past_covariates": {}}], "Input 0 has no target"),
        ([task(), {"target": np.ones(20)}], "Input 1 has the past_covariates [] and"),
        ([task(), np.ones(20)], "Input 1 is a ndarray"),
        ([{"target": np.ones((2, 9))}, {"target": np.ones(9)}], "Input 1 has 1 targets"),
        ([task(future_covariates={"x": np.ones(3)})], "prediction length is 4"),
        ([task(future_covariates={"y": np.ones(4)})], "'y' of input 0 has no past"),
        ([task(past_covariates={"x": np.ones(19)})], "the target has 20 steps"),
        ([task(), task(future_covariates={"x": None})], "give all of them or none"),
        ([task(past_covariates=[1])], "of type list instead of a dict"),
        ([task(future_covariates={"x": np.array(["a"] * 4)})], "numeric in the past"),
        ([{"context": np.ones((1, 9))}], "lacks future_covariates"),
    ],
)
def test_bad_inputs(forecaster, inputs, message):
    with pytest.raises(InputError, match=re.escape(message)):
        forecaster.predict(inputs, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_length": 0}, "prediction_length is 0"),
        ({"prediction_length": 2.5}, "prediction_length is 2.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"context_length": -1}, "context_length is -1"),
        ({"unrolled_quantiles": [0.42]}, "unrolled_quantiles holds 0.42"),
        ({"prediction_length": 33, "limit_prediction_length": True}, "one pass reaches 32"),
    ],
)
def test_bad_arguments(forecaster, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        forecaster.predict([np.arange(20.0)], **{"prediction_length": 4, **options})


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (None, {"device_map": "cuda:7"}, "device_map is 'cuda:7'"),
        (None, {"torch_dtype": "float8"}, "dtype is 'float8'"),
        ("/nowhere/at/all", {}, "/nowhere/at/all"),
    ],
)
def test_bad_checkpoints(folder, path, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Forecaster.from_pretrained(path or folder, **options)


def test_a_context_too_long_is_cut_with_a_warning(forecaster):
    inputs = [walk(300)]
    with pytest.warns(UserWarning, match="128 steps at most"):
        (found,) = forecaster.predict(inputs, 4, context_length=1000)
    np.testing.assert_array_equal(found, forecaster.predict([inputs[0][:, -128:]], 4)[0])


def test_half_precision_is_close_and_saves_as_float32(forecaster, folder, tmp_path):
    half = Forecaster.from_pretrained(folder, torch_dtype="torch.bfloat16", device_map="cpu")
    inputs = [walk(60)]
    a, b = forecaster.predict(inputs, 8)[0], half.predict(inputs, 8)[0]
    assert 0 < np.abs(a - b).max() < 0.5 * np.ptp(a)
    half.save_pretrained(tmp_path / "half")
    again = Forecaster.from_pretrained(tmp_path / "half")
    assert np.abs(again.predict(inputs, 8)[0] - b).max() < 0.5 * np.ptp(a)


def test_importing_the_forecaster_imports_no_torch():
    code = "import sys, tsmjax; tsmjax.Forecaster; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError):
        tsmjax.Oracle  # noqa: B018


# -------------------------------------------------------------------------------------- fitting


def waves(count, length=80, seed=0):
    rng = np.random.default_rng(seed)
    return [
        np.sin((np.arange(length) + rng.integers(16)) * np.pi / 8) + 0.05 * rng.normal(size=length)
        for _ in range(count)
    ]


def test_validation_picks_the_best_step_and_longer_horizons_are_allowed(forecaster, tmp_path):
    fitted = forecaster.fit(
        [*waves(20), np.ones(10)],  # the last is too short and is left out
        prediction_length=40,
        validation_inputs=waves(4, 70, seed=1),
        learning_rate=1e-2,
        num_steps=20,
        batch_size=8,
        min_past=16,
        output_dir=tmp_path / "run",
    )
    assert fitted.model_prediction_length == 48 and fitted.model_context_length == 128
    assert forecaster.model_prediction_length == 32
    results = (tmp_path / "run/results.json").read_text()
    assert "validation/loss" in results
    past = [one[:-40] for one in waves(6, 90, seed=2)]
    truth = np.stack([one[-40:] for one in waves(6, 90, seed=2)])
    with pytest.warns(UserWarning, match="one pass"):
        before = np.abs(np.concatenate(forecaster.predict_quantiles(past, 40)[1]) - truth).mean()
    after = np.abs(np.concatenate(fitted.predict_quantiles(past, 40)[1]) - truth).mean()
    assert after < 0.9 * before
    with pytest.raises(InputError, match="not empty"):
        forecaster.fit(waves(2), 8, output_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_config": {"r": 2}}, "lora_config needs finetune_mode='lora'"),
        ({"finetune_mode": "some"}, "finetune_mode is 'some'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"prediction_length": 60}, "the longest has 80 steps and 120 are needed"),
        ({"validation_inputs": [np.ones(5)]}, "longer than the horizon of 8"),
    ],
)
def test_bad_fits(forecaster, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        forecaster.fit(waves(8), **{"prediction_length": 8, "batch_size": 8, **options})


# --------------------------------------------------------------------------------- backtests


def test_a_backtest_is_predict_df_at_each_cutoff(forecaster):
    df = frame(length=30).assign(kind=["low", "high", "none"] * 20)
    options = {"quantile_levels": [0.1, 0.5]}
    found = forecaster.backtest(df, 4, 2, known_covariates=["kind"], **options)
    for cutoff, rows in found.groupby("cutoff"):
        past = df[df["timestamp"] <= cutoff]
        end = cutoff + pd.Timedelta(hours=4)
        future = df[df["timestamp"].between(cutoff, end, inclusive="right")]
        future = future[["item_id", "timestamp", "kind"]]
        expected = forecaster.predict_df(past, future, prediction_length=4, **options)
        rows = rows.reset_index(drop=True)[expected.columns]
        pd.testing.assert_frame_equal(rows, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="no column 'kinds'"):
        forecaster.backtest(df, 4, known_covariates=["kinds"])
