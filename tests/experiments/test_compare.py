import csv

import folders
import pytest

from tsmjax.experiments import __main__ as command
from tsmjax.experiments import compare, records
from tsmjax.monitor.logs import as_text


@pytest.fixture
def three(tmp_path):
    """Two runs that ended, of which run_2 is better, and one that did not."""
    rows = [(10, {"loss": 3.0, "loss_ema": 3.0}), (10, {"m/wql": 0.9}), (20, {"loss": None})]
    home = tmp_path / "experiments" / "ttm" / "lr"
    folders.write(home / "run_1", 0.5, rows=rows, optim__lr=1e-3, model__d=64)
    folders.write(home / "run_2", 0.25, rows=rows, optim__lr=1e-4, model__d=64, test={"m/wql": 0.3})
    folders.write(home / "run_3", rows=rows, optim__lr=1e-5, model__d=64)
    return home


def cells(text):
    return [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def test_the_table_shows_what_differs_first_and_the_best_on_top(three):
    runs = records.find([three])
    text = as_text(compare.table(runs, "m/wql", "min"))
    assert "wql ↓" in text and "nile" not in text  # single data sets go into the CSV
    found = cells(text)
    assert [row[:3] for row in found] == [
        ["run_2 *", "0.0001", "0.25000"],
        ["run_1", "0.001", "0.50000"],
        ["run_3", "1e-05", "–"],
    ]
    assert found[0][-1] == "done" and found[2][-3:] == ["20", "–", "running"]


def test_run_history_has_every_run_and_every_score(three):
    path = compare.write_history(three)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["run", "status", "optim.lr", "best/m/wql"]
    assert [row["run"] for row in rows] == ["run_1", "run_2", "run_3"]
    assert rows[1]["best/m/wql"] == "0.25" and rows[1]["test/m/wql"] == "0.3"
    assert rows[1]["best/m/nile/wql"] == "0.2" and rows[2]["best/m/wql"] == ""
    assert compare.write_history(three.parent) is None


def test_the_commands_print_and_write(three, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "m/wql=0.25000" in out and "2 done" in out and "1 running" in out
    arguments = ["compare", str(three), "--csv=all.csv", "--plot=curves.png"]
    assert command.main(arguments) == 0
    assert "run_2 *" in capsys.readouterr().out
    with open("all.csv") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done", "running"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (three / "run_history.csv").exists()


def test_curves_of_runs_that_logged_nothing_are_not_drawn(tmp_path):
    runs = [records.Run(folders.write(tmp_path / "a", 0.5))]
    assert compare.curves(runs, "m/wql", ["a"]) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compere", "x"], "did you mean 'compare'"),
        (["compare", "nowhere"], "There is no folder nowhere"),
        (["compare", ".", "--metric=m/wq"], "did you mean 'm/wql'"),
        (["compare", ".", "--plot=x.jpg"], "must end in .png"),
    ],
)
def test_wrong_input_is_one_sentence(three, arguments, sentence, monkeypatch, capsys):
    monkeypatch.chdir(three)
    assert command.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_runs_are_labelled_by_what_sets_them_apart(three):
    runs = records.find([three])
    assert compare.labels(runs) == ["lr=0.001", "lr=0.0001", "lr=1e-05"]
    assert compare.labels(runs[:1]) == ["run_1"]
    assert compare.short_names(["optim.lr", "model.lr", "seed"]) == ["optim.lr", "model.lr", "seed"]
