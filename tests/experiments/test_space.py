import math

import pytest

from tsmjax.errors import InputError
from tsmjax.experiments import space


def test_a_grid_is_every_combination():
    axes = space.parse(["optim.lr=1e-3,1e-4", "config.model.dropout=0,0.1"])
    assert space.grid(axes) == [
        {"optim.lr": "1e-3", "model.dropout": "0"},
        {"optim.lr": "1e-3", "model.dropout": "0.1"},
        {"optim.lr": "1e-4", "model.dropout": "0"},
        {"optim.lr": "1e-4", "model.dropout": "0.1"},
    ]


def test_random_draws_depend_on_seed_and_number_alone_and_fill_their_range():
    axes = space.parse(["optim.lr=log:1e-5..1e-1", "model.layers=2..4", "task.loss=mse,mae"])
    trials = space.random(axes, 200, seed=3)
    assert space.random(axes, 20, seed=3) == trials[:20]
    assert space.random(axes, 20, seed=4) != trials[:20]
    rates = [math.log10(float(trial["optim.lr"])) for trial in trials]
    assert -5 <= min(rates) < -4.5 and -1.5 < max(rates) <= -1
    assert 70 < sum(rate < -3 for rate in rates) < 130  # even in the logarithm
    assert {trial["model.layers"] for trial in trials} == {"2", "3", "4"}
    assert {trial["task.loss"] for trial in trials} == {"mse", "mae"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Say what to sweep over"),
        (["optim.lr"], "must read FIELD=a,b,c"),
        (["=1,2"], "must read FIELD=a,b,c"),
        (["a=1,2", "a=3"], "named twice"),
        (["a=2..1"], "must rise"),
        (["a=log:0..1"], "above 0"),
        (["a=1e..2"], "no range of numbers"),
    ],
)
def test_a_wrong_space_is_one_sentence(words, sentence):
    with pytest.raises(InputError, match=sentence):
        space.parse(words)


def test_a_range_has_no_grid():
    with pytest.raises(InputError, match="--method=random"):
        space.grid(space.parse(["a=0..1"]))


def test_listed_trials_skip_what_is_done():
    trials = [{"a": "1"}, {"a": "2"}, {"a": "3"}]
    sampler = space.Listed(trials, [False, True, False])
    assert [sampler.ask(), sampler.ask(), sampler.ask()] == [(0, trials[0]), (2, trials[2]), None]


def test_optuna_goes_on_with_cut_trials_and_learns_from_the_others(tmp_path):
    pytest.importorskip("optuna", reason="pip install optuna")
    axes = space.parse(["x=0..10", "kind=good,bad", "n=1..3", "y=log:1e-3..1"])

    def study():
        return space.Optuna(axes, 12, 0, "min", tmp_path / "optuna.log")

    first = study()
    number, values = first.ask()
    cut = first.ask()
    first.tell(number, 5.0)
    second = study()
    assert second.ask() == cut  # it was running when the sweep was killed
    second.tell(cut[0], None)
    scores = []
    while trial := second.ask():
        number, values = trial
        assert 1 <= int(values["n"]) <= 3 and 1e-3 <= float(values["y"]) <= 1
        scores.append(float(values["x"]) + 10 * (values["kind"] == "bad"))
        second.tell(number, scores[-1])
    assert len(scores) == 10 and study().ask() is None
