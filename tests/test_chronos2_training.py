"""Chronos-2 through the whole loop: one compilation, two stages, a CSV, weights from elsewhere."""

import json

import jax
import numpy as np
import pandas as pd
import pytest

import tsmjax
from configs import chronos2_test
from tsmjax import checkpoint, step, weights
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.main import run
from tsmjax.prepare.__main__ import main as prepare


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Seasonal random walks, a third of them bivariate, with gaps."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        t = np.arange(rng.integers(200, 500))
        x = np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(2, len(t))).cumsum(axis=1)
        x[:, rng.random(len(t)) < 0.05] = np.nan
        rows.append(
            {"item_id": str(number), "target": x.astype(np.float32)[: 1 + (number % 3 == 0)]}
        )
    folder = tmp_path_factory.mktemp("corpus") / "walks"
    write_dataset(rows, folder)
    return str(folder)


def small(source, **changes):
    config = chronos2_test.get_config(source).to_dict()
    config["model"] |= {"d_model": 32, "d_kv": 8, "d_ff": 64, "context_length": 64}
    config["optim"] |= {"length": 6, "lr": 3e-3}
    config["evals"] |= {"every": 3}
    config["log"] |= {"every": 1, "plots": False, "tensorboard": False}
    for section, values in changes.items():
        config[section] |= values
    return config


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_the_step_compiles_once_in_200_steps_and_the_loss_falls(corpus, tmp_path, monkeypatch):
    traces = []
    make = step.make_train_step

    def counting(*arguments):
        train_step = make(*arguments)

        def traced(*inputs):
            traces.append(1)
            return train_step(*inputs)

        return traced

    monkeypatch.setattr(step, "make_train_step", counting)
    config = small(corpus, optim={"length": 200}, evals={"every": 100})
    tsmjax.train(config, workdir=str(tmp_path / "run"))
    found = losses(tmp_path / "run")
    assert len(found) == 200
    assert np.mean(found[-20:]) < 0.7 * np.mean(found[:20])
    assert len(traces) == 1


@pytest.mark.slow
def test_stage_two_extends_context_and_horizon_of_stage_one(corpus, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    scale = {"time_encoding_scale": 256}
    tsmjax.train(small(corpus, model=scale), workdir=str(first))
    longer = small(
        corpus,
        model={**scale, "context_length": 256, "max_output_patches": 4, "scan_layers": False},
        checkpoint={"init_from": str(first)},
        optim={"length": 1, "lr": 0.0},
        evals={"horizon": 64},
        data={"holdout": 128},
    )
    tsmjax.train(longer, workdir=str(second))
    a, b = (checkpoint.load_weights(f"{folder}@final") for folder in (first, second))
    assert (a.config["model"]["context_length"], b.config["model"]["context_length"]) == (64, 256)
    # Stage 1 was scanned, stage 2 is not: the same numbers in another layout.
    unrolled = weights.relayout(a.params, b.params)
    jax.tree.map(np.testing.assert_array_equal, unrolled, b.params)
    series = np.sin(np.arange(256) / 5).astype(np.float32)
    model = tsmjax.from_pretrained(f"{second}@final")
    batch = {
        "context": series[None, None],
        "future": np.full((1, 1, 64), np.nan, np.float32),
        "group": np.zeros((1, 1), np.int32),
        "patches": np.full(1, 4, np.int32),
    }
    forecast = np.asarray(model.task.predict(model.model, batch))
    assert forecast.shape == (1, 1, 21, 64)
    assert np.isfinite(forecast).all()
    # The whole context is read: its oldest step matters.
    batch["context"] = batch["context"].copy()
    batch["context"][..., :16] += 1.0
    assert np.abs(np.asarray(model.task.predict(model.model, batch)) - forecast).max() > 0


def test_a_csv_in_two_commands(tmp_path, capsys):
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=200, freq="D")
    frame = pd.DataFrame(rng.normal(size=(200, 4)).cumsum(axis=0), columns=list("abcd"))
    frame.insert(0, "date", index)
    frame.to_csv(tmp_path / "sales.csv", index=False)
    data, folder = str(tmp_path / "sales"), tmp_path / "run"
    assert not prepare(["csv", "--src", str(tmp_path / "sales.csv"), "--dst", data])
    command = ["main", f"--config=configs/chronos2_test.py:{data}", f"--workdir={folder}"]
    settings = ("model.d_model=32", "model.d_ff=64", "data.batch_size=8", "optim.length=2")
    assert run([*command, *(f"--config.{setting}" for setting in settings)]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert np.isfinite(results["test"]["sales/wql"])
    assert (folder / "results.txt").stat().st_size
    plots = {path.suffix for path in (folder / "plots").iterdir()}
    assert plots == {".png"}


def test_training_starts_from_a_hugging_face_folder(corpus, tmp_path, caplog):
    source = tmp_path / "run"
    tsmjax.train(small(corpus), workdir=str(source))
    loaded = checkpoint.load_weights(str(source))
    values = {k: v for k, v in loaded.config["model"].items() if k != "family"}
    weights.write(tmp_path / "hf", "chronos2", values, loaded.params)
    target = small(
        corpus, checkpoint={"init_from": str(tmp_path / "hf")}, optim={"length": 1, "lr": 0.0}
    )
    with caplog.at_level("INFO", logger="tsmjax"):
        tsmjax.train(target, workdir=str(tmp_path / "second"))
    again = checkpoint.load_weights(f"{tmp_path / 'second'}@final")
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


def test_an_infinite_row_changes_no_other_forecast(corpus, tmp_path):
    """Through `predict`, with groups: only the group of the bad row may move."""
    tsmjax.train(small(corpus), workdir=str(tmp_path / "run"))
    model = tsmjax.from_pretrained(str(tmp_path / "run"))
    rng = np.random.default_rng(0)
    context = rng.normal(size=(3, 2, 64)).cumsum(axis=2).astype(np.float32)
    batch = {
        "context": context,
        "future": np.full((3, 2, 16), np.nan, np.float32),
        "group": np.array([[0, 0], [0, 1], [0, 1]], np.int32),
        "patches": np.ones(3, np.int32),
    }
    expected = np.asarray(model.task.predict(model.model, batch))
    for value in (np.inf, -np.inf, 1e30, np.nan):
        bad = {**batch, "context": context.copy()}
        bad["context"][1, 0, ::3] = value
        found = np.asarray(model.task.predict(model.model, bad))
        keep = np.ones((3, 2), bool)
        keep[1, 0] = False
        np.testing.assert_array_equal(found[keep], expected[keep])
        assert np.isfinite(found[1, 0]).all()


def test_the_metric_may_be_one_that_only_validation_has(corpus, tmp_path):
    config = small(
        corpus,
        data={"validation": corpus},
        evals={"metric": "validation/loss"},
        optim={"length": 3},
    )
    outcome = tsmjax.train(config, workdir=str(tmp_path / "run"))
    assert np.isfinite(outcome["best"]["validation/loss"])
    assert "walks/wql" in outcome["test"]
    assert "validation/loss" not in outcome["test"]
