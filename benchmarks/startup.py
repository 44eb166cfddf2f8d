"""How long commands take from the shell, in fresh processes, beside chronos-forecasting.

    python -m benchmarks.startup
    python -m benchmarks.startup --size base --repeats 7 --json startup.json

"import": ``import tsmjax`` with its Forecaster, beside ``from chronos import Chronos2Pipeline``.
"predict": ``python -m tsmjax.predict`` of one CSV file, beside a script that does the same with
``Chronos2Pipeline.predict_df``: same weights, same deciles, which are compared. "first step":
``python -m tsmjax.main --config=configs/chronos2_test.py`` until the metrics of the first step are
there, with a compile cache that is empty, and with one that is not.

Sides take turns, after one round that does not count: it fills page cache, bytecode and the compile
cache of predict, which is on by default; its first time stands beside as "cold". Figures are medians
of wall seconds, and of CPU seconds of the processes. The last line printed is JSON; ``--json FILE``
writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsmjax.monitor.callbacks import Callback

ROOT = Path(__file__).parents[1]
LEVELS = [f"0.{n}" for n in range(1, 10)]
REFERENCE = """\
import sys
import pandas as pd
from chronos import Chronos2Pipeline

pipeline = Chronos2Pipeline.from_pretrained(sys.argv[1], device_map="cpu")
found = pipeline.predict_df(
    pd.read_csv(sys.argv[2], parse_dates=["timestamp"]),
    prediction_length=int(sys.argv[4]),
    quantile_levels=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
)
found.to_csv(sys.argv[3], index=False)
"""
IMPORTS = {
    "ours": "from tsmjax import Forecaster",
    "reference": "from chronos import Chronos2Pipeline",
}
PARTS = ("import", "predict", "first_step")
Seconds = tuple[float, float]  # wall, CPU


def main() -> None:
    """Measure the parts that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", default="small", help="model preset of predict")
    parser.add_argument("--series", type=int, default=10, help="series of the CSV file")
    parser.add_argument("--length", type=int, default=700, help="steps of each")
    parser.add_argument("--horizon", type=int, default=24, help="steps to forecast")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures = {
            "import": lambda: beside(
                {
                    side: lambda text=text: timed([sys.executable, "-c", text], folder)
                    for side, text in IMPORTS.items()
                },
                options.repeats,
            ),
            "predict": lambda: predict(options, folder),
            "first_step": lambda: first_step(options.repeats, folder),
        }
        found = {}
        for part in options.part:
            found[part] = measures[part]()
            print(json.dumps({part: found[part]}), flush=True)

    from tsmjax import checkpoint  # not before: this process is small while it measures

    result = {
        "benchmark": "startup",
        "cores": len(os.sched_getaffinity(0)),
        **{name: value for name, value in vars(options).items() if name not in ("json", "part")},
        **found,
        "load": round(os.getloadavg()[0], 1),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def predict(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Forecast one file with both sides, again and again."""
    # In a process of its own: measuring starts without jax in memory.
    model = folder / "model"
    code = (
        "import sys, pathlib; from benchmarks.chronos2_evaluation import random_weights; "
        "random_weights(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, options.size, str(model)]
    subprocess.run(command, check=True, cwd=ROOT)
    table(options.series, options.length).to_csv(folder / "in.csv", index=False)
    (folder / "reference.py").write_text(REFERENCE)
    files = {side: str(folder / f"{side}.csv") for side in IMPORTS}
    horizon = str(options.horizon)
    commands = {
        "ours": [
            *(sys.executable, "-m", "tsmjax.predict", "--checkpoint", str(model)),
            *("--input", str(folder / "in.csv"), "--output", files["ours"], "--horizon", horizon),
        ],
        "reference": [
            *(sys.executable, str(folder / "reference.py"), str(model), str(folder / "in.csv")),
            *(files["reference"], horizon),
        ],
    }
    found = beside(
        {side: lambda line=line: timed(line, folder) for side, line in commands.items()},
        options.repeats,
    )
    ours, theirs = (
        pd.read_csv(files[side]).sort_values(["item_id", "timestamp"])[LEVELS].to_numpy()
        for side in IMPORTS
    )
    return {**found, "difference": float(np.abs(ours - theirs).max() / theirs.std())}


def table(series: int, length: int) -> pd.DataFrame:
    """Hourly random walks with a day in them."""
    rng, hours = np.random.default_rng(0), np.arange(length)
    times = pd.date_range("2024-01-01", periods=length, freq="h")
    day = 10 * np.sin(2 * np.pi * hours / 24)
    return pd.concat(
        pd.DataFrame(
            {
                "item_id": f"series {number}",
                "timestamp": times,
                "target": day + rng.normal(size=length).cumsum(),
            }
        )
        for number in range(series)
    )


class Stopwatch(Callback):
    """Notes when the metrics of the first step have arrived."""

    def __init__(self, run: Path, config: Mapping[str, Any]):
        self.file = run / "first_step"

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note the time of the first step."""
        if not self.file.exists():
            self.file.write_text(repr(time.time()))


def first_step(repeats: int, folder: Path) -> dict[str, Any]:
    """Start training again and again, with an empty compile cache and with a full one."""
    numbers = itertools.count()

    def start(cache: str) -> Seconds:
        run = folder / f"run_{next(numbers)}"
        command = [
            *(sys.executable, "-m", "tsmjax.main", f"--config={ROOT / 'configs/chronos2_test.py'}"),
            *(f"--workdir={run}", "--config.optim.length=1", "--config.optim.warmup=0"),
            *("--config.evals.every=0", "--config.log.every=1", "--config.log.health=0"),
            "--config.log.callbacks=('benchmarks.startup:Stopwatch',)",
        ]
        more = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        started = time.time()
        _, cpu = timed(command, folder, more)
        return float((run / "first_step").read_text()) - started, cpu

    sides = {
        "cached": lambda: start("cache"),
        "cold": lambda: start(f"cache_{next(numbers)}"),
    }
    found = beside(sides, repeats)
    del found["cold"]["first_seconds"]
    return found


def beside(sides: Mapping[str, Callable[[], Seconds]], repeats: int) -> dict[str, Any]:
    """Time two sides in turns; the ratios are the first one's seconds over the second one's."""
    times: dict[str, list[Seconds]] = {side: [] for side in sides}
    for number in range(1 + repeats):
        for side, run in sides.items():
            times[side].append(run())
            print(f"round {number}, {side}: {times[side][-1][0]:.2f} s", file=sys.stderr)
    found: dict[str, Any] = {
        side: {
            "seconds": round(statistics.median(wall for wall, _ in seen[1:]), 3),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in seen[1:]), 3),
            "first_seconds": round(seen[0][0], 3),
        }
        for side, seen in times.items()
    }
    for kind, name in (("seconds", "ratio"), ("cpu_seconds", "cpu_ratio")):
        first, second = (found[side][kind] for side in sides)
        found[name] = round(first / second, 3)
    return found


def timed(command: list[str], folder: Path, more: Mapping[str, str] | None = None) -> Seconds:
    """Run a command as a user would, with its caches below `folder`; return its seconds."""
    # Both sides may keep their bytecode, and neither finds what the caller had compiled before.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith(("JAX_COMP", "JAX_PERS"))
    }
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment |= {"TSMJAX_CACHE": str(folder / "tsmjax"), "PYTHONPATH": path, **(more or {})}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    wall = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


if __name__ == "__main__":
    main()
