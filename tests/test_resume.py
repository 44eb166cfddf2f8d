"""Killed at random moments, the same command ends with the losses of an uninterrupted run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STEPS = 60
COMMAND = [
    *(sys.executable, "-m", "tsmjax.main", "--config=configs/chronos2_test.py"),
    *("--config.data.sources[0].path=embedded:tsmixup?series=64&max_length=256",),
    *("--config.data.sources[1].path=embedded:kernel_synth?series=16&length=256",),
    *("--config.model.context_length=128", "--config.model.d_model=64", "--config.model.d_ff=128"),
    f"--config.optim.length={STEPS}",
    *("--config.log.every=1", "--config.checkpoint.every=4", "--config.evals.every=20"),
]


def rows(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def last_step(run: Path) -> int:
    return max((row["step"] for row in rows(run)), default=0)


def losses(run: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(run) if "loss" in row}


def start(run: Path, cache: Path) -> subprocess.Popen:
    # One device, as on a laptop; a compilation cache, so that ten restarts take seconds each.
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.Popen(
        [*COMMAND, f"--workdir={run}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_ten_kills_change_no_bit(tmp_path):
    whole, killed, cache = (tmp_path / name for name in ("whole", "killed", "cache"))
    process = start(whole, cache)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()

    choose = random.Random(0)
    kills = 0
    while kills < 10:
        before = last_step(killed)
        target = min(before + choose.randint(1, 9), STEPS - 2)
        process = start(killed, cache)
        deadline = time.time() + 120
        while last_step(killed) < target or (kills and last_step(killed) == before):
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.time() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    process = start(killed, cache)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()

    assert list(losses(whole)) == list(range(1, STEPS + 1))
    assert losses(killed) == losses(whole)
    results = [json.loads((run / "results.json").read_text()) for run in (whole, killed)]
    for name in ("best_step", "best", "test"):
        assert results[0][name] == results[1][name]
