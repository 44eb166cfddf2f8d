"""`report.html` of a run, and of several runs side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsmjax.experiments import compare, records
from tsmjax.experiments.records import Run
from tsmjax.monitor import page, plots
from tsmjax.monitor.line import duration
from tsmjax.monitor.page import Page, text
from tsmjax.monitor.plots import Line

_PANEL = (4.4, 3.1)  # inches: small, so that its text is large on the page
_TAIL = 40  # lines of an error log
_HEALTH = {
    "health/goodput": ("goodput", 100, ".1f", " %"),
    "health/step_p50_ms": ("p50", 1, ".1f", " ms"),
    "health/step_p95_ms": ("p95", 1, ".1f", " ms"),
    "health/share_input": ("input", 100, ".1f", " %"),
    "health/grad_norm_mean": ("gradient", 1, ".3g", ""),
    "health/grad_norm_max": ("largest", 1, ".3g", ""),
    "health/clipped_share": ("clipped", 100, ".1f", " %"),
    "health/explosions": ("explosions", 1, ".0f", ""),
    "health/tokens_per_second": ("tokens/s", 1, ",.0f", ""),
    "health/gpu_busy": ("GPU busy", 100, ".0f", " %"),
    "health/tflops_per_device": ("GFLOP/s a device", 1000, ",.1f", ""),
    "health/mfu": ("MFU", 100, ".1f", " %"),
}


def write_run(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of one run: scores, curves, health, time, plots, config, provenance.

    Args:
      folder: the run folder.
      output: the file to write; `report.html` in the folder when None.
    """
    run = Run(Path(folder))
    made = Page(_named(run.path), _subtitle(run))
    made.tiles(_facts(run))
    findings = run.results.get("findings") or []
    if findings:
        items = "".join(
            f"<li>step {one['step']:,}: {text(one['finding'])}</li>" for one in findings
        )
        made.add(f'<ul class="card found">{items}</ul>')
    if run.status == "failed":
        lines = (run.path / "logs" / "error.log").read_text(errors="replace").splitlines()
        made.heading("Why it failed")
        made.add(f'<pre class="card">{text(chr(10).join(lines[-_TAIL:]))}</pre>')
    drawn = [_draw(heading, lines) for heading, lines in _curves(run)]
    if drawn:
        made.heading("Curves")
        made.cards(drawn)
    _add_scores(made, run)
    _add_time(made, run)
    pictures = [p for p in sorted((run.path / "plots").glob("*.png")) if p.name != "loss.png"]
    if pictures:
        made.heading("Plots")
        made.add("".join(f'<div class="card">{page.image(path)}</div>' for path in pictures))
    made.heading("How it was made")
    settings = [[text(k), text(compare.shown(v))] for k, v in run.config.items()]
    made.add(page.folded("config", page.table(("", ""), settings, name="config", long=True)))
    try:
        origin = json.loads((run.path / "provenance.json").read_text())
        made.add(page.folded("provenance", f"<pre>{text(json.dumps(origin, indent=2))}</pre>"))
    except (OSError, ValueError):
        pass
    return made.write(output or run.path / "report.html")


def write_comparison(
    runs: Sequence[Run], metric: str | None, mode: str, output: str | Path
) -> Path:
    """Write the page of several runs: where they differ, what they scored, their curves."""
    output = Path(output)
    ordered = records.ranked(list(runs), metric, mode)
    best = ordered[0] if metric in ordered[0].scores else None
    declared = f"best by {metric} ({mode})" if metric else "no common score"
    common = os.path.commonpath([run.path.absolute() for run in ordered])
    made = Page(f"{len(ordered)} runs of {_named(Path(common))}", declared)
    if best:
        made.tiles([("best run", best.name, "good"), (str(metric), _score(best, metric), "")])
    fields = records.differences(ordered)
    scores = list(dict.fromkeys(name for run in ordered for name in run.suite_scores))
    scores = sorted(scores, key=lambda name: name != metric)
    head = ["run", *compare.short_names(fields), *scores, "steps", "time", "status"]
    rows = []
    for run in ordered:
        seconds = run.results.get("seconds")
        rows.append(
            [
                _link(run, output),
                *(text(compare.shown(run.config.get(field))) for field in fields),
                *(_score(run, name) for name in scores),
                "–" if run.last_step is None else f"{run.last_step:,}",
                "–" if seconds is None else duration(seconds),
                run.status,
            ]
        )
    made.heading("Runs")
    made.add(page.table(head, rows, name="runs", best=0 if best else None))
    panels = compare.curves(ordered, metric, compare.labels(ordered))
    if panels:
        made.heading("Curves")
        made.cards([_draw(heading, lines) for heading, lines in panels])
    every = list(dict.fromkeys(name for run in ordered for name in run.scores))
    if len(every) > len(scores):
        rows = [[text(name), *(_score(run, name) for run in ordered)] for name in every]
        head = ["score", *(run.name for run in ordered)]
        made.heading("All scores")
        made.add(page.folded(f"{len(every)} scores", page.table(head, rows, name="scores")))
    return made.write(output)


def _named(folder: Path) -> str:
    """The last three folders of a path: model, experiment, run."""
    return "/".join(folder.absolute().relative_to(folder.absolute().anchor).parts[-3:])


def _subtitle(run: Run) -> str:
    parts = [run.status]
    if run.last_step is not None:
        parts.append(f"{run.last_step:,} steps")
    if run.results.get("stopped_early"):
        parts.append(f"stopped early: {run.results['stopped_early']}")
    return " · ".join(parts)


def _facts(run: Run) -> list[tuple[str, str, str]]:
    results, metric = run.results, run.metric
    facts = []
    if metric in run.scores:
        facts.append((f"{metric}, validation", _score(run, metric), "good"))
    test = (results.get("test") or {}).get(metric)
    if test is not None:
        facts.append((f"{metric}, test", f"{test:.5f}", "good"))
    if results.get("best_step") is not None:
        facts.append(("best step", f"{results['best_step']:,}", ""))
    losses = compare.logged(run, ("loss_ema", "loss", "train_loss"))
    if losses is not None:
        facts.append(("last loss, running average", f"{losses[1][-1]:.4g}", ""))
    if results.get("parameters") is not None:
        facts.append(("parameters", f"{results['parameters']:,}", ""))
    if results.get("seconds") is not None:
        facts.append(("wall time", duration(results["seconds"]), ""))
    if results.get("goodput") is not None:
        facts.append(("goodput", f"{100 * results['goodput']:.1f} %", ""))
    if not facts:
        facts.append(("status", run.status, "bad" if run.status == "failed" else ""))
    return facts


def _curves(run: Run) -> list[tuple[str, list[Line]]]:
    """Loss, scores, gradient norm, learning rate: whatever the run has logged."""
    found = []
    loss, average = compare.logged(run, ("loss",)), compare.logged(run, ("loss_ema",))
    lines = []
    if loss is not None:
        lines.append(Line("loss", *loss, colour=plots.LOSS, faint=average is not None))
    if average is not None:
        lines.append(Line("running average", *average, colour=plots.LOSS))
    if lines:
        found.append(("loss", lines))
    suites = run.suite_scores or ({run.metric: 0.0} if run.metric else {})
    for name in sorted(suites, key=lambda name: name != run.metric)[:3]:
        points = compare.logged(run, (name,))
        if points is not None:
            found.append((name, [Line(name, *points)]))
    for name, heading in (("grad_norm", "gradient norm"), ("learning_rate", "learning rate")):
        points = compare.logged(run, (name,))
        if points is not None:
            # A schedule passes through decades, whatever share of the run it spends in each.
            log = True if name == "learning_rate" else None
            found.append((heading, [Line(heading, *points, log=log)]))
    return found


def _add_scores(made: Page, run: Run) -> None:
    best, test = run.results.get("best") or {}, run.results.get("test") or {}
    names = list({**best, **test})
    if not names:
        return
    rows = [
        [
            text(name),
            *(
                f'<span data-score="{text(f"{split}:{name}")}">{_number(found.get(name))}</span>'
                for split, found in (("validation", best), ("test", test))
            ),
        ]
        for name in names
    ]
    # The score that decides stands out, as the winner of a comparison does.
    deciding = names.index(run.metric) if run.metric in names else None
    head = ("score", "validation", "test")
    made.heading("Scores")
    made.add(page.table(head, rows, name="scores", best=deciding))


def _add_time(made: Page, run: Run) -> None:
    """Where the time went, and what each health report said."""
    seconds = run.results.get("time") or {}
    total = sum(seconds.values())
    if total:
        made.heading("Time")
        parts = [(kind, value / total) for kind, value in seconds.items() if value > 0]
        made.add(f'<div class="card">{page.shares(parts)}</div>')
    reports = [row for row in run.rows if any(name in row for name in _HEALTH)]
    if reports:
        shown = {n: how for n, how in _HEALTH.items() if any(n in row for row in reports)}
        rows = [
            [f"{row['step']:,}", *(_health(row.get(name), *how[1:]) for name, how in shown.items())]
            for row in reports
        ]
        made.heading("Health reports")
        head = ("step", *(how[0] for how in shown.values()))
        made.add(page.table(head, rows, name="health"))


def _draw(heading: str, lines: list[Line]) -> str:
    return page.svg(compare.draw([(heading, lines)], _PANEL))


def _link(run: Run, output: Path) -> str:
    """Name of a run, linked to its page when there is one."""
    target = run.path / "report.html"
    if not target.exists() or target.absolute() == output.absolute():
        return text(run.name)
    href = Path(os.path.relpath(target.absolute(), output.absolute().parent)).as_posix()
    return f'<a href="{text(href)}">{text(run.name)}</a>'


def _score(run: Run, name: str | None) -> str:
    return _number(run.scores.get(name) if name else None)


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.5f}"


def _health(value: float | None, factor: float, form: str, unit: str) -> str:
    return "–" if value is None else f"{factor * value:{form}}{unit}"
