"""Several processes as one run: how they start, and how they talk.

A process learns its place from flags, TSMJAX_* variables or the launcher (`tsmjax.cluster`):

    TSMJAX_COORDINATOR    HOST:PORT of process 0        --coordinator
    TSMJAX_NUM_PROCESSES  number of processes           --num_processes
    TSMJAX_PROCESS_ID     number of this one, from 0    --process_id
    TSMJAX_LOCAL_DEVICES  GPUs of this node, as 0,1     --local_devices

Messages go over the coordinator, not over the devices: they have timeouts, and a process that does
not answer is named. With one process every function here returns at once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax._src.distributed
import numpy as np
from jax.experimental import multihost_utils
from rich.table import Table

from tsmjax import cluster as cluster_lib
from tsmjax import rendezvous, watch
from tsmjax.cluster import Cluster
from tsmjax.data.cache import cache_folder
from tsmjax.errors import HostError, InputError

PATIENCE = 600.0  # seconds that a process waits for the others


@dataclasses.dataclass(frozen=True)
class Host:
    """What the others know of a process: the name of its machine, its devices and their kind."""

    name: str
    devices: int
    kind: str


class Channel:
    """Messages between the processes, through the key-value store of JAX's coordinator.

    Without a coordinator nothing can be told or read; JAX then ends the process.

    Attributes:
      process: number of this process.
      processes: number of all.
      hosts: what is known of each process; empty before all have told.
    """

    def __init__(self, client: Any, process: int, processes: int):
        """Talk through `client`, a connection to the coordinator."""
        self._client = client
        self.process, self.processes = process, processes
        self.hosts: list[Host] = []
        self._gathered: collections.Counter[str] = collections.Counter()  # equal on all processes

    def post(self, name: str, value: Any) -> None:
        """Tell the others a JSON value, in place of an earlier one of the same name."""
        key = f"tsmjax/{name}/{self.process}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set(key, json.dumps(value), allow_overwrite=True)

    def read(self, name: str) -> dict[int, Any]:
        """Return what the processes have told under `name` so far, by process."""
        try:
            told = self._client.key_value_dir_get(f"tsmjax/{name}")
        except jax.errors.JaxRuntimeError:
            return {}
        return {int(key.rpartition("/")[2]): json.loads(text) for key, text in told}

    def gather(self, name: str, value: Any, seconds: float) -> list[Any]:
        """Return what all processes tell, by process, once the last of them has.

        Raises:
          HostError: when `seconds` pass before; the message names who is missing.
        """
        self._gathered[name] += 1
        once = f"{name}/{self._gathered[name]}"
        self.post(once, value)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.wait_at_barrier(f"tsmjax/{once}", int(seconds * 1000))
        told = self.read(once)
        if missing := sorted(set(range(self.processes)) - told.keys()):
            raise HostError(
                f"{self.describe(self.process)} waited {seconds:g} s at {name!r} for "
                f"{', '.join(map(self.describe, missing))}."
            )
        return [told[process] for process in range(self.processes)]

    def describe(self, process: int) -> str:
        """Name a process in a message: its number and, once known, its machine."""
        return f"process {process}" + (f" on {self.hosts[process].name}" if self.hosts else "")


def start(flags: Mapping[str, str | None]) -> Cluster:
    """Connect the processes of this run, and divide the GPUs of each node among its processes.

    Must come before anything touches a device.

    Args:
      flags: values of the flags of `tsmjax.cluster.SETTINGS`, None where one is not set.

    Raises:
      InputError: when processes or devices do not add up.
      HostError: when a process does not arrive in time.
    """
    pod = "KUBERNETES_SERVICE_HOST" in os.environ
    cluster = cluster_lib.resolve(flags, os.environ, socket.getfqdn() if pod else "")
    if cluster.num_processes > 1:
        _connect(cluster)
        _choose_gpus(cluster)
        _introduce()
    # After the start: process 0 alone writes to the cache, and must know that it is process 0.
    _keep_compiled()
    return cluster


@functools.cache
def channel() -> Channel | None:
    """The channel between the processes; None when there is one."""
    state = jax._src.distributed.global_state
    if state.client is None or state.num_processes == 1:
        return None
    return Channel(state.client, state.process_id, state.num_processes)


def gather(value: Any, name: str, seconds: float = PATIENCE) -> list[Any]:
    """Return the JSON values of all processes, by process.

    Raises:
      HostError: when that takes longer than `seconds`; the message names who is missing.
    """
    if channel() is None:
        return [value]
    return channel().gather(name, value, seconds)


def barrier(name: str, seconds: float = PATIENCE) -> None:
    """Wait until every process is here; raises as `gather` does."""
    gather(None, name, seconds)


def broadcast(value: Any, name: str, seconds: float = PATIENCE) -> Any:
    """Return the JSON `value` of process 0 on every process; raises as `gather` does."""
    return gather(value, name, seconds)[0]


def add(sums: dict[str, np.ndarray], parts: Sequence[int]) -> dict[str, np.ndarray]:
    """Add float64 arrays of the same shapes over all processes.

    Args:
      sums: the arrays of this process.
      parts: which part of the data each process summed; of those with the same part, one counts.
    """
    if len(parts) == 1:
        return sums
    # As bytes: the devices would round float64 to float32.
    flat = np.concatenate([np.asarray(value, np.float64).ravel() for value in sums.values()])
    told = multihost_utils.process_allgather(flat.view(np.uint8)).view(np.float64)
    total = told[[parts.index(part) for part in sorted(set(parts))]].sum(axis=0)
    ends = np.cumsum([np.size(value) for value in sums.values()])
    return {
        name: part.reshape(np.shape(value))
        for (name, value), part in zip(sums.items(), np.split(total, ends[:-1]), strict=True)
    }


def table() -> Table:
    """Processes and devices, one row a process."""
    found = Table(
        title=f"{jax.device_count()} devices on {jax.process_count()} processes",
        title_justify="left",
    )
    for name in ("process", "host", "devices", "kind"):
        found.add_column(name)
    for number, host in enumerate(channel().hosts if channel() else [_me()]):
        found.add_row(str(number), host.name, str(host.devices), host.kind)
    return found


def _me() -> Host:
    devices = jax.local_devices()
    return Host(socket.gethostname(), len(devices), devices[0].device_kind)


def _connect(cluster: Cluster) -> None:
    """Connect to the coordinator; process 0 is it."""
    print(
        f"process {cluster.process_id} of {cluster.num_processes} on {socket.gethostname()}: "
        f"coordinator {cluster.coordinator} ({cluster.source})",
        file=sys.stderr,
    )
    rendezvous.meet(cluster)
    # Proxies are for the web; gRPC would send what is meant for the coordinator there as well.
    reached = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy")  # noqa: SIM112
    host = cluster.coordinator.rpartition(":")[0]
    os.environ["no_grpc_proxy"] = f"{reached},{host}" if reached else host  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)  # a warning about just that
    # Its handler of SIGTERM would take the place of ours, and Orbax would stop on its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.num_processes,
        cluster.process_id,
        cluster_detection_method="deactivate",
        initialization_timeout=cluster.start_timeout,
        heartbeat_timeout_seconds=cluster.heartbeat,
    )
    channel.cache_clear()
    watch.follow(channel())


def _choose_gpus(cluster: Cluster) -> None:
    """Restrict JAX to this process's share of the node's GPUs."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return
    # Containers may share a name; what was booted is one machine.
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = [socket.gethostname(), boot.read_text().strip() if boot.exists() else ""]
    mine = cluster_lib.visible_gpus(_installed_gpus(), os.environ)
    told = gather([machine, mine], "GPUs")
    node = [number for number, (other, _) in enumerate(told) if other == machine]
    chosen = cluster.local_devices or cluster_lib.share_of_gpus(
        mine, [told[number][1] for number in node], node.index(cluster.process_id)
    )
    if chosen:
        jax.config.update("jax_cuda_visible_devices", ",".join(map(str, chosen)))


def _installed_gpus() -> list[str]:
    """Identities of the NVIDIA GPUs that this process could open."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return answer.stdout.split() if answer.returncode == 0 else []


def _introduce() -> None:
    """Exchange names and devices; refuse devices that differ, which no mesh could arrange."""
    hosts = channel().hosts = [Host(**one) for one in gather(dataclasses.asdict(_me()), "hosts")]
    for number, host in enumerate(hosts):
        if (host.devices, host.kind) != (hosts[0].devices, hosts[0].kind):
            raise InputError(
                f"{channel().describe(number)} has {host.devices} devices ({host.kind}), but "
                f"{channel().describe(0)} has {hosts[0].devices} ({hosts[0].kind}): give all the "
                "same."
            )


def _keep_compiled() -> None:
    """Keep compiled programs between runs, on accelerators, where compiling takes minutes.

    JAX_COMPILATION_CACHE_DIR chooses another folder, and switches it on for CPUs too.
    """
    if jax.default_backend() != "cpu" and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
