"""Time and memory of a training step by batch and group size, ours beside chronos-forecasting.

    python -m benchmarks.group_attention --batch 64 256 1024 --group 1 4 16
    python -m benchmarks.group_attention --size small --context 2048 --precision bfloat16

The reference attends over all rows of a batch and masks other groups; we attend inside packs of one
group. With --rows ours takes a batch in parts of so many rows, as `optim.accumulate` does: the same
step in less memory. Every case is a process of its own, stopped at --memory_gb or --seconds. Memory
is what the case adds to the peak of its process after a step on one group alone, so that libraries
and the compiler do not count; on a GPU it is the peak of the allocator. The last line printed is
JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SIDES = ("ours", "reference")


def main() -> None:
    """Run the cases of the command line, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", help="model preset")
    parser.add_argument("--context", type=int, default=256, help="context steps")
    parser.add_argument("--horizon", type=int, default=16, help="forecast steps")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--group", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--remat", default="none", choices=("none", "dots", "full"), help="of ours")
    parser.add_argument("--rows", type=int, help="rows of ours at once, all if none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_gb", type=float, default=8.0, help="limit of a case")
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of a case")
    parser.add_argument(
        "--side", choices=SIDES, help=argparse.SUPPRESS
    )  # one case, in this process
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    if options.rows and any(
        batch > options.rows and batch % options.rows for batch in options.batch
    ):
        parser.error(f"--rows {options.rows} must divide every batch that is larger.")

    cases = []
    for batch in options.batch:
        for group in options.group:
            case: dict[str, Any] = {"batch": batch, "group": group}
            for side in SIDES:
                case[side] = run_case(options, side, batch, group)
                print(f"batch {batch}, group {group}, {side}: {case[side]}", file=sys.stderr)
            cases.append(case)
    Console().print(table(cases))
    result = {
        "benchmark": "group_attention",
        **{name: value for name, value in vars(options).items() if name not in ("json", "side")},
        "cases": cases,
    }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")


def run_case(options: argparse.Namespace, side: str, batch: int, group: int) -> dict[str, Any]:
    """Measure one case in a child process: {ms, mb, device}, or {failed: why}."""
    shared = ("size", "context", "horizon", "precision", "remat", "repeats")
    command = [sys.executable, "-m", "benchmarks.group_attention", "--side", side]
    command += [f"--{name}={getattr(options, name)}" for name in shared]
    command += [f"--batch={batch}", f"--group={group}"]
    command += [f"--rows={options.rows}"] if options.rows else []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:
        until, failed = time.monotonic() + options.seconds, ""
        while not failed:
            try:
                output, errors = child.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if resident_gb(child.pid) > options.memory_gb:
                    failed = f"over {options.memory_gb:g} GB"
                elif time.monotonic() > until:
                    failed = f"over {options.seconds:g} s"
        if failed:
            child.kill()
            return {"failed": failed}
    if child.returncode:
        memory = "out of memory" in errors.lower() or "alloc" in errors.lower()
        return {"failed": "out of memory" if memory else errors.strip().splitlines()[-1]}
    return json.loads(output.splitlines()[-1])


def resident_gb(pid: int) -> float:
    """Resident memory of a process in GB; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
        return int(fields[0]) / 2**20
    except (OSError, IndexError):
        return 0.0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time a step of one side in this process, and the memory that it took."""
    import jax

    from benchmarks import chronos2_train_step as steps
    from tsmjax import allocator
    from tsmjax.models import chronos2

    allocator.keep_freed()  # as `python -m tsmjax.main` does; it serves both sides

    (batch,), (group,) = options.batch, options.group
    model = chronos2.Config(
        **chronos2.PRESETS[options.size],
        context_length=options.context,
        max_output_patches=-(-options.horizon // 16),
        dropout_rate=0.0,
        remat=options.remat,
        scan_layers=False,
    )
    device = jax.devices()[0]

    def run(rows: int, repeats: int) -> float:
        settings = vars(options) | {"batch": rows, "group": group, "repeats": repeats}
        settings |= {"compile": False, "reference_precision": options.precision}
        settings = argparse.Namespace(**settings)
        example = steps.example(settings)
        if options.side == "ours":
            parts = -(-rows // (options.rows or rows))
            return steps.time_ours(model, example, settings, accumulate=parts)[0]
        return steps.time_reference(model, example, settings)

    def peak() -> int:
        """Peak bytes so far: of the device's allocator, or of this process."""
        if device.platform != "gpu":
            return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if options.side == "ours":
            return device.memory_stats()["peak_bytes_in_use"]
        import torch

        return torch.cuda.max_memory_allocated()

    run(group, 1)
    before = 0 if device.platform == "gpu" else peak()
    seconds = run(batch, options.repeats)
    grown = (peak() - before) / 2**20
    return {"ms": round(1e3 * seconds, 1), "mb": round(grown), "device": device.device_kind}


def table(cases: list[dict[str, Any]]) -> Table:
    """One row a batch and group size."""
    drawn = Table(title="training step, ours and the reference")
    drawn.add_column("batch", justify="right")
    drawn.add_column("group", justify="right")
    for unit in ("ms", "MB"):
        for heading in (f"our {unit}", f"their {unit}", "ratio"):
            drawn.add_column(heading, justify="right")
    for case in cases:
        cells = [str(case["batch"]), str(case["group"])]
        sides = [case[side] for side in SIDES]
        for name in ("ms", "mb"):
            cells += [f"{side[name]:,}" if name in side else side["failed"] for side in sides]
            ours, theirs = (side.get(name) for side in sides)
            cells.append(f"{theirs / ours:.1f}" if ours and theirs else "–")
        drawn.add_row(*cells)
    return drawn


if __name__ == "__main__":
    main()
