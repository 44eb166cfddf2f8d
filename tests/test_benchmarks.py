"""Benchmarks of the data report what they say they do."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import monitoring, synthetic, ttm_etth1, ttm_train_step
from configs import chronos2_small
from tsmjax.data.synthetic import corpus
from tsmjax.models import ttm


def test_arrow_reading(tmp_path):
    small = "--long=64 --length=96 --context=32 --batch=16 --batches=3 --short=40"
    command = [sys.executable, "-m", "benchmarks.arrow_reading", *small.split()]
    command += ["--repeats=1", f"--folder={tmp_path}", "--many", "500", "700"]
    root = Path(synthetic.__file__).parents[1]
    found = json.loads(subprocess.check_output(command, text=True, cwd=root).splitlines()[-1])
    assert found["windows"]["pipeline"][0]["per_cpu_second"] > 0
    assert [one["reopen"]["series"] for one in found["series"]] == [500, 700]
    assert 0 < found["series"][0]["reopen"]["anonymous_mb_open"] < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("variates", "rows"), [(1, 1024), (8, 640)])
def test_every_batch_of_generated_series_is_a_block_of_its_own(monkeypatch, variates, rows):
    made = []

    def items(number, *, max_length, variates, **_):
        made.append(number)
        sizes = [1 if variates == 1 else 2 + n % 7 for n in range(corpus.block_size(variates))]
        none = np.zeros((0, max_length), np.float32)
        return [(np.ones((size, max_length), np.float32), none, none) for size in sizes]

    monkeypatch.setattr(corpus, "items", items)
    settings = chronos2_small.get_config().to_dict()
    settings["model"]["context_length"] = 256
    found = synthetic.generated(settings, variates, argparse.Namespace(mixup=0.5, blocks=2))
    assert made == [0, 1, 2]
    assert found["length"] == 320
    assert found["rows_per_block"] == pytest.approx(rows, rel=0.02)
    rate = found["rows_per_block"] / found["seconds_per_block"]
    assert found["generated_per_second"] == pytest.approx(rate, rel=0.1)


@pytest.mark.slow
def test_both_sides_of_the_ttm_benchmark_forecast_alike(capsys):
    pytest.importorskip("tsfm_public", reason="needs granite-tsfm, see docs/ttm.md")
    model = ttm.Config(
        **{"context_length": 24, "prediction_length": 4, "patch_length": 4, "d_model": 8},
        **{"num_layers": 1, "adaptive_patching_levels": 0, "decoder_d_model": 8},
        **{"decoder_num_layers": 1},
    )
    options = argparse.Namespace(batch=4, steps=3, rounds=1)
    found = ttm_train_step.compare(model, 2, options)
    assert found["forecast_difference"] < 1e-5
    for kind in ("train", "predict"):
        times = found[kind]
        assert times["ratio"] == pytest.approx(times["reference_ms"] / times["ours_ms"], abs=0.02)
    for shares in found["shares"].values():
        assert sum(shares.values()) == pytest.approx(1, abs=0.01)
        assert shares["matrix products"] > 0


def test_kernels_count_as_the_operator_that_they_hold():
    def kind(text):
        return ttm_train_step.operator(text, ttm_train_step.OURS)

    assert kind("%a = f32[8,8] dot(%x, %y)") == "matrix products"
    assert kind("%b = u32[8] shift-right-logical(%x, %c)\n%e = f32[8] erf(%x)").startswith(
        "dropout"
    )
    assert kind("%r = f32[8] reduce(%x, %zero)") == "norms, gates and sums"
    assert kind("%r = f32[8] add(%x, %zero)").startswith("other")
    assert ttm_train_step.differences([(0, 0), (3, 1), (5, 2)]) == [(3, 1), (2, 1)]


def test_etth1_trains_every_seed_and_averages_the_test_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TSMJAX_TEST_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["", "--horizon", "96", "--seeds", "2"])
    with pytest.raises(SystemExit, match="TSMJAX_TEST_DATA"):
        ttm_etth1.main()

    trained = []

    def train(config, workdir):
        trained.append((config.model.prediction_length, config.seed, workdir))
        score = 0.3 + 0.1 * config.seed
        test = {"etth1/mse": score, "etth1/mae": score + 0.02}
        facts = {"parameters": 9, "best_step": 5, "step": 7, "seconds": 2.0}
        return {"test": test, "best": {"etth1/mse": 0.7}, **facts}

    monkeypatch.setattr(ttm_etth1, "trained", train)
    monkeypatch.setattr(ttm_etth1, "prepared", lambda workdir: workdir / "etth1")
    line = ["", "--seeds", "2", "--workdir", str(tmp_path), "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", line)
    ttm_etth1.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(set(trained)) == len(trained) == 8
    assert list(found["horizons"]) == ["96", "192", "336", "720"]
    first = found["horizons"]["96"]
    assert (first["mse"], first["mae"], first["seconds"]) == (0.35, 0.37, 4.0)
    assert "0.350 (0.370)" in capsys.readouterr().out


def test_a_call_within_a_monitored_call_counts_once():
    clock = monitoring.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.02))
    outer = clock.timed("outer", inner)
    outer()
    assert list(clock.wall) == ["outer"] and 0.02 <= clock.wall["outer"][0] < 0.2
    assert clock.cpu < 0.02
    with pytest.raises(ZeroDivisionError):
        clock.timed("fails", lambda: 1 / 0)()
    inner()
    assert [len(clock.wall[name]) for name in ("outer", "fails", "inner")] == [1, 1, 1]
