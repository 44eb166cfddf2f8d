"""TTM from scratch on ETTh1, beside the published scores of pretrained TTM.

    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.ttm_etth1 --json ttm_etth1.json

Reads FOLDER/data/forecasting/ETTh1.csv.gz (docs/test_data.md), trains `configs/ttm_etth1.py` for
each horizon and seed, stopping by the validation part, and scores the best checkpoint once on the
test part: the split, the windows and the standardisation of the long-horizon benchmarks. A run
folder that is complete is not trained again. The last line printed is JSON; ``--json FILE`` writes
it too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from benchmarks.chronos2_zero_shot import trained
from configs import ttm_etth1
from tsmjax import checkpoint
from tsmjax.errors import InputError
from tsmjax.monitor.logs import console
from tsmjax.prepare.__main__ import main as prepare

HORIZONS = (96, 192, 336, 720)
BAR = {"mse": 0.385, "mae": 0.405}  # horizon 96
# Test MSE by horizon, from the benchmark tables that granite-tsfm publishes with its models; "5 %"
# is fine-tuned on the last twentieth of the training part.
PUBLISHED: dict[str, dict[int, float]] = {
    "TTM r1 512, zero-shot": {96: 0.363},
    "TTM r1 512, 5 %": {96: 0.363},
    "TTM r2 512, zero-shot": {96: 0.363, 192: 0.387, 336: 0.402, 720: 0.475},
    "TTM r2 512, 5 %": {96: 0.362, 192: 0.386, 336: 0.400},
    "TTM r2 1536, zero-shot": {96: 0.357, 192: 0.386, 336: 0.405, 720: 0.435},
}


def main() -> None:
    """Prepare, train, score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horizon", type=int, nargs="+", default=HORIZONS, choices=HORIZONS)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each horizon")
    parser.add_argument("--workdir", type=Path, default="experiments/ttm/etth1_benchmark")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    table = prepared(options.workdir)
    result: dict[str, Any] = {
        "benchmark": "ttm_etth1",
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "bar": BAR,
        "published_mse": PUBLISHED,
        "horizons": {},
    }
    for horizon in options.horizon:
        seeds = range(options.seeds)
        runs = [one(table, horizon, seed, options.workdir) for seed in seeds]
        result["horizons"][horizon] = summary(runs)
    result["load_average"] = round(os.getloadavg()[2], 1)
    result["git_commit"] = checkpoint.versions()["git_commit"]
    console.print(show(result["horizons"]))
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def prepared(workdir: Path) -> Path:
    """Make an Arrow folder of the data set, unless it is there."""
    data = os.environ.get("TSMJAX_TEST_DATA")
    source = Path(data or "", "data/forecasting/ETTh1.csv.gz")
    if not data or not source.exists():
        raise SystemExit(
            "error: set TSMJAX_TEST_DATA to a folder with data/forecasting/ETTh1.csv.gz, see "
            "docs/test_data.md."
        )
    folder = workdir / "etth1"
    if not folder.exists():
        names = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
        code = prepare(["csv", "--src", str(source), "--dst", str(folder), "--target", *names])
        if code:
            raise SystemExit(code)
    return folder


def one(table: Path, horizon: int, seed: int, workdir: Path) -> dict[str, Any]:
    """Train and score once."""
    config = ttm_etth1.get_config(f"{table},{horizon}")
    config.seed = seed
    try:
        outcome = trained(config, str(workdir / f"horizon_{horizon}" / f"seed_{seed}"))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    return {
        "seed": seed,
        **{name: outcome["test"][f"etth1/{name}"] for name in ("mse", "mae")},
        "validation_mse": outcome["best"]["etth1/mse"],
        "parameters": outcome["parameters"],
        "best_step": outcome["best_step"],
        "steps": outcome["step"],
        "seconds": outcome["seconds"],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the runs of one horizon, and the runs."""
    scores = {name: statistics.fmean(run[name] for run in runs) for name in ("mse", "mae")}
    means = {name: round(score, 4) for name, score in scores.items()}
    return {**means, "seconds": round(sum(run["seconds"] for run in runs), 1), "runs": runs}


def show(horizons: dict[int, dict[str, Any]]) -> Table:
    """Table of the test scores, ours and the published ones."""
    table = Table(title="ETTh1, test MSE (MAE)")
    table.add_column("model")
    for horizon in horizons:
        table.add_column(str(horizon), justify="right")
    table.add_row(
        "TTM here, from scratch",
        *(f"{scores['mse']:.3f} ({scores['mae']:.3f})" for scores in horizons.values()),
    )
    for name, scores in PUBLISHED.items():
        cells = (f"{scores[horizon]:.3f}" if horizon in scores else "–" for horizon in horizons)
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
