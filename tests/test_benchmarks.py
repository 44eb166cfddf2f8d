"""Benchmarks of the data run from their command lines and report what they say they do."""

import json
import subprocess
import sys

import pytest


def run(name, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def test_arrow_reading(tmp_path):
    small = "--long=64 --length=96 --context=32 --batch=16 --batches=3 --many=500 --short=40"
    found = run("arrow_reading", *small.split(), "--repeats=1", f"--folder={tmp_path}")
    assert len(found["windows"]["pipeline_per_second"]) == 1
    assert found["series"]["reopen"]["series"] == 500
    assert 0 < found["series"]["reopen"]["anonymous_mb_open"] < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_synthetic(tmp_path):
    (tmp_path / "small.py").write_text(
        "from configs import chronos2_small\n"
        "def get_config(argument):\n"
        "    config = chronos2_small.get_config(argument)\n"
        "    config.model.update(d_model=16, d_ff=16, num_layers=1, num_heads=1)\n"
        "    config.model.context_length = 128\n"
        "    return config\n"
    )
    found = run("synthetic", f"--config={tmp_path}/small.py", "--blocks=1", "--repeats=1")
    for name in ("single", "groups"):
        row = found[name]
        assert row["length"] == 192
        rates = row["generated_per_second"], row["used_per_second"]
        assert row["ratio"] == pytest.approx(rates[0] / rates[1], rel=0.05)
    assert found["single"]["rows_per_block"] == 1024
    assert 256 <= found["groups"]["rows_per_block"] <= 1024
    assert sum(found["parts"][name]["rows"] for name in ("structural", "ets", "tcm")) > 700
