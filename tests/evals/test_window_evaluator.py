"""Errors over rolling windows, against a plain loop."""

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.table import DataConfig, Table
from tsmjax.evals.evaluator import evaluate
from tsmjax.evals.windows import WindowEvaluator

CONTEXT, HORIZON = 12, 4


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.normal(5, 2, (3, length)).cumsum(axis=1) for length in (80, 50)]
    rows[0][1, -6:-3] = np.nan
    write_dataset([{"target": values} for values in rows], tmp_path / "walks")
    return Table(DataConfig(path=str(tmp_path / "walks"), split=(0.5, 0.2, 0.3)))


def evaluator(table, **changes):
    options = {
        **{"quantiles": (0.1, 0.5, 0.9), "channels": (0, 1, 2), "context_length": CONTEXT},
        **{"horizon": HORIZON, "min_past": CONTEXT, "stride": 1, "batch_size": 7},
    }
    return WindowEvaluator("walks", table, "test", **{**options, **changes})


def persistence(batch):
    """The last value, and bands around it."""
    last = np.nan_to_num(batch["context"][:, :, -1:], nan=0.0)
    steps = np.repeat(last, HORIZON, axis=2)
    return np.stack([steps - 1, steps, steps + 1], axis=2)


def expected_scores(table, channels=(0, 1, 2), stride=1):
    errors = []
    for number in range(2):
        begin, end = table.ends[number, 1:]
        for cut in range(begin, end - HORIZON + 1, stride):
            batch = table.read(np.array([number]), np.array([cut]), CONTEXT, HORIZON)
            error = persistence(batch)[:, :, 1] - batch["target"]
            errors.append(error[0, list(channels)])
    errors = np.asarray(errors, np.float64)
    return np.nanmean(errors**2), np.nanmean(np.abs(errors)), errors


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_scores_are_means_over_all_observed_labels(table, hosts):
    mse, mae, errors = expected_scores(table)
    assert np.isnan(errors).any()
    ours = evaluator(table)
    counts = {len(ours.batches(host, hosts)) for host in range(hosts)}
    assert len(counts) == 1
    total = {}
    for host in range(hosts):
        for batch in ours.batches(host, hosts):
            for name, value in ours.sums(persistence, batch).items():
                total[name] = total.get(name, 0) + value
    scores = ours.scores(total)
    assert scores["walks/mse"] == pytest.approx(mse, rel=1e-6)
    assert scores["walks/mae"] == pytest.approx(mae, rel=1e-6)


def test_a_model_of_some_channels_is_scored_on_these(table):
    mse, _, _ = expected_scores(table, channels=(0, 2), stride=3)
    ours = evaluator(table, channels=(0, 2), stride=3)
    scores = evaluate(ours, lambda batch: persistence(batch)[:, [0, 2]])
    assert scores["walks/mse"] == pytest.approx(mse, rel=1e-6)


def test_inputs_hold_nothing_but_what_the_model_is_given(table):
    seen = set()

    def spying(batch):
        seen.update(batch)
        return persistence(batch)

    evaluate(evaluator(table, extra={"frequency": np.array([3, 5])}), spying)
    assert seen == {"context", "target", "future", "frequency"}


def test_a_nan_forecast_makes_the_scores_nan(table):
    scores = evaluate(evaluator(table), lambda batch: np.full_like(persistence(batch), np.nan))
    assert np.isnan(scores["walks/mse"]) and np.isnan(scores["walks/mae"])


def test_plots_come_after_an_evaluation(table, tmp_path):
    ours = evaluator(table)
    assert ours.plot(tmp_path) == []
    evaluate(ours, persistence)
    (path,) = ours.plot(tmp_path)
    assert path.name == "forecasts_walks_test.png" and path.stat().st_size > 1000
