"""Sweeps over variants of one config file: a row and a bar a variant, as they were named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from tsmjax.config import find_module, resolve
from tsmjax.errors import InputError
from tsmjax.experiments.records import Run
from tsmjax.monitor import plots
from tsmjax.monitor.line import duration


def table(runs: Mapping[str, Run], metric: str | None, title: str) -> Table:
    """Lay the variants out: scores of the best checkpoint, parameters, multiply-adds, time."""
    laid = Table(title=title, title_justify="left")
    headings = (
        "variant",
        "what",
        metric or "score",
        "test",
        "parameters",
        "GMAC",
        "time",
        "status",
    )
    for heading in headings:
        laid.add_column(heading, justify="left" if heading in ("variant", "what") else "right")
    for variant, run in runs.items():
        test = (run.results.get("test") or {}).get(metric)
        parameters, seconds = run.results.get("parameters"), run.results.get("seconds")
        laid.add_row(
            variant,
            str(run.config.get("name", "")),
            _score(run.scores.get(metric)),
            _score(test),
            "–" if parameters is None else f"{parameters:,}",
            _gmac(run),
            "–" if seconds is None else duration(seconds),
            run.status,
        )
    return laid


def plot(runs: Mapping[str, Run], metric: str | None, path: Path) -> Path | None:
    """Draw the deciding score of each variant as a bar; None when no run has one."""
    scores = {variant: run.scores.get(metric) for variant, run in runs.items()}
    if not any(score is not None for score in scores.values()):
        return None
    figure = plots.new_figure(6.0, 0.8 + 0.32 * len(scores))
    axes = figure.subplots()
    places = range(len(scores))
    axes.barh(places, [score or 0.0 for score in scores.values()], color=plots.PALETTE[0])
    for place, score in enumerate(scores.values()):
        axes.text(score or 0.0, place, f" {_score(score)}", va="center", fontsize=8)
    axes.set_yticks(places, [_label(variant, runs[variant]) for variant in scores], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(metric)
    return plots.save(figure, path)


def _label(variant: str, run: Run) -> str:
    name = str(run.config.get("name", ""))
    return name if name.startswith(variant) else f"{variant} {name}".strip()


def _gmac(run: Run) -> str:
    """Multiply-adds of one row of the model, in units of 1e9, where its family counts them."""
    try:
        config = resolve(json.loads((run.path / "config.json").read_text()))
        family = find_module("models", config.family)
        return f"{family.flops(config.model, 1) / 2e9:.3f}"
    except (OSError, ValueError, InputError, AttributeError, TypeError):
        return "–"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"
