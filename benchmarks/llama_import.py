"""Time and memory of bringing a Llama of a billion parameters in.

    python -m benchmarks.llama_import --json llama_import.json

Writes random bfloat16 weights of the shape of Llama 3.2 1B in three safetensors files (not
counted), and takes them into a run folder (`python -m convert import`) and into another safetensors
folder (`python -m convert export`), each in a process of its own that tells its peak of resident
memory. The bounds: 2.2 times the bytes of the model for a run folder, of which Orbax alone
takes 2.0, and 1.3 times the largest file for a safetensors folder, whose tensors must come out bit
by bit. The last line printed is JSON; ``--json FILE`` writes it too. Needs 8 GB below ``--folder``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tsmjax import checkpoint
from tsmjax.config import build
from tsmjax.models import llama
from tsmjax.weights import folder as folders
from tsmjax.weights import llama as table
from tsmjax.weights import plan, tables

BOUNDS = {"checkpoint": 2.2, "folder": 1.3}
# Run a module, then tell its largest resident memory: the line "VmHWM: … kB".
_WATCHED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as exit:
    if exit.code:
        raise
lines = open("/proc/self/status").read().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""
_BFLOAT16 = folders.DTYPES["BF16"]


def main() -> int:
    """Measure what the command line asks for; returns 0 when both bounds hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="1b", choices=sorted(llama.PRESETS))
    parser.add_argument("--files", type=int, default=3, help="safetensors files of the source")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = measure(Path(name), options.preset, options.files)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)
    return 0 if all(result[name]["within"] for name in BOUNDS) else 1


def measure(folder: Path, preset: str, count: int) -> dict[str, Any]:
    """Write a source below `folder`, take it in both ways, and report on it."""
    source, run, copy = folder / "source", folder / "run", folder / "copy"
    parameters = write_random(source, preset, count)
    sizes = [path.stat().st_size for path in folders.files(source)]
    result: dict[str, Any] = {
        "benchmark": "llama_import",
        "preset": preset,
        "parameters": parameters,
        "model_mb": megabytes(sum(sizes)),
        "files_mb": [megabytes(size) for size in sizes],
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": round(os.getloadavg()[0], 1),
        "program": spend("convert", "--help"),
        "checkpoint": spend("convert", "import", "llama", str(source), str(run)),
    }
    written = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    result["checkpoint"]["written_mb"] = megabytes(written)
    result["folder"] = spend("convert", "export", "llama", str(source), str(copy))
    result["folder"]["identical"] = same(source, copy)
    for name, unit in (("checkpoint", sum(sizes)), ("folder", max(sizes))):
        ratio = result[name]["peak_mb"] / megabytes(unit)
        result[name] |= {"ratio": round(ratio, 2), "bound": BOUNDS[name]}
        result[name]["within"] = ratio <= BOUNDS[name] and result[name].get("identical", True)
    result["load_average_after"] = round(os.getloadavg()[0], 1)
    result["git_commit"] = checkpoint.versions()["git_commit"]
    return result


def write_random(folder: Path, preset: str, count: int) -> int:
    """Write a model of random weights in about `count` files; returns how many parameters it has.

    Each is drawn by itself: Orbax compresses what it writes, and repetitions would flatter it.
    """
    config = build(llama.Config, llama.PRESETS[preset], "model")
    values = dataclasses.asdict(config)
    slots = plan.make(table.RULES, tables.leaves_of("llama", values)[0])
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape, np.float32)).astype(_BFLOAT16)

    entries = {
        name: folders.Entry(_BFLOAT16, slot.shape, functools.partial(draw, slot.shape))
        for name, slot in slots.items()
    }
    total = sum(entry.size for entry in entries.values())
    folder.mkdir()
    with mock.patch.object(folders, "SHARD_BYTES", int(total / count * 1.1)):
        folders.write(folder, {**table.from_config(values), "torch_dtype": "bfloat16"}, entries)
    return total // _BFLOAT16.itemsize


def spend(module: str, *arguments: str) -> dict[str, float]:
    """Run a module with `arguments`; returns seconds, CPU seconds and the peak of its memory.

    The peak is read inside: what the kernel tells a parent includes the parent's own.
    """
    command = [sys.executable, "-c", _WATCHED, module, *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {module} {' '.join(arguments)} failed: {said}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": megabytes(int(said.split()[-2]) * 1024),
    }


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same tensors, bit by bit."""
    one, other = (folders.tensors(folders.files(folder)) for folder in (a, b))
    return one.keys() == other.keys() and all(
        tensor.code == other[name].code
        and np.array_equal(tensor.read().view(np.uint8), other[name].read().view(np.uint8))
        for name, tensor in one.items()
    )


def megabytes(size: float) -> float:
    """Bytes as MB (10⁶)."""
    return round(size / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
