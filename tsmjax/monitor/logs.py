"""Logging of a run: the terminal, `logs/training.log`, and `logs/error.log` when it fails."""

from __future__ import annotations

import collections
import contextlib
import datetime
import io
import logging
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.console import Console, RenderableType

from tsmjax.errors import InputError

_KEPT_LINES = 50  # log lines that error.log repeats before the traceback
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "bold red"}

# Off a terminal rich assumes 80 columns, which breaks every table of parameters.
console = Console(width=None if sys.stdout.isatty() else 120)


@contextlib.contextmanager
def run_logs(run: str | Path) -> Iterator[None]:
    """Send the log of tsmjax to the terminal and to `run`/logs while the block runs.

    Only the main process prints and writes `training.log`; every process writes its own
    `error.log` (`error_1.log`, …) with the traceback and the last log lines when the block fails.
    """
    folder = Path(run) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    recent = _Recent()
    handlers: list[logging.Handler] = [recent]
    if jax.process_index() == 0:
        file = logging.FileHandler(folder / "training.log", encoding="utf-8")
        file.setFormatter(_FORMAT)
        handlers += [file, _Terminal()]
    logger = logging.getLogger("tsmjax")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # absl installs a root handler that would print every line again
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):
            _write_error(folder, error, recent.lines)
        raise
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.level, logger.propagate = before


def show(renderable: RenderableType, run: str | Path) -> None:
    """Print a table or text on the main process's terminal and append it to `training.log`."""
    if jax.process_index() != 0:
        return
    console.print(renderable)
    path = Path(run) / "logs" / "training.log"
    with contextlib.suppress(OSError):  # a full disk must not end a run
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(as_text(renderable))


def as_text(renderable: RenderableType, width: int = 120) -> str:
    """Render without colours, as it goes into text files."""
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class _Terminal(logging.Handler):
    """Prints messages as they are: one line stays one line, warnings are coloured."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console.print(
                record.getMessage(),
                style=_STYLES.get(record.levelno),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        except Exception:
            self.handleError(record)


class _Recent(logging.Handler):
    """Remembers the last lines."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_FORMAT)
        self.lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def _write_error(folder: Path, error: Exception, lines: collections.deque[str]) -> None:
    """Append one failure; wrong input needs its sentence only, a fault its traceback."""
    process = jax.process_index()
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if isinstance(error, InputError):
        what = f"InputError: {error}\n"
    else:
        what = "".join(traceback.format_exception(error))
    text = f"{now} process {process} on {socket.gethostname()}\n{what}"
    text += "Last log lines:\n" + "".join(f"  {line}\n" for line in lines) + "\n"
    name = f"error_{process}.log" if process else "error.log"
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(text)
