"""A skeleton model on small public data: each stream alone, and the four together.

    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.last_accuracy --set ucla --json last_ucla.json
    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.last_accuracy --set utd --seeds 0 --only joint

Trains configs/shiftfuse.py on NW-UCLA (views 1 and 2, tested on 3) or UTD-MHAD (odd subjects, tested
on even ones), a run for each stream and seed below `--workdir`, or continues where that stopped; runs
that are done are not repeated, so that several processes may share the streams between them. Told
are scores of the last checkpoint (`@final`): the test part chooses nothing. The ensemble weighs joints
and bones 0.6, their velocities 0.4. The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.trained import trained
from configs import shiftfuse
from tsmjax import allocator, checkpoint
from tsmjax.config import resolve
from tsmjax.evals import clip_models
from tsmjax.models import last
from tsmjax.prepare.__main__ import main as prepare

# Stream → weight in the ensemble.
STREAMS = {"joint": 0.6, "bone": 0.6, "joint_velocity": 0.4, "bone_velocity": 0.4}
# Data set → kind of `prepare`, file below data/skeleton, epochs, bars of joints alone and together.
SETS = {
    "ucla": ("ucla", "nw_ucla_all_sqe.tar.xz", 150, (0.90, 0.93)),
    "utd": ("utd_mhad", "utd_mhad_skeleton.tar", 60, (0.96, 0.975)),
}


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--set", choices=SETS, default="ucla", help="data set")
    parser.add_argument("--size", default="nano", help="of ShiftFuse")
    parser.add_argument("--epochs", type=int, help="of a run; the data set's by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=STREAMS, default=list(STREAMS))
    parser.add_argument("--workdir", type=Path, default=Path("runs/last_accuracy"))
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    _, _, epochs, bars = SETS[options.set]
    data = prepared(options.set, options.workdir)

    runs: dict[int, dict[str, dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        models = []
        for stream in options.only:
            config = shiftfuse.get_config(f"{options.size},{options.set},{stream},{data}")
            config.seed = seed
            config.optim.length = f"{options.epochs or epochs} epochs"
            folder = options.workdir / f"{options.set}_{options.size}_{stream}_{seed}"
            outcome = trained(config, str(folder))
            models.append(clip_models.predict(f"{folder}@final", stream))
            runs.setdefault(seed, {})[stream] = {
                "top1": models[-1].scores()["top1"],
                **{name: outcome[name] for name in ("parameters", "step", "seconds")},
            }
        row = {"seed": seed, **{name: run["top1"] for name, run in runs[seed].items()}}
        if len(models) == len(STREAMS):
            together = clip_models.ensemble(models, list(STREAMS.values()))
            row["ensemble"] = together.scores()["top1"]
        rows.append(row)
    model = resolve(config).model
    result = {
        "benchmark": "last_accuracy",
        "set": options.set,
        "net": f"shiftfuse {options.size}",
        "gmac": round(last.flops(model, 1) / 2e9, 4),
        "epochs": options.epochs or epochs,
        "runs": runs,
        "rows": rows,
        "bars": dict(zip(("joint", "ensemble"), bars, strict=True)),
        "cores": len(os.sched_getaffinity(0)),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    show(result)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def prepared(name: str, workdir: Path) -> Path:
    """Return the folder of a data set below `workdir`, made from the public file at first use."""
    kind, file, _, _ = SETS[name]
    data = workdir / "data" / name
    if not data.exists():
        source = Path(os.environ.get("TSMJAX_TEST_DATA") or "nowhere") / "data/skeleton" / file
        if prepare([kind, "--src", str(source), "--dst", str(data)]):
            raise SystemExit(1)
    return data


def show(result: dict[str, Any]) -> None:
    """Print top-1 of each stream and seed, their means, and the bars."""
    table = Table(title=f"{result['set']}: top-1 of {result['net']}, per cent")
    columns = [name for name in (*STREAMS, "ensemble") if name in result["rows"][0]]
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for row in result["rows"]:
        table.add_row(f"seed {row['seed']}", *(f"{100 * row[name]:.2f}" for name in columns))
    table.add_section()
    means = (statistics.mean(row[name] for row in result["rows"]) for name in columns)
    table.add_row("mean", *(f"{100 * mean:.2f}" for mean in means))
    bars = (result["bars"].get(name) for name in columns)
    table.add_row("bar", *("" if bar is None else f"{100 * bar:.1f}" for bar in bars))
    Console().print(table)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of the module's text."""


if __name__ == "__main__":
    allocator.keep_freed()
    main()
