"""Run folders and the best_run link."""

import json

import jax
import pytest
import toy

from tsmjax import runs
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.main import parse


@pytest.fixture
def config(tmp_path, monkeypatch):
    toy.install(tmp_path)
    toy.write_rows(tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    return resolve(toy.config(tmp_path / "rows"))


def finish(run, score):
    (run / "results.json").write_text(json.dumps({"best": {"m": score}}))


def test_each_run_has_a_folder_of_its_own(config):
    first, second = runs.open_run(config, None), runs.open_run(config, None)
    assert first != second
    assert first.parent.as_posix() == "experiments/toy_family/toy"
    saved = json.loads((first / "config.json").read_text())
    assert resolve(saved) == config


def test_a_file_is_no_workdir(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        runs.open_run(config, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("scores", "mode", "winner"),
    [
        ([0.5, 0.3, 0.4], "min", 1),
        ([0.5, 0.3, 0.4], "max", 0),
        ([0.5, 0.3, 0.3], "min", 1),
        ([float("nan"), 0.9, None], "min", 1),
    ],
)
def test_best_run(tmp_path, scores, mode, winner):
    folders = [tmp_path / f"run_{i}" for i in range(len(scores))]
    for folder, score in zip(folders, scores, strict=True):
        folder.mkdir()
        if score is not None:
            finish(folder, score)
    (tmp_path / "run_failed").mkdir()
    (tmp_path / "run_failed" / "results.json").write_text("{")
    assert runs.link_best(folders[0], "m", mode) == folders[winner]
    assert (tmp_path / "best_run").resolve() == folders[winner].resolve()


def test_no_score_no_link(tmp_path):
    (tmp_path / "run_1").mkdir()
    assert runs.link_best(tmp_path / "run_1", "m", "min") is None
    assert not (tmp_path / "best_run").exists()


def test_a_host_that_does_not_see_the_run_folder_says_so(config, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_VISIBLE", 0.3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)  # process 0 made it elsewhere
    with pytest.raises(InputError, match="put it on storage that all hosts share"):
        runs.open_run(config, str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_config_of_a_run_starts_another(config):
    run = runs.open_run(config, None)
    values, *_ = parse(["main", f"--config={run / 'config.yaml'}"])
    assert resolve(values) == config
    values, *_ = parse(["main", "--config", str(run / "config.json"), "--config.optim.lr=0.5"])
    assert resolve(values).optim.lr == 0.5


def test_fields_that_a_file_leaves_out_can_be_overridden():
    changes = [
        "--config.data.max_series=5",
        "--config.optim.lora.rank",
        "4",
        "--noconfig.log.plots",
    ]
    values, *_ = parse(["main", "--config=configs/chronos2_test.py", *changes])
    changed = resolve(values)
    assert (changed.data.max_series, changed.optim.lora.rank, changed.log.plots) == (5, 4, False)


@pytest.mark.parametrize(
    ("text", "sentence"), [("- 1", "must hold the sections"), ("a: [", "no YAML")]
)
def test_a_file_of_another_kind_is_no_config(tmp_path, text, sentence):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        parse(["main", f"--config={tmp_path / 'x.yaml'}"])


def test_a_failed_run_wins_nothing_and_a_broken_one_neither(tmp_path):
    for name in ("run_1", "run_2", "run_3"):
        (tmp_path / name / "logs").mkdir(parents=True)
    finish(tmp_path / "run_1", 0.5)
    (tmp_path / "run_2" / "logs" / "error.log").write_text("InputError")
    (tmp_path / "run_2" / "metrics.jsonl").write_text('{"step": 1, "m": 0.1}\n')
    (tmp_path / "run_3" / "results.json").write_text(json.dumps({"best": {}}))
    assert runs.link_best(tmp_path / "run_3", "m", "min") == tmp_path / "run_1"
