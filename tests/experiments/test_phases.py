"""Pipelines whose stages are small programs instead of trainings."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.experiments import __main__ as command
from tsmjax.experiments import pipeline
from tsmjax.export import __main__ as export
from tsmjax.main import parse

ROOT = Path(__file__).parents[2]
FILE = """
folder: {folder}
values: {{clips: data/ucla, epochs: 3 epochs}}
stages:
  - {{name: data, run: prepare, arguments: [ucla, --dst, "{{clips}}", 5]}}
  - {{name: student, run: train, config: "x.py:{{clips}}", set: {{optim.length: "{{epochs}}"}}}}
  - {{name: more, run: train, config: x.py, when: [student.top1, "<", 0.88]}}
  - {{name: best, run: train, config: x.py, when: [[student.top1, ">=", 0.5], [more.top1, ">", 0]]}}
  - {{name: scores, run: evaluate, arguments: [--checkpoint, "{{best|more|student}}"]}}
"""
# A stage notes its start, takes its time, and scores what SCORES says of it.
STAGE = textwrap.dedent("""
    import json, os, pathlib, signal, sys, time
    folder, name, *rest = sys.argv[1:]
    here = pathlib.Path(folder) / name
    here.mkdir(parents=True, exist_ok=True)
    with here.with_suffix(".starts").open("a") as file:
        file.write("x")
    (here / "arguments").write_text(json.dumps(rest))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    time.sleep(float(os.environ.get("SECONDS_OF_A_STAGE", 0)))
    scores = json.loads(os.environ["SCORES"])
    if scores.get(name) == "fail":
        sys.exit("error: no such folder")
    results = {"best": {"u/top1": 0.1}, "test": {"u/top1": scores.get(name, 0.9), "u/top5": 1.0}}
    (here / "results.json").write_text(json.dumps(results))
""")


def fake(monkeypatch):
    """Let every stage run the program above with its own arguments."""
    own = pipeline._command

    def changed(planned, stage, record):
        arguments = own(planned, stage, record)[3:]
        return [sys.executable, "-c", STAGE, planned.folder, stage.name, *arguments]

    monkeypatch.setattr(pipeline, "_command", changed)


def example(tmp_path, text=FILE, values=()):
    (tmp_path / "p.yaml").write_text(text.format(folder=tmp_path / "out"))
    return pipeline.load(tmp_path / "p.yaml", values)


def starts(tmp_path):
    return {path.stem: len(path.read_text()) for path in tmp_path.glob("out/*.starts")}


def arguments(tmp_path, name):
    return json.loads((tmp_path / "out" / name / "arguments").read_text())


@pytest.mark.parametrize(
    ("score", "ran", "evaluated"),
    [(0.9, {"data", "student", "scores"}, "student"), (0.7, None, "best")],
)
def test_conditions_choose_the_stages(tmp_path, monkeypatch, score, ran, evaluated):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", json.dumps({"student": score}))
    planned = example(tmp_path, values=["clips=mine"])
    assert pipeline.run(planned) == 0
    assert starts(tmp_path).keys() == (ran or {stage.name for stage in planned.stages})
    out = tmp_path / "out"
    assert arguments(tmp_path, "data") == ["ucla", "--dst", "mine", "5"]
    assert arguments(tmp_path, "student") == [
        *("--config=x.py:mine", "--config.optim.length=3 epochs", f"--workdir={out / 'student'}")
    ]
    assert arguments(tmp_path, "scores") == ["--checkpoint", str(out / evaluated)]
    assert pipeline.run(planned) == 0  # nothing is left
    assert set(starts(tmp_path).values()) == {1}


def test_the_folder_may_stand_between_the_file_and_its_values(tmp_path, monkeypatch):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    example(tmp_path)
    out = tmp_path / "out"
    assert command.main(["run", str(tmp_path / "p.yaml"), "--dir", str(out), "clips=mine"]) == 0
    assert arguments(tmp_path, "data")[2] == "mine"


def test_a_failed_stage_stops_the_rest_and_is_tried_again(tmp_path, monkeypatch, capsys):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", json.dumps({"student": "fail"}))
    assert pipeline.run(example(tmp_path)) == 1
    assert "student: exit code 1: error: no such folder" in capsys.readouterr().out
    monkeypatch.setenv("SCORES", "{}")
    assert pipeline.run(example(tmp_path)) == 0
    assert starts(tmp_path) == {"data": 1, "student": 2, "scores": 1}


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_stopped_stage_left_is_removed_and_nothing_else(tmp_path, monkeypatch, begun):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    left = [tmp_path / "out" / stage / "left.txt" for stage in ("data", "student")]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
        if begun:
            path.parent.with_suffix(".log").touch()
    assert pipeline.run(example(tmp_path)) == 0
    assert [path.exists() for path in left] == [not begun, True]  # a training goes on in its folder


def test_a_stopped_stage_that_still_writes_is_waited_for(tmp_path, monkeypatch):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    planned, left = example(tmp_path), tmp_path / "out" / "data" / "left.txt"
    left.parent.mkdir(parents=True)
    file = left.parent.with_suffix(".log").open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    threading.Timer(0.5, lambda: (left.touch(), file.close())).start()
    assert pipeline.run(planned) == 0
    assert file.closed and not left.exists()


def test_a_stage_that_is_over_may_not_change(tmp_path, monkeypatch):
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    assert pipeline.run(example(tmp_path)) == 0
    with pytest.raises(InputError, match=r"data of .* is over, but its command has changed"):
        pipeline.run(example(tmp_path, values=["clips=others"]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_pipeline_takes_its_stage_along_and_goes_on_there(tmp_path, monkeypatch, number):
    planned = example(tmp_path)
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "experiments")!r}]
import pathlib, pytest, test_phases
from tsmjax.experiments import pipeline
from tsmjax.main import parse
test_phases.fake(pytest.MonkeyPatch())
sys.exit(pipeline.run(pipeline.load(pathlib.Path({str(tmp_path / "p.yaml")!r}))))
"""
    environment = {**os.environ, "SCORES": "{}", "SECONDS_OF_A_STAGE": "600"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while "data" not in starts(tmp_path):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait() == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    assert pipeline.run(planned) == 0  # it would wait ten minutes for a stage that lives on
    assert starts(tmp_path) == {"data": 2, "student": 1, "scores": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("run: prepare", "run: prepares", "runs 'prepares' .did you mean 'prepare'"),
        ("name: more", "name: student", "Two stages are named 'student'"),
        ('"<", 0.88', '"below", 0.88', "has the condition"),
        ("[student.top1, ", "[studnt.top1, ", "names 'studnt' .did you mean 'student'"),
        ("best|more", "bst|more", "names 'bst' .did you mean 'best'"),
        ("config: x.py, when", "when", "a training has config"),
        ("name: scores", "name: sco/res", "use letters, digits"),
    ],
)
def test_wrong_files_are_explained(tmp_path, capsys, old, new, message):
    text = FILE.replace(old, new, 1)
    assert text != FILE
    with pytest.raises(InputError, match=message):
        example(tmp_path, text)
    assert command.main(["run", str(tmp_path / "p.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_wrong_scores_and_values_are_explained(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"'epoch=3' must read NAME=VALUE .did you mean 'epochs'"):
        example(tmp_path, values=["epoch=3"])
    fake(monkeypatch)
    monkeypatch.setenv("SCORES", "{}")
    planned = example(tmp_path, FILE.replace('student.top1, "<"', 'student.tp1, "<"'))
    with pytest.raises(InputError, match="has no score 'tp1'"):
        pipeline.run(planned)


def test_the_trainings_of_the_shipped_pipeline_resolve(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["kind=ucla", "dataset=ucla", "size=nano"]
    planned = pipeline.load(Path("configs/last_pipeline.yaml"), words, tmp_path)
    record = pipeline._Record(tmp_path)
    kinds, configs, exports = [], {}, {}
    for stage in planned.stages:
        kinds.append(stage.run)
        arguments = pipeline._command(planned, stage, record)[3:]
        if stage.run == "export":
            exports[stage.name] = export._parser().parse_args(arguments)
            export._settle(exports[stage.name])
        if stage.run == "train":
            configs[stage.name] = resolve(parse(["run", *arguments])[0])
    assert [*dict.fromkeys(kinds)] == ["prepare", "train", "evaluate", "export"]
    student, again = configs["student"], configs["student_pretrained"]
    names = ("joint", "bone", "joint_velocity", "bone_velocity")
    teachers = [teacher.checkpoint for teacher in student.task.teachers]
    assert teachers == [str(tmp_path / name) for name in names]
    assert [configs[name].model.streams for name in names] == [(name,) for name in names]
    assert (student.optim.swa.start, student.optim.length) == ("75%", "120 epochs")
    assert again.checkpoint.init_from == str(tmp_path / "pretrained")
    assert again.checkpoint.init_skip == ("^classifier/",)
    assert {config.data.path for config in configs.values()} == {str(tmp_path / "clips")}
    assert student.model == configs["pretrained"].model
    assert [*exports] == [one.format for one in exports.values()] == ["onnx", "int8", "litert"]
    assert exports["litert"].output == tmp_path / "litert" / "student.tflite"
