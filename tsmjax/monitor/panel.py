"""The health report as a boxed panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tsmjax.monitor import line
from tsmjax.monitor.health import Report, falls

_SPARKS = "▁▂▃▄▅▆▇█"
_WIDTH = 40  # of a sparkline
_BAR = 24  # of a memory bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_TRENDS = {"falling": "green", "flat": "yellow", "RISING": "bold red", "": "dim"}


def panel(report: Report) -> Panel:
    """Lay out a report."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(ratio=1)
    for label, text in _lines(report):
        grid.add_row(label, text)
    parts: list = [grid]
    if report.findings:
        parts.append(Rule(style="dim"))
        parts += [Text(f"! {finding}", style="bold red") for finding in report.findings]
    parts.append(Rule(style="dim"))
    parts.append(Text.assemble(("limited by ", "bold"), report.limit))
    done = report.step / max(report.total_steps, 1)
    title = f"health · step {report.step:,} of {report.total_steps:,} ({100 * done:.1f} %)"
    style = "red" if report.findings else "cyan"
    return Panel(
        Group(*parts), title=title, title_align="left", box=box.ROUNDED, border_style=style
    )


def _lines(report: Report) -> list[tuple[str, Text]]:
    loss, gradients, speed = report.loss, report.gradients, report.speed
    lines = [("loss", _loss(loss)), ("", _trend(loss).append(sparkline(report.losses), "cyan"))]
    facts = [f"mean {_number(gradients['mean'])}", f"max {_number(gradients['max'])}"]
    if math.isfinite(gradients["clipped"]):
        facts.append(f"clipped {_percent(gradients['clipped'])}")
    facts.append(f"{gradients['skipped_in_all']:,} steps not finite")
    facts.append(f"{gradients['explosions']:,} explosions")
    lines.append(("gradient", _join(facts)))
    rate = report.rate
    text = f"{rate['newest']:.2e} · peak {rate['peak']:.2e}  " if report.rates else "–"
    lines.append(("rate", Text(text).append(sparkline(report.rates, 24), "cyan")))
    lines += _memory(report)
    facts = [
        f"{line.rate(speed['steps'])} steps/s",
        f"{speed['samples']:,.0f} samples/s",
        f"p50 {_seconds(speed['p50'])}",
        f"p95 {_seconds(speed['p95'])}",
    ]
    if math.isfinite(speed["tokens"]):
        facts.insert(2, f"{_count(speed['tokens'])} tokens/s")
    lines.append(("speed", _join([*facts, f"ETA {line.duration(speed['eta'])}"])))
    facts = []
    if math.isfinite(speed["flops"]):
        facts.append(f"{_flops(speed['flops'])} a device")
    if math.isfinite(speed["mfu"]):
        facts.append(f"MFU {_percent(speed['mfu'])}")
    if math.isfinite(report.gpu):
        facts.append(f"GPU busy {_percent(report.gpu)}")
    if facts:
        lines.append(("", _join(facts)))
    shares = report.shares
    stepping = shares.get("step", 0.0) + shares.get("input", 0.0)
    waits = shares.get("input", 0.0) / stepping if stepping else 0.0
    facts = [f"waits {_percent(waits)} of a step", f"reads {report.reads / 2**20:.1f} MB/s"]
    lines.append(("data", _join(facts)))
    if report.mixture:
        drawn = [f"{name} {100 * share:.1f} %" for name, share in report.mixture.items()]
        lines.append(("", _join(["drawn: " + drawn[0], *drawn[1:]])))
    if report.skipped:
        left = [f"{name} {n:,} of {of:,}" for name, (n, of) in report.skipped.items()]
        lines.append(("", _join(["too short to be drawn: " + left[0], *left[1:]])))
    if report.scores:
        lines.append(("score", _scores(report.scores)))
    lines.append(("time", _join([f"{k} {_percent(v)}" for k, v in shares.items() if v >= 5e-4])))
    free = f"{report.disk_free / 2**30:,.1f} GB of disk free"
    lines.append(("", _join([f"goodput since the start {_percent(report.goodput)}", free])))
    return lines


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw finite values as blocks of eight heights, evenly picked when there are too many."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = high - low

    def block(value: float) -> str:
        if not math.isfinite(value):
            return " "
        return _SPARKS[min(int((value - low) / span * len(_SPARKS)), 7)] if span else _SPARKS[0]

    return "".join(map(block, values))


def bar(share: float, width: int = _BAR) -> str:
    """Draw a share of a whole."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return drawn.ljust(width, "░")


def _loss(loss: Mapping[str, float]) -> Text:
    names = ("fast", "slow", "best", "spread")
    shown = [f"{name} {line.loss(loss[name])}" for name in names if math.isfinite(loss[name])]
    return _join([line.loss(loss["newest"]), *shown])


def _trend(loss: Mapping[str, float]) -> Text:
    trend = falls(loss)
    if not trend:
        return Text()
    change = f"{trend} {100 * loss['change']:+.1f} % in {loss['over']:,} steps"
    return Text.assemble((change, _TRENDS[trend]), f" · {loss['per_1k']:+.3g} per 1K  ")


def _memory(report: Report) -> list[tuple[str, Text]]:
    memory, host = report.memory, report.host
    share = memory.used / memory.total
    style = "red" if share > 0.95 else "yellow" if share > 0.85 else "green"
    where = "device" if memory.peak else "host"
    text = Text(f"{where} {memory}  ").append(bar(share), style).append(f" {_percent(share)}")
    if memory.peak:
        text.append(f" · peak {memory.peak / 2**30:.1f}GB · host {host}")
    return [("memory", text)]


def _scores(scores: Mapping[str, float]) -> Text:
    text = Text(f"{scores['score']:.5f} at step {scores['step']:,}")
    if "best" in scores:
        best = scores["best_step"] == scores["step"]
        text.append(" · ").append(
            "the best so far"
            if best
            else f"best {scores['best']:.5f} at step {scores['best_step']:,}",
            "green" if best else "",
        )
    return text


def _join(facts: Sequence[str]) -> Text:
    return Text(" · ".join(facts))


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.2e}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.995 else f"{100 * share:.0f} %"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.1f}ms" if value < 1 else f"{value:.2f}s"


def _count(value: float) -> str:
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"


def _flops(value: float) -> str:
    return f"{value / 1e12:.1f} TFLOP/s" if value >= 1e12 else f"{value / 1e9:.1f} GFLOP/s"
