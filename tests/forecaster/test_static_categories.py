"""Static categories: from a CSV into training, and from frames and dicts into forecasts."""

import re

import jax
import numpy as np
import pandas as pd
import pytest
from shops import MIXED, SCALERS, SIZE, ahead, frame, save

from tsmjax import Forecaster
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.forecasting.backtest import scores
from tsmjax.nn.functional import merge, split
from tsmjax.prepare.__main__ import main as prepare

CATEGORIES = [{"name": "region", "values": ["north", "south"]}, {"name": "size", "values": []}]
MODEL = MIXED | {"categories": (2, 3)}


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("categories") / "hf"
    return Forecaster.from_pretrained(save(folder, MODEL, {**SCALERS, "categories": CATEGORIES}))


def with_categories(df, region="north", size=2):
    return df.assign(region=region, size=size)


def predictions(forecaster, df):
    return forecaster.predict_df(df, ahead(df), quantile_levels=[0.5])["predictions"].to_numpy()


def test_a_category_of_a_frame_is_what_the_model_looks_up(shops):
    df = frame(("a", "b"))
    base = predictions(shops, with_categories(df))
    regions = np.where(df["item_id"] == "a", "north", "south")
    mixed = predictions(shops, with_categories(df, regions))
    np.testing.assert_allclose(mixed[:6], base[:6], rtol=1e-5)
    assert np.abs(mixed[6:] - base[6:]).max() > 0.1
    assert np.abs(predictions(shops, with_categories(df, size=0)) - base).max() > 0.1

    model = shops._loaded.model
    context = df[df["item_id"] == "b"][SCALERS["names"]].astype(float).to_numpy().T[:, -24:]
    mean, deviation = (np.array(SCALERS[name])[:, None] for name in ("mean", "deviation"))
    future = np.full((3, 6), np.nan)
    future[2] = 1.0
    graph, params, stats = split(model)
    found, loc_scale = jax.jit(lambda c, f, s: merge(graph, params, stats)(c, f, static=s))(
        *(((x - mean) / deviation)[None].astype(np.float32) for x in (context, future)),
        np.array([[1, 2]], np.int32),
    )
    expected = np.asarray(model.unscale(found, loc_scale))[0, 0, 0] * 20.0 + 100.0
    np.testing.assert_allclose(mixed[6:], expected, rtol=1e-4)


def entry(df, **changes):
    values = {
        "target": df["sales"].to_numpy(),
        "past_covariates": {name: df[name].to_numpy() for name in ("promotion", "visitors")},
        "future_covariates": {"promotion": np.ones(6)},
        "static_categories": {"size": 2, "region": "south"},
    }
    return {**values, **changes}


def test_dicts_equal_frames_and_states_see_them_too(shops):
    df = frame(("a",))
    expected = predictions(shops, with_categories(df, "south"))
    (found,) = shops.predict([entry(df)], 6)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
    future = {"promotion": None}
    north = {"size": 2, "region": "north"}
    inputs = entry(df, future_covariates=future), entry(df, future_covariates=future)
    inputs[1]["static_categories"] = north
    (one, other), _ = shops.embed(list(inputs))
    assert one.shape == (1, 4, 8) and np.abs(one - other).max() > 1e-3


def test_a_backtest_and_a_saved_model_know_them(shops, tmp_path):
    df = with_categories(frame(("a", "b")), "south")
    past = shops.backtest(df, windows=2, quantile_levels=[0.5])
    assert len(past) == 2 * 2 * 6 and np.isfinite(scores(past).to_numpy()).all()
    last = past[past["cutoff"] == past["cutoff"].max()]
    cut = df.groupby("item_id").head(34)
    known = df.groupby("item_id").tail(6)[["item_id", "timestamp", "promotion"]]
    expected = shops.predict_df(cut, known, quantile_levels=[0.5])["predictions"]
    np.testing.assert_allclose(last["predictions"], expected, rtol=1e-4)
    shops.save_pretrained(tmp_path / "again")
    again = Forecaster.from_pretrained(tmp_path / "again")
    np.testing.assert_allclose(predictions(again, df), predictions(shops, df), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda df: df.drop(columns="region"), "no column 'region'"),
        (lambda df: df.assign(region="nort"), "region = 'nort' (did you mean 'north'?)"),
        (lambda df: df.assign(size=3), "size = 3, but the model was trained with whole numbers"),
        (lambda df: df.assign(size=np.nan), "size = nan"),
        (lambda df: df.assign(size=1.5), "size = 1.5"),
        (
            lambda df: df.assign(size=np.arange(len(df)) % 2),
            "'size' changes within series 'a'",
        ),
    ],
)
def test_wrong_categories_of_frames(shops, change, message):
    df = change(with_categories(frame(("a",))))
    with pytest.raises(InputError, match=re.escape(message)):
        shops.predict_df(df, ahead(df), quantile_levels=[0.5])


@pytest.mark.parametrize(
    ("static", "message"),
    [
        (None, "Input 0 lacks the static category 'region'"),
        ({"size": 1}, "lacks the static category 'region'"),
        ({"size": 1, "region": "north", "x": 1}, "has the static category 'x'"),
        ({"size": 1, "region": "east"}, "Input 0 has region = 'east'"),
        ([0, 1], "no dict of name and value"),
    ],
)
def test_wrong_categories_of_dicts(shops, static, message):
    df = frame(("a",))
    with pytest.raises(InputError, match=re.escape(message)):
        shops.predict([entry(df, static_categories=static)], 6)
    with pytest.raises(InputError, match="give a dict with these"):
        shops.predict([np.arange(30.0)], 6)


def test_a_model_without_them_takes_none(mixed):
    df = frame(("a",))
    with pytest.raises(InputError, match="trained with none"):
        mixed.predict([entry(df)], 6)


def test_texts_of_a_csv_are_numbered_in_training_and_kept_with_the_model(tmp_path):
    df = pd.concat([frame(("a",)), frame(("b",)), frame(("c",))])
    df["region"] = df["item_id"].map({"a": "south", "b": "north", "c": "south"})
    df.to_csv(tmp_path / "shops.csv", index=False)
    command = f"csv --src {tmp_path / 'shops.csv'} --dst {tmp_path / 'shops'} --target sales"
    options = "--past-covariates visitors --static-categories region"
    assert prepare(f"{command} {options}".split()) == 0
    model = {"family": "ttm", **SIZE, "num_input_channels": 2, "prediction_channels": (0,)}
    model |= {"decoder_mode": "mix_channel", "categories": (2,)}
    data = {"path": str(tmp_path / "shops"), "batch_size": 4}
    values = {"model": model, "task": {"kind": "multivariate"}, "data": data}
    task = resolve(values).build_task()
    assert task._extra["static"].tolist() == [[1], [0], [1]]
    assert task.artefacts()["categories"] == [{"name": "region", "values": ("north", "south")}]
    few = resolve({**values, "model": model | {"categories": (1,)}}).build_task()
    with pytest.raises(InputError, match=r"2 values of region, but model\.categories says \[1\]"):
        few.batches("train", 0, 1)


def test_a_category_that_changes_is_refused_by_the_csv_reader(tmp_path, capsys):
    frame(("a",)).assign(region=[*"ab"] * 20).to_csv(tmp_path / "x.csv", index=False)
    command = f"csv --src {tmp_path / 'x.csv'} --dst {tmp_path / 'x'} --target sales"
    assert prepare([*command.split(), "--static-categories", "region"]) == 2
    assert "'region' of a has the values a, b" in capsys.readouterr().err
