"""Train a small Chronos-2 on generated series and score it on public data it never saw.

    python -m benchmarks.chronos2_zero_shot --workdir runs/zero_shot --json zero_shot.json
    python -m benchmarks.chronos2_zero_shot --minutes 40 --seed 1 --workdir runs/seed_1

Trains configs/chronos2_zero_shot.py (20 or 40 minutes on two CPU cores, or 8 of a GPU), or
continues where `--workdir` stopped, and scores the final weights on the folder of public data that
TSMJAX_TEST_DATA names (docs/test_data.md). Scores are relative to seasonal naive, combined by
their geometric mean, for six data sets and for ten. The last line printed is JSON; ``--json FILE``
writes it too, and ``--plot FILE.png`` draws a good, a median and a bad forecast of each of the six.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import public_sets
from benchmarks.trained import trained
from configs import chronos2_zero_shot
from tsmjax import checkpoint, pretrained
from tsmjax.evals import metrics
from tsmjax.evals.evaluator import evaluate
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator
from tsmjax.monitor import plots

# What a run of so many minutes should reach, on six and on ten data sets.
BARS = {
    "20": {"six": {"wql": 0.75, "mase": 1.00}},
    "40": {"six": {"wql": 0.69, "mase": 0.91}, "ten": {"wql": 0.72, "mase": 0.93}},
    "gpu": {"six": {"wql": 0.66, "mase": 0.87}},
}
# Of the same six data sets, from the tables that chronos-forecasting publishes.
PUBLISHED = {
    "Chronos-Bolt small, 48M": (0.613, 0.804),
    "Chronos-Bolt tiny, 9M": (0.657, 0.871),
    "Chronos-T5 tiny, 8M": (0.694, 0.860),
}


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--workdir", default="experiments/chronos2/zero_shot_benchmark")
    parser.add_argument("--minutes", choices=BARS, default="20", help="length of the training")
    parser.add_argument("--seed", type=int, default=0, help="of parameters and batches")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    parser.add_argument("--plot", type=Path, help="draw forecasts into this file")
    options = parser.parse_args()
    datasets = public_sets.ten()  # before the training, so that a missing folder is found at once

    config = chronos2_zero_shot.get_config(options.minutes)
    config.seed = options.seed
    started = os.times()
    outcome = trained(config, options.workdir)
    ended = os.times()
    loaded = pretrained.from_pretrained(f"{options.workdir}@final")
    forward = jax.jit(lambda batch: loaded.task.predict(loaded.model, batch))
    scores, panels = {}, []
    for dataset in datasets:
        scores[dataset.name], shown = score(dataset, loaded, forward)
        panels += shown
    six = [dataset.name for dataset in public_sets.six()]
    result = {
        "benchmark": "chronos2_zero_shot",
        "device": f"{jax.devices()[0].device_kind}, {jax.device_count()}",
        "parameters": outcome["parameters"],
        "steps": outcome["step"],
        "train_seconds": outcome["seconds"],
        "train_cpu_seconds": round(sum(ended[:4]) - sum(started[:4]), 1),
        "load_average": round(os.getloadavg()[2], 1),
        "six": combined(scores, six),
        "ten": combined(scores, list(scores)),
        "bars": BARS[options.minutes],
        "datasets": scores,
        "config": loaded.config,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    show(result)
    if options.plot:
        plots.fan_chart(panels[: 3 * len(six)], options.plot, "A good, a median and a bad forecast")
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def score(
    dataset: EvalDataset, loaded: pretrained.Pretrained, forward: Any
) -> tuple[dict[str, float], Sequence[plots.Panel]]:
    """Score one data set; return its scores, and its series at three ranks of success."""
    model = loaded.task.config.model
    evaluator = ForecastEvaluator(
        dataset.name,
        [dataset],
        "test",
        quantiles=model.quantiles,
        context_length=model.context_length,
        max_horizon=model.horizon,
        patch=model.patch_size,
        batch_size=64,
    )
    series: list[tuple[float, np.ndarray, np.ndarray, np.ndarray]] = []

    def predict(batch: dict[str, np.ndarray]) -> np.ndarray:
        forecasts = np.asarray(forward(batch))
        for row in np.flatnonzero(batch["group"][:, 0] >= 0):
            past, label = batch["context"][row, 0], batch["target"][row, 0, : dataset.horizon]
            past = past[np.isfinite(past).argmax() :]
            quantiles = forecasts[row, 0, :, : dataset.horizon]
            naive = metrics.seasonal_naive(past, dataset.season_length, dataset.horizon)
            flat = np.broadcast_to(naive, quantiles.shape)
            ours, theirs = (
                metrics.quantile_loss_sums(label, some, model.quantiles).sum()
                for some in (quantiles, flat)
            )
            series.append((ours / max(theirs, 1e-9), past, label, quantiles))
        return forecasts

    found = evaluate(evaluator, predict)
    name = dataset.name
    # A suite of one data set: its geometric mean is the relative score itself.
    scores = {"relative_wql": found[f"{name}/wql"], "relative_mase": found[f"{name}/mase"]}
    scores |= {metric: found[f"{name}/{name}/{metric}"] for metric in ("wql", "mase")}
    series.sort(key=lambda entry: entry[0])
    ranks = [int(share * (len(series) - 1)) for share in (0.05, 0.5, 0.95)]
    panels = [
        plots.Panel(f"{name}: {ratio:.2f} of naive", past, label, model.quantiles, quantiles)
        for ratio, past, label, quantiles in (series[rank] for rank in ranks)
    ]
    return scores, panels


def combined(scores: dict[str, dict[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Return the geometric means of the relative scores of the data sets named."""
    return {
        metric: metrics.geometric_mean(
            [scores[name][f"relative_{metric}"] for name in names], np.ones(len(names))
        )
        for metric in ("wql", "mase")
    }


def show(result: dict[str, Any]) -> None:
    """Print the scores beside the published ones."""
    minutes = result["train_seconds"] / 60
    millions = result["parameters"] / 1e6
    table = Table(title="Relative to seasonal naive, geometric means; lower is better")
    for column in ("", "WQL", "MASE"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in result["datasets"].items():
        table.add_row(name, f"{values['relative_wql']:.3f}", f"{values['relative_mase']:.3f}")
    table.add_section()
    for suite in ("six", "ten"):
        label = f"these {suite}: ours, {millions:.1f}M, {minutes:.0f} min of training"
        table.add_row(label, f"{result[suite]['wql']:.3f}", f"{result[suite]['mase']:.3f}")
    for suite, bar in result["bars"].items():
        table.add_row(f"the bar, on {suite}", f"{bar['wql']:.3f}", f"{bar['mase']:.3f}")
    for name, (wql, mase) in PUBLISHED.items():
        table.add_row(f"{name}, on six", f"{wql:.3f}", f"{mase:.3f}")
    Console().print(table)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of the module's text."""


if __name__ == "__main__":
    main()
