"""Run folders, ``experiments/<model>/<name>/run_<UTC time>/``, and the `best_run` link."""

from __future__ import annotations

import datetime
import json
import math
import os
import socket
import time
from pathlib import Path

import jax
import yaml

from tsmjax import distributed
from tsmjax.checkpoint import write_json
from tsmjax.config import Config
from tsmjax.errors import InputError

_VISIBLE = 60.0  # seconds that shared storage may take to show a new folder to another host


def open_run(config: Config, workdir: str | None) -> Path:
    """Create a fresh run folder, or open `workdir`, which resumes when it holds a checkpoint.

    On several hosts process 0 chooses the folder and writes to it, and all of them must see it.
    """
    main = jax.process_index() == 0
    run = Path(workdir) if workdir else _fresh(config)
    run = Path(distributed.broadcast(str(run), "run folder"))
    if run.exists() and not run.is_dir():
        raise InputError(f"--workdir={workdir} is a file; it must be a folder or not exist.")
    if main:
        run.mkdir(parents=True, exist_ok=True)
        _write_config(run, config)
    distributed.barrier("run folder made")
    _await(run)
    return run


def _write_config(run: Path, config: Config) -> None:
    """Write the resolved config: as JSON, and as YAML that --config takes back."""
    write_json(run / "config.json", config.to_dict())
    values = json.loads(json.dumps(config.to_dict()))  # YAML knows no tuples
    beside = run / ".config.yaml.partial"
    with beside.open("w", encoding="utf-8") as file:
        file.write(f"# python -m tsmjax.main --config={run / 'config.yaml'}\n")
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)
    os.replace(beside, run / "config.yaml")


def _fresh(config: Config) -> Path:
    """Name a new run folder by the time, and a number when one of that second exists."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    family = config.family.rsplit(".", 1)[-1]
    parent = Path("experiments") / family / config.name
    run = parent / f"run_{now}"
    number = 1
    while run.exists():
        number += 1
        run = parent / f"run_{now}_{number}"
    return run


def _await(run: Path) -> None:
    """Wait for the folder that process 0 has made; network storage shows it after a while."""
    deadline = time.monotonic() + _VISIBLE
    while not (run / "config.json").exists():
        if time.monotonic() > deadline:
            raise InputError(
                f"{run.absolute()} is not the same folder on {socket.gethostname()} as where "
                "process 0 runs: put it on storage that all hosts share."
            )
        time.sleep(0.2)


def link_best(run: Path, metric: str, mode: str) -> Path | None:
    """Point ``best_run`` beside `run` at the sibling with the best `metric` in `results.json`.

    Runs without a finite value never win; among equals the older run stays.

    Returns:
      The winning run, or None when no sibling has a score or `run` is no ``run_*`` folder.
    """
    if not run.name.startswith("run_"):
        return None
    scores = {}
    for sibling in sorted(run.parent.glob("run_*")):
        try:
            results = json.loads((sibling / "results.json").read_text())
            score = float(results["best"][metric])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if math.isfinite(score):
            scores[sibling] = score if mode == "min" else -score
    if not scores:
        return None
    winner = min(scores, key=lambda sibling: (scores[sibling], sibling.name))
    beside = run.parent / ".best_run.partial"
    beside.unlink(missing_ok=True)
    beside.symlink_to(winner.name)
    os.replace(beside, run.parent / "best_run")
    return winner
