"""Chronos-2 forecasts through the public interface, ours beside chronos-forecasting.

    python -m benchmarks.chronos2_inference
    python -m benchmarks.chronos2_inference --size base --batch 1 32 --context 512 --horizon 64

Both sides load one folder of random weights, large enough that forecasts follow the series, and
answer ``predict_quantiles`` for the same random walks, one variate each, fp32. A call is everything
from arrays to quantiles on the host. Each case is called once to warm up, which compiles ours, then
sides take turns; the figures are medians, of wall seconds and of CPU seconds of the process (which
say more on a machine that others use too). Forecasts of both are compared in the same calls: the
largest difference, over the deviation of all forecasts. The last line printed is JSON; ``--json
FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.chronos2_evaluation import random_weights
from tsmjax import Forecaster, checkpoint
from tsmjax.forecasting.passes import DECILES
from tsmjax.models import chronos2

SIDES = ("ours", "reference")
Call = Callable[[np.ndarray, int], np.ndarray]


def main() -> None:
    """Measure the cases that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small", choices=sorted(chronos2.PRESETS))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256], help="series")
    parser.add_argument("--context", type=int, nargs="+", default=[512, 2048], help="steps")
    parser.add_argument("--horizon", type=int, nargs="+", default=[64, 1024], help="steps")
    parser.add_argument("--repeats", type=int, default=3, help="least measured calls of a side")
    parser.add_argument("--seconds", type=float, default=3.0, help="quick cases repeat as long")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = random_weights(options.size, Path(folder) / options.size)
        calls = {"ours": ours(path), "reference": reference(path)}
    cases = []
    for batch, context, horizon in itertools.product(
        options.batch, options.context, options.horizon
    ):
        cases.append(compare(calls, batch, context, horizon, options))
        print(json.dumps(cases[-1]), flush=True)
    Console().print(table(cases))
    result = {
        "benchmark": "chronos2_inference",
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        **{name: value for name, value in vars(options).items() if name != "json"},
        "cases": cases,
        "largest_difference": max(case["difference"] for case in cases),
        "load": round(os.getloadavg()[0], 1),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def ours(path: Path) -> Call:
    """Return our forecast of arrays (batch, context) as quantiles (batch, horizon, levels)."""
    forecaster = Forecaster.from_pretrained(path)

    def call(series: np.ndarray, horizon: int) -> np.ndarray:
        found, _ = forecaster.predict_quantiles(
            series[:, None], horizon, DECILES, batch_size=len(series)
        )
        return np.concatenate(found)

    return call


def reference(path: Path) -> Call:
    """Return the same forecast by chronos-forecasting, on the same kind of device."""
    import torch
    from chronos import Chronos2Pipeline

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    pipeline = Chronos2Pipeline.from_pretrained(path, device_map=device)

    def call(series: np.ndarray, horizon: int) -> np.ndarray:
        found, _ = pipeline.predict_quantiles(
            torch.from_numpy(series[:, None]),
            prediction_length=horizon,
            quantile_levels=list(DECILES),
            batch_size=len(series),
        )
        return torch.cat(found).cpu().numpy()

    return call


def compare(
    calls: dict[str, Call], batch: int, context: int, horizon: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Time one case on both sides in turns, and compare their forecasts."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(batch, context)).cumsum(axis=1).astype(np.float32)
    found: dict[str, np.ndarray] = {}
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    until = time.monotonic()  # moves on after the call that does not count
    while len(times["ours"]) <= options.repeats or time.monotonic() < until:
        for side in SIDES:
            wall, cpu = time.perf_counter(), time.process_time()
            found[side] = calls[side](series, horizon)
            times[side].append((time.perf_counter() - wall, time.process_time() - cpu))
        if len(times["ours"]) == 1:
            until = time.monotonic() + options.seconds
    seconds, cpu = (
        {side: statistics.median(call[at] for call in times[side][1:]) for side in SIDES}
        for at in (0, 1)
    )
    apart = np.abs(found["ours"] - found["reference"]).max()
    return {
        **{"batch": batch, "context": context, "horizon": horizon},
        **{f"{side}_ms": round(1e3 * seconds[side], 2) for side in SIDES},
        **{f"{side}_series_per_second": round(batch / seconds[side], 1) for side in SIDES},
        "ratio": round(seconds["reference"] / seconds["ours"], 2),
        "cpu_ratio": round(cpu["reference"] / cpu["ours"], 2),
        "calls": len(times["ours"]) - 1,
        "ours_first_call_seconds": round(times["ours"][0][0], 2),
        "difference": float(apart / found["reference"].std()),
    }


def table(cases: list[dict[str, Any]]) -> Table:
    """One row a case."""
    drawn = Table(title="predict_quantiles, series a second")
    for heading in ("batch", "context", "horizon", "ours", "reference", "ratio", "difference"):
        drawn.add_column(heading, justify="right")
    for case in cases:
        drawn.add_row(
            *(f"{case[name]:,}" for name in ("batch", "context", "horizon")),
            *(f"{case[f'{side}_series_per_second']:,}" for side in SIDES),
            f"{case['ratio']:.2f}",
            f"{case['difference']:.1e}",
        )
    return drawn


if __name__ == "__main__":
    main()
