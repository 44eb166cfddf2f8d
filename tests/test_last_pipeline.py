"""The shipped skeleton pipeline on real clips, killed in each of its stages, with one command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parent.parent
FILE = ROOT / "configs" / "last_pipeline.yaml"


def start(data: Path, folder: Path) -> subprocess.Popen:
    """Few epochs of ShiftFuse, so that the first student falls short of 88 %."""
    words = {
        # The words of the teachers' config are those of the data set: nano for them, too.
        **{"kind": "ucla", "dataset": "ucla,nano", "size": "nano"},
        "teacher": "configs/shiftfuse.py",
        "raw": data / "data" / "skeleton" / "nw_ucla_all_sqe.tar.xz",
        **{"teacher_epochs": "7 epochs", "student_epochs": "7 epochs"},
        "pretraining_epochs": "12 epochs",
    }
    command = [sys.executable, "-m", "tsmjax.experiments", "run", str(FILE)]
    return subprocess.Popen(
        [*command, *(f"{name}={value}" for name, value in words.items()), "--dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Kill the pipeline and its stage, which is not asked to save."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in [*map(int, children), process.pid]:
        os.kill(child, signal.SIGKILL)
    process.wait()


def wait_for_work(process: subprocess.Popen, stage: dict, folder: Path) -> None:
    """Wait until a training has saved once, and another command has run for some seconds."""
    if stage["run"] != "train":
        time.sleep(4)
    else:
        saved = folder / stage["name"] / "checkpoints"
        while not any(path.name.isdigit() for path in saved.glob("*")):  # others are half written
            assert process.poll() is None
            time.sleep(0.1)


def test_a_pipeline_that_is_killed_in_every_stage_ends(test_data, tmp_path):
    pytest.importorskip("litert_converter")
    stages = {stage["name"]: stage for stage in yaml.safe_load(FILE.read_text())["stages"]}
    folder, killed, said = tmp_path / "run", [], []
    while killed != [*stages]:
        process = start(test_data, folder)
        for line in process.stdout:
            said.append(line)
            begun = re.match(r"(\w+): \w+ \(output in", line)
            if begun and begun[1] not in killed:
                wait_for_work(process, stages[begun[1]], folder)
                kill(process)
                killed.append(begun[1])
                break
        else:
            pytest.fail("It ended before it was killed in all stages:\n" + "".join(said))

    process = start(test_data, folder)
    rest, _ = process.communicate()
    assert process.returncode == 0, "".join([*said, rest])
    assert f"All {len(stages)} stages are over" in rest.replace("\n", " ")
    states = json.loads((folder / "pipeline.json").read_text())["stages"]
    assert {name: state["state"] for name, state in states.items()} == dict.fromkeys(stages, "done")
    for name, stage in stages.items():
        if stage["run"] == "train":
            assert "Resuming" in (folder / f"{name}.log").read_text()
            assert json.loads((folder / name / "results.json").read_text())["best"]
    scores = (folder / "teachers" / "scores.csv").read_text()
    assert "ensemble" in scores
    for file in ("onnx/student.onnx", "int8/student.onnx", "litert/student.tflite"):
        assert (folder / file).stat().st_size > 50_000
    print("".join([*said, rest]), scores)
