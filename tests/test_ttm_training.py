"""TTM through the whole loop: a CSV with covariates, training, resuming, weights out and in."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import tsmjax
from configs import ttm_test
from convert.__main__ import main as convert
from tsmjax import Forecaster, weights
from tsmjax.prepare.__main__ import main as prepare


@pytest.fixture(scope="module")
def sales(tmp_path_factory):
    """Two shops: sales follow promotions, which are known ahead, and visitors, which are not."""
    rng = np.random.default_rng(0)
    frames = []
    for shop in ("a", "b"):
        promotion = rng.random(400) < 0.2
        visitors = 50 + 10 * np.sin(np.arange(400) * 2 * np.pi / 7) + rng.normal(size=400)
        frames.append(
            pd.DataFrame(
                {
                    "item_id": shop,
                    "timestamp": pd.date_range("2024-01-01", periods=400, freq="D"),
                    "sales": visitors / 2 + 20 * promotion + rng.normal(size=400),
                    "visitors": visitors,
                    "promotion": promotion.astype(float),
                }
            )
        )
    folder = tmp_path_factory.mktemp("shops")
    pd.concat(frames).to_csv(folder / "sales.csv", index=False)
    command = f"csv --src {folder / 'sales.csv'} --dst {folder / 'sales'} --target sales"
    covariates = "--past-covariates visitors --future-covariates promotion"
    assert prepare(f"{command} {covariates}".split()) == 0
    return folder


def config(folder, **optim):
    values = ttm_test.get_config(folder).to_dict()
    values["model"] |= {"context_length": 48, "prediction_length": 8, "patch_length": 8}
    values["model"] |= {"d_model": 16, "decoder_d_model": 8, "adaptive_patching_levels": 1}
    values["model"] |= {"num_input_channels": 3, "prediction_channels": (0,)}
    values["model"] |= {"known_channels": (2,), "decoder_mode": "mix_channel"}
    values["model"] |= {"forecast_mixing": {"enabled": True}}
    values["optim"] |= {"length": 8, **optim}
    values["evals"] |= {"every": 4, "batch_size": 16}
    values["log"] |= {"every": 1, "plots": False, "tensorboard": False}
    return values


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_csv_with_covariates_trains_resumes_forecasts_and_leaves_as_weights(sales, tmp_path):
    values = config(str(sales / "sales"))
    values["checkpoint"] |= {"every": 4, "keep_latest": 2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    outcome = tsmjax.train(values, workdir=str(whole))
    assert outcome["step"] == 8 and np.isfinite(outcome["test"]["sales/mse"])
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "8")
    (parts / "metrics.jsonl").unlink()
    assert tsmjax.train(values, workdir=str(parts))["test"] == outcome["test"]
    assert losses(parts) == {step: loss for step, loss in losses(whole).items() if step > 4}

    assert convert(["export", "ttm", str(whole), str(tmp_path / "hf")]) == 0
    found = weights.read(tmp_path / "hf")
    assert list(found.config_values["known_channels"]) == [2]

    df = pd.read_csv(sales / "sales.csv", parse_dates=["timestamp"])
    past = df[df["timestamp"] < "2024-11-01"]
    future = df[df["timestamp"].between("2024-11-01", "2024-11-08")].drop(columns="sales")
    forecasts = [
        Forecaster.from_pretrained(path).predict_df(past, future, quantile_levels=[0.5])
        for path in (whole, tmp_path / "hf")
    ]
    pd.testing.assert_frame_equal(*forecasts)
    assert set(forecasts[0]["target_name"]) == {"sales"} and len(forecasts[0]) == 16
    assert forecasts[0]["predictions"].between(10, 60).all()  # shops, not standard deviations
