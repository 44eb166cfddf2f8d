"""Metrics and callbacks of one's own, named in the config."""

import json

import pytest
import toy

import tsmjax
from tsmjax.errors import InputError
from tsmjax.monitor import writers

MINE = """
import json
import jax
from tsmjax.monitor import Callback

def error_rate(batch, chances):
    known = batch["y"] >= 0
    return (chances.argmax(-1) != batch["y"])[known].sum(), known.sum()

def three(batch, chances):
    return 1, 2, 3

class Diary(Callback):
    def __init__(self, run, config):
        self.path, self.pages = run / "diary.json", [config["name"]]

    def step(self, step, metrics):
        self.pages.append(["step", step, metrics["loss"]])

    def scores(self, step, scores):
        self.pages.append(["scores", step, scores["toy/error_rate"]])
        return "the diary is full" if step >= 10 else None

    def end(self, results):
        self.path.write_text(json.dumps([*self.pages, results["step"]]))
"""


@pytest.fixture
def rows(tmp_path, monkeypatch):
    toy.install(tmp_path)
    toy.write_rows(tmp_path / "rows")
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "rows"


def own(rows, **sections):
    values = {
        "evals": {"every": 5, "custom": ("mine:error_rate",), "metric": "toy/error_rate"},
        "log": {"every": 5, "callbacks": ("mine:Diary",)},
    }
    values["evals"]["mode"] = "min"
    return toy.config(rows, **{**values, **sections})


def test_a_metric_decides_what_is_best_and_a_callback_hears_all_and_stops(rows, tmp_path):
    run = tmp_path / "run"
    outcome = tsmjax.train(own(rows), workdir=str(run))
    for scores in (outcome["best"], outcome["test"]):
        assert scores["toy/error_rate"] == pytest.approx(1 - scores["toy/accuracy"])
    assert outcome["step"] == 10 and outcome["stopped_early"] == "the diary is full"
    name, *pages, last = json.loads((run / "diary.json").read_text())
    assert (name, last) == ("toy", 10)
    assert [page[:2] for page in pages] == [
        *(["step", 5], ["scores", 5], ["step", 10], ["scores", 10])
    ]
    logged = {row["step"]: row for row in writers.read(run / "metrics.jsonl") if "loss" in row}
    assert pages[0][2] == logged[5]["loss"]
    again = tsmjax.train(own(rows), workdir=str(run))  # what was stopped stays stopped
    assert again["step"] == 10


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("evals", "custom", ("mine:eror_rate",), r"evals\.custom names 'mine:eror_rate'"),
        (
            "evals",
            "custom",
            ("mine:three", "mine:error_rate"),
            "must return two numbers: a sum, a weight",
        ),
        ("log", "callbacks", ("no_such:Diary",), r"log\.callbacks names 'no_such:Diary'"),
    ],
)
def test_mistakes_are_told(rows, tmp_path, section, field, value, sentence):
    values = own(rows)
    values[section][field] = value
    with pytest.raises(InputError, match=sentence):
        tsmjax.train(values, workdir=str(tmp_path / "run"))
