"""Raw files as data sets, without a command: converted once, into the cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tsmjax.data.arrow import digest
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
    file = Path(path)
    if not file.name.lower().endswith(_TEXT):
        return path
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    return prepared("csv", file, (), file.name.split(".")[0])


def prepared(kind: str, source: Path, options: Sequence[str], name: str) -> str:
    """Return the Arrow folder that ``python -m tsmjax.prepare`` makes, at first use.

    Its report is printed. Files that change, or other options, are converted anew.

    Args:
      kind: kind of raw data.
      source: a file, or a folder of files.
      options: further arguments of the command.
      name: name of the folder.

    Raises:
      InputError: when the command refuses the files.
    """
    from tsmjax.prepare.__main__ import run

    files = [source] if source.is_file() else sorted(f for f in source.rglob("*") if f.is_file())
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder = cache_folder() / "tables" / digest([kind, *options, *facts]) / name

    def make(unfinished: Path) -> None:
        report, _ = run(kind, ["--src", str(source), "--dst", str(unfinished), *options])
        report.show(Console(stderr=True), folder)

    return str(make_once(folder, make))
