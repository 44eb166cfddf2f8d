"""Our Forecaster against Chronos2Pipeline of chronos-forecasting: the same script, another import.

Errors are in units of each series' standard deviation.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2.preprocess import from_data_frame
from test_parity_chronos2 import GOLDEN_SIZE, reference_folder

from tsmjax import Forecaster
from tsmjax.models.chronos2 import QUANTILES_21

LEVELS = [0.5, 0.05, 0.9, 0.33]  # unordered; the last lies between two trained ones


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """A small model whose forecasts move by more than the scale of the series."""
    folder = tmp_path_factory.mktemp("random") / "model"
    return reference_folder(folder, GOLDEN_SIZE, 2048, QUANTILES_21, gain=2.5)


@pytest.fixture(scope="module")
def pair(random_model):
    return Chronos2Pipeline.from_pretrained(random_model), Forecaster.from_pretrained(random_model)


@pytest.fixture(scope="module")
def dummy_pair(test_data):
    folder = test_data / "weights/dummy-chronos2-model"
    return Chronos2Pipeline.from_pretrained(folder), Forecaster.from_pretrained(folder)


def walks(rng, length, variates=None):
    x = rng.normal(size=(variates or 1, length)).cumsum(axis=1).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x if variates else x[0]


def series(seed=0):
    """Univariate and multivariate, short and long, with gaps; one constant."""
    rng = np.random.default_rng(seed)
    shapes = [(100, None), (30, None), (700, 3), (5, None), (200, 5), (600, None), (33, 2)]
    return [walks(rng, *shape) for shape in shapes] + [np.full(40, 7.0, np.float32)]


def dicts(targets, horizon, seed=1):
    """Past and known covariates: numbers, texts with gaps and new values, booleans."""
    rng = np.random.default_rng(seed)

    def colours(size, names):
        return rng.choice(np.array([*names, None], object), size=size)

    return [
        {
            "target": walks(rng, length, None if targets == 1 else targets),
            "past_covariates": {
                "past": walks(rng, length),
                "known": walks(rng, length),
                "colour": colours(length, "abc"),
                "flag": rng.random(length) < 0.5,
            },
            "future_covariates": {"known": walks(rng, horizon), "colour": colours(horizon, "abz")},
        }
        for length in (100, 300, 60)
    ]


def scaled_errors(pair, inputs, horizon, **options):
    """|difference| over the series' scale, as one array; checks shapes and types on the way."""
    theirs, ours = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # horizons beyond one pass
        arguments = dict(prediction_length=horizon, quantile_levels=LEVELS, **options)
        expected, expected_mean = theirs.predict_quantiles(inputs, **arguments)
        found, found_mean = ours.predict_quantiles(inputs, **arguments)
    assert len(found) == len(expected) == len(inputs)
    errors, spread = [], 0.0
    for task, a, b, c, d in zip(inputs, expected, found, expected_mean, found_mean, strict=True):
        target = np.asarray(task["target"] if isinstance(task, dict) else task)
        scale = max(np.nanstd(target), 1e-3 * np.nanmax(np.abs(target)))
        assert isinstance(b, np.ndarray) and b.dtype == np.float32
        assert b.shape == tuple(a.shape) and d.shape == tuple(c.shape)
        errors += [np.abs(a.numpy() - b).ravel() / scale, np.abs(c.numpy() - d).ravel() / scale]
        spread = max(spread, a.numpy().std() / scale)
    return np.concatenate(errors), spread


def assert_close(errors, horizon):
    # Quantiles of weighted samples jump where two samples tie: beyond one pass, single points of
    # a random model may differ by more, on either side of a jump.
    assert np.quantile(errors, 0.999 if horizon > 1024 else 1.0) <= 1e-4
    assert errors.max() <= 1e-2


@pytest.mark.parametrize("horizon", [24, 100, 1500])
def test_lists_of_arrays(pair, horizon):
    inputs = series() if horizon < 1500 else series()[:4]
    errors, spread = scaled_errors(pair, inputs, horizon)
    assert_close(errors, horizon)
    assert spread > 0.5


def test_dummy_checkpoint(dummy_pair):
    errors, _ = scaled_errors(dummy_pair, series(), 100)
    assert_close(errors, 100)


def test_long_horizon_from_a_short_context(dummy_pair):
    errors, _ = scaled_errors(dummy_pair, series()[:2], 1500, context_length=50)
    assert_close(errors, 1500)


@pytest.mark.parametrize(("targets", "horizon"), [(1, 24), (2, 24), (1, 1500)])
def test_covariates(pair, targets, horizon):
    errors, spread = scaled_errors(pair, dicts(targets, horizon), horizon)
    assert_close(errors, horizon)
    assert spread > 0.5


def test_cross_learning(pair):
    errors, _ = scaled_errors(pair, series()[:5], 24, cross_learning=True, batch_size=4)
    assert_close(errors, 24)


def test_three_dimensions_and_tensors(pair):
    values = torch.tensor(np.stack([walks(np.random.default_rng(s), 64, 2) for s in range(3)]))
    assert_close(scaled_errors(pair, values, 24)[0], 24)
    found = pair[1].predict(values.requires_grad_(), 24)
    assert [one.shape for one in found] == [(2, 21, 24)] * 3


def long_frame(horizon, seed=0):
    """Monthly series in mixed order, and the rows ahead of them."""
    rng = np.random.default_rng(seed)
    past, future = [], []
    for item, length in (("b", 90), ("a", 40), ("c", 64)):
        times = pd.date_range("2001-01-01", periods=length + horizon, freq="MS")
        frame = pd.DataFrame({"id": item, "when": times})
        frame["y"], frame["z"] = walks(rng, len(frame)), walks(rng, len(frame))
        frame["price"] = walks(rng, len(frame))
        frame["promo"] = rng.choice(["no", "yes", "maybe"], len(frame))
        frame["weather"] = rng.normal(size=len(frame)).astype(np.float32)
        past.append(frame.iloc[:length])
        future.append(frame.iloc[length:][["id", "when", "price", "promo"]])
    shuffle = rng.permutation(90 + 40 + 64)
    return pd.concat(past).iloc[shuffle], pd.concat(future).iloc[::-1]


@pytest.mark.parametrize("target", ["y", ["y", "z"]])
def test_data_frames_with_covariates(pair, target):
    df, future = long_frame(18)
    if target == "y":
        df = df.drop(columns="z")
    options = dict(
        id_column="id",
        timestamp_column="when",
        target=target,
        prediction_length=18,
        quantile_levels=[0.1, 0.5, 0.9],
    )
    expected, found = (side.predict_df(df, future, **options) for side in pair)
    columns = ["id", "when", "target_name", "predictions", "0.1", "0.5", "0.9"]
    assert list(found.columns) == columns
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-4)


def test_frames_without_validation_and_short_series(pair):
    df = pd.DataFrame(
        {
            "item_id": np.repeat([3, 1], [2, 50]),
            "timestamp": [
                *pd.date_range("2020-01-06 12:00", periods=2, freq="B"),
                *pd.date_range("2020-01-01", periods=50, freq="B"),
            ],
            "target": np.random.default_rng(0).normal(size=52).cumsum(),
        }
    )
    options = dict(prediction_length=20, freq="B", validate_inputs=False)
    expected, found = (side.predict_df(df, **options) for side in pair)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-4)


def test_inputs_prepared_by_the_reference(pair):
    df, future = long_frame(18)
    prepared = from_data_frame(df, ["y", "z"], 18, future, id_column="id", timestamp_column="when")
    expected, found = (side.predict(prepared, prediction_length=18) for side in pair)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a.numpy(), atol=1e-3)


def test_embeddings(pair):
    inputs = series()[:3]
    (expected, theirs), (found, ours) = (side.embed(inputs, batch_size=2) for side in pair)
    for values, a, b, (loc, scale), (our_loc, our_scale) in zip(
        inputs, expected, found, theirs, ours, strict=True
    ):
        assert b.shape == tuple(a.shape)
        own = -(-values.shape[-1] // 16) + 2  # what precedes is padding, and means nothing
        np.testing.assert_allclose(b[:, -own:], a.numpy()[:, -own:], atol=1e-4)
        np.testing.assert_allclose(our_loc, loc.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(our_scale, scale.numpy(), rtol=1e-5)


def test_saved_model_loads_in_the_reference(pair, tmp_path):
    theirs, ours = pair
    ours.save_pretrained(tmp_path / "saved")
    again = Chronos2Pipeline.from_pretrained(tmp_path / "saved")
    for a, b in zip(theirs.predict(series(), 24), again.predict(series(), 24), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.slow
def test_fitting_learns_as_much(pair, tmp_path):
    """Waves with a known covariate that doubles them: both learn it from the same tasks."""
    rng = np.random.default_rng(0)
    t = np.arange(160)

    def task(length):
        start, strong = rng.integers(24), rng.random(160) < 0.5
        y = np.sin(2 * np.pi * (t + start) / 12) * (1 + strong) + 0.05 * rng.normal(size=160)
        return y[:length], strong.astype(np.float32)

    tasks = [task(160) for _ in range(24)]
    train = [
        {"target": y, "past_covariates": {"s": s}, "future_covariates": {"s": None}}
        for y, s in tasks
    ]
    held_out = [task(160) for _ in range(16)]
    asked = [
        {
            "target": y[:144],
            "past_covariates": {"s": s[:144]},
            "future_covariates": {"s": s[144:]},
        }
        for y, s in held_out
    ]
    arguments = dict(
        prediction_length=16, learning_rate=5e-3, num_steps=30, batch_size=16, min_past=32
    )

    def error(model):
        _, median = model.predict_quantiles(asked, prediction_length=16)
        truth = [y[144:] for y, _ in held_out]
        return np.mean([np.abs(np.asarray(m)[0] - y) for m, y in zip(median, truth, strict=True)])

    theirs, ours = pair
    before = error(ours)
    fitted = ours.fit(train, output_dir=tmp_path / "ours", **arguments)
    reference = theirs.fit(train, output_dir=tmp_path / "theirs", **arguments)
    assert error(ours) == before  # the original is not touched
    assert error(fitted) < 0.7 * before
    assert abs(error(fitted) - error(reference)) < 0.25 * before
    # Run folder and export both hold the fitted model, for us and for the reference.
    assert error(Forecaster.from_pretrained(tmp_path / "ours")) == error(fitted)
    exported = Chronos2Pipeline.from_pretrained(tmp_path / "ours/finetuned-ckpt")
    assert abs(error(exported) - error(fitted)) < 1e-4
