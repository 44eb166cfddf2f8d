"""Two processes with four devices each, and one process with one: the same losses and scores."""

import json

import numpy as np
import pytest
from processes import Job

from tsmjax.data.arrow import write_dataset

pytestmark = pytest.mark.timeout(1200)
STEPS = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Seasonal random walks, half of them bivariate, some values missing."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        t = np.arange(rng.integers(120, 200))
        x = np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(2, len(t))).cumsum(axis=1)
        x[:, rng.random(len(t)) < 0.05] = np.nan
        rows.append({"item_id": str(number), "target": x.astype(np.float32)[: 1 + number % 2]})
    folder = tmp_path_factory.mktemp("corpus") / "walks"
    write_dataset(rows, folder)
    return folder


def train(corpus, folder, hosts, devices, **mesh):
    """Train a tiny Chronos-2; return losses by step, and scores of validation and test."""
    folder.mkdir()
    values = {
        **{"model.num_layers": 1, "model.d_model": 32, "model.d_ff": 64},
        **{"model.context_length": 64, "model.dropout_rate": 0.1},
        **{"optim.length": STEPS, "optim.lr": 1e-4, "optim.schedule": "constant"},
        **{"optim.warmup": 0, "evals.every": STEPS, "log.every": 1, "log.plots": False},
        **{f"mesh.{name}": size for name, size in mesh.items()},
    }
    command = [
        *("-m", "tsmjax.main", f"--config=configs/chronos2_test.py:{corpus}"),
        f"--workdir={folder / 'run'}",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]
    job = Job(command, folder, hosts, devices)
    try:
        assert job.codes() == [0] * hosts, job.text()
    finally:
        job.kill()
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    results = json.loads((folder / "run/results.json").read_text())
    return losses, {**results["best"], **{f"test {k}": v for k, v in results["test"].items()}}


@pytest.mark.slow
def test_losses_and_scores_are_those_of_one_device(corpus, tmp_path):
    alone, alone_scores = train(corpus, tmp_path / "alone", 1, 1)
    losses, scores = train(corpus, tmp_path / "two", 2, 4, replica=2, fsdp=2, tensor=2)
    assert len(losses) == len(set(losses)) == STEPS
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    assert scores.keys() == alone_scores.keys() and any("wql" in name for name in scores)
    np.testing.assert_allclose([*scores.values()], [*alone_scores.values()], rtol=1e-5)
    logs = tmp_path / "two" / "run" / "logs"
    assert [path.name for path in logs.iterdir()] == ["training.log"]  # process 0 alone writes
    assert "8 devices on 2 processes" in (logs / "training.log").read_text()
