"""Tables of text as data sets, without a command: converted once, into the cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.console import Console

from tsmjax.data.cache import cache_folder, make_once
from tsmjax.errors import InputError
from tsmjax.prepare.csv import SUFFIXES

_TEXT = tuple(suffix for suffix in SUFFIXES if suffix != ".parquet")


def arrow_folder(path: str) -> str:
    """Return the Arrow folder of a table of text, which is converted at first use; others as given.

    The table is read as ``python -m tsmjax.prepare csv`` reads it without options, whose report is
    printed. A file that changes is converted anew.

    Raises:
      InputError: when there is no such file, or it needs options that `prepare` has.
    """
    from tsmjax.prepare.__main__ import run

    file = Path(path)
    if not file.name.lower().endswith(_TEXT):
        return path
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    facts = file.stat()
    key = f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = cache_folder() / "tables" / digest / file.name.split(".")[0]

    def make(unfinished: Path) -> None:
        report, _ = run("csv", ["--src", str(file), "--dst", str(unfinished)])
        report.show(Console(stderr=True), folder)

    return str(make_once(folder, make))
