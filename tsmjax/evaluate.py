"""Score forecasting models on suites of data sets, beside baselines, or classifiers of clips.

    python -m tsmjax.evaluate --checkpoint PATH [PATH …] [--suite NAME|FILE|FOLDER …] [options]

Examples:
    python -m tsmjax.evaluate --checkpoint experiments/chronos2/test/best_run
    python -m tsmjax.prepare benchmark --suite zero_shot --dst data/chronos
    python -m tsmjax.evaluate --checkpoint amazon/chronos-2 --suite zero_shot --data data/chronos --output zero_shot.csv
    python -m tsmjax.evaluate --checkpoint runs/a@best runs/b@final --ensemble --suite my_suite.yaml --plot plots

    python -m tsmjax.evaluate --checkpoint runs/joint runs/bone --ensemble --weights 0.6 0.4

Suites: embedded (real series that come with statsmodels), lite, zero_shot and in_domain (fetched by
prepare benchmark), a .yaml file, or a folder of Arrow data. A checkpoint is a run folder (@best,
@final, @latest or @STEP may follow), a Hugging Face folder, or a hub id.

Scores: WQL over the levels 0.1 … 0.9 and MASE, as GluonTS computes them; in parentheses relative to
seasonal naive, whose geometric mean over data sets sums up a suite. Below 1 is better than it.

Classifiers of skeletons are scored on the test part of the data that they were trained on, or of the
data set --data, without suites and baselines; --ensemble averages their chances.

Exit codes: 0 done, 2 wrong input, anything else a fault.
"""  # noqa: E501

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.table import Table
from rich.text import Text

from tsmjax import compiler, pretrained
from tsmjax.data.arrow import Item
from tsmjax.errors import InputError, exit_code
from tsmjax.evals import clip_models, details, metrics, report, suites
from tsmjax.evals.baselines import BASELINES, Baseline
from tsmjax.evals.evaluator import Batch, Predict, Sums, total_sums, tracked
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator
from tsmjax.evals.report import REFERENCE, Score
from tsmjax.monitor import plots
from tsmjax.monitor.logs import as_text, console
from tsmjax.nn import functional

CLIP_TASKS = ("skeleton", "distill")  # their models name the action of a clip


@dataclasses.dataclass(frozen=True)
class Model:
    """What evaluation asks of a model.

    Attributes:
      name: heading of its columns.
      quantiles: ascending levels it predicts.
      context_length: longest past it sees.
      horizon: longest forecast of one pass.
      patch: steps of one output patch.
      predict: batch of the forecasting task → quantiles (P, S, Q, H), H ≤ `horizon`.
      predict_long: the same for any H, and packs of one series.
    """

    name: str
    quantiles: tuple[float, ...]
    context_length: int
    horizon: int
    patch: int
    predict: Predict
    predict_long: Predict


# ------------------------------------------------------------------------------------------- models


def load_models(paths: Sequence[str]) -> list[Model]:
    """Load checkpoints; they are named by their last path component where that tells them apart.

    Raises:
      InputError: when there is no model at a path, or it does not forecast.
    """
    return [_load(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: Sequence[str]) -> list[str]:
    """Last components of paths where these tell them apart, else the paths."""
    short = [Path(path).name for path in paths]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise InputError(f"The checkpoint {twice[0]} is given twice.")
    return short if len(set(short)) == len(short) else list(paths)


def _load(path: str, name: str) -> Model:
    loaded = pretrained.from_pretrained(path)
    if (kind := loaded.config["task"]["kind"]) != "forecast":
        raise InputError(
            f"The checkpoint {path} was trained for the task {kind!r}, but only forecasting models "
            "can be evaluated on these suites."
        )
    graph, params, stats = functional.split(loaded.model)
    forward = compiler.jit(
        lambda params, batch: loaded.task.predict(functional.merge(graph, params, stats), batch)
    )
    config = loaded.task.config.model

    @functools.cache
    def forecaster():
        from tsmjax.forecaster import Forecaster

        return Forecaster(loaded)

    def predict_long(batch: Batch) -> np.ndarray:
        rows, _, horizon = batch["future"].shape
        used = np.flatnonzero(batch["group"][:, 0] >= 0)
        forecasts = np.full((rows, 1, len(config.quantiles), horizon), np.nan, np.float32)
        quantiles, _ = forecaster().predict_quantiles(
            [batch["context"][row, 0] for row in used],
            prediction_length=horizon,
            quantile_levels=list(config.quantiles),
            batch_size=len(used),
        )
        for row, forecast in zip(used, quantiles, strict=True):
            forecasts[row] = np.swapaxes(np.asarray(forecast), -1, -2)
        return forecasts

    return Model(
        name,
        tuple(config.quantiles),
        config.context_length,
        loaded.task.horizon,
        loaded.task.patch,
        lambda batch: np.asarray(forward(params, batch)),
        predict_long,
    )


def ensemble(models: Sequence[Model]) -> Model:
    """Average the quantiles of several models, level by level.

    Raises:
      InputError: when there are fewer than two models, or their output patches differ.
    """
    if len(models) < 2:
        raise InputError("--ensemble needs at least two checkpoints.")
    if len({model.patch for model in models}) > 1:
        sizes = ", ".join(f"{model.name}: {model.patch}" for model in models)
        raise InputError(f"--ensemble needs models with output patches of one size ({sizes}).")

    def averaged(name: str) -> Predict:
        def predict(batch: Batch) -> np.ndarray:
            forecasts = [
                metrics.interpolate(m.quantiles, getattr(m, name)(batch), metrics.LEVELS)
                for m in models
            ]
            return np.mean(forecasts, axis=0)

        return predict

    return Model(
        "ensemble",
        metrics.LEVELS,
        max(model.context_length for model in models),
        min(model.horizon for model in models),
        models[0].patch,
        averaged("predict"),
        averaged("predict_long"),
    )


# ------------------------------------------------------------------------------------------ scoring


def evaluators(
    model: Model, suite: str, datasets: Sequence[EvalDataset], batch_size: int
) -> Iterator[tuple[ForecastEvaluator, Predict]]:
    """Yield evaluators and the function that predicts for each.

    Data sets within the model's horizon share one evaluator, so that few shapes are compiled; each
    one beyond has its own, because a forecast depends on how far the model is asked to go.

    Raises:
      InputError: when items are to be forecast together beyond the model's horizon.
    """
    short = [dataset for dataset in datasets if dataset.horizon <= model.horizon]
    beyond = [[dataset] for dataset in datasets if dataset.horizon > model.horizon]
    for (dataset,) in beyond:
        if any(isinstance(one, Item) for one in dataset.series):
            raise InputError(
                f"Data set {dataset.name!r} is forecast from groups of series, {dataset.horizon} "
                f"steps ahead, but {model.name} reaches {model.horizon} steps: lower the horizon."
            )
    for group in ([short] if short else []) + beyond:
        evaluator = ForecastEvaluator(
            suite,
            group,
            "test",
            quantiles=model.quantiles,
            context_length=model.context_length,
            max_horizon=max(dataset.horizon for dataset in group),
            patch=model.patch,
            batch_size=batch_size,
        )
        yield evaluator, model.predict if group is short else model.predict_long


def score_model(
    model: Model,
    suite: str,
    datasets: Sequence[EvalDataset],
    batch_size: int,
    plot: Path | None = None,
) -> list[Score]:
    """Score a model on the data sets of a suite, and draw its best, median and worst forecasts."""
    found = []
    for evaluator, predict in evaluators(model, suite, datasets, batch_size):
        found += _scores(evaluator, model.name, total_sums(evaluator, predict))
        if plot:
            draw(evaluator, predict, model.name, plot)
    return found


def scorer(suite: str, datasets: Sequence[EvalDataset]) -> ForecastEvaluator:
    """Return an evaluator for forecasts at the levels 0.1 … 0.9 that are made without batches."""
    return ForecastEvaluator(
        suite,
        datasets,
        "test",
        quantiles=metrics.LEVELS,
        context_length=1,
        max_horizon=max(dataset.horizon for dataset in datasets),
        patch=1,
        batch_size=1,
    )


def score_baseline(
    name: str, method: Baseline, suite: str, datasets: Sequence[EvalDataset]
) -> list[Score]:
    """Score a method that needs no training."""
    evaluator = scorer(suite, datasets)

    def forecasts() -> Iterator[tuple[int, np.ndarray]]:
        windows = tracked(evaluator.windows, f"{name} on {suite}", len(evaluator.windows))
        for index, window in enumerate(windows):
            dataset = evaluator.datasets[window.dataset]
            yield (
                index,
                method(window.past, dataset.season_length, dataset.horizon, metrics.LEVELS),
            )

    return _scores(evaluator, name, evaluator.add_up(forecasts()))


def _scores(evaluator: ForecastEvaluator, model: str, sums: Sums) -> list[Score]:
    scores = evaluator.scores(sums)
    return [
        Score(
            evaluator.name,
            dataset.name,
            model,
            scores[f"{evaluator.name}/{dataset.name}/wql"],
            scores[f"{evaluator.name}/{dataset.name}/mase"],
            details.figures(sums, number),
        )
        for number, dataset in enumerate(evaluator.datasets)
    ]


# ------------------------------------------------------------------------------------------- output


def draw(evaluator: ForecastEvaluator, predict: Predict, model: str, folder: Path) -> None:
    """Draw the best, the median and the worst forecast of each data set into one PNG."""
    of = np.array([window.dataset for window in evaluator.windows])
    for number, dataset in enumerate(evaluator.datasets):
        scored = np.flatnonzero((of == number) & np.isfinite(evaluator.losses))
        if not len(scored):
            continue
        ranked = scored[np.argsort(evaluator.losses[scored], kind="stable")]
        places = dict.fromkeys((0, (len(ranked) - 1) // 2, len(ranked) - 1))
        words = ("best", "median", "worst") if len(places) == 3 else ("best", "worst")
        chosen = [int(ranked[place]) for place in places]
        panels = [
            dataclasses.replace(
                panel, title=f"{word}: {panel.title}, WQL {evaluator.losses[index]:.4f}"
            )
            for word, index, panel in zip(
                words, chosen, evaluator.panels(predict, chosen), strict=False
            )
        ]
        path = folder / report.picture(evaluator.name, dataset.name, model)
        plots.fan_chart(panels, path, title=f"{dataset.name}, {model}")


def table(scores: Sequence[Score], suite: str, metric: str) -> Table:
    """One row a data set, one column a model: the score, and its ratio to seasonal naive."""
    cells = {(s.dataset, s.model): getattr(s, metric) for s in scores if s.suite == suite}
    datasets = list(dict.fromkeys(dataset for dataset, _ in cells))
    models = list(dict.fromkeys(model for _, model in cells))
    drawn = Table(title=f"{suite}: {metric.upper()}", title_justify="left")
    drawn.add_column("data set", no_wrap=True)
    for model in models:
        drawn.add_column(model, justify="right", overflow="fold")
    for dataset in datasets:
        row = [cells[dataset, model] for model in models]
        naive = cells[dataset, REFERENCE]
        best = min((value for value in row if np.isfinite(value)), default=np.nan)
        drawn.add_row(dataset, *(_cell(value, naive, bold=bool(value == best)) for value in row))
    drawn.add_section()
    naives = [cells[dataset, REFERENCE] for dataset in datasets]
    columns = [[cells[dataset, model] for dataset in datasets] for model in models]
    means = [metrics.geometric_mean(column, naives) for column in columns]
    drawn.add_row("geometric mean, relative", *(_number(mean) for mean in means))
    drawn.add_row("mean", *(_number(float(np.mean(column))) for column in columns))
    return drawn


def _cell(value: float, naive: float, bold: bool) -> Text:
    ratio = f" ({value / naive:.3f})" if np.isfinite(naive) and naive > 0 else ""
    return Text(_number(value) + ratio, style="bold" if bold else "")


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"


def show(drawn: Table) -> None:
    """Print a table: wrapped to a terminal, in full width to files and pipes."""
    if console.is_terminal:
        console.print(drawn)
    else:
        print(as_text(drawn, width=32 + 20 * len(drawn.columns)))


# ------------------------------------------------------------------------------------------ command


def run(arguments: Sequence[str]) -> list[Score]:
    """Do what the command line asks for and return the scores of forecasting models.

    Raises:
      InputError: for a wrong option, suite or checkpoint.
    """
    options = _parse(arguments)
    if any(_kind(path) in CLIP_TASKS for path in options.checkpoint):
        _score_clips(options)
        return []
    if options.weights:
        raise InputError("--weights is for ensembles of classifiers: leave it out.")
    # Suites before models: a typo shows before minutes of loading.
    opened = {}
    for suite in options.suite:
        name, datasets = suites.open_suite(
            suite, options.horizon, options.season_length, options.data, options.grouped
        )
        if name in opened:
            raise InputError(f"Two suites are named {name!r}: rename one.")
        opened[name] = datasets
    models = load_models(options.checkpoint)
    if options.ensemble:
        models = [*models, ensemble(models)]
    scores: list[Score] = []
    for suite, datasets in opened.items():
        for model in models:
            pictures = options.report or options.plot
            scores += score_model(model, suite, datasets, options.batch_size, pictures)
        for name, method in BASELINES.items():
            scores += score_baseline(name, method, suite, datasets)
        for metric in ("wql", "mase"):
            show(table(scores, suite, metric))
    if options.output:
        report.write_csv(scores, options.output, options.layout)
    if options.report:
        report.write_report(scores, options.report)
    return scores


def _kind(path: str) -> str:
    """Task that a run folder was trained for; "" for weights from elsewhere."""
    config = Path(path.rsplit("@", 1)[0]) / "config.json"
    return json.loads(config.read_text()).get("task", {}).get("kind", "") if config.exists() else ""


def _score_clips(options: argparse.Namespace) -> None:
    """Score classifiers of clips."""
    paths = options.checkpoint
    if others := [path for path in paths if _kind(path) not in CLIP_TASKS]:
        raise InputError(
            f"The checkpoint {others[0]} is no classifier of skeletons as the others are: score it "
            "by itself."
        )
    models = [
        clip_models.predict(path, name, options.data, options.batch_size)
        for path, name in zip(paths, _names(paths), strict=True)
    ]
    if options.ensemble:
        models = [*models, clip_models.ensemble(models, options.weights)]
    show(clip_models.table(models))
    if options.output:
        clip_models.write_csv(models, options.output)
    if options.plot:
        for model in models:
            clip_models.draw(model, options.plot)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m tsmjax.evaluate",
        usage=argparse.SUPPRESS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", nargs="+", required=True, metavar="PATH")
    add("--ensemble", action="store_true", help="also score the mean of the checkpoints' quantiles")
    add("--weights", nargs="+", type=float, help="of classifiers in --ensemble, one a checkpoint")
    add("--suite", nargs="+", default=["embedded"], metavar="NAME|FILE|FOLDER")
    add("--data", default="", metavar="DIR", help="what prepare benchmark wrote, or clips")
    add(
        "--horizon",
        type=int,
        default=24,
        help="forecast steps when a suite is a folder (default: %(default)s)",
    )
    add("--season_length", type=int, default=0, help="steps of its season; 0 reads its freq")
    add(
        "--grouped",
        action="store_true",
        help="when a suite is a folder: forecast items from all their variates and covariates",
    )
    add("--output", type=Path, metavar="FILE.csv", help="write the scores")
    add(
        "--layout",
        choices=report.LAYOUTS,
        default="chronos",
        help="of --output: dataset,model,MASE,WQL or the columns of GIFT-Eval",
    )
    add(
        "--report",
        type=Path,
        metavar="DIR",
        help="report.md with calibration, and what --plot draws",
    )
    add("--plot", type=Path, metavar="DIR", help="best, median and worst forecast of each data set")
    add("--batch_size", type=int, default=256, help="series in one pass (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("batch_size", "horizon"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}, but must be at least 1.")
    for name in ("output", "plot", "report"):
        path = getattr(options, name)
        if path and path.exists() and path.is_dir() != (name != "output"):
            kind = "a folder" if name == "output" else "a file"
            raise InputError(f"--{name} {path} is {kind}: choose another name.")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[0].upper()}{message[1:]}; see --help.")


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return exit_code(run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
