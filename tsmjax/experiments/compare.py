"""Runs side by side: where their configs differ, what they scored, and their curves."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from tsmjax.experiments import records
from tsmjax.experiments.records import Run
from tsmjax.monitor import plots
from tsmjax.monitor.line import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 6  # scores in a table on the terminal


def rows(runs: Sequence[Run], metric: str | None) -> list[dict[str, Any]]:
    """Return one flat record a run: identity, differing config fields, scores.

    Keys come in this order: ``run``, ``status``, each differing field, the deciding metric, the
    other scores (``best/…``, ``test/…``), ``step``, ``best_step``, ``parameters``, ``seconds``.
    """
    fields = records.differences(list(runs))
    scores = list(dict.fromkeys(name for run in runs for name in run.scores))
    tests = list(dict.fromkeys(name for run in runs for name in run.results.get("test") or {}))
    found = []
    for run in runs:
        test = run.results.get("test") or {}
        row: dict[str, Any] = {"run": run.path.as_posix(), "status": run.status}
        row |= {field: run.config.get(field) for field in fields}
        row |= {f"best/{name}": run.scores.get(name) for name in _first(metric, scores)}
        row |= {f"test/{name}": test.get(name) for name in _first(metric, tests)}
        row["step"] = run.last_step
        row |= {name: run.results.get(name) for name in ("best_step", "parameters", "seconds")}
        found.append(row)
    return found


def table(runs: Sequence[Run], metric: str | None, mode: str, title: str = "") -> Table:
    """Lay out the comparison, best first; the winner is marked."""
    ordered = records.ranked(list(runs), metric, mode)
    fields = records.differences(ordered)
    # Scores over single data sets belong into the CSV file.
    scores = list(dict.fromkeys(name for run in ordered for name in run.suite_scores))
    scores = _first(metric, scores)[:_SHOWN]
    laid = Table(title=title, title_justify="left")
    laid.add_column("run", overflow="fold")
    for field in short_names(fields):
        laid.add_column(field, justify="right", overflow="fold")
    for name in scores:
        arrow = {"min": " ↓", "max": " ↑"}[mode] if name == metric else ""
        laid.add_column(name + arrow, justify="right")
    for heading in ("steps", "time", "status"):
        laid.add_column(heading, justify="right")
    for run in ordered:
        best = run is ordered[0] and metric in run.scores
        laid.add_row(
            run.name + (" *" if best else ""),
            *(shown(run.config.get(field)) for field in fields),
            *(_score(run.scores.get(name)) for name in scores),
            "–" if run.last_step is None else f"{run.last_step:,}",
            _seconds(run),
            run.status,
            style="bold" if best else None,
        )
    return laid


def overview(runs: Sequence[Run]) -> Table:
    """One row an experiment: how many runs, how they ended, and the best of them."""
    laid = Table(title=f"{len(runs)} runs", title_justify="left")
    for heading in ("experiment", "runs", "best run", "score", "last step", "ended"):
        laid.add_column(heading, overflow="fold")
    for folder, members in records.experiments(runs).items():
        metric, mode = records.deciding(members)
        best = records.ranked(members, metric, mode)[0]
        score = best.scores.get(metric) if metric else None
        states = [run.status for run in members]
        ended = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        steps = [run.last_step for run in members if run.last_step is not None]
        laid.add_row(
            folder.as_posix(),
            str(len(members)),
            best.name if score is not None else "–",
            f"{metric}={score:.5f}" if score is not None else "–",
            f"{max(steps):,}" if steps else "–",
            ended,
        )
    return laid


def write_csv(found: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Write records as CSV, beside `path` and renamed; lists and mappings become JSON."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]) if found else ["run"])
        writer.writeheader()
        for row in found:
            writer.writerow({name: _cell(value) for name, value in row.items()})
    os.replace(beside, path)
    return path


def write_history(experiment: str | Path) -> Path | None:
    """Write `run_history.csv` of the runs in one folder, oldest first; None without any."""
    runs = [run for run in _siblings(Path(experiment)) if run.config or run.results]
    if not runs:
        return None
    metric, _ = records.deciding(runs)
    found = rows(runs, metric)
    for row, run in zip(found, runs, strict=True):
        row["run"] = run.name
    return write_csv(found, Path(experiment) / "run_history.csv")


def curves(
    runs: Sequence[Run], metric: str | None, labels: Sequence[str]
) -> list[tuple[str, list[plots.Line]]]:
    """Return the training loss, and the deciding score where it was logged, of each run.

    Returns:
      (heading, curves) of each panel that has any.
    """
    wanted = {"loss, running average": ("loss_ema", "loss", "train_loss")}
    if metric:
        wanted[metric] = (metric,)
    panels = []
    for heading, names in wanted.items():
        drawn = [
            plots.Line(label, *points)
            for run, label in zip(runs, labels, strict=True)
            if (points := logged(run, names)) is not None
        ]
        if drawn:
            panels.append((heading, drawn))
    return panels


def draw(
    panels: Sequence[tuple[str, list[plots.Line]]], size: tuple[float, float] = (5.4, 3.8)
) -> Figure:
    """Draw panels of curves side by side, each of `size` inches, with one legend."""
    figure = plots.new_figure(size[0] * len(panels), size[1])
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (heading, drawn) in zip(grid, panels, strict=True):
        plots.draw_lines(axes, heading, drawn)
    handles, names = max(
        (axes.get_legend_handles_labels() for axes in grid), key=lambda pair: len(pair[1])
    )
    if len(names) > 1:
        columns = 1 if max(map(len, names)) > 30 else 3
        figure.legend(
            handles, names, loc="outside lower left", ncols=columns, frameon=False, fontsize=8
        )
    return figure


def labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the config fields that set it apart, or by its folder."""
    fields = records.differences(list(runs))
    if not 0 < len(fields) <= 4:
        return [run.name for run in runs]
    names = short_names(fields)
    return [
        ", ".join(
            f"{name}={shown(run.config.get(field))}"
            for name, field in zip(names, fields, strict=True)
        )
        for run in runs
    ]


def short_names(fields: Sequence[str]) -> list[str]:
    """Drop the section of each field unless two then have the same name."""
    last = [field.rpartition(".")[2] for field in fields]
    return [
        short if last.count(short) == 1 else field
        for short, field in zip(last, fields, strict=True)
    ]


def shown(value: Any) -> str:
    """Write a config value as short as it stays clear."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _siblings(experiment: Path) -> list[Run]:
    return [Run(folder) for folder in sorted(experiment.glob("run_*")) if folder.is_dir()]


def _first(metric: str | None, names: list[str]) -> list[str]:
    """Put the deciding metric in front."""
    return sorted(names, key=lambda name: name != metric)


def logged(run: Run, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return steps and finite values of the first of `names` that the run has logged, or None."""
    for name in names:
        points = [
            (row["step"], row[name])
            for row in run.rows
            if isinstance(row.get(name), int | float) and math.isfinite(row[name])
        ]
        if points:
            steps, values = np.array(points, np.float64).T
            return steps, values
    return None


def _cell(value: Any) -> Any:
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.5f}"


def _seconds(run: Run) -> str:
    seconds = run.results.get("seconds")
    return "–" if seconds is None else duration(seconds)
