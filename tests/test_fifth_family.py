"""A family outside tsmjax trains, resumes and loads, with nothing changed under tsmjax/."""

import json
import math

import jax
import numpy as np
import pytest
import toy

import tsmjax
from tsmjax import checkpoint, tasks
from tsmjax.errors import InputError


@pytest.fixture
def rows(tmp_path):
    toy.install(tmp_path)
    toy.write_rows(tmp_path / "rows")
    return tmp_path / "rows"


def logged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_it_trains_and_scores_the_best_checkpoint(rows, tmp_path):
    outcome = tsmjax.train(toy.config(rows), workdir=str(tmp_path / "run"))
    losses = logged(tmp_path / "run")
    assert losses[20] < losses[1]
    assert outcome["step"] == 20
    assert outcome["best_step"] in (10, 20)
    assert outcome["best"]["toy/accuracy"] > 0.6
    assert outcome["test"] == outcome["best"]  # this family tests on what it validates on
    saved = json.loads((tmp_path / "run" / "results.json").read_text())
    assert saved["best_step"] == outcome["best_step"]
    assert "toy/accuracy" in (tmp_path / "run" / "results.txt").read_text()


def test_it_resumes_bit_for_bit(rows, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"average": 0.9, "freeze": ((r"^model/head/bias", True),)}
    tsmjax.train(toy.config(rows, optim=options), workdir=str(whole))
    tsmjax.train(toy.config(rows, optim={**options, "length": 10}), workdir=str(parts))
    tsmjax.train(toy.config(rows, optim=options), workdir=str(parts))
    assert logged(parts) == logged(whole)
    assert list(logged(whole)) == list(range(1, 21))
    a, b = (checkpoint.load_weights(f"{run}@latest").params for run in (whole, parts))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_continues_another_run_in_a_new_folder(rows, tmp_path):
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    tsmjax.train(toy.config(rows), workdir=str(whole))
    tsmjax.train(toy.config(rows, optim={"length": 10}), workdir=str(first))
    tsmjax.train(
        toy.config(rows, checkpoint={"resume_from": f"{first}@latest"}), workdir=str(second)
    )
    expected = {step: loss for step, loss in logged(whole).items() if step > 10}
    assert logged(second) == expected
    assert len(expected) == 10


def test_its_weights_load_with_artefacts(rows, tmp_path):
    run = tmp_path / "run"
    tsmjax.train(toy.config(rows), workdir=str(run))
    loaded = tsmjax.from_pretrained(f"{run}@best")
    x = np.load(rows / "rows.npy")
    probabilities = np.asarray(loaded.task.predict(loaded.model, {"x": x}))
    labels = np.load(rows / "labels.npy")
    accuracy = (probabilities.argmax(1) == labels)[labels >= 0].mean()
    best = json.loads((run / "results.json").read_text())["best"]["toy/accuracy"]
    assert math.isclose(accuracy, best, abs_tol=1e-6)
    assert loaded.artefacts == {"labels": ["sit", "walk", "run"]}


def test_another_run_starts_from_its_weights(rows, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    tsmjax.train(toy.config(rows), workdir=str(first))
    init = {"init_from": str(first), "init_skip": ("^head/",)}
    settings = {"length": 1, "lr": 0.0, "freeze": ((r"^model/hidden/", True),)}
    tsmjax.train(toy.config(rows, checkpoint=init, optim=settings, seed=5), workdir=str(second))
    a = checkpoint.load_weights(f"{first}@final").params
    b = checkpoint.load_weights(f"{second}@final").params
    np.testing.assert_array_equal(a["hidden"]["kernel"], b["hidden"]["kernel"])
    assert np.abs(a["head"]["kernel"] - b["head"]["kernel"]).max() > 0


def test_weights_of_another_width_are_refused_with_the_difference(rows, tmp_path):
    first = tmp_path / "first"
    tsmjax.train(toy.config(rows, optim={"length": 1}), workdir=str(first))
    wider = toy.config(rows, model={"width": 32}, checkpoint={"init_from": f"{first}@final"})
    with pytest.raises(InputError, match=r"head/kernel \(16, 3\) \(the config asks for \(32, 3\)"):
        tsmjax.train(wider, workdir=str(tmp_path / "second"))


def test_patience_stops_early_and_stays_stopped(rows, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(tasks.Task, "after", lambda self, state: ended.append(1) or state)
    settings = {
        "optim": {"length": 40, "lr": 0.0},
        "evals": {"every": 5, "patience": 10},
    }
    outcome = tsmjax.train(toy.config(rows, **settings), workdir=str(tmp_path / "run"))
    assert outcome["step"] == 15
    assert "has not improved for 10 steps" in outcome["stopped_early"]
    assert len(ended) == 1  # statistics are measured anew however training ends
    again = tsmjax.train(toy.config(rows, **settings), workdir=str(tmp_path / "run"))
    assert again["step"] == 15


def test_lengths_in_epochs(rows, tmp_path):
    settings = {
        "optim": {"length": "3 epochs", "warmup": "1 epochs"},
        "evals": {"every": "1 epochs"},
    }
    outcome = tsmjax.train(toy.config(rows, **settings), workdir=str(tmp_path / "run"))
    assert outcome["step"] == 3 * 64 // 16


def test_a_run_of_non_finite_steps_stops_with_a_sentence(rows, tmp_path):
    x = np.load(rows / "rows.npy")
    np.save(rows / "rows.npy", np.full_like(x, np.nan))
    settings = {"optim": {"max_bad_steps": 3}, "evals": {"every": 0}}
    with pytest.raises(InputError, match="step 3: the loss or gradient was not finite in 3 steps"):
        tsmjax.train(toy.config(rows, **settings), workdir=str(tmp_path / "run"))
    assert "not finite" in (tmp_path / "run" / "logs" / "error.log").read_text()


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("optm", {}, "has no section 'optm' .did you mean 'optim'"),
        ("optim", {"lrr": 1.0}, r"optim\.lrr does not exist .did you mean 'lr'"),
        ("data", {"path": 5}, r"data\.path is 5, but must be of type str"),
        ("model", {"family": "chronos3"}, "no module 'chronos3' in tsmjax.models.*'chronos2'"),
        ("model", {"family": "no/such"}, "is not a module name"),
        ("mesh", {"replica": 3}, "mesh asks for 3 x 1 x 1 devices"),
        ("evals", {"metric": "toyy/accuracy"}, r"evals\.metric is 'toyy/accuracy'"),
        ("checkpoint", {"keep_best": 0}, "must be at least 1"),
        ("checkpoint", {"init_from": "/nowhere/at/all"}, "/nowhere/at/all"),
        ("data", {"batch_size": 12}, "do not divide over 8 devices"),
    ],
)
def test_wrong_configs_name_the_field(rows, tmp_path, section, change, message):
    values = toy.config(rows)
    values[section] = {**values.get(section, {}), **change}
    with pytest.raises(InputError, match=message):
        tsmjax.train(values, workdir=str(tmp_path / "run"))
