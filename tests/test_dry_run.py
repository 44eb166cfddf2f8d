"""What a run would take, told without training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from tsmjax import main
from tsmjax.dry_run import dry_run

ROOT = Path(__file__).parent.parent


def test_eight_way_fsdp_holds_an_eighth_of_everything(rows):
    whole = dry_run(toy.config(rows, mesh={"fsdp": 1, "replica": 8}, optim={"average": 0.9}))
    split = dry_run(toy.config(rows, mesh={"fsdp": 8, "replica": 1}, optim={"average": 0.9}))
    kernels, rest = 4 * (8 * 16 + 16 * 3 + 16 * 32), 4 * (2 * 16 + 3 + 32)
    assert whole.parameters == kernels + rest
    assert split.parameters == kernels // 8 + rest
    assert split.gradients == split.average == split.parameters
    assert whole.moments == 2 * whole.parameters + 4  # and a counter
    assert split.moments == 2 * split.parameters + 4
    assert split.frozen > 0 and split.batch == whole.batch > 0
    assert split.flops is None
    parts = (split.parameters, split.gradients, split.moments, split.average)
    assert split.memory == sum(parts) + split.frozen + split.batch + split.temporaries


def test_the_command_needs_no_devices_and_trains_nothing(rows, tmp_path):
    values = json.dumps(toy.config(rows, mesh={"fsdp": 8}))
    config = tmp_path / "config.py"
    config.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({values!r}))\n"
    )
    command = [sys.executable, "-m", "tsmjax.main", f"--config={config}", "--dry_run=16"]
    paths = os.pathsep.join([str(ROOT), str(rows.parent)])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2 replica × 8 fsdp × 1 tensor = 16 devices, 16 rows a step" in done.stdout
    assert "fsdp, tensor" in done.stdout
    assert "temporaries" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


@pytest.mark.slow
def test_flops_of_the_family_and_the_devices_that_are_here(capsys):
    arguments = ["--config=configs/chronos2_test.py", "--dry_run", "--config.model.num_layers=1"]
    assert main.run(["main", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "8 replica × 1 fsdp × 1 tensor = 8 devices, 16 rows a step" in printed
    assert "matmul FLOPs" in printed and "all 200 steps" in printed


def test_a_batch_that_does_not_divide_is_refused(capsys):
    arguments = ["--config=configs/chronos2_test.py", "--config.data.batch_size=12", "--dry_run"]
    assert main.run(["main", *arguments]) == 2
    assert "12 leading entries" in capsys.readouterr().err
