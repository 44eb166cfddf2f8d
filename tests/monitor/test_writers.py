import json
import sys
import types

import pytest

from tsmjax.errors import InputError
from tsmjax.monitor import LogConfig, Monitor


@pytest.fixture
def wandb(monkeypatch):
    """A module that remembers what W&B would have been told."""
    module = types.ModuleType("wandb")
    module.told, module.started, module.finished = [], [], 0

    class Run:
        def log(self, values, step):
            module.told.append((step, values))

        def finish(self):
            module.finished += 1

    def init(**settings):
        module.started.append(settings)
        return Run()

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def logged(folder, log, steps=2, config=None):
    ours = Monitor(folder, LogConfig(tensorboard=False, **log), 8, 4, run_config=config)
    for step in range(1, steps + 1):
        ours.step(step, {"loss": float(step), "grad_norm": 1.0, "learning_rate": 1e-3})
    ours.scores(steps, {"m/wql": 0.5})
    ours.close()


def test_wandb_gets_config_values_and_scores_and_one_id_a_folder(tmp_path, wandb):
    run = tmp_path / "experiment" / "run_1"
    logged(run, {"wandb": "forecasts"}, config={"seed": 3})
    (first,) = wandb.started
    assert first["project"] == "forecasts" and first["config"] == {"seed": 3}
    assert (first["name"], first["group"], first["dir"]) == ("run_1", "experiment", str(run))
    assert wandb.told[0][0] == 1 and wandb.told[0][1]["train/loss"] == 1.0
    assert wandb.told[-1] == (2, {"benchmark/m/wql": 0.5}) and wandb.finished == 1
    logged(run, {"wandb": "forecasts"})
    logged(tmp_path / "experiment" / "run_2", {"wandb": "forecasts"})
    ids = [settings["id"] for settings in wandb.started]
    assert ids[0] == ids[1] != ids[2] and wandb.started[1]["resume"] == "allow"


def test_a_wandb_that_fails_or_is_missing_does_not_end_the_run(
    tmp_path, wandb, monkeypatch, caplog
):
    def refuse(**_):
        raise ConnectionError("no network")

    wandb.init = refuse
    logged(tmp_path / "a", {"wandb": "forecasts"})
    assert "W&B is off from here on: ConnectionError: no network" in caplog.text
    monkeypatch.setitem(sys.modules, "wandb", None)
    logged(tmp_path / "b", {"wandb": "forecasts"})
    assert 'pip install "tsmjax[wandb]"' in caplog.text
    for name in "ab":
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_writer_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_writers.py").write_text(
        "import json\n"
        "class Totals:\n"
        "    def __init__(self, run):\n"
        "        self.run, self.total = run, 0.0\n"
        "    def write(self, step, values):\n"
        "        self.total += values.get('train/loss', 0.0)\n"
        "    def close(self):\n"
        "        (self.run / 'total.json').write_text(json.dumps(self.total))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    logged(tmp_path / "run", {"writers": ("my_writers:Totals",)})
    assert json.loads((tmp_path / "run" / "total.json").read_text()) == 3.0
    for wrong in ("my_writers:Totels", "no_such_module:Totals", "my_writers"):
        with pytest.raises(InputError, match=r"log\.writers names"):
            logged(tmp_path / "run", {"writers": (wrong,)})


@pytest.mark.slow
def test_offline_wandb_leaves_a_file_to_upload(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason='needs pip install "tsmjax[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(tmp_path / "run", {"wandb": "forecasts"}, config={"seed": 3})
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    for name in (b"train/loss", b"benchmark/m/wql"):
        assert name in file.read_bytes()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
