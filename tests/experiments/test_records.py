import os
import time

import folders
import pytest
import yaml

from tsmjax.errors import InputError
from tsmjax.experiments import records


def test_runs_are_found_under_any_folder_and_links_name_none_twice(tmp_path):
    for name in ("ttm/a/run_2", "ttm/a/run_1", "chronos2/b/run_1"):
        folders.write(tmp_path / name, 0.5)
    (tmp_path / "ttm/a/best_run").symlink_to("run_2")
    inner = tmp_path / "ttm/a/run_1/checkpoints/9"
    inner.mkdir(parents=True)
    (inner / "config.json").write_text("{}")  # part of a run, not one
    found = [run.path.relative_to(tmp_path).as_posix() for run in records.find([tmp_path])]
    assert found == ["chronos2/b/run_1", "ttm/a/run_1", "ttm/a/run_2"]
    (named,) = records.find([tmp_path / "ttm/a/best_run"])
    assert named.name == "run_2"
    twice = records.find([tmp_path / "ttm", tmp_path / "ttm/a/run_1"])
    assert len(twice) == 2


def test_a_missing_or_empty_folder_is_told(tmp_path):
    (tmp_path / "experiments").mkdir()
    with pytest.raises(InputError, match="did you mean 'experiments'"):
        records.find([tmp_path / "experimnts"])
    with pytest.raises(InputError, match="holds no run"):
        records.find([tmp_path / "experiments"])


def test_how_a_run_ended(tmp_path):
    row = [(1, {"loss": 1.0})]
    done = records.Run(folders.write(tmp_path / "done", 0.5, rows=row))
    running = records.Run(folders.write(tmp_path / "running", rows=row))
    stopped = records.Run(folders.write(tmp_path / "stopped", rows=row))
    failed = records.Run(folders.write(tmp_path / "failed", rows=row))
    broken = records.Run(folders.write(tmp_path / "broken", rows=row))
    (broken.path / "results.json").write_text('{"best": {"m/w')
    (failed.path / "logs").mkdir()
    (failed.path / "logs" / "error.log").write_text("InputError")
    hour_ago = time.time() - 3600
    os.utime(stopped.path / "metrics.jsonl", (hour_ago, hour_ago))
    found = [run.status for run in (done, running, stopped, failed, broken)]
    assert found == ["done", "running", "stopped", "failed", "running"]


def test_a_run_that_failed_once_and_went_on_is_running(tmp_path):
    run = records.Run(folders.write(tmp_path / "run_1", rows=[(1, {"loss": 1.0})]))
    (run.path / "logs").mkdir()
    (run.path / "logs" / "error.log").write_text("InputError")
    minute_ago = time.time() - 60
    os.utime(run.path / "logs" / "error.log", (minute_ago, minute_ago))
    assert run.status == "running"


def test_the_best_is_right_on_ties_nan_and_runs_that_failed(tmp_path):
    scores = {"run_1": float("nan"), "run_2": 0.4, "run_3": 0.3, "run_4": 0.3, "run_5": None}
    runs = [records.Run(folders.write(tmp_path / n, s)) for n, s in scores.items()]
    metric, mode = records.deciding(runs)
    assert (metric, mode) == ("m/wql", "min")
    order = [run.name for run in records.ranked(runs, metric, mode)]
    assert order == ["run_3", "run_4", "run_2", "run_1", "run_5"]
    assert records.ranked(runs, metric, "max")[0].name == "run_2"


def test_the_mode_is_what_the_runs_declare_and_a_wrong_score_is_told(tmp_path):
    runs = [records.Run(folders.write(tmp_path / "run_1", 0.5, mode="max"))]
    assert records.deciding(runs) == ("m/wql", "max")
    assert records.deciding(runs, "m/mase", "min") == ("m/mase", "min")
    with pytest.raises(InputError, match="did you mean 'm/mase'"):
        records.deciding(runs, "m/mas")


def test_only_fields_that_differ_are_told_in_the_order_of_the_config(tmp_path):
    one = folders.write(tmp_path / "a", 0.5, model__d=1, optim__lr=1e-3, data__mix=[1, 2], log__x=1)
    two = folders.write(tmp_path / "b", 0.5, model__d=1, optim__lr=1e-4, data__mix=[1, 3])
    three = folders.write(
        tmp_path / "c", 0.5, model__d=1, optim__lr=1e-4, data__mix=[1, 3], optim__b=1
    )
    runs = [records.Run(path) for path in (one, two, three)]
    assert records.differences(runs) == ["optim.lr", "data.mix", "optim.b"]
    assert records.differences(runs[:1]) == []


HISTORY = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0, "eval_loss": 0.7}, {"epoch": 1}]


@pytest.mark.parametrize(
    ("metrics", "final", "steps"),
    [
        ({"eval_loss": 0.7, "note": "x", "eval_nan": float("nan")}, {"eval_loss": 0.7}, []),
        (HISTORY, {"step": 20, "loss": 1.0, "eval_loss": 0.7}, [10, 20]),
        ({"eval_loss": 0.7, "log_history": HISTORY}, {"eval_loss": 0.7}, [10, 20]),
    ],
)
def test_config_yaml_and_metrics_json_are_read(tmp_path, metrics, final, steps):
    import json

    run = tmp_path / "run_2025-11-12_14-30-45"
    run.mkdir()
    settings = {"training": {"learning_rate": 0.001}, "logging": {"log_level": "info"}}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run / "metrics.json").write_text(json.dumps(metrics))
    (found,) = records.find([tmp_path])
    assert found.config["training.learning_rate"] == 0.001
    assert found.scores == final and found.status == "done"
    assert [row["step"] for row in found.rows] == steps
    assert records.deciding([found]) == ("eval_loss", "min")
