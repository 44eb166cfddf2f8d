"""Files that are made once and kept: converted data, generated data, indexes."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: ``$TSMJAX_CACHE``, or ``~/.cache/tsmjax``."""
    return Path(os.environ.get("TSMJAX_CACHE") or Path.home() / ".cache" / "tsmjax")


def make_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, a file or folder, after making it when it does not exist.

    `make` writes to a name beside `path`, which is then renamed: what exists is complete. Of two
    processes that start at once, one makes it and the other waits.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with beside(path) as unfinished:
                make(unfinished)
    return path


class beside:  # noqa: N801 (a context manager, used like a function)
    """Give a name beside `path` to write to; rename it to `path` at the end, remove it on errors.

    A file replaces an older file of that name; a folder must not exist yet, or be empty.
    """

    def __init__(self, path: Path):
        self.path = path
        self.unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")

    def __enter__(self) -> Path:
        return self.unfinished

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            os.replace(self.unfinished, self.path)
        elif self.unfinished.is_dir():
            shutil.rmtree(self.unfinished, ignore_errors=True)
        else:
            self.unfinished.unlink(missing_ok=True)
