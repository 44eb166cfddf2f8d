"""`results.json` and `results.txt`: what a run came to."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tsmjax.monitor.line import duration
from tsmjax.monitor.logs import as_text


def write(run: str | Path, outcome: dict[str, Any]) -> str:
    """Write the two files into `run`, each beside its target and renamed, and return the text.

    Args:
      run: the run folder.
      outcome: any JSON values. Those known here get a place in the text: `run`, `step`,
        `best_step`, `metric`, `best` and `test` (score dicts), `parameters`,
        `trained_parameters`, `seconds`, `stopped_early`. Numbers that are not finite become null.
    """
    text = as_text(table(outcome))
    _replace(Path(run) / "results.json", json.dumps(_plain(outcome), indent=2) + "\n")
    _replace(Path(run) / "results.txt", text)
    return text


def table(outcome: dict[str, Any]) -> Group:
    """Return the renderable summary of `outcome`: the facts, then one row a score."""
    facts = Table(title=str(outcome.get("run", "")), title_justify="left", show_header=False)
    facts.add_column("what")
    facts.add_column("value")
    for label, value in _facts(outcome):
        facts.add_row(label, value)
    best, test = outcome.get("best") or {}, outcome.get("test") or {}
    if not (best or test):
        return Group(facts, Text("No scores: the run had no evaluation."))
    scores = Table(title="scores (* decides what is best)", title_justify="left")
    scores.add_column("score")
    for name in ("validation", "test"):
        scores.add_column(name, justify="right")
    for name in {**best, **test}:
        mark = " *" if name == outcome.get("metric") else ""
        scores.add_row(name + mark, _score(best.get(name)), _score(test.get(name)))
    return Group(facts, scores)


def _facts(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for key, label in (("step", "last step"), ("best_step", "best step")):
        if outcome.get(key) is not None:
            facts.append((label, f"{outcome[key]:,}"))
    if outcome.get("metric"):
        facts.append(("metric", str(outcome["metric"])))
    if outcome.get("parameters") is not None:
        trained = outcome.get("trained_parameters", outcome["parameters"])
        facts.append(("parameters", f"{outcome['parameters']:,} ({trained:,} trained)"))
    if outcome.get("seconds") is not None:
        facts.append(("wall time", duration(outcome["seconds"])))
    if outcome.get("stopped_early"):
        facts.append(("stopped early", str(outcome["stopped_early"])))
    return facts


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def _plain(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by null."""
    if isinstance(value, dict):
        return {str(name): _plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
