"""Two processes with four devices each, and one process with one: the same losses and scores."""

import json

import numpy as np
import pytest
from processes import Job

pytestmark = pytest.mark.timeout(1200)
STEPS = 20


def train(walks, folder, hosts, devices, **mesh):
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
        *("-m", "tsmjax.main", f"--config=configs/chronos2_test.py:{walks}"),
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
def test_losses_and_scores_are_those_of_one_device(walks, tmp_path):
    alone, alone_scores = train(walks, tmp_path / "alone", 1, 1)
    losses, scores = train(walks, tmp_path / "two", 2, 4, replica=2, fsdp=2, tensor=2)
    assert len(losses) == len(set(losses)) == STEPS
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    assert scores.keys() == alone_scores.keys() and any("wql" in name for name in scores)
    np.testing.assert_allclose([*scores.values()], [*alone_scores.values()], rtol=1e-5)
    logs = tmp_path / "two" / "run" / "logs"
    assert [path.name for path in logs.iterdir()] == ["training.log"]  # process 0 alone writes
    assert "8 devices on 2 processes" in (logs / "training.log").read_text()
