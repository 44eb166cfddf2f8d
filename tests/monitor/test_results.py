import dataclasses
import json
import math

import numpy as np
import pytest

from tsmjax.monitor import plots, results

OUTCOME = {
    "run": "experiments/chronos2/test/run_1",
    "step": 1000,
    "best_step": 800,
    "metric": "embedded/wql",
    "best": {"embedded/wql": 0.81234, "embedded/mase": 0.9},
    "test": {"embedded/wql": 0.85, "embedded/nile/mase": math.nan},
    "parameters": 1_234_567,
    "trained_parameters": 234_567,
    "seconds": 3725.0,
    "stopped_early": None,
}


def test_results_are_written_as_json_and_as_a_table(tmp_path):
    text = results.write(tmp_path, OUTCOME)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved == {**OUTCOME, "test": {"embedded/wql": 0.85, "embedded/nile/mase": None}}
    assert (tmp_path / "results.txt").read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.txt"]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["embedded/wql *", "0.81234", "0.85000"] in cells
    assert ["embedded/mase", "0.90000", "–"] in cells
    assert ["best step", "800"] in cells
    assert ["parameters", "1,234,567 (234,567 trained)"] in cells
    assert ["wall time", "1h 2m"] in cells
    assert "stopped early" not in text


def test_a_run_without_scores_says_so(tmp_path):
    text = results.write(tmp_path, {"run": "r", "step": 3, "best": {}, "test": {}})
    assert "No scores" in text and "last step" in text


def image(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


@pytest.fixture
def panel():
    levels = np.round(np.linspace(0.05, 0.95, 19), 2)
    return plots.Panel(
        "x",
        np.sin(np.arange(50.0)),
        np.zeros(8),
        levels,
        np.linspace(-2, 2, 19)[:, None].repeat(8, 1),
    )


def test_a_fan_chart_shows_history_bands_median_and_truth(tmp_path, panel):
    path = plots.fan_chart([panel], tmp_path / "new" / "fan.png", title="suite")
    picture = image(path)
    # Each colour of the legend covers some of the picture.
    for colour in (plots.INK, plots._FORECAST, *plots._BANDS):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(picture - rgb).max(-1) < 0.02).mean() > 2e-4, colour
    assert [*path.parent.iterdir()] == [path]


def test_covariates_are_drawn_under_the_panels_that_have_them(tmp_path, panel):
    covariates = {"price": np.sin(np.arange(58.0)), "sold": np.r_[np.ones(50), np.full(8, np.nan)]}
    with_some = dataclasses.replace(panel, covariates=covariates)
    picture = image(plots.fan_chart([panel, with_some], tmp_path / "fan.png"))
    halves = np.split(picture, [picture.shape[1] // 2], axis=1)
    for colour in plots._COVARIATES[:2]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        left, right = ((np.abs(half - rgb).max(-1) < 0.02).mean() for half in halves)
        assert left == 0 and right > 2e-4, colour


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_panels_make_a_grid(tmp_path, panel, count):
    height, width, _ = image(plots.fan_chart([panel] * count, tmp_path / "fan.png")).shape
    columns = {1: 1, 2: 2, 4: 2, 5: 3, 9: 3}[count]
    assert width == pytest.approx(5.2 * 150 * columns, abs=2)
    assert height == pytest.approx((3.0 * -(-count // columns) + 0.3) * 150, abs=2)


def test_gaps_unknown_truth_and_no_history_can_be_drawn(tmp_path, panel):
    history = panel.history.copy()
    history[[5, -1]] = np.nan
    plots.fan_chart(
        [
            plots.Panel("gaps", history, np.full(8, np.nan), panel.levels, panel.quantiles),
            plots.Panel("none", history[:0], None, [0.5], panel.quantiles[:1]),
        ],
        tmp_path / "fan.png",
    )
    assert image(tmp_path / "fan.png").min() < 0.3


def test_learning_rates_have_a_logarithmic_axis_and_their_zeros_no_place_on_it():
    axes = plots.new_figure(4, 3).subplots()
    steps = np.arange(5)
    rates = np.array([0.0, 1e-3, 1e-4, 1e-9, 0.0])
    plots.draw_lines(axes, "learning rate", [plots.Line("rate", steps, rates, log=True)])
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log" and 1e-3 < high < 2e-3 and low == pytest.approx(1e-7 / 1.5)
    flat = plots.new_figure(4, 3).subplots()
    plots.draw_lines(flat, "learning rate", [plots.Line("rate", steps, 0 * rates, log=True)])
    assert flat.get_yscale() == "linear"
    loss = plots.new_figure(4, 3).subplots()
    plots.draw_lines(loss, "loss", [plots.Line("loss", steps, 1.0 + steps)])
    assert loss.get_yscale() == "linear"


def test_a_loss_curve_needs_a_loss(tmp_path):
    assert plots.loss_curve([{"step": 1, "a/b": 1.0}], tmp_path / "loss.png") is None
    rows = [{"step": n, "loss": None if n == 3 else 1.0 / n, "loss_ema": 1.0} for n in range(1, 30)]
    picture = image(plots.loss_curve(rows, tmp_path / "loss.png"))
    assert (np.abs(picture - np.array([209, 73, 91]) / 255).max(-1) < 0.05).any()
