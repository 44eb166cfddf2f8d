"""Errors whose message says it all: what is wrong, and what to do about it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

_Given = TypeVar("_Given")


class InputError(ValueError):
    """Wrong input from the user: a file, a column, a config field, a checkpoint.

    The message is one clear sentence that says what is wrong, where, and what to do. Commands
    print it without a traceback and exit with code 2.
    """


class HostError(RuntimeError):
    """Another process of the run is missing or unreachable; the message says which.

    Not the user's input but a fault that may pass: commands print it without a traceback and exit
    with code 1.
    """


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as `` (did you mean 'lr'?)`` for a misspelt `name`, else ``""``."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def exit_code(run: Callable[[_Given], None], given: _Given) -> int:
    """Run a command on what it was given: 0, or 2 behind one sentence when its input is wrong."""
    try:
        run(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
