"""SIGTERM at any moment: every process saves the same step and exits with 75; nothing is lost."""

import json
import shutil

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(1200)
SLOW = {"task": {"step": 0.1}}


def log_loss(work, run):
    """Score of the last step."""
    (score,) = (
        row["toy/log_loss"] for row in work.rows(run) if row["step"] == 20 and "toy/log_loss" in row
    )
    return score


def test_sigterm_to_one_stops_both_and_any_number_of_processes_continues(work, whole):
    expected, results = whole
    job = work.start("two", hosts=2, devices=2, **SLOW)
    job.until(lambda: len(work.losses("two")) >= 6)
    job.send(1)
    assert job.codes() == [75, 75], job.text()
    step = work.saved("two")[-1]
    assert 6 <= step < 20
    assert job.text().count(f"Stopped by SIGTERM after step {step}") == 1
    for copy in ("one", "four"):
        shutil.copytree(work.folder / "two", work.folder / copy)

    work.run("two", hosts=2, devices=2)
    assert work.losses("two") == expected  # the same layout: bit for bit
    assert work.results("two")["best"] == results["best"]
    for run, hosts, devices, mesh in (("one", 1, 8, {"fsdp": 4}), ("four", 4, 1, {})):
        work.run(run, hosts, devices, mesh=mesh)
        losses = work.losses(run)
        assert list(losses) == list(expected)
        np.testing.assert_allclose(list(losses.values()), list(expected.values()), rtol=1e-5)
        # Not the accuracy: a row on the border of two classes may go either way.
        np.testing.assert_allclose(log_loss(work, run), log_loss(work, "whole"), rtol=1e-5)


@pytest.mark.slow
def test_sigterm_while_scoring_saves_the_step_and_scores_it_later(work, alone):
    expected, results = alone
    job = work.start("scoring", task={"score": 3.0})
    job.until((work.data / "scoring").exists)
    job.send(0)
    assert job.codes() == [75], job.text()
    assert work.saved("scoring")[-1] == 10
    assert not any("toy/accuracy" in row for row in work.rows("scoring"))
    work.run("scoring")
    assert work.losses("scoring") == expected
    found = work.results("scoring")
    for name in ("best", "best_step", "test", "step"):
        assert found[name] == results[name]
    scored = [row["step"] for row in work.rows("scoring") if "toy/accuracy" in row]
    assert scored == [10, 20]


@pytest.mark.slow
def test_sigterm_at_the_last_scores_leaves_a_run_that_ends(work, alone):
    _, results = alone
    job = work.start("last", task={"score": 2.0})
    job.until(lambda: 20 in work.losses("last"))
    job.send(0)
    assert job.codes() == [75], job.text()
    work.run("last")
    assert work.results("last")["best"] == results["best"]
    meta = work.folder / "last" / "checkpoints" / "20" / "meta" / "metadata"
    assert json.loads(meta.read_text())["final"]


def test_sigterm_while_compiling_leaves_at_once(work):
    job = work.start("compiling", task={"compile": 60.0})
    job.until((work.data / "compiling").exists)
    job.send(0)
    assert job.codes(30) == [75], job.text()
    assert "Stopped by SIGTERM before the first step" in job.text()
    assert work.saved("compiling") == []


@pytest.mark.slow
def test_sigterm_to_one_while_compiling_ends_both(work):
    job = work.start("compiling_two", hosts=2, task={"compile": 60.0})
    job.until((work.data / "compiling").exists)
    job.send(0)
    assert job.codes(30) == [75, 75], job.text()


@pytest.mark.slow
def test_sigterm_to_the_data_workers_too_loses_nothing(work, alone):
    job = work.start("workers", data={"workers": 1}, **SLOW)
    job.until(lambda: len(work.losses("workers")) >= 3)
    job.send(0, children=True)
    assert job.codes() == [75], job.text()
    assert work.saved("workers")
    work.run("workers", data={"workers": 1})
    assert work.losses("workers") == alone[0]


@pytest.mark.slow
def test_a_checkpoint_of_one_host_continues_on_two_with_another_mesh(work, whole):
    work.run("back", optim={"length": 10})
    work.run("back", hosts=2, devices=2, mesh={"replica": 1, "fsdp": 2, "tensor": 2})
    losses = work.losses("back")
    assert list(losses) == list(whole[0])
    np.testing.assert_allclose(list(losses.values()), list(whole[0].values()), rtol=1e-5)
