"""Time inside monitoring calls, as a share of the wall time of a training run.

    python -m benchmarks.monitoring [--steps 500] [--json docs/results/monitoring.json]

Trains configs/chronos2_test.py at its own cadence of log lines, health reports and evaluations,
with every call of the loop to monitor, ledger, profiler and FLOP count timed from outside; calls
within calls count once. ``share`` divides by the time of steps, input and these calls;
compilation, evaluation and checkpoints, which would make it smaller, are left out
(``share_of_all`` has them). Plots and pages at the end of a run belong to neither. ``cpu_share``
counts CPU time of the calling thread, which other work on the machine does not lengthen. The last
line printed is JSON; --json writes it too. Exit code 1 when the share is above the limit.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from configs import chronos2_test
from tsmjax import checkpoint
from tsmjax.config import resolve
from tsmjax.monitor import Monitor
from tsmjax.monitor.ledger import Ledger
from tsmjax.monitor.profiler import Profiler
from tsmjax.tasks import forecast
from tsmjax.trainer import train

_LIMIT = 0.01  # of the time of the steps
# What the loop calls of each, between the first step and the last.
_CALLS = (
    *((Monitor, name) for name in ("step", "watch", "work", "scores", "state")),
    *((Ledger, name) for name in ("settle", "spend")),
    *((Profiler, name) for name in ("before", "ends")),
    *((forecast.Task, name) for name in ("flops", "tokens")),
)


class Clock:
    """Seconds inside the timed calls.

    Attributes:
      wall: seconds of each outermost call, by name.
      cpu: CPU seconds of the calling thread in all of them.
    """

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = defaultdict(list)
        self.cpu = 0.0
        self._inside = False

    def timed(self, name: str, call: Callable) -> Callable:
        """Return `call`, timed under `name` unless it comes from within a timed call."""

        @functools.wraps(call)
        def measured(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return call(*args, **kwargs)
            self._inside = True
            # Asking for CPU time is a system call, at which XLA's threads take the processor:
            # between the two readings of the wall clock it would cost more than what is timed.
            cpu = time.thread_time()
            wall = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.wall[name].append(time.perf_counter() - wall)
                self.cpu += time.thread_time() - cpu
                self._inside = False

        return measured


def measure(steps: int, folder: str) -> dict[str, Any]:
    """Train for `steps` steps into `folder` and return where the time went."""
    settings = chronos2_test.get_config()
    settings.optim.length = f"{steps} steps"
    config = resolve(settings)
    clock, ends = Clock(), []
    originals = [(owner, name, getattr(owner, name)) for owner, name in _CALLS]
    outcome = Monitor.outcome

    def end(monitor: Monitor) -> dict[str, Any]:
        ends.append((time.perf_counter(), {k: sum(v) for k, v in clock.wall.items()}, clock.cpu))
        return outcome(monitor)

    for owner, name, call in originals:
        setattr(owner, name, clock.timed(f"{owner.__name__}.{name}", call))
    Monitor.outcome = end
    started = time.perf_counter()
    try:
        results = train(config, folder)
    finally:
        Monitor.outcome = outcome
        for owner, name, call in originals:
            setattr(owner, name, call)
    wall = ends[0][0] - started
    inside = sum(ends[0][1].values())
    elsewhere = sum(
        results["time"][kind] for kind in ("compile", "evaluation", "checkpoint", "other")
    )
    calls = {
        name: {
            "calls": len(seconds),
            "total_ms": round(1e3 * sum(seconds), 2),
            "median_ms": round(1e3 * float(np.median(seconds)), 4),
            "longest_ms": round(1e3 * max(seconds), 2),
        }
        for name, seconds in clock.wall.items()
    }
    stepping = results["time"]["step"] + results["time"]["input"] + inside
    return {
        "steps": steps,
        "wall_seconds": round(wall, 2),
        "steps_seconds": round(stepping, 2),
        "elsewhere_seconds": round(elsewhere, 2),
        "inside_ms": round(1e3 * inside, 1),
        "share": round(inside / stepping, 5),
        "share_of_all": round(inside / wall, 5),
        "cpu_share": round(ends[0][2] / stepping, 5),
        "calls": dict(sorted(calls.items(), key=lambda one: -one[1]["total_ms"])),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.steps, folder)
    result = {
        "benchmark": "monitoring",
        **found,
        "limit": _LIMIT,
        "load_average": round(os.getloadavg()[0], 1),
        "device": jax.devices()[0].device_kind,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)
    sys.exit(0 if found["share"] <= _LIMIT else 1)


if __name__ == "__main__":
    main()
