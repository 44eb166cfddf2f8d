"""Does the loss of the larger skeleton nets fall? LAST-v2 small and LAST-Base on NW-UCLA.

    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.last_loss --json last_loss.json

A few steps of each net's own config with a short warm-up, from random weights: enough to see that
gradients reach what they should, far too few for an accuracy. Told are mean losses of the first and
last tenth of the steps; a guess at random has ln 10 = 2.30. The last line printed is JSON; ``--json
FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.last_accuracy import prepared
from tsmjax import allocator, checkpoint
from tsmjax.trainer import train

# Config → words of its variant.
NETS = {"last_v2": "small", "last_base": "joint"}


def main() -> None:
    """Train each net, print both means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="clips of a step")
    parser.add_argument("--workdir", type=Path, default=Path("runs/last_loss"))
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    data = prepared("ucla", options.workdir)
    result: dict[str, Any] = {
        "benchmark": "last_loss",
        "steps": options.steps,
        "batch": options.batch,
        "frames": options.frames,
        "cores": len(os.sched_getaffinity(0)),
        "nets": {name: losses(name, data, options) for name in options.only},
        "git_commit": checkpoint.versions()["git_commit"],
    }
    table = Table(title="mean loss of the first and the last tenth of the steps")
    for column in ("net", "parameters", "first", "last", "seconds"):
        table.add_column(column, justify="left" if column == "net" else "right")
    for name, row in result["nets"].items():
        cells = f"{row['parameters']:,}", *(f"{row[key]:.3f}" for key in ("first", "last"))
        table.add_row(name, *cells, f"{row['seconds']:.0f}")
    Console().print(table)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def losses(name: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps of a config and return the means of its first and last losses."""
    config = importlib.import_module(f"configs.{name}").get_config(f"{NETS[name]},ucla,{data}")
    config.data.update({"batch_size": options.batch, "bodies": 1})
    config.model.frames = options.frames
    config.optim.update({"length": f"{options.steps} steps", "warmup": "10 steps"})
    config.optim.accumulate = 1
    config.optim.precision = "float32"
    config.log.update({"every": "1 steps", "plots": False})
    config.evals.every = "0 steps"
    config.checkpoint.every = "1000 steps"
    run = options.workdir / name
    outcome = train(config, str(run))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = [line["loss"] for line in lines if "loss" in line]
    tenth = max(len(seen) // 10, 1)
    return {
        "parameters": outcome["parameters"],
        "seconds": outcome["seconds"],
        "first": statistics.mean(seen[:tenth]),
        "last": statistics.mean(seen[-tenth:]),
    }


if __name__ == "__main__":
    allocator.keep_freed()
    main()
