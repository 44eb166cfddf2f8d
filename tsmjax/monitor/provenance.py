"""`provenance.json`: what a run was made with, so that it can be made again."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from tsmjax.checkpoint import versions, write_json

_END = 1 << 16  # bytes at each end of a file that its digest covers; beside its name and size
_MANY = 10_000  # files of one data set that are looked at


def write(run: str | Path, config: Mapping[str, Any], mesh: Mapping[str, int]) -> None:
    """Append what this process runs with to `provenance.json`; one entry a start.

    Args:
      run: the run folder.
      config: the resolved config.
      mesh: size of each mesh axis.
    """
    path = Path(run) / "provenance.json"
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        entries = []
    device = jax.devices()[0]
    entry = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **versions(),
        "git_changes": _changes(),
        "devices": {"kind": device.device_kind, "count": jax.device_count()},
        "processes": jax.process_count(),
        "mesh": dict(mesh),
        "seed": config.get("seed"),
        "data": {name: manifest(Path(name)) for name in paths(config.get("data", {}))},
    }
    write_json(path, [*entries, entry])


def manifest(path: Path) -> dict[str, Any]:
    """Describe a file or folder: number of files, bytes, and a digest that follows changes.

    The digest covers names, sizes and both ends of each file: large data are not read through.
    """
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())[:_MANY]
    digest, size = hashlib.sha256(), 0
    for file in files:
        length = file.stat().st_size
        size += length
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\0{length}\0".encode())
        with file.open("rb") as data:
            digest.update(data.read(_END))
            if length > _END:
                data.seek(max(length - _END, _END))
                digest.update(data.read())
    return {"files": len(files), "bytes": size, "digest": digest.hexdigest()[:16]}


def paths(values: Any) -> Iterator[str]:
    """Yield the strings in config values that name something on this machine, each once."""
    found: dict[str, None] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            for child in value.values():
                walk(child)
        elif isinstance(value, list | tuple):
            for child in value:
                walk(child)
        elif isinstance(value, str) and "/" in value and Path(value).exists():
            found[value] = None

    walk(values)
    yield from found


def _changes() -> bool | None:
    """Whether the code differs from its git commit; None outside a clone."""
    command = ["git", "-C", str(Path(__file__).parent), "status", "--porcelain", "-uno"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(told.stdout.strip()) if told.returncode == 0 else None
