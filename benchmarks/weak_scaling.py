"""What a second process costs: a training step of one process, and of two with as much work each.

    python -m benchmarks.weak_scaling --size tiny --batch 64

Every process is pinned to one core of its own and trains Chronos-2 on `--batch` series of its own.
Three sides take turns: one process alone; two that know nothing of each other, which shows what
sharing the machine costs; and two that are one run, data parallel over gloo on loopback. The
figures are medians of the steps of each side's fastest round; CPU time leaves out what other
programs take of a core. The last line printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from launch import local

SIDES = ("alone", "apart", "together")
Steps = list[tuple[float, float]]  # (wall, CPU) milliseconds of each step


def main() -> None:
    """Measure what the command line asks for, or be one of the measured processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", help="model preset")
    parser.add_argument("--context", type=int, default=512, help="context steps")
    parser.add_argument("--batch", type=int, default=64, help="series of each process")
    parser.add_argument("--steps", type=int, default=20, help="measured steps a round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    # Of a measured process: the core of each process of its run, and where its figures go.
    parser.add_argument("--cores", type=int, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        steps = measure(options)
        if os.environ.get("TSMJAX_PROCESS_ID", "0") == "0":
            options.out.write_text(json.dumps(steps))
        return

    from tsmjax import checkpoint

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("this needs two cores")
    os.environ["NPROC"] = "1"  # threads of XLA's pool: one core has no use for more
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES:
            found[side].append(median(one_round(side, cores[:2], options)))
            print(f"round {number + 1}, {side}: {found[side][-1][0]:.1f} ms", file=sys.stderr)
    wall, cpu = ({side: min(found[side])[at] for side in SIDES} for at in (0, 1))
    result: dict[str, Any] = {
        "benchmark": "weak_scaling",
        **{name: getattr(options, name) for name in ("size", "context", "batch")},
        **{name: getattr(options, name) for name in ("steps", "rounds")},
        **{f"{side}_ms": round(wall[side], 2) for side in SIDES},
        **{f"{side}_cpu_ms": round(cpu[side], 2) for side in SIDES},
        "ratio": round(wall["together"] / wall["alone"], 3),
        "ratio_to_apart": round(wall["together"] / wall["apart"], 3),
        "cpu_ratio": round(cpu["together"] / cpu["alone"], 3),
        "load_average": round(os.getloadavg()[1], 1),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def one_round(side: str, cores: list[int], options: argparse.Namespace) -> Steps:
    """Run the processes of one side once; the steps are those of the first process."""
    with tempfile.TemporaryDirectory() as folder:

        def start(*cores: int) -> local.Group:
            command = [sys.executable, "-m", "benchmarks.weak_scaling"]
            for name in ("size", "context", "batch", "steps"):
                command += [f"--{name}", str(getattr(options, name))]
            command += ["--out", f"{folder}/{cores[0]}", "--cores", *map(str, cores)]
            return local.Group(command, len(cores), devices=1)

        if side == "apart":
            groups = [start(core) for core in cores]
        else:
            groups = [start(*(cores if side == "together" else cores[:1]))]
        codes = [group.wait(grace=10.0) for group in groups]
        if any(codes):
            raise SystemExit(f"error: a process of the side {side!r} ended with {max(codes)}.")
        return [tuple(step) for step in json.loads(Path(folder, str(cores[0])).read_text())]


def measure(options: argparse.Namespace) -> Steps:
    """Train on this process's core, as one process of however many there are."""
    # Before jax is imported: its threads stay where they are started.
    number = int(os.environ.get("TSMJAX_PROCESS_ID", "0"))
    os.sched_setaffinity(0, {options.cores[number]})
    import jax

    from tsmjax import distributed, optim, sharding, state, step
    from tsmjax.config import resolve
    from tsmjax.models import chronos2

    distributed.start({})
    model = {
        "family": "chronos2",
        **chronos2.PRESETS[options.size],
        "context_length": options.context,
        "max_output_patches": 1,
        "dropout_rate": 0.0,
    }
    config = resolve({"model": model, "task": {"kind": "forecast"}, "mesh": {"replica": -1}})
    task = config.build_task()
    mesh = sharding.make_mesh(config.mesh)
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, config.mesh.replicate_below)
    current, frozen = init(jax.random.key(0))
    schedule = optim.learning_rate(config.optim, 1000)
    train = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract)
    batch = sharding.put_batch(_series(options, task.horizon), mesh)
    steps: Steps = []
    for _ in range(3 + options.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        current, metrics = train(current, frozen, batch, jax.random.key(0))
        jax.block_until_ready(metrics)
        steps.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
    return steps[3:]


def median(steps: Steps) -> tuple[float, float]:
    """Median (wall, CPU) milliseconds."""
    wall, cpu = zip(*steps, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def _series(options: argparse.Namespace, horizon: int) -> dict[str, Any]:
    """Random walks, each alone in its pack."""
    import numpy as np

    rows = options.batch
    x = np.random.default_rng(0).normal(size=(rows, 1, options.context + horizon)).cumsum(axis=-1)
    return {
        "context": x[..., : options.context].astype(np.float32),
        "target": x[..., options.context :].astype(np.float32),
        "future": np.full((rows, 1, horizon), np.nan, np.float32),
        "group": np.zeros((rows, 1), np.int32),
        "patches": np.ones(rows, np.int32),
    }


if __name__ == "__main__":
    main()
