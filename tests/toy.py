"""The fifth family on a path of its own, for tests of the trunk."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def install(folder: Path) -> None:
    """Copy the family into `folder` and make it importable, as a user's own code would be."""
    for path in (HERE / "fifth_family").glob("*.py"):
        shutil.copy(path, folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def write_rows(folder: Path, rows: int = 64, seed: int = 0) -> None:
    """Three separable classes; every third label is missing, so that the terms' weights differ."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    x = rng.normal(size=(rows, 8)) + 2.0 * np.eye(3, 8)[labels]
    np.save(folder / "rows.npy", x.astype(np.float32))
    np.save(folder / "labels.npy", np.where(rng.random(rows) < 0.3, -1, labels).astype(np.int32))
    (folder / "labels.json").write_text(json.dumps(["sit", "walk", "run"]))


def config(data: Path, **sections) -> dict:
    """Config values; keyword arguments update single sections."""
    values = {
        "name": "toy",
        "model": {"family": "toy_family"},
        "task": {"kind": "toy_task"},
        "data": {"path": str(data), "batch_size": 16},
        "optim": {"length": 20, "lr": 1e-2, "schedule": "constant"},
        "mesh": {"replica": -1, "replicate_below": 0},
        "checkpoint": {"every": 5},
        "evals": {"every": 10, "metric": "toy/accuracy", "mode": "max"},
        "log": {"every": 1, "health": 0, "tensorboard": False, "plots": False},
    }
    for name, changes in sections.items():
        values[name] = {**values[name], **changes} if isinstance(changes, dict) else changes
    return values
