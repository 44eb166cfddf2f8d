"""Where the wall time of a run goes: one clock, always charged to exactly one thing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

# What time is spent on; "other" is whatever no block of `Ledger.spend` covers.
KINDS = ("step", "input", "compile", "evaluation", "checkpoint", "monitor", "other")
_EVENTS = "/jax/core/compile/"  # tracing, lowering and XLA's part of every compilation


class Ledger:
    """Seconds by kind, from construction on; they add up to the wall time.

    Blocks may be nested: an inner one takes its time from the outer. Compilation is charged as
    such, whichever block it happens in; JAX tells how long it took.

    Attributes:
      seconds: seconds so far, by kind; up to date after `settle`.
    """

    def __init__(self) -> None:
        _listen()
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self._stack = ["other"]
        self._at, self._compiled = time.monotonic(), _compiled.seconds

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Charge the block to `kind`."""
        self.settle()
        self._stack.append(kind)
        try:
            yield
        finally:
            self.settle()
            self._stack.pop()

    def settle(self) -> dict[str, float]:
        """Charge the time up to now, and return a copy of `seconds`."""
        now, compiled = time.monotonic(), _compiled.seconds
        elapsed = now - self._at
        compiling = min(compiled - self._compiled, elapsed)
        self.seconds["compile"] += compiling
        self.seconds[self._stack[-1]] += elapsed - compiling
        self._at, self._compiled = now, compiled
        return dict(self.seconds)


class _Compiled:
    """Seconds that the main thread has spent compiling since the first ledger.

    Events nest (a jitted function traced inside another) and come when they end, inner ones first:
    an event takes the place of those that lie inside it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended: list[tuple[float, float]] = []  # (start, seconds), disjoint, in order

    def __call__(self, event: str, duration: float, **_: object) -> None:
        on_main = threading.current_thread() is threading.main_thread()
        if not (on_main and event.startswith(_EVENTS)):
            return
        start = time.monotonic() - duration
        while self._ended and self._ended[-1][0] >= start:
            self.seconds -= self._ended.pop()[1]
        self._ended.append((start, duration))
        self.seconds += duration


_compiled = _Compiled()
_listening = False


def _listen() -> None:
    """Hear of compilations, once a process."""
    global _listening
    if not _listening:
        jax.monitoring.register_event_duration_secs_listener(_compiled)
        _listening = True
