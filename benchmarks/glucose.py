"""TTM beside the usual baselines on blood glucose of people whom training never saw.

    python -m benchmarks.glucose --workdir runs/glucose --json glucose.json
    python -m benchmarks.glucose --part exogenous --workdir runs/glucose

Part "real" trains configs/ttm_glucose.py on the sensors of virtual patients and fine-tunes it on
the CGM sets in the folder that TSMJAX_TEST_DATA names (docs/test_data.md): in full, by LoRA, with
the covariates that a set has, and as a model that knows the level of glucose. Beside it:
persistence, seasonal naive, linear autoregression, linear regression of every step, and an LSTM
with and without the virtual patients. Every third person, the second first, is the test. Part
"exogenous" trains on virtual patients who weigh and announce every meal, with meals and insulin
known ahead, and without.

What is complete in `--workdir` is not repeated. The last line printed is JSON; ``--json FILE``
writes it too, and pictures go to `--plots`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import public_sets
from configs import ttm_glucose, ttm_glucose_lora
from tsmjax import checkpoint, pretrained
from tsmjax.data.cache import cache_folder
from tsmjax.data.table import DataConfig, Table
from tsmjax.errors import InputError
from tsmjax.glucose import baselines, plots, scores
from tsmjax.monitor import plots as figures
from tsmjax.prepare import __main__ as prepare
from tsmjax.trainer import train

MINUTES = (30, 60, 90, 120)
# File, minutes between readings, type of diabetes for the Parkes grid (2 for people without).
SETS = {
    "iglu": ("iglu_example_5_subjects.csv.gz", 5, 2),
    "shanghai": ("shanghai_t1dm.csv.gz", 15, 1),
    "big_ideas": ("big_ideas", 5, 2),
}
TITLES = {
    "iglu": "iglu, type 2 diabetes",
    "shanghai": "ShanghaiT1DM, type 1 diabetes",
    "big_ideas": "BIG IDEAs, without diabetes",
}
WITH_COVARIATES = ("shanghai", "big_ideas")
VIRTUAL = "embedded:virtual_patients?covariates=0&patients=60&every={}"
KNOWN = {"nothing": 0, "meals": 1, "meals and insulin": 2}  # what is known ahead → parameter


def main() -> None:
    """Train what is missing, score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("all", "real", "exogenous"), default="all")
    parser.add_argument("--workdir", type=Path, default=Path("experiments/ttm/glucose_benchmark"))
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths of training")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    parser.add_argument("--plots", type=Path, help="folder of pictures; default: in --workdir")
    options = parser.parse_args()
    options.plots = options.plots or options.workdir / "plots"

    result = {
        "benchmark": "glucose",
        "device": f"{jax.devices()[0].device_kind}, {jax.device_count()}",
        "seed": options.seed,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    # Runs of one shape compile once.
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    started = os.times()
    parts = [(name, functools.partial(real, name)) for name in SETS]
    parts = parts * (options.part != "exogenous")
    parts += [("exogenous", exogenous)] * (options.part != "real")
    for name, part in parts:
        result[name] = part(options)
        ended = os.times()
        result["seconds"] = round(ended.elapsed - started.elapsed, 1)
        result["cpu_seconds"] = round(sum(ended[:4]) - sum(started[:4]), 1)
        result["load_average"] = round(os.getloadavg()[2], 1)
        if options.json:  # after each part, so that a run that is stopped leaves what it has
            checkpoint.write_json(options.json, result)
    print(json.dumps(result))


class Windows(NamedTuple):
    """All windows of a part of a table, in the units of the data, and where they are from."""

    context: np.ndarray  # (N, C, T), NaN before the beginning of an item
    target: np.ndarray  # (N, H) glucose
    future: np.ndarray  # (N, C, H), NaN but for channels known ahead
    items: np.ndarray  # (N,)
    cuts: np.ndarray  # (N,)


def windows(
    path: str, part: str, *, past: int, min_past: int, horizon: int, stride: int = 1
) -> tuple[Table, Windows]:
    """Read the windows of a part, with the subjects of `ttm_glucose` held out."""
    data = ttm_glucose.get_config(path).data
    table = Table(
        DataConfig(path=path, split=data.split, held_out=data.held_out, standardise=False)
    )
    items, cuts = table.windows(part, horizon, min_past, stride)
    read = table.read(items, cuts, past, horizon)
    return table, Windows(read["context"], read["target"][:, 0], read["future"], items, cuts)


def ttm(run: str, windows: Windows) -> np.ndarray:
    """Forecast glucose (N, H) in mg/dL with the best checkpoint of a run."""
    loaded = pretrained.from_pretrained(f"{run}@best")
    mean, deviation = (
        np.asarray(loaded.artefacts[name], np.float32)[:, None] for name in ("mean", "deviation")
    )
    length = loaded.task.config.model.context_length
    predict = jax.jit(loaded.task.predict)
    parts = []
    for first in range(0, len(windows.items), 1024):
        rows = slice(first, first + 1024)
        context, future = windows.context[rows, :, -length:], windows.future[rows]
        batch = {"context": (context - mean) / deviation, "future": (future - mean) / deviation}
        lacking = 1024 - len(context)
        batch = {name: np.pad(x, ((0, lacking), (0, 0), (0, 0))) for name, x in batch.items()}
        forecast = np.asarray(predict(loaded.model, batch))[: len(context), 0, 0]
        parts.append(forecast * deviation[0] + mean[0])
    return np.concatenate(parts)


def trained(name: str, config: ConfigDict, steps: int, options: argparse.Namespace) -> str:
    """Return the run folder of a config, after training what is left of it."""
    folder = options.workdir / name
    try:
        checkpoint.find(f"{folder}@final")
    except InputError:
        steps = max(int(options.scale * steps), 2)
        config.seed = options.seed
        config.optim.length = f"{steps} steps"
        config.evals.update(every=f"{max(steps // 6, 1)} steps", patience="0 steps")
        config.log.plots = False
        train(config, str(folder))
    return str(folder)


# ---------------------------------------------------------------------------------- real recordings


def real(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Score all forecasters on the people of one set that none of them was fitted on."""
    _, every, diabetes = SETS[name]
    hour = 60 // every
    virtual, alone = VIRTUAL.format(every), prepared(name, options, "--alone")
    base = trained(f"virtual_{every}", ttm_glucose.get_config(virtual), 2400, options)
    config = ttm_glucose.get_config(f"{virtual},level=known")
    level = trained(f"virtual_{every}_level", config, 2400, options)
    tuned, tuned_level = f"{alone},from={base}", f"{alone},from={level}"
    runs = {
        "TTM, virtual patients only": base,
        "TTM, this set only": trained(f"{name}_only", ttm_glucose.get_config(alone), 800, options),
        "TTM, LoRA": trained(f"{name}_lora", ttm_glucose_lora.get_config(tuned), 500, options),
        "TTM, fine-tuned": trained(f"{name}_tuned", ttm_glucose.get_config(tuned), 500, options),
        "TTM, level known, virtual patients only": level,
        "TTM, level known, fine-tuned": trained(
            f"{name}_level", ttm_glucose.get_config(tuned_level), 2000, options
        ),
    }

    read = functools.partial(windows, alone, past=24 * hour, min_past=12 * hour, horizon=2 * hour)
    (table, fit), (_, held), (_, test) = (read(part) for part in ("train", "validation", "test"))
    past = test.context[:, 0]
    pairs = [(part.context[:, 0], part.target) for part in (fit, held)]
    network = functools.partial(baselines.fit_lstm, history=2 * hour, seed=options.seed)
    steps = max(int(800 * options.scale), 10)
    virtual_pairs = [
        (part.context[:, 0], part.target)
        for _, part in (
            windows(virtual, part, past=2 * hour, min_past=12 * hour, horizon=2 * hour, stride=4)
            for part in ("train", "validation")
        )
    ]
    start = network(*virtual_pairs[0], virtual_pairs[1], steps=steps)
    forecasts = {
        "persistence": baselines.persistence(past, 2 * hour),
        "seasonal naive, a day": baselines.seasonal_naive(past, 2 * hour, 24 * hour),
        "linear AR": baselines.autoregression(
            baselines.fit_linear(pairs[0][0], pairs[0][1][:, :1], 2 * hour), past, 2 * hour
        ),
        "linear regression": baselines.linear(baselines.fit_linear(*pairs[0], 2 * hour), past),
        "LSTM, this set only": baselines.lstm(network(*pairs[0], pairs[1], steps=steps), past),
        "LSTM, fine-tuned": baselines.lstm(
            network(*pairs[0], pairs[1], steps=steps // 2, learning_rate=1e-3, start=start), past
        ),
        **{label: ttm(run, test) for label, run in runs.items()},
    }
    if name in WITH_COVARIATES:
        other = prepared(name, options)
        config = ttm_glucose.get_config(f"{other},from={base}")
        run = trained(f"{name}_covariates", config, 400, options)
        _, more = windows(other, "test", past=24 * hour, min_past=12 * hour, horizon=2 * hour)
        forecasts["TTM, fine-tuned with covariates"] = ttm(run, more)

    series = [target[0] for target in table.series()]
    models = {}
    for label, forecast in forecasts.items():
        models[label] = scores.forecast_scores(test.target, forecast, every, MINUTES, diabetes)
        models[label]["alarms"] = scores.alarm_scores(
            series, test.items, test.cuts, forecast, every
        )
    pair = test.target[:, hour - 1], forecasts["TTM, fine-tuned"][:, hour - 1]
    title = f"{TITLES[name]}, 60 minutes ahead"
    plots.clarke_grid(*pair, options.plots / f"glucose_clarke_{name}.png", title)
    plots.parkes_grid(*pair, options.plots / f"glucose_parkes_{name}.png", title, diabetes)
    show(TITLES[name], models)
    return {
        "every": every,
        "people": len(set(table.subjects())),
        "test_people": list(ttm_glucose.get_config(alone).data.held_out),
        "windows": {
            part: len(found.items)
            for part, found in (("train", fit), ("validation", held), ("test", test))
        },
        "models": models,
    }


def prepared(name: str, options: argparse.Namespace, *more: str) -> str:
    """Return the Arrow folder of a public set, after making it."""
    folder = options.workdir / "data" / "alone" / name if more else options.workdir / "data" / name
    if not folder.exists():
        source = public_sets.folder().parent / "cgm" / SETS[name][0]
        prepare.run("glucose", ["--src", str(source), "--dst", str(folder), *more])
    return str(folder)


# ----------------------------------------------------------------------------------- known futures


def exogenous(options: argparse.Namespace) -> dict[str, Any]:
    """Score one model told of what is to come, and one that is not, on other virtual patients."""
    models = {}
    for label, known in KNOWN.items():
        source = f"embedded:virtual_patients?patients=90&every=15&announced={known}&careful=1"
        config = ttm_glucose.get_config(source)
        config.model.scaling = "none"  # a gram of carbohydrate counts alike in every window
        run = trained(f"announced_{known}", config, 3000, options)
        _, test = windows(source, "test", past=48, min_past=48, horizon=8)
        models[label] = scores.forecast_scores(test.target, ttm(run, test), 15, range(15, 121, 15))
    persistence = baselines.persistence(test.context[:, 0], 8)
    models["persistence"] = scores.forecast_scores(test.target, persistence, 15, range(15, 121, 15))
    show("Virtual patients, by what is known ahead", models)
    draw(models, options.plots / "glucose_exogenous.png")
    without = models["nothing"]["120"]["rmse"]
    return {
        "windows": len(test.items),
        "better_at_120": {
            label: 1 - models[label]["120"]["rmse"] / without for label in KNOWN if KNOWN[label]
        },
        "models": models,
    }


def draw(models: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the error by horizon."""
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    figures.style(axes)
    colours = dict(zip(models, ("#d1495b", "#2a9d8f", "#1d6996", figures.MUTED), strict=True))
    ends = {label: found["120"]["rmse"] for label, found in models.items()}
    place = 0.0
    for label in sorted(models, key=ends.__getitem__):
        errors = {int(minute): one["rmse"] for minute, one in models[label].items()}
        axes.plot(errors.keys(), errors.values(), color=colours[label], linewidth=2)
        name = label if label == "persistence" else f"TTM, {label} known ahead"
        place = max(ends[label], place + 0.06 * max(ends.values()))  # names must not overlap
        axes.text(122, place, name, color=colours[label], fontsize=9, va="center")
    axes.set(xlim=(15, 120), ylim=(0, None), xticks=range(30, 121, 30))
    axes.set_xlabel("minutes ahead")
    axes.set_ylabel("RMSE, mg/dL")
    figure.suptitle("Virtual patients whom training never saw", fontsize=12, color=figures.INK)
    figures.save(figure, path)


def show(title: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Print RMSE, MAE and MARD at each horizon."""
    table = RichTable(title=f"{title}: RMSE / MAE in mg/dL / MARD in %")
    table.add_column("")
    for minute in MINUTES:
        table.add_column(f"{minute} min", justify="right")
    for label, found in models.items():
        cells = [
            " / ".join(f"{found[str(minute)][score]:.1f}" for score in ("rmse", "mae", "mard"))
            for minute in MINUTES
        ]
        table.add_row(label, *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
