"""All processes report to process 0 before JAX connects them.

JAX ends a process that waits in vain, or meets another with its number, by a stack trace from C++.
Here what is wrong gets a sentence: who is missing, which number was given twice, who counts
differently. The port is the coordinator's, and free again afterwards.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from tsmjax.cluster import Cluster
from tsmjax.errors import HostError, InputError

_RETRY = 0.2  # seconds between attempts to reach process 0
_REPLY = 10.0  # seconds that the other side of an open connection may take


def meet(cluster: Cluster) -> None:
    """Return when all processes of `cluster` are there.

    Raises:
      InputError: when they disagree about their numbers or their count.
      HostError: when one is missing after `cluster.start_timeout` seconds.
    """
    host, _, port = cluster.coordinator.rpartition(":")
    deadline = time.monotonic() + cluster.start_timeout
    if cluster.process_id == 0:
        with _listen(int(port)) as server:
            _receive(server, cluster, deadline)
    else:
        _report((host.strip("[]"), int(port)), cluster, deadline)


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=4096, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(
            f"Process 0 cannot listen on port {port} of {socket.gethostname()} ({error.strerror}): "
            "choose another with --coordinator=HOST:PORT."
        ) from error


def _receive(server: socket.socket, cluster: Cluster, deadline: float) -> None:
    """Take the reports of the others, and tell all of them what came of it."""
    hosts = {0: socket.gethostname()}
    lines: list[socket.socket] = []
    wrong: Exception | None = None
    while len(hosts) < cluster.num_processes and not wrong:
        server.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            line, _ = server.accept()
        except TimeoutError:
            missing = sorted(set(range(cluster.num_processes)) - hosts.keys())
            wrong = HostError(
                f"Process 0 on {hosts[0]} waited {cluster.start_timeout} s at "
                f"{cluster.coordinator} for process {', '.join(map(str, missing))} of "
                f"{cluster.num_processes}: see why it did not start, or cannot reach that address."
            )
            break
        lines.append(line)
        if report := _read(line):
            wrong = _contradiction(report, hosts, cluster)
            hosts[report["process"]] = report["host"]
    answer = {"input": isinstance(wrong, InputError), "sentence": str(wrong or "")}
    for line in lines:
        with contextlib.suppress(OSError):
            line.sendall(json.dumps(answer).encode() + b"\n")
    for line in lines:
        with line, contextlib.suppress(OSError):
            line.recv(1)  # the others close first: the first to close keeps the port for a while
    if wrong:
        raise wrong


def _report(address: tuple[str, int], cluster: Cluster, deadline: float) -> None:
    """Tell process 0 about this one, and wait for its answer."""
    me = {
        "process": cluster.process_id,
        "count": cluster.num_processes,
        "host": socket.gethostname(),
    }
    while True:
        try:
            with socket.create_connection(address, timeout=_REPLY) as line:
                line.sendall(json.dumps(me).encode() + b"\n")
                line.settimeout(max(deadline - time.monotonic(), 0) + _REPLY)
                answer = _read(line)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostError(
                    f"Process {cluster.process_id} on {me['host']} could not reach process 0 at "
                    f"{cluster.coordinator} in {cluster.start_timeout} s ({error}): see whether it "
                    "runs there, and whether the port is open."
                ) from error
            time.sleep(_RETRY)
    if not answer:
        raise HostError(f"Process 0 at {cluster.coordinator} left before all had come.")
    if answer["sentence"]:
        raise (InputError if answer["input"] else HostError)(answer["sentence"])


def _contradiction(
    report: dict[str, Any], hosts: dict[int, str], cluster: Cluster
) -> InputError | None:
    """What a report says against those before it."""
    number, host = report["process"], report["host"]
    if report["count"] != cluster.num_processes:
        return InputError(
            f"Process {number} on {host} was told that there are {report['count']} processes, but "
            f"process 0 on {hosts[0]} was told {cluster.num_processes}: give all the same "
            "--num_processes."
        )
    if number in hosts:
        return InputError(
            f"Two processes have the number {number}, on {hosts[number]} and on {host}: give each "
            "its own --process_id."
        )
    return None


def _read(line: socket.socket) -> dict[str, Any] | None:
    """Return the message on an open connection; None for what is not one of ours."""
    if line.gettimeout() is None:
        line.settimeout(_REPLY)
    try:
        with line.makefile() as text:
            message = json.loads(text.readline())
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
