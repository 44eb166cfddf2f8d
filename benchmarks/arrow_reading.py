"""How fast windows are read from Arrow folders, and how fast a folder of millions of series opens.

    python -m benchmarks.arrow_reading
    python -m benchmarks.arrow_reading --long 20000 --many 1000 200000 --folder /data/scratch

The first folder holds long series. Measured are windows of --context steps in whole batches, as the
device gets them: of one thread, of the training pipeline, and of the pipeline once through a folder
that the operating system was told to drop from its page cache. The other folders hold many short
series. Each is opened by fresh processes, of which the first builds the index; their anonymous
memory is RssAnon of /proc/self/status. On a machine that others use too, windows a second of CPU
time say more than windows a second. The last line printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tsmjax.data.arrow_writer import file_names, write_state
from tsmjax.data.packing import DataConfig, ForecastBatches, Source

FILES = 4


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", type=int, default=60_000, help="long series")
    parser.add_argument("--length", type=int, default=4096, help="steps of a long series")
    parser.add_argument("--context", type=int, default=2048, help="steps of a window")
    parser.add_argument("--batch", type=int, default=1024, help="windows of a batch")
    parser.add_argument("--batches", type=int, default=50, help="batches of a measurement")
    parser.add_argument(
        "--many", type=int, nargs="+", default=[5_000_000], help="short series of each folder"
    )
    parser.add_argument("--short", type=int, default=32, help="steps of a short series")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    for name in ("--cold", "--reopen"):  # in a process of its own
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    if options.cold or options.reopen:
        print(json.dumps(cold(options) if options.cold else opened(options.reopen)))
        return

    with contextlib.ExitStack() as stack:
        where = tempfile.TemporaryDirectory(dir=options.folder, prefix="arrow_reading_")
        folder = Path(stack.enter_context(where))
        result: dict[str, Any] = {
            "benchmark": "arrow_reading",
            "load": round(os.getloadavg()[0], 1),
            **{
                name: value
                for name, value in vars(options).items()
                if name not in ("json", "folder", "cold", "reopen")
            },
            "windows": windows(options, folder / "long"),
            "series": [many(options, count, folder / f"many_{count}") for count in options.many],
            "load_after": round(os.getloadavg()[0], 1),
        }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")


def write(folder: Path, series: int, length: int) -> None:
    """Write a folder of random series, float32, straight from arrays."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    names = file_names(FILES)
    for number, name in enumerate(names):
        rows = series * (number + 1) // FILES - series * number // FILES
        values = random.standard_normal(rows * length, np.float32)
        offsets = np.arange(0, rows * length + 1, length)
        target = pa.LargeListArray.from_arrays(offsets, values)
        batch = pa.record_batch({"target": target})
        with pa.ipc.new_stream(str(folder / name), batch.schema) as writer:
            writer.write_batch(batch)
    write_state(folder, names, "arrow_reading")


def windows(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time batches of long windows: cold, then warm of one thread and of the pipeline's threads."""
    write(folder, options.long, options.length)
    every = -(-options.long // options.batch)
    # In processes of their own, and before this one maps the files: mapped pages would stay.
    command = [sys.executable, "-m", "benchmarks.arrow_reading", f"--cold={folder}"]
    command += [f"--{name}={getattr(options, name)}" for name in ("context", "batch")]
    command += [f"--batches={every}"]
    cold = [json.loads(subprocess.check_output(command)) for _ in range(1 + options.repeats)][1:]

    batches = open_long(options, folder)
    for step in range(every):  # one epoch: everything is in the page cache afterwards
        batches[step]
    alone, piped = [], []
    for _ in range(options.repeats):
        alone.append(rate((batches[step] for step in range(options.batches)), options))
        piped.append(piped_rate(batches, options))
    return {
        "folder_mb": round(sum(file.stat().st_size for file in folder.glob("*.arrow")) / 2**20),
        "one_thread": alone,
        "pipeline": piped,
        "cold_epoch": cold,
    }


def open_long(options: argparse.Namespace, folder: Path) -> ForecastBatches:
    """Return batches of windows with a whole context, each series once an epoch."""
    data = DataConfig(
        sources=(Source(str(folder)),), batch_size=options.batch, min_past=options.context
    )
    return ForecastBatches(
        data, context_length=options.context, prediction_length=64, patch=16, seed=0
    )


def cold(options: argparse.Namespace) -> dict[str, int]:
    """Drop the folder from the page cache and read every series of it once."""
    drop(options.cold)
    before = disk_read()
    found = piped_rate(open_long(options, options.cold), options)
    return found | {"disk_read_mb": round((disk_read() - before) / 2**20)}


def rate(batches: Iterable[dict[str, np.ndarray]], options: argparse.Namespace) -> dict[str, int]:
    """Return the windows of `batches` a second, and a second of CPU time of all threads."""
    clocks = time.perf_counter, time.process_time
    started = [clock() for clock in clocks]
    windows = options.batch * sum(1 for _ in batches)
    spent = [clock() - start for clock, start in zip(clocks, started, strict=True)]
    return dict(
        zip(("per_second", "per_cpu_second"), (round(windows / t) for t in spent), strict=True)
    )


def piped_rate(batches: ForecastBatches, options: argparse.Namespace) -> dict[str, int]:
    """Return the windows a second that reach the training process, with its threads reading."""
    from tsmjax.data.pipeline import read_ahead

    iterator = read_ahead(batches, prefetch=4)
    found = rate(itertools.islice(iterator, options.batches), options)
    iterator.close()
    return found


def drop(folder: Path) -> None:
    """Have the operating system forget the pages of the folder's files."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def disk_read() -> int:
    """Return the bytes that this process had read from storage."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def many(options: argparse.Namespace, count: int, folder: Path) -> dict[str, Any]:
    """Open a folder of `count` short series for the first time, and again in fresh processes."""
    write(folder, count, options.short)
    command = [sys.executable, "-m", "benchmarks.arrow_reading", f"--reopen={folder}"]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(1 + options.repeats)]
    shutil.rmtree(folder)
    return {"first_open": runs[0], "reopen": min(runs[1:], key=lambda run: run["open_seconds"])}


def opened(folder: Path) -> dict[str, Any]:
    """Open a folder as a training source in this process, and make one batch."""
    before = anonymous_mb()
    started = time.perf_counter()
    batches = ForecastBatches(
        DataConfig(sources=(Source(str(folder)),), batch_size=256),
        context_length=512,
        prediction_length=16,
        patch=16,
        seed=0,
    )
    ready = time.perf_counter()
    opened_mb = anonymous_mb()
    batches[0]
    return {
        "series": len(batches.sources[0]),
        "open_seconds": round(ready - started, 4),
        "batch_seconds": round(time.perf_counter() - ready, 4),
        "anonymous_mb_of_imports": before,
        "anonymous_mb_open": opened_mb,
        "anonymous_mb_after_batch": anonymous_mb(),
    }


def anonymous_mb() -> float:
    """Return the anonymous memory of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("RssAnon:")[1].split()[0]) / 2**10, 1)


if __name__ == "__main__":
    main()
