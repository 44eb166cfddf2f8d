"""Start a run as several processes on this machine.

    python -m launch.local --processes 2 -- --config=configs/chronos2_base.py
    python -m launch.local --processes 2 --devices 4 -- --config=configs/chronos2_test.py

What follows the two dashes goes to `python -m tsmjax.main`. The first command divides the GPUs among
the processes; the second gives each process virtual CPU devices and needs no GPU.

SIGTERM goes on to all processes. When one fails, the others get a few seconds to say why they end,
and are killed. The exit code is 0 when all are done, 75 when they stopped in order to be started
again (with --restarts, they are), and otherwise that of the first one that failed.
"""  # noqa: E501

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tsmjax.watch import RESTART

_INTERVAL = 0.1  # seconds between looks at the processes


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="launch.local", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--processes", type=_count, default=1, help="processes to start")
    parser.add_argument("--devices", type=_count, help="virtual CPU devices of each process")
    parser.add_argument("--restarts", type=_count, default=0, help="times to start again after 75")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds until others are killed")
    parser.add_argument("arguments", nargs="*", help="arguments of tsmjax.main, behind --")
    options = parser.parse_args(argv)
    if not options.processes:
        parser.error("--processes is 0, but must be at least 1")
    command = [sys.executable, "-m", "tsmjax.main", *options.arguments]
    for restarts_left in reversed(range(options.restarts + 1)):
        group = Group(command, options.processes, options.devices)
        code = group.wait(options.grace)
        if code != RESTART or group.told_to_stop or not restarts_left:
            return code


class Group:
    """The processes of one run.

    Attributes:
      told_to_stop: whether SIGTERM came from outside.
    """

    def __init__(self, command: Sequence[str], processes: int, devices: int | None):
        """Start `command` so many times, each with virtual CPU devices unless `devices` is None."""
        self.told_to_stop = False
        self._processes: list[subprocess.Popen] = []
        signal.signal(signal.SIGTERM, self._forward)
        shared = dict(os.environ)
        if processes > 1:
            shared["TSMJAX_COORDINATOR"] = f"127.0.0.1:{_free_port()}"
            shared["TSMJAX_NUM_PROCESSES"] = str(processes)
        if devices:
            flags = os.environ.get("XLA_FLAGS", "")
            shared["JAX_PLATFORMS"] = "cpu"
            shared["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
            # XLA's thread pool follows the cores; with fewer threads than devices, steps deadlock.
            shared.setdefault("NPROC", str(max(32, 4 * devices)))
        for number in range(processes):
            place = {"TSMJAX_PROCESS_ID": str(number)} if processes > 1 else {}
            self._processes.append(subprocess.Popen(command, env={**shared, **place}))

    def wait(self, grace: float) -> int:
        """Wait until all have ended; kill those that live `grace` seconds after a failure."""
        failed, deadline = 0, math.inf
        try:
            while True:
                codes = [process.poll() for process in self._processes]
                if not failed and any(codes):
                    failed = next(_shell_code(code) for code in codes if code)
                    deadline = time.monotonic() + grace
                if None not in codes:
                    return failed
                if time.monotonic() > deadline:
                    self._kill()
                time.sleep(_INTERVAL)
        finally:
            self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _forward(self, number: int, _: object) -> None:
        self.told_to_stop = True
        for process in self._processes:
            process.send_signal(number)


def _free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _shell_code(code: int) -> int:
    """Exit code as a shell shows it: 128 + signal for a process that a signal ended."""
    return code if code > 0 else 128 - code


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
