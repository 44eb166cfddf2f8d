"""The evaluate command: tables, CSV, plots, long horizons, ensembles, wrong input."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from benchmarks import public_sets
from tsmjax import Forecaster, evaluate, weights
from tsmjax.data.arrow import Item
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.evals.baselines import BASELINES
from tsmjax.evals.forecast import EvalDataset
from tsmjax.models import chronos2
from tsmjax.nn.functional import flatten, split, unflatten
from tsmjax.prepare.__main__ import main as prepare


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two models with random weights whose forecasts differ; 32 steps in one pass."""
    paths = []
    for seed in (0, 1):
        config = chronos2.Config(
            d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, context_length=128,
            max_output_patches=2, quantiles=(0.1, 0.3, 0.5, 0.7, 0.9),
        )  # fmt: skip
        _, params, _ = split(chronos2.Model(config, rngs=nnx.Rngs(seed)))
        params = {
            name: np.ones_like(leaf) if name.endswith("scale") else 20 * np.asarray(leaf)
            for name, leaf in flatten(params).items()
        }
        paths.append(str(tmp_path_factory.mktemp("weights") / f"model{seed}"))
        weights.write(paths[-1], "chronos2", dataclasses.asdict(config), unflatten(params))
    return paths


@pytest.fixture
def suite(tmp_path):
    """A suite of a short horizon, a long one, and one that seasonal naive solves."""
    rng = np.random.default_rng(0)
    steps = np.arange(200)
    noisy = [50 + 10 * np.sin(steps * np.pi / 12 + i) + rng.normal(size=200) for i in range(5)]
    data = {"noisy": noisy, "level": [np.full(60, 3.0)] * 2}
    for name, series in data.items():
        rows = [{"target": one.astype("f4"), "freq": "h"} for one in series]
        write_dataset(rows, tmp_path / name)
    (tmp_path / "mine.yaml").write_text(
        "- {path: noisy, horizon: 24, rolls: 2}\n"
        "- {name: far, path: noisy, horizon: 40}\n"
        "- {path: level, horizon: 8}\n"
    )
    return tmp_path / "mine.yaml"


def test_a_table_and_a_csv(checkpoints, suite, tmp_path, capsys):
    output = tmp_path / "results" / "scores.csv"
    arguments = ["--checkpoint", *checkpoints, "--ensemble", "--suite", str(suite)]
    assert evaluate.main([*arguments, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    for word in ("mine: WQL", "mine: MASE", "geometric mean, relative", "model0", "model1",
                 "ensemble", *BASELINES, "(1.000)"):  # fmt: skip
        assert word in shown
    table = pd.read_csv(output)
    assert list(table.columns) == ["dataset", "model", "MASE", "WQL"]
    models = ["model0", "model1", "ensemble", *BASELINES]
    assert list(table["model"].unique()) == models
    assert len(table) == 3 * len(models)
    wql = table.set_index(["dataset", "model"])["WQL"]
    assert wql["level", "seasonal-naive"] == 0 and wql["noisy", "theta"] > 0
    assert wql["noisy", "model0"] != wql["noisy", "model1"]
    means = [
        np.exp(np.mean([np.log(wql[d, "model0"] / wql[d, "seasonal-naive"]) for d in names]))
        for names in (("noisy", "far"),)
    ]
    assert f"{means[0]:.4f}" in shown


def test_a_report_and_the_columns_of_gift_eval(checkpoints, suite, tmp_path):
    output, folder = tmp_path / "all_results.csv", tmp_path / "report"
    arguments = ["--checkpoint", checkpoints[0], "--suite", str(suite), "--output", str(output)]
    assert evaluate.main([*arguments, "--layout", "gift_eval", "--report", str(folder)]) == 0
    table = pd.read_csv(output).set_index(["dataset", "model"])
    names = "MSE[mean] MSE[0.5] MAE[0.5] MASE[0.5] MAPE[0.5] sMAPE[0.5] MSIS RMSE[mean]"
    names += " NRMSE[mean] ND[0.5] mean_weighted_sum_quantile_loss"
    expected = [f"eval_metrics/{name}" for name in names.split()]
    assert list(table.columns) == [*expected, "domain", "num_variates"]
    row = table.loc[("noisy", "model0")]
    assert row["eval_metrics/RMSE[mean]"] ** 2 == pytest.approx(row["eval_metrics/MSE[0.5]"])
    text = (folder / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(pictures) == 3 and all((folder / name).exists() for name in pictures)
    ours = text[text.index("## mine: model0") : text.index("## mine: seasonal-naive")]
    line = next(line for line in ours.splitlines() if line.startswith("| noisy"))
    wql, relative, mase, _, inside, error, crossing = map(float, line.split("|")[2:-1])
    found = row[["eval_metrics/mean_weighted_sum_quantile_loss", "eval_metrics/MASE[0.5]"]]
    np.testing.assert_allclose([wql, mase], found.to_numpy(float), atol=1e-4)
    naive = table.loc[("noisy", "seasonal-naive"), "eval_metrics/mean_weighted_sum_quantile_loss"]
    assert relative == pytest.approx(wql / naive, abs=1e-3)
    assert 0 <= inside <= 1 and 0 < error < 1 and 0 <= crossing <= 1


def test_plots_show_the_best_the_median_and_the_worst(checkpoints, tmp_path, monkeypatch):
    drawn = {}
    fan_chart = evaluate.plots.fan_chart

    def kept(panels, path, title):
        drawn[path.name] = [panel.title for panel in panels]
        return fan_chart(panels, path, title)

    monkeypatch.setattr(evaluate.plots, "fan_chart", kept)
    (model,) = evaluate.load_models(checkpoints[:1])
    sets = [
        EvalDataset("a b", [np.arange(40, dtype="f4") % 5 + i * 10 for i in range(4)], 8, 5),
        EvalDataset("one", [np.arange(40, dtype="f4")], 8, 5),
    ]
    evaluate.score_model(model, "s", sets, 8, tmp_path / "plots")
    many, one = drawn["s_a_b_model0.png"], drawn["s_one_model0.png"]
    assert [title.split(":")[0] for title in many] == ["best", "median", "worst"]
    losses = [float(title.split()[-1]) for title in many]
    assert losses == sorted(losses) and losses[0] < losses[2]
    assert len(one) == 1
    for name in drawn:
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_horizons_beyond_one_pass_are_those_of_the_forecaster(checkpoints):
    (model,) = evaluate.load_models(checkpoints[:1])
    rng = np.random.default_rng(1)
    series = [rng.normal(20, 5, n).astype("f4") for n in (300, 90, 75)]
    series[1][[0, 40]] = np.nan
    dataset = EvalDataset("far", series, 40, 1)
    (score,) = evaluate.score_model(model, "x", [dataset], 2)
    quantiles, _ = Forecaster.from_pretrained(checkpoints[0]).predict_quantiles(
        [one[:-40] for one in series], prediction_length=40, quantile_levels=metrics.LEVELS
    )
    evaluator = evaluate.scorer("x", [dataset])
    sums = evaluator.add_up((i, forecast[0].T) for i, forecast in enumerate(quantiles))
    assert score.wql == pytest.approx(evaluator.scores(sums)["x/far/wql"], rel=1e-4)


def test_groups_are_forecast_in_one_pass_or_refused(checkpoints):
    (model,) = evaluate.load_models(checkpoints[:1])
    values = np.random.default_rng(2).normal(20, 5, (3, 90)).astype("f4")
    item = Item(values[:2], values[2:], values[:0])
    (near,) = evaluate.score_model(model, "x", [EvalDataset("near", [item], 8, 1)], 8)
    quantiles, _ = Forecaster.from_pretrained(checkpoints[0]).predict_quantiles(
        [{"target": values[:2, :-8], "past_covariates": {"a": values[2, :-8]}}],
        prediction_length=8,
        quantile_levels=metrics.LEVELS,
    )
    evaluator = evaluate.scorer("x", [EvalDataset("near", [item], 8, 1)])
    sums = evaluator.add_up((i, forecast.T) for i, forecast in enumerate(quantiles[0]))
    assert near.wql == pytest.approx(evaluator.scores(sums)["x/near/wql"], rel=1e-4)
    with pytest.raises(InputError, match="'far' is forecast from groups of series, 40 steps"):
        evaluate.score_model(model, "x", [EvalDataset("far", [item], 40, 1)], 8)


def test_an_ensemble_is_the_mean_of_the_quantiles(checkpoints, suite):
    models = evaluate.load_models(checkpoints)
    both = evaluate.ensemble(models)
    datasets = [EvalDataset("x", [np.arange(90, dtype="f4") % 7], 16, 7)]
    ((evaluator, predict),) = evaluate.evaluators(both, "s", datasets, 4)
    (batch,) = evaluator.batches(0, 1)
    parts = [
        metrics.interpolate(model.quantiles, model.predict(batch), metrics.LEVELS)
        for model in models
    ]
    assert np.abs(parts[0] - parts[1]).max() > 1e-3
    np.testing.assert_allclose(predict(batch), (parts[0] + parts[1]) / 2, rtol=1e-6)


def test_seasonal_naive_reproduces_the_published_scores(test_data):
    published = public_sets.published_seasonal_naive()
    names = [d.name for d in public_sets.ten() if not d.name.startswith("m1_")]
    assert len(names) == 7
    datasets = [public_sets.load(name) for name in names]
    scores = evaluate.score_baseline("naive", BASELINES["seasonal-naive"], "public", datasets)
    for score in scores:
        row = published.loc[public_sets.PUBLISHED_NAMES.get(score.dataset, score.dataset)]
        assert score.wql == pytest.approx(row["WQL"], rel=1e-5), score
        assert score.mase == pytest.approx(row["MASE"], rel=1e-5), score


def test_real_files_through_both_commands(test_data, checkpoints, tmp_path):
    """Prepare parquet, a suite file, evaluate, CSV: the published scores come out."""
    raw = test_data / "data" / "forecasting" / "hospital.parquet"
    arguments = ["parquet", "--src", str(raw), "--dst", str(tmp_path / "hospital")]
    assert prepare([*arguments, "--freq", "MS"]) == 0
    (tmp_path / "mine.yaml").write_text("- {path: hospital, prediction_length: 12, offset: -12}")
    output = tmp_path / "scores.csv"
    arguments = ["--checkpoint", checkpoints[0], "--suite", str(tmp_path / "mine.yaml")]
    assert evaluate.main([*arguments, "--output", str(output)]) == 0
    got = pd.read_csv(output).set_index("model").loc["seasonal-naive"]
    expected = public_sets.published_seasonal_naive().loc["monash_hospital"]
    np.testing.assert_allclose(
        got[["MASE", "WQL"]].astype(float), expected[["MASE", "WQL"]].astype(float), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--checkpoint"),
        (["--checkpoint", "{model}", "--sweet", "x"], "--sweet"),
        (["--checkpoint", "{model}", "--suite", "embeded"], "did you mean 'embedded'"),
        (["--checkpoint", "{model}", "--suite", "zero_shot"], "benchmark --suite zero_shot"),
        (["--checkpoint", "{model}", "--batch_size", "0"], "--batch_size is 0"),
        (["--checkpoint", "{model}", "--batch_size", "x"], "invalid int value: 'x'"),
        (["--checkpoint", "{model}", "--suite", "{suite}", "{suite}"], "named 'mine'"),
        (["--checkpoint", "{model}", "{model}", "--suite", "{suite}"], "given twice"),
        (["--checkpoint", "{model}", "--ensemble", "--suite", "{suite}"], "at least two"),
        (["--checkpoint", "{model}/none", "--suite", "{suite}"], "none"),
        (["--checkpoint", "{model}", "--suite", "{suite}", "--output", "{folder}"], "is a folder"),
        (["--checkpoint", "{model}", "--suite", "{suite}", "--plot", "{suite}"], "is a file"),
    ],
)  # fmt: skip
def test_wrong_input(checkpoints, suite, capsys, arguments, words):
    known = {"model": checkpoints[0], "suite": suite, "folder": suite.parent}
    assert evaluate.main([argument.format(**known) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate.main(["--help"])
    assert "python -m tsmjax.evaluate --checkpoint amazon/chronos-2" in capsys.readouterr().out
