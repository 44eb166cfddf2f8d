"""Which process of how many this is: from flags, environment variables, or the launcher.

Each setting is taken from the first place that has it:

1. a flag of the command, ``--num_processes=2``;
2. the environment variable of the same name, ``TSMJAX_NUM_PROCESSES=2``;
3. what Open MPI, Slurm or Kubernetes tell the process;
4. otherwise there is one process.

Everything here is a pure function of those values; `tsmjax.distributed` acts on them.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from tsmjax.errors import InputError

SETTINGS = {
    "coordinator": "HOST:PORT of process 0, where the others reach it.",
    "num_processes": "Number of processes of the run, over all nodes.",
    "process_id": "Number of this process, from 0.",
    "local_devices": "GPUs of this node that this process uses, as 0,1 (default: a fair share).",
    "start_timeout": "Seconds to wait for the other processes at the start (default 300).",
    "heartbeat": "Seconds of silence after which a process counts as dead (default 100).",
    "watchdog": "Minutes without a step after which the run ends; 0 for never (default 30).",
}
_PORT = 8476  # of a coordinator that is named without one
_PORTS = range(61440, 65536)  # above what Linux hands out to outgoing connections


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The place of this process among all processes of a run.

    Attributes:
      num_processes: processes of the run.
      process_id: number of this one.
      coordinator: ``HOST:PORT`` of process 0; empty when there is one process.
      source: where that is known from, for the log.
      local_devices: numbers of the GPUs to use; empty for a fair share of the node's.
      start_timeout: seconds to wait for the others at the start.
      heartbeat: seconds of silence after which a process counts as dead.
      watchdog: minutes without a step after which the run ends; 0 for never.
    """

    num_processes: int = 1
    process_id: int = 0
    coordinator: str = ""
    source: str = ""
    local_devices: tuple[int, ...] = ()
    start_timeout: int = 300
    heartbeat: int = 100
    watchdog: float = 30.0


def define_flags(values: flags.FlagValues) -> None:
    """Add the flags of `SETTINGS` to `values`."""
    for name, text in SETTINGS.items():
        flags.DEFINE_string(name, None, text, flag_values=values)


def resolve(given: Mapping[str, str | None], env: Mapping[str, str], fqdn: str = "") -> Cluster:
    """Find the place of this process.

    Args:
      given: values of the flags by name; None or absent where a flag is not set.
      env: environment variables.
      fqdn: full name of this machine, which tells a Kubernetes pod its neighbours' names.

    Raises:
      InputError: when the values are incomplete or contradict each other.
    """
    said = {name: given.get(name) or env.get(_variable(name)) for name in SETTINGS}
    said = {name: value for name, value in said.items() if value}
    place = {name: said.pop(name, None) for name in ("coordinator", "num_processes", "process_id")}
    source = "flags or variables"
    if not all(place.values()):
        source, told = detect(env, fqdn)
        for name in ("num_processes", "process_id"):
            if place[name] and told.get(name, place[name]) != place[name]:
                raise InputError(
                    f"{_flag(name)} says {place[name]}, but {source} says {told[name]}: leave it "
                    "out, or give --coordinator, --num_processes and --process_id together."
                )
        place = {name: value or told.get(name) for name, value in place.items()}
    options = _options(said)
    alone = place["num_processes"] == "1" and place["process_id"] in (None, "0")
    if alone or not any(place.values()):
        return Cluster(source=source, **options)
    for name, value in place.items():
        if value is None:
            known = " and ".join(f"--{k} is {v}" for k, v in place.items() if v is not None)
            raise InputError(f"{known} ({source}), but nothing tells {_flag(name)}: set it.")
    count = _integer("num_processes", place["num_processes"])
    index = _integer("process_id", place["process_id"])
    if index >= count:
        raise InputError(
            f"{_flag('process_id')} is {index}, but there are {count} processes, numbered from 0."
        )
    return Cluster(count, index, _with_port(place["coordinator"]), source, **options)


def detect(env: Mapping[str, str], fqdn: str = "") -> tuple[str, dict[str, str]]:
    """Return the launcher's name and what it tells: some of the settings, as text.

    Open MPI comes first: a process that `mpirun` started inside a Slurm job sees variables of both,
    and those of Slurm describe `mpirun`'s own helpers.
    """
    if "OMPI_COMM_WORLD_SIZE" in env:
        return "Open MPI", _open_mpi(env)
    if "SLURM_STEP_NODELIST" in env and "SLURM_PROCID" in env:
        job = f"{env.get('SLURM_JOB_ID', '')}.{env.get('SLURM_STEP_ID', '')}"
        return "Slurm", {
            "num_processes": env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS", "1"),
            "process_id": env["SLURM_PROCID"],
            "coordinator": f"{first_node(env['SLURM_STEP_NODELIST'])}:{port_of(job)}",
        }
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes", _kubernetes(env, fqdn)
    return "no launcher", {}


def first_node(nodes: str) -> str:
    """Return the first name of a Slurm node list such as ``gpu[007-009,012],login``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes).group()
    return re.sub(r"\[([^,\-\]]+)[^\]]*\]", r"\1", first)


def port_of(job: str) -> int:
    """Choose the port that all processes of a job agree on without asking each other."""
    return _PORTS[zlib.crc32(job.encode()) % len(_PORTS)]


def share_of_gpus(mine: Sequence[str], node: Sequence[Sequence[str]], rank: int) -> tuple[int, ...]:
    """Divide the GPUs of one node among its processes.

    Args:
      mine: identities of the GPUs that this process may use.
      node: the same for every process of this node, in order of their numbers.
      rank: position of this process in `node`.

    Returns:
      Positions in `mine` to use; empty for all of them: the launcher gave each process its own.

    Raises:
      InputError: when the GPUs do not divide, or the processes were given overlapping sets.
    """
    if len(node) == 1 or not mine:
        return ()
    if all(set(mine) == set(other) for other in node):
        each, rest = divmod(len(mine), len(node))
        if rest or not each:
            raise InputError(
                f"{len(node)} processes run on one node with {len(mine)} GPUs, which do not "
                "divide among them: start one process per node, or one per GPU."
            )
        return tuple(range(rank * each, (rank + 1) * each))
    if any(set(mine) & set(other) for at, other in enumerate(node) if at != rank):
        raise InputError(
            "Processes of one node were given different GPUs that overlap: give each its own "
            "(CUDA_VISIBLE_DEVICES), or all of them the same."
        )
    return ()


def visible_gpus(installed: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Identities of the GPUs that CUDA_VISIBLE_DEVICES leaves of those `installed`."""
    chosen = env.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(installed)
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    numbers = [int(name) for name in names if name.isdigit()]
    if len(numbers) < len(names):  # identities already
        return names
    return [installed[number] for number in numbers if number < len(installed)]


def _open_mpi(env: Mapping[str, str]) -> dict[str, str]:
    size = env["OMPI_COMM_WORLD_SIZE"]
    found = {"num_processes": size, "process_id": env["OMPI_COMM_WORLD_RANK"]}
    # Where mpirun runs, as version 4 tells (its address) or version 5 (the name of its machine);
    # hostfiles begin with that machine, and process 0 is placed on the first.
    uri, space = env.get("OMPI_MCA_orte_hnp_uri", ""), env.get("PMIX_NAMESPACE", "")
    first = re.search(r"tcp://([^,:]+)", uri) or re.match(r"prterun-(.+)-\d+@", space)
    port = port_of(uri.partition(";")[0] or space)
    if env.get("OMPI_COMM_WORLD_LOCAL_SIZE") == size:
        found["coordinator"] = f"127.0.0.1:{port}"
    elif first:
        found["coordinator"] = f"{first[1]}:{port}"
    return found


def _kubernetes(env: Mapping[str, str], fqdn: str) -> dict[str, str]:
    """An indexed Job, alone or in a JobSet; the pods' number is known to the manifest only."""
    index = env["JOB_COMPLETION_INDEX"]
    found = {"process_id": index}
    pod, _, domain = fqdn.partition(".")
    if domain and pod.endswith(f"-{index}"):
        found["coordinator"] = f"{pod.removesuffix(index)}0.{domain}:{_PORT}"
    return found


def _variable(name: str) -> str:
    return f"TSMJAX_{name.upper()}"


def _flag(name: str) -> str:
    return f"--{name} ({_variable(name)})"


def _options(said: Mapping[str, str]) -> dict[str, Any]:
    """Convert the settings that do not say where this process stands."""
    options: dict[str, Any] = {
        name: _integer(name, said[name]) for name in ("start_timeout", "heartbeat") if name in said
    }
    if "local_devices" in said:
        parts = said["local_devices"].split(",")
        options["local_devices"] = tuple(_integer("local_devices", part) for part in parts)
    if "watchdog" in said:
        options["watchdog"] = _number("watchdog", said["watchdog"])
    return options


def _integer(name: str, text: str) -> int:
    if not text.strip().isdigit():
        raise InputError(f"{_flag(name)} is {text!r}, but must be a whole number.")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{_flag(name)} is {text!r}, but must be a number.") from None


def _with_port(address: str) -> str:
    return address if re.search(r"[^:]:\d+$", address) else f"{address}:{_PORT}"
