"""Data sets that tsmjax makes itself at first use: paths of the form ``embedded:NAME``.

``embedded:tsi``, ``embedded:kernel_synth``, ``embedded:tsmixup`` and ``embedded:real``, optionally
with parameters: ``embedded:kernel_synth?series=256&length=1024&seed=0``. The module of that name in
this package makes the rows, in blocks, one process a block; the number of processes changes no bit.
The result is an ordinary Arrow folder in the cache folder.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from rich.console import Console
from rich.progress import track

from tsmjax.data.arrow import write_dataset
from tsmjax.data.cache import cache_folder, make_once
from tsmjax.errors import InputError, closest

PREFIX = "embedded:"
NAMES = ("tsi", "kernel_synth", "tsmixup", "real")
_VERSION = 1  # part of the folder's name; to be raised when a generator changes


def resolve(path: str, processes: int | None = None) -> str:
    """Return the folder of an ``embedded:`` path, generating it at first use; others as given.

    Args:
      path: a path, or ``embedded:NAME?parameter=value&…``.
      processes: worker processes; None for one a core.

    Raises:
      InputError: for an unknown name or parameter, or a value that is no positive number.
    """
    if not path.startswith(PREFIX):
        return path
    name, parameters = parse(path)
    generator = _generator(name)
    label = "-".join(
        [name, f"v{_VERSION}", *(f"{key}{value}" for key, value in parameters.items())]
    )
    total = generator.count(**parameters)

    def make(folder: Path) -> None:
        write_dataset(_rows(name, parameters, total, generator.BLOCK, processes), folder)

    return str(make_once(cache_folder() / "embedded" / label, make))


def parse(path: str) -> tuple[str, dict[str, int]]:
    """Split an ``embedded:`` path into the generator's name and all of its parameters."""
    name, _, query = path.removeprefix(PREFIX).partition("?")
    if name not in NAMES:
        raise InputError(
            f"There is no embedded data set {name!r}{closest(name, NAMES)}; "
            f"there are {', '.join(NAMES)}."
        )
    parameters = dict(_generator(name).DEFAULTS)
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError(
                f"{path} has no parameter {key!r}{closest(key, parameters)}; it has {known}."
            )
        if not value.isdecimal() or (int(value) == 0 and parameters[key]):
            raise InputError(f"In {path}, {key} is {value!r}, but must be a positive whole number.")
        parameters[key] = int(value)
    if parameters.get("min_length", 0) > parameters.get("max_length", sys.maxsize):
        raise InputError(f"In {path}, min_length is greater than max_length.")
    return name, parameters


def _generator(name: str) -> Any:
    return importlib.import_module(f"tsmjax.data.synthetic.{name}")


def _rows(
    name: str, parameters: dict[str, int], total: int, block: int, processes: int | None
) -> Iterator[dict[str, Any]]:
    """Yield all rows in order, from one process a block."""
    # One BLAS thread: the bits of a Cholesky factor depend on the number of threads.
    threads = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    root = str(Path(__file__).parents[3])
    environment = os.environ | dict.fromkeys(threads, "1")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [root, os.environ.get("PYTHONPATH", "")])
    )
    firsts = range(0, total, block)
    with tempfile.TemporaryDirectory() as folder:

        def run(first: int) -> str:
            # A fresh interpreter, not a fork or spawn: callers may have threads and no main guard.
            arguments = [name, json.dumps(parameters), str(first), str(min(total, first + block))]
            path = f"{folder}/{first}"
            done = subprocess.run(
                [sys.executable, "-m", "tsmjax.data.synthetic.embedded", *arguments, path],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"A process that made {PREFIX}{name} failed:\n{done.stderr}")
            return path

        with ThreadPoolExecutor(processes or os.cpu_count()) as pool:
            paths = track(
                pool.map(run, firsts),
                f"Generating {name} (once)",
                total=len(firsts),
                console=Console(stderr=True),
                transient=True,
            )
            for path in paths:
                yield from pickle.loads(Path(path).read_bytes())


def _work(name: str, parameters: str, first: str, last: str, path: str) -> None:
    """Write the rows first … last − 1 to a file; what a worker process does."""
    rows = list(_generator(name).rows(int(first), int(last), **json.loads(parameters)))
    Path(path).write_bytes(pickle.dumps(rows))


if __name__ == "__main__":
    _work(*sys.argv[1:])
