"""The learning-rate finder: its rule, its curve, and that it leaves nothing behind."""

import numpy as np
import pytest
import toy

from tsmjax import find_lr
from tsmjax.errors import InputError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.install(folder)
    toy.write_rows(folder / "rows")
    return toy.config(folder / "rows")


def test_the_valley_is_the_middle_of_the_longest_fall():
    rates = np.logspace(-7, 1, 40)
    flat, fall, rise = np.full(10, 5.0), np.linspace(4.9, 1.0, 20), np.linspace(1.1, 9.0, 10)
    losses = np.concatenate([flat, fall, rise])
    assert find_lr.valley(rates, losses) == rates[10 - 1 + 10]  # from the last of the flat ones
    losses[14] += 0.5  # one rise does not end the fall
    assert find_lr.valley(rates, losses) == rates[19]


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 2.0, 3.0, 2.5]])
def test_a_loss_that_never_falls_has_no_valley(losses):
    with pytest.raises(InputError, match="falls at no learning rate"):
        find_lr.valley(np.ones(len(losses)), np.array(losses))


def test_the_curve_falls_and_explodes_and_the_suggestion_lies_between(config):
    found = find_lr.find(config, first=1e-5, last=1e4, steps=80)
    assert len(found.rates) == len(found.losses) == len(found.smooth) < 80
    np.testing.assert_allclose(found.rates[[0, 1]], [1e-5, 1e-5 * 1e9 ** (1 / 79)], rtol=1e-6)
    best = found.rates[np.argmin(found.smooth)]
    assert found.rates[0] < found.suggestion < best
    mean, smooth = 0.0, []
    for number, loss in enumerate(found.losses, 1):
        mean = 0.98 * mean + 0.02 * loss
        smooth.append(mean / (1 - 0.98**number))
    np.testing.assert_allclose(found.smooth, smooth)
    assert found.smooth[-1] > 4 * found.smooth.min() or not np.isfinite(found.losses[-1])


def test_a_loss_belongs_to_the_rate_before_it(config):
    """With a rate near zero nothing moves, so that the losses are those of the fresh weights."""
    still = find_lr.find(config, first=1e-12, last=1.1e-12, steps=12)
    jump = find_lr.find(config, first=1e-12, last=1e-1, steps=12)
    np.testing.assert_allclose(jump.losses[0], still.losses[0], rtol=1e-6)
    moved = np.abs(jump.losses - still.losses) > 1e-4
    assert moved[-1] and jump.rates[-1] == pytest.approx(0.1)


def test_the_command_prints_draws_and_keeps_nothing_else(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = f"from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({config!r})\n"
    (tmp_path / "mine.py").write_text(code)
    options = ["--config=mine.py", "--config.data.batch_size=8", "--plot=curve.png"]
    assert find_lr.main([*options, "--first=1e-5", "--last=10", "--steps=40"]) == 0
    printed = capsys.readouterr().out
    assert "running mean" in printed and "suggested: --config.optim.lr=" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "mine.py"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot=curve.pdf"], "must end in .png"),
        (["--workdir=runs/a"], "leave --workdir"),
        (["--first=1", "--last=0.1"], "must rise"),
        (["--steps=3"], "needs at least 10"),
        (["--step=30"], "There is no flag --step"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    assert find_lr.main(["--config=configs/ttm_test.py", *arguments]) == 2
    assert words in capsys.readouterr().err
