"""Staying alive: SIGTERM, other processes that fail, and hangs.

While `watching()` lasts, a thread looks out for three things.

* SIGTERM, to this process or to another: every process stops at the same `poll`, which raises
  `Preempted`. Before the first poll there is nothing to save, and the processes leave at once.
* Another process that gave up (`give_up`): this one leaves too and says why, instead of waiting
  for it in a collective for ever.
* Nothing being done for too long: the stacks of all threads are printed, and the process leaves.

No device and no collective takes part; a poll costs as much as a lock.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

from tsmjax.errors import HostError

RESTART = 75  # exit code that asks for the same command again
_NOTICE = "notice"  # under this name a process tells the others that it must stop, or has failed
_INTERVAL = 1.0  # seconds between looks at the notices
_AGREEMENT = 60.0  # seconds for all processes to agree where to stop
_FAREWELL = 5.0  # seconds that the coordinator waits for the others to leave

_active: _Watch | None = None


class Preempted(SystemExit):
    """SIGTERM has come, and every process is at the same poll; exits with code 75."""

    def __init__(self) -> None:
        super().__init__(RESTART)


class Channel(Protocol):
    """How the processes of a run talk; every one knows its own number and how many there are."""

    process: int
    processes: int

    def post(self, name: str, value: Any) -> None:
        """Tell the others a JSON value, in place of an earlier one."""
        ...

    def read(self, name: str) -> dict[int, Any]:
        """Return what the processes have told under a name so far, by process."""
        ...

    def gather(self, name: str, value: Any, seconds: float) -> list[Any]:
        """Return what all processes tell, once the last of them has."""
        ...

    def describe(self, process: int) -> str:
        """Name a process in a message."""
        ...


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Watch over the block; inside another such block, or off the main thread, do nothing."""
    global _active
    if _active or threading.current_thread() is not threading.main_thread():
        yield
        return
    _active = _Watch()
    try:
        yield
    finally:
        _active.close()
        _active = None


def follow(channel: Channel | None) -> None:
    """Watch over the processes on `channel` together; None when there is one process."""
    if _active:
        _active.channel = channel


def limit(minutes: float) -> None:
    """Leave when nothing is done for so long; 0 never does."""
    if _active:
        _active.limit = minutes * 60 or math.inf


def progress() -> None:
    """Tell that something was done: the time limit begins anew."""
    if _active:
        _active.progressed = time.monotonic()


def poll() -> None:
    """Pass a place where the run can stop; every process passes the same ones.

    Raises:
      Preempted: after SIGTERM, at the same place on every process.
    """
    if _active and _active.owner == threading.get_ident():
        _active.poll()


def give_up(sentence: str, code: int) -> int:
    """End the other processes because this one cannot go on, and then this one.

    A broken connection is the echo of a process that gave up first; then its reason is printed.

    Returns:
      `code`, when there are no other processes.
    """
    if not _active or not _active.channel:
        return code
    _active.give_up(sentence, code)


class _Watch:
    """The thread, and what it shares with the main thread.

    Attributes:
      owner: the thread that polls.
      channel: the other processes, if any.
      limit: seconds without progress that count as a hang.
      progressed: time of the last progress, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.channel: Channel | None = None
        self.limit = math.inf
        self.progressed = time.monotonic()
        self._polls = 0
        self._stop_at = math.inf
        self._agreeing = threading.Lock()
        self._closing = False
        # Python's handler in C writes to a pipe at once, also while the main thread compiles.
        self._signals, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._handles = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        if self._handles:
            self._before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
            signal.signal(signal.SIGTERM, lambda *_: None)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Count, and stop where all processes agreed to."""
        with self._agreeing:
            self._polls += 1
            stop = self._polls >= self._stop_at
        self.progressed = time.monotonic()
        if stop:
            raise Preempted

    def give_up(self, sentence: str, code: int) -> NoReturn:
        """Leave, and have the others leave; see the function of this name."""
        self._closing = True  # this thread takes over
        patience = time.monotonic() + 2 * _INTERVAL
        while time.monotonic() < patience:
            self._heed()
            time.sleep(_INTERVAL / 10)
        name = self.channel.describe(self.channel.process)
        self.channel.post(_NOTICE, {"failed": f"{name}: {sentence}", "code": code})
        self._leave(code)

    def close(self) -> None:
        """End the thread; give SIGTERM back, unless it has come already."""
        self._closing = True
        if self._handles:
            signal.set_wakeup_fd(self._before)
            if self._stop_at == math.inf:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(self._wake, b"\0")
        self._thread.join(timeout=2 * _INTERVAL)
        if not self._thread.is_alive():
            os.close(self._wake)
            os.close(self._signals)

    def _run(self) -> None:
        while not self._closing:
            ready, _, _ = select.select([self._signals], [], [], _INTERVAL)
            if self._closing:
                return
            if ready and signal.SIGTERM in os.read(self._signals, 64):
                self._stop()
            if self._heed():
                self._stop()
            if time.monotonic() - self.progressed > self.limit:
                self._report_hang()
                self._leave(1)

    def _stop(self) -> None:
        """Agree with the other processes on the poll where all of them stop."""
        if self._stop_at < math.inf:
            return
        # Holding the lock keeps this process from passing the place that the others choose.
        with self._agreeing:
            polls = [self._polls]
            if self.channel:
                self.channel.post(_NOTICE, {"stop": True})
                try:
                    polls = self.channel.gather("stop", self._polls, _AGREEMENT)
                except HostError as error:
                    print(f"error: {error}", file=sys.stderr)
                    self._leave(1)
            if max(polls) > 0:
                self._stop_at = max(polls) + 1
                return
        print("Stopped by SIGTERM before the first step.", file=sys.stderr)
        self._leave(RESTART)

    def _heed(self) -> bool:
        """Leave when another process gave up; tell whether one has to stop."""
        notices = self.channel.read(_NOTICE).values() if self.channel else ()
        for notice in notices:
            if "failed" in notice:
                print(f"error: {notice['failed']}", file=sys.stderr)
                self._leave(notice["code"])
        return any("stop" in notice for notice in notices)

    def _leave(self, code: int) -> NoReturn:
        """Leave; the coordinator goes last, because JAX aborts a process that loses it."""
        if self.channel:
            self.channel.post("leaving", code)
            patience = time.monotonic() + _FAREWELL * (self.channel.process == 0)
            while time.monotonic() < patience:
                if len(self.channel.read("leaving")) == self.channel.processes:
                    break
                time.sleep(_INTERVAL / 10)
        leave(code)

    def _report_hang(self) -> None:
        """Print where every thread is, and how far the processes have come."""
        print(
            f"error: Nothing was done for {self.limit / 60:g} minutes; the threads are here:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if self.channel:
            self.channel.post("polls", self._polls)
            time.sleep(2 * _INTERVAL)
            for process, polls in self.channel.read("polls").items():
                print(f"{self.channel.describe(process)} stands at {polls}.", file=sys.stderr)


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads are waiting for, and the processes it started."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
