"""The speed benchmarks compare what they say, and their table holds what the stored files hold."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as runner
from benchmarks import chronos2_inference, scaling, startup
from benchmarks.questions import QUESTIONS, Answer, Question


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A page and a folder of results, with two questions that nobody has answered."""

    def answers(found):
        yield Answer("how long", f"{found['seconds']} s", "2 s", "2.00", "1")
        yield Answer("how much", "5 MB")

    questions = {name: Question(name, "--fast --rows 3", 1, answers) for name in ("one", "two")}
    monkeypatch.setattr(runner, "QUESTIONS", questions)
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{runner.BEGIN}\n{runner.END}\n\nTail\n")

    def call(*arguments):
        line = ["", *arguments, "--results", str(tmp_path / "results"), "--page", str(page)]
        monkeypatch.setattr(sys, "argv", line)
        return runner.main()

    return argparse.Namespace(call=call, page=page, results=tmp_path / "results")


def fake(monkeypatch, fails=()):
    """Let questions be answered without a process; return the commands."""
    commands = []

    def run(command, **options):
        if command[0] == "git":
            return subprocess.CompletedProcess(command, 0, stdout="abcdef1234\n")
        commands.append(command[2:-1])
        if command[2].partition(".")[2] in fails:
            return subprocess.CompletedProcess(command, 1)
        Path(command[-1]).write_text('{"seconds": 1, "device": "cpu, 2 cores"}')
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_measured_question_enters_the_table_and_the_page_around_it_stays(place, monkeypatch):
    commands = fake(monkeypatch)
    assert place.call("one") == 0
    assert commands == [["benchmarks.one", "--fast", "--rows", "3", "--json"]]
    found = json.loads((place.results / "one.json").read_text())
    assert found["git_commit"] == "abcdef1234" and "cores of" in found["machine"]
    text = place.page.read_text()
    assert text.startswith("# Head\n\n") and text.endswith("\n\nTail\n")
    first = (
        f"| [how long](results/one.json) | 1 s | 2 s | 2.00 | 1 | {found['machine']} | abcdef1 |"
    )
    assert first in text and "| how much | 5 MB | – | – | – |" in text
    assert "two" not in text
    # From the stored files alone.
    (place.results / "one.json").write_text('{"seconds": 7}')
    assert place.call("--table") == 0 and len(commands) == 1
    assert "| 7 s | 2 s | 2.00 | 1 | not noted | – |" in place.page.read_text()
    assert place.page.read_text().count("how long") == 1


def test_a_question_that_fails_keeps_its_old_answer_and_stops_no_other(place, monkeypatch, capsys):
    commands = fake(monkeypatch)
    assert place.call("all") == 0 and len(commands) == 2
    (place.results / "one.json").write_text('{"seconds": 9}')
    commands = fake(monkeypatch, fails=("one",))
    (place.results / "two.json").unlink()
    assert place.call("all") == 1
    assert "error: one failed" in capsys.readouterr().err
    assert "9 s" in place.page.read_text() and (place.results / "two.json").exists()


def test_wrong_names_and_pages_are_told_before_anything_is_measured(place, monkeypatch, capsys):
    commands = fake(monkeypatch)
    assert place.call("onne") == 2
    assert "did you mean 'one'" in capsys.readouterr().err
    place.page.write_text("no place")
    assert place.call("one") == 2
    assert "must hold a line" in capsys.readouterr().err
    assert not commands
    assert place.call() == 0
    assert "benchmarks.two" in capsys.readouterr().out


def test_questions_ask_modules_that_are_there_for_options_that_they_have():
    for name, question in QUESTIONS.items():
        source = (runner.ROOT / "benchmarks" / f"{question.module}.py").read_text()
        for option in ["--json", *re.findall(r"--\w+", question.arguments)]:
            listed = f'"{option}"' in source or option[2:] in getattr(scaling, "AXES", {})
            assert listed, f"{name}: {question.module} has no {option}"


def test_the_published_table_is_that_of_the_published_files():
    text = (runner.ROOT / "docs/benchmarks.md").read_text()
    between = text.partition(runner.BEGIN)[2].partition(runner.END)[0].strip()
    assert between == runner.table(runner.ROOT / "docs/results")
    assert between.count("\n") > 10


def test_forecasts_of_both_sides_are_compared_on_the_same_series(monkeypatch):
    seen = {"ours": [], "reference": []}
    now = [0.0]
    clock = argparse.Namespace(
        **dict.fromkeys(("perf_counter", "process_time", "monotonic"), lambda: now[0])
    )
    monkeypatch.setattr(chronos2_inference, "time", clock)

    def side(name, shift, seconds):
        def call(series, horizon):
            seen[name].append(series)
            now[0] += seconds if len(seen[name]) > 1 else 9.0  # compiling
            ends = series[:, -1:, None] + np.arange(horizon, dtype=np.float32)[None, :, None]
            return np.repeat(ends, 9, axis=2) + shift

        return call

    options = argparse.Namespace(repeats=2, seconds=0.0)
    calls = {"ours": side("ours", 0.5, 0.01), "reference": side("reference", 0.0, 0.03)}
    found = chronos2_inference.compare(calls, 4, 32, 8, options)
    assert [len(one) for one in seen.values()] == [3, 3] and found["calls"] == 2
    assert all(np.array_equal(seen["ours"][0], x) for one in seen.values() for x in one)
    assert found["ratio"] == found["cpu_ratio"] == 3.0
    assert (found["ours_ms"], found["reference_series_per_second"]) == (10.0, 133.3)
    assert found["ours_first_call_seconds"] == 9.0
    expected = 0.5 / calls["reference"](seen["ours"][0], 8).std()
    assert found["difference"] == pytest.approx(expected, rel=1e-4)
    chronos2_inference.table([found])
    options = argparse.Namespace(repeats=2, seconds=0.39)  # quick cases go on for as long
    seen["ours"].clear(), seen["reference"].clear()
    assert chronos2_inference.compare(calls, 4, 32, 8, options)["calls"] == 10


def test_sides_take_turns_and_their_first_times_do_not_count():
    order = []

    def side(name, *times):
        left = iter(times)

        def run():
            order.append(name)
            return (next(left),) * 2

        return run

    found = startup.beside({"a": side("a", 9.0, 1.0, 2.0, 3.0), "b": side("b", 9.0, 4, 4, 4)}, 3)
    assert "".join(order) == "abababab"
    assert found["a"] == {"seconds": 2.0, "cpu_seconds": 2.0, "first_seconds": 9.0}
    assert found["ratio"] == found["cpu_ratio"] == 0.5


def test_a_process_is_timed_without_the_callers_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/of/the/caller")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = (
        "import json, os, pathlib, time; time.sleep(0.2)\n"
        "pathlib.Path('seen').write_text(json.dumps(dict(os.environ)))"
    )
    wall, cpu = startup.timed([sys.executable, "-c", code], tmp_path, {"MORE": "1"})
    assert wall >= 0.2 and cpu > 0
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["MORE"] == "1" and seen["TSMJAX_CACHE"] == str(tmp_path / "tsmjax")
    assert not {"JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE"} & set(seen)
    with pytest.raises(SystemExit, match="failed"):
        startup.timed([sys.executable, "-c", "1 / 0"], tmp_path)


def test_scaling_fits_exponents_and_keeps_groups_whole():
    assert scaling.exponent([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    options = argparse.Namespace(size="tiny", horizon=32, repeats=1, precision="float32")
    case = {"context": 64, "batch": 10, "group": 4, "layers": 3}
    model, given = scaling.arranged(case, options)
    assert (model.num_layers, model.context_length, model.max_output_patches) == (3, 64, 2)
    assert (given.batch, given.group) == (8, 4)
    assert scaling.arranged({**case, "group": 16}, options)[1].batch == 10


@pytest.mark.slow
def test_recomputing_more_takes_less_memory(tmp_path):
    options = argparse.Namespace(size="tiny", horizon=16, repeats=1, precision="float32")
    case = {"context": 128, "batch": 16, "group": 2, "layers": 4}
    sizes = [scaling.temporaries(case, remat, options) for remat in ("none", "dots", "full")]
    assert sizes[0] > sizes[1] > sizes[2] > 0
    axes = {"batch": {"sizes": [8, 16], "ms": [scaling.measure(case, options)] * 2, "exponent": 0}}
    scaling.draw({"axes": axes, "temporaries_mb": {"none": 3, "full": 1}}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.slow
def test_both_sides_forecast_alike_and_from_the_shell(tmp_path, monkeypatch):
    pytest.importorskip("chronos", reason="needs chronos-forecasting")
    json_file = tmp_path / "inference.json"
    line = "x --size tiny --batch 3 --context 64 --horizon 40 --repeats 1 --seconds 0 --json"
    monkeypatch.setattr(sys, "argv", [*line.split(), str(json_file)])
    chronos2_inference.main()
    found = json.loads(json_file.read_text())
    assert found["largest_difference"] < 1e-4 and found["cases"][0]["ratio"] > 0
    list(QUESTIONS["chronos2_inference_small"].answers(found))
    json_file = tmp_path / "startup.json"
    line = "x --size tiny --series 2 --length 100 --repeats 1 --json"
    monkeypatch.setattr(sys, "argv", [*line.split(), str(json_file)])
    startup.main()
    found = json.loads(json_file.read_text())
    assert found["predict"]["difference"] < 1e-4
    assert 0 < found["first_step"]["cached"]["seconds"] < found["first_step"]["cold"]["seconds"]
    assert len(list(QUESTIONS["startup"].answers(found))) == 3
