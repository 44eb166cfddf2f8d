"""Run folders as they lie on disk, read without opening a checkpoint or touching a device.

Besides the folders that training writes, those with ``config.yaml`` and ``metrics.json`` are read:
``metrics.json`` holds final metrics, or a list of rows, or has such a list under ``log_history``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tsmjax.errors import InputError, closest
from tsmjax.monitor import writers

_MARKS = ("config.json", "config.yaml", "metrics.jsonl", "metrics.json", "results.json")
_HISTORIES = ("log_history", "history")  # where a metrics.json keeps its rows
_ALIVE = 600.0  # seconds since the last sign of a run that counts as running
_PER_SUITE = 1  # slashes in the name of a score over a whole suite: suite/metric


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      path: the folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Config values by dotted field (``optim.lr``); empty when there is no config."""
        values = _load(self.path / "config.json") or _load(self.path / "config.yaml")
        return flatten(values) if isinstance(values, dict) else {}

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """What `results.json` holds; empty for a run that has not ended well."""
        found = _load(self.path / "results.json")
        if isinstance(found, dict):
            return found
        final, rows = self._legacy
        if not (final or rows):
            return {}
        steps = [row["step"] for row in rows]
        return {"best": final, "step": max(steps, default=final.get("step"))}

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Logged steps, each with its ``step``, in order."""
        path = self.path / "metrics.jsonl"
        return writers.read(path) if path.exists() else self._legacy[1]

    @functools.cached_property
    def _legacy(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Final metrics and rows of a ``metrics.json``."""
        found = _load(self.path / "metrics.json")
        rows: Any = found if isinstance(found, list) else []
        if isinstance(found, dict):
            rows = next((found[key] for key in _HISTORIES if key in found), [])
        rows = [row for row in rows if isinstance(row, dict) and _finite(row.get("step"))]
        final = found if isinstance(found, dict) else (rows[-1] if rows else {})
        return {name: value for name, value in final.items() if _finite(value)}, rows

    @property
    def metric(self) -> str | None:
        """The declared score that decides what is best."""
        return self.results.get("metric") or self.config.get("evals.metric")

    @property
    def mode(self) -> str:
        """Whether the declared score is best at its "min" or its "max"."""
        return self.config.get("evals.mode", "min")

    @property
    def scores(self) -> dict[str, float]:
        """Finite validation scores of the best checkpoint."""
        best = self.results.get("best") or {}
        return {name: float(value) for name, value in best.items() if _finite(value)}

    @property
    def suite_scores(self) -> dict[str, float]:
        """Those of `scores` that stand for a whole suite, or all when none does."""
        short = {k: v for k, v in self.scores.items() if k.count("/") == _PER_SUITE}
        return short or self.scores

    @property
    def status(self) -> str:
        """Tell "done", "failed", "running" (a sign within ten minutes) or "stopped"."""
        if self.results:
            return "done"
        signs = [self.path / "metrics.jsonl", self.path / "logs" / "training.log"]
        seen = max((_modified(sign) for sign in signs), default=0.0)
        if _modified(self.path / "logs" / "error.log") >= max(seen - 1.0, 1.0):
            return "failed"
        return "running" if time.time() - seen < _ALIVE else "stopped"

    @property
    def last_step(self) -> int | None:
        """The last step that left a trace."""
        step = self.results.get("step")
        return step if step is not None else max((row["step"] for row in self.rows), default=None)


def find(paths: Iterable[str | Path]) -> list[Run]:
    """Return the runs at or under `paths`, each once, in the order of their names.

    Links such as `best_run` are followed when they are named, and not on the way.

    Raises:
      InputError: when a path does not exist or holds no run.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.exists():
            near = [entry.name for entry in path.parent.glob("*")]
            raise InputError(f"There is no folder {path}{closest(path.name, near)}.")
        runs = list(_walk(path.resolve() if path.is_symlink() else path))
        if not runs:
            raise InputError(f"{path} holds no run: no folder with a config.json or metrics file.")
        for run in runs:
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def experiments(runs: Iterable[Run]) -> dict[Path, list[Run]]:
    """Group runs by the folder they lie in."""
    groups: dict[Path, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.path.parent, []).append(run)
    return groups


def deciding(runs: list[Run], metric: str | None = None, mode: str | None = None) -> tuple:
    """Return (metric, mode) that the runs are ranked by; metric None when they declare none.

    Args:
      runs: what is compared.
      metric: a score to rank by instead of the one that the runs declare.
      mode: "min" or "max" to go with it.

    Raises:
      InputError: when no run has a score `metric`.
    """
    known = {name for run in runs for name in run.scores}
    if metric:
        if metric not in known:
            raise InputError(
                f"No run has a score {metric!r}{closest(metric, known)}; "
                f"there are {', '.join(sorted(known)[:8]) or 'none'}."
            )
    else:
        metric = next((run.metric for run in runs if run.metric in run.scores), None)
        metric = metric or ("eval_loss" if "eval_loss" in known else None)
    if mode is None:
        mode = next((run.mode for run in runs if run.metric == metric), "min")
    return metric, mode


def ranked(runs: list[Run], metric: str | None, mode: str) -> list[Run]:
    """Sort best first; among equals the older name, and runs without a score last."""

    def key(run: Run) -> tuple[bool, float, str]:
        score = run.scores.get(metric) if metric else None
        if score is None:
            return True, 0.0, run.path.as_posix()
        return False, score if mode == "min" else -score, run.path.as_posix()

    return sorted(runs, key=key)


def differences(runs: list[Run]) -> list[str]:
    """Return the config fields in which the runs differ, in the order of the config.

    What is logged, and how often, changes no result and does not count.
    """
    fields: dict[str, None] = {}
    for run in runs:
        fields |= dict.fromkeys(name for name in run.config if not name.startswith("log."))
    several = []
    for field in fields:
        values = {json.dumps(run.config.get(field), sort_keys=True, default=str) for run in runs}
        if len(values) > 1:
            several.append(field)
    return several


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted fields; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _walk(folder: Path) -> Iterator[Run]:
    """Yield the runs in `folder`, in the order of their names; nothing inside a run is one."""
    if any((folder / mark).is_file() for mark in _MARKS):
        yield Run(folder)
        return
    if folder.is_dir():
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _walk(child)


def _load(path: Path) -> Any:
    """Read a JSON or YAML file; None when it is missing or broken."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _finite(value: Any) -> bool:
    """Whether it is a number, and a finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
