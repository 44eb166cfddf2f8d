"""Real processes on this machine, joined by gloo over loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import toy

ROOT = Path(__file__).parent.parent.parent
_compiled = tempfile.TemporaryDirectory()  # shared by all: most runs compile the same


class Job:
    """Processes of one run, their exit codes and what they printed."""

    def __init__(self, command, folder, hosts=1, devices=1, path=(), **settings):
        """Start `hosts` processes with `devices` virtual devices each.

        Args:
          command: arguments of the Python interpreter.
          folder: where logs go.
          hosts: number of processes.
          devices: virtual devices of each.
          path: folders to import from.
          **settings: variables TSMJAX_NAME.
        """
        self.logs = [folder / f"process_{number}.log" for number in range(hosts)]
        if hosts > 1:
            settings = {
                "coordinator": f"127.0.0.1:{free_port()}",
                "num_processes": hosts,
                **settings,
            }
        self.processes = []
        for number, log in enumerate(self.logs):
            mine = {**settings, "process_id": number} if hosts > 1 else settings
            environment = {
                **os.environ,
                **{f"TSMJAX_{name.upper()}": str(value) for name, value in mine.items()},
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path))),
                "PYTHONUNBUFFERED": "1",
                "JAX_COMPILATION_CACHE_DIR": _compiled.name,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            with log.open("a") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )

    def send(self, number: int, what: int = signal.SIGTERM, children: bool = False) -> None:
        """Send a signal to one process, and to those it has started if `children`."""
        send = os.killpg if children else os.kill
        send(self.processes[number].pid, what)

    def codes(self, seconds: float = 400) -> list[int]:
        """Wait for all processes and return their exit codes."""
        until = time.monotonic() + seconds
        return [process.wait(max(until - time.monotonic(), 0.1)) for process in self.processes]

    def until(self, reached, seconds: float = 400) -> None:
        """Wait until `reached()` holds; fail when a process ends before, or the time is over."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert all(process.poll() is None for process in self.processes), self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def text(self) -> str:
        """Return what all processes printed."""
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in self.logs)

    def kill(self) -> None:
        """End what is still running."""
        for number, process in enumerate(self.processes):
            if process.poll() is None:
                self.send(number, signal.SIGKILL, children=True)
                process.wait()


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return line.getsockname()[1]


class Toy:
    """Runs of the toy family in one folder, with a fresh log folder each; a context manager."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "rows"
        toy.write_rows(self.data)
        for source in (toy.HERE / "fifth_family").glob("*.py"):
            (folder / source.name).write_text(source.read_text())
        self.jobs: list[Job] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self) -> None:
        """End all processes that are still running."""
        for job in self.jobs:
            job.kill()

    def start(self, run: str, hosts=1, devices=1, flags=(), settings=None, **sections) -> Job:
        """Start `python -m tsmjax.main` with the run folder `run`; see `toy.config`, `Job`."""
        for place in ("compiling", "scoring"):
            (self.data / place).unlink(missing_ok=True)
        logs = self.folder / f"logs_{len(self.jobs)}"
        logs.mkdir()
        reading = sections.pop("data", {})  # `toy.config` calls the folder so
        values = toy.config(self.data, **sections)
        values["data"] |= reading
        values["task"] |= {"kind": "toy_hosts"}
        config = logs / "config.py"
        config.write_text(
            "from ml_collections import ConfigDict\n"
            f"def get_config():\n    return ConfigDict({values!r})\n"
        )
        command = ["-m", "tsmjax.main", f"--config={config}", f"--workdir={self.folder / run}"]
        job = Job(
            [*command, *flags],
            logs,
            hosts,
            devices,
            path=(self.folder, Path(__file__).parent),
            **{"heartbeat": 10, "start_timeout": 60, **(settings or {})},
        )
        self.jobs.append(job)
        return job

    def run(self, run: str, hosts=1, devices=1, **options) -> None:
        """Train to the end."""
        job = self.start(run, hosts, devices, **options)
        assert job.codes() == [0] * hosts, job.text()

    def rows(self, run: str) -> list[dict]:
        """Rows of `metrics.jsonl`."""
        path = self.folder / run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def losses(self, run: str) -> dict[int, float]:
        """Loss by step."""
        return {row["step"]: row["loss"] for row in self.rows(run) if "loss" in row}

    def saved(self, run: str) -> list[int]:
        """Steps of the finished checkpoints."""
        folders = (self.folder / run / "checkpoints").glob("*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def results(self, run: str) -> dict:
        """Contents of `results.json`."""
        return json.loads((self.folder / run / "results.json").read_text())
