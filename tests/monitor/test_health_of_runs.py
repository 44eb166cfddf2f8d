"""A small training that goes wrong in three ways: its reports name each cause."""

import json
import time
from pathlib import Path

import pytest
import toy

import tsmjax
from tsmjax.monitor import writers


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a run of 60 steps came to, and what it wrote; reports at 20, 40 and 60."""
    folder = tmp_path_factory.mktemp("health")
    toy.install(folder)
    toy.write_rows(folder / "rows")
    from toy_task import RowsOnDisk

    read, write = RowsOnDisk.__getitem__, writers.JsonLines.write

    def batch(self, step):
        found = read(self, step)
        if step == 29:
            return {**found, "x": 1e4 * found["x"]}
        if step >= 40:
            time.sleep(0.05)
        return found

    def full(self, step, values):
        if step > 50:
            raise OSError(28, "No space left on device")
        write(self, step, values)

    values = toy.config(
        folder / "rows",
        optim={"length": 60, "clip": 1.0},
        log={"health": 20, "plots": True},
        evals={"every": 60},
        checkpoint={"every": 60},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowsOnDisk, "__getitem__", batch)
        patch.setattr(writers.JsonLines, "write", full)
        found = tsmjax.train(values, str(folder / "run_1"))
    return found, (folder / "run_1" / "logs" / "training.log").read_text()


def test_the_explosion_the_slow_loader_and_the_full_disk_are_named(outcome):
    found, log = outcome
    by_step = {step: [] for step in (20, 40, 60)}
    for one in found["findings"]:
        by_step[one["step"]].append(one["finding"])
    (explosion,) = [one for one in by_step[40] if "exploded" in one]
    assert "exploded once: at step 30 its norm was" in explosion  # batches count from 0
    assert not any("exploded" in one for step in (20, 60) for one in by_step[step])
    (full,) = [one for one in by_step[60] if "No space left" in one]
    assert full.startswith("metrics.jsonl is off from here on") and "Free the disk" in full
    panels = log.split("╭─ health")
    assert len(panels) == 4
    assert "limited by the data: steps waited" in panels[3]
    assert "limited by compilation" in panels[1]


def test_the_run_folder_tells_the_whole_story(outcome):
    run = Path(outcome[0]["run"])
    page = (run / "report.html").read_text()
    assert "exploded once: at step 30" in page and 'data-share="compile"' in page
    (start,) = json.loads((run / "provenance.json").read_text())
    assert start["mesh"]["fsdp"] == 1 and list(start["data"]) == [str(run.parent / "rows")]
    assert (run / "config.yaml").exists() and (run.parent / "run_history.csv").exists()


def test_the_ledger_adds_up_to_the_wall_time(outcome):
    found, _ = outcome
    assert set(found["time"]) == {
        *("step", "input", "compile", "evaluation", "checkpoint", "monitor", "other")
    }
    assert all(seconds >= 0 for seconds in found["time"].values())
    assert found["time"]["input"] > 0.2 and found["time"]["compile"] > 0.1
    assert 0.5 * found["seconds"] < sum(found["time"].values()) < found["seconds"] + 0.5
    assert 0 < found["goodput"] < 1
