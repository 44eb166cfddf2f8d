"""The NTU-60 recipe on clips in the exact file format: killed and resumed, and on eight devices.

The clips are of nobody (`tsmjax.data.synthetic.skeletons`); what is tested is the way from files to
scores.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tsmjax.data.synthetic.skeletons import clip, place
from tsmjax.prepare.__main__ import main as prepare
from tsmjax.prepare.skeleton_file import write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parent.parent
CLIPS, ACTIONS = 2000, 60


@pytest.fixture(scope="module")
def ntu(tmp_path_factory):
    """Clips of 60 actions, 8 subjects and 3 cameras, from files to Arrow."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data") / "ntu"
    for index in range(CLIPS):
        at = place(index, ACTIONS)
        name = "S{setup:03d}C{camera:03d}P{subject:03d}R{repetition:03d}".format(**at)
        joints = clip(0, at["action"], at["subject"], at["camera"], index, 30)
        write(raw / f"{name}A{at['action'] + 1:03d}.skeleton", joints)
    assert prepare(["ntu", "--src", str(raw), "--dst", str(folder)]) == 0
    return folder


def start(ntu, run, devices=1):
    """Train LAST-E nano for two epochs as configs/last_e.py says."""
    command = [
        *(sys.executable, "-m", "tsmjax.main", f"--config=configs/last_e.py:nano,{ntu}"),
        *(f"--workdir={run}", "--config.optim.length=2 epochs", "--config.optim.warmup=1 epochs"),
        *("--config.data.batch_size=64", "--config.log.every=1", "--config.checkpoint.every=4"),
        *("--config.evals.every=1 epochs", "--config.log.plots=False"),
    ]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "32"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process):
    output, _ = process.communicate(timeout=3000)
    assert process.returncode == 0, output.decode()


def losses(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def whole(ntu, tmp_path_factory):
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finished(start(ntu, run))
    return run


def test_a_killed_run_ends_with_the_same_losses_and_scores(ntu, whole, tmp_path):
    process = start(ntu, tmp_path / "run")
    while len(losses(tmp_path / "run")) < 6:
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished(start(ntu, tmp_path / "run"))
    assert losses(tmp_path / "run") == losses(whole)
    results = [json.loads((run / "results.json").read_text()) for run in (whole, tmp_path / "run")]
    assert results[0]["test"] == results[1]["test"]


def test_eight_devices_have_the_losses_of_one(ntu, whole, tmp_path):
    finished(start(ntu, tmp_path / "run", devices=8))
    one, eight = losses(whole), losses(tmp_path / "run")
    assert one.keys() == eight.keys()
    np.testing.assert_allclose([*eight.values()], [*one.values()], rtol=2e-3)
