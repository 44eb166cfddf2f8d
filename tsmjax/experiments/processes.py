"""Processes of commands that start others: told to stop together, and never left behind."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESTART = 75  # exit code of a run that was told to stop and can go on
_TERMINATE = 1  # prctl's number for "a signal when the parent dies"


class Stop:
    """Turns SIGTERM and Ctrl-C into a flag while commands run."""

    def __enter__(self) -> Stop:
        self.asked = False
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: Any) -> None:
        self.asked = True


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start a process whose output is appended to `log`.

    It ends with this one; where this one was killed before, the process that still writes to the
    same log is waited for, as it may be saving.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    file = log.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)  # the child inherits the lock
    with file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, which asks its children to save
            preexec_fn=_die_with_parent,
        )


def wait(log: Path) -> None:
    """Wait for the process that still writes to a log, if there is one."""
    with log.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def last_line(log: Path) -> str:
    """Return the last line that a process has written."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent is gone, so that no child trains on unseen."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_TERMINATE, signal.SIGTERM)
