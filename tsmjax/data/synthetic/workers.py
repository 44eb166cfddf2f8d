"""Worker processes that make rows: ``python -m tsmjax.data.synthetic.workers NAME PARAMETERS``.

A worker is told on its standard input which rows to make and where to put them, so that it loads
and compiles its generator once. Rows do not depend on who makes them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tsmjax.data.cache import cache_folder

Rows = list[dict[str, Any]]


def make(
    name: str,
    parameters: Mapping[str, Any],
    ranges: Sequence[tuple[int, int]],
    processes: int | None,
) -> Iterator[Rows]:
    """Yield the rows of each range (first, last + 1), in order.

    Args:
      name: module of this package, with a function ``rows(first, last, **parameters)``.
      parameters: JSON values.
      ranges: which rows; one range is made by one process at a time.
      processes: number of worker processes; None for one a core.

    Raises:
      RuntimeError: with what the worker said, when one fails.
    """
    count = min(processes or os.cpu_count() or 1, len(ranges))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(_Worker(name, parameters)))

        def run(first: int, last: int) -> Path:
            worker = idle.get()
            try:
                return worker.make(first, last, Path(folder, str(first)))
            finally:
                idle.put(worker)

        pool = stack.enter_context(ThreadPoolExecutor(count))
        waiting: list[Future[Path]] = []
        for n in range(len(ranges)):
            # A few ranges ahead of the reader, not all: they lie on the disk until they are read.
            while len(waiting) < min(2 * count, len(ranges) - n):
                waiting.append(pool.submit(run, *ranges[n + len(waiting)]))
            path = waiting.pop(0).result()
            yield pickle.loads(path.read_bytes())
            path.unlink()


class _Worker:
    """One process."""

    def __init__(self, name: str, parameters: Mapping[str, Any]):
        # One thread: the bits of a Cholesky factor depend on their number, and cores have workers.
        threads = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        environment = os.environ | dict.fromkeys(threads, "1") | {"JAX_PLATFORMS": "cpu"}
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
        )
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        # A fresh interpreter, not a fork or spawn: callers may have threads and no main guard.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, name, json.dumps(parameters)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def make(self, first: int, last: int, path: Path) -> Path:
        """Have the rows first … last − 1 written to `path` and return it."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([first, last, str(path)]), file=self._process.stdin, flush=True)
        if self._process.stdout.readline() != f"{path}\n":
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")
            raise RuntimeError(f"A process that made {self._name} failed:\n{said}")
        return path


def _work(name: str, parameters: str) -> None:
    """Make rows until nobody asks for more."""
    generator = importlib.import_module(f"{__spec__.parent}.{name}")
    for line in sys.stdin:
        first, last, path = json.loads(line)
        rows = list(generator.rows(first, last, **json.loads(parameters)))
        Path(path).write_bytes(pickle.dumps(rows))
        print(path, flush=True)


if __name__ == "__main__":
    _work(*sys.argv[1:])
