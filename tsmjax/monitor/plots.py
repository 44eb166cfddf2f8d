"""Plots of a run: example forecasts and the loss curve; Matplotlib is imported when needed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
_FORECAST, LOSS = "#1f77b4", "#d1495b"
_BANDS = ("#dbe9f4", "#b4d2e7", "#8bb9da")  # widest first
PALETTE = ("#1f77b4", "#d1495b", "#2a9d8f", "#e9a23b", "#7a5195", "#8c564b", "#17a2b8", "#6b8e23")
_DASHES = ("-", "--", ":", "-.")  # once round the palette, the next
_COVARIATES = ("#7a5195", "#2a9d8f", "#e76f51", "#8d99ae")
_HISTORY_SHOWN = 4  # horizons of history in a panel


@dataclasses.dataclass(frozen=True)
class Panel:
    """One forecast to draw.

    Attributes:
      title: heading of the panel.
      history: (T,) values before the forecast; NaN leaves a gap.
      truth: (H,) what happened; NaN where unknown, or None.
      levels: (Q,) ascending quantile levels.
      quantiles: (Q, H) forecast.
      covariates: (T + H,) values of each covariate by name; NaN where unknown, such as all of the
        last H of one that is not known ahead. They are drawn under the forecast, each in units of
        its own spread.
    """

    title: str
    history: np.ndarray
    truth: np.ndarray | None
    levels: Sequence[float]
    quantiles: np.ndarray
    covariates: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve over steps.

    Attributes:
      label: its name in the legend.
      steps: (n,) ascending.
      values: (n,) finite.
      colour: of the line; None takes the next of the palette.
      faint: whether it is the raw form of another.
      log: whether its axis is logarithmic; None decides by the values.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    colour: str | None = None
    faint: bool = False
    log: bool | None = None


def draw_lines(axes: Axes, title: str, lines: Sequence[Line]) -> None:
    """Draw curves over steps; on a logarithmic axis when most of them spans over a decade."""
    style(axes)
    number = 0
    for line in lines:
        round_, index = divmod(number, len(PALETTE))
        number += line.colour is None
        axes.plot(
            line.steps,
            line.values,
            color=line.colour or PALETTE[index],
            linestyle=_DASHES[round_ % len(_DASHES)],
            marker="o" if len(line.steps) < 3 else None,
            markersize=4,
            linewidth=1.0 if line.faint else 1.8,
            alpha=0.5 if line.faint else 1.0,
            label=line.label,
        )
    values = np.concatenate([line.values for line in lines])
    log = next((line.log for line in lines if line.log is not None), None)
    if log is None:
        log = values.min() > 0 and values.max() > 10 * np.quantile(values, 0.1)
    if log:
        log_axis(axes, values)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("step", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def log_axis(axes: Axes, values: np.ndarray, decades: float = 4.0) -> None:
    """Make the y axis logarithmic, where it can be; shows the upper `decades` at most.

    A rate that rises from 0 or ends at 0 has no place for its ends on such an axis.
    """
    positive = values[values > 0]
    if not len(positive):
        return
    high = positive.max()
    low = max(positive.min(), high * 10**-decades)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.5, high * 1.5)


def fan_chart(panels: Sequence[Panel], path: str | Path, title: str = "") -> Path:
    """Draw forecasts as nested quantile bands around the median, one panel each, into a PNG."""
    columns = min(len(panels), 3) if len(panels) != 4 else 2
    rows = math.ceil(len(panels) / columns)
    strips = any(panel.covariates for panel in panels)
    height = 4.0 if strips else 3.0
    figure = new_figure(5.2 * columns, height * rows + 0.5 * bool(title) + 0.3)
    ratios = {"height_ratios": [3, 1] * rows} if strips else {}
    grid = figure.subplots(rows * (1 + strips), columns, squeeze=False, **ratios)
    fans = grid[:: 1 + strips].ravel()
    for axes, panel in zip(fans, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in fans[len(panels) :]:
        axes.axis("off")
    if strips:
        below = grid[1::2].ravel()
        for axes, fan, panel in zip(below, fans, panels, strict=False):
            if panel.covariates:
                _draw_covariates(axes, panel)
                axes.sharex(fan)
            else:
                axes.axis("off")
        for axes in below[len(panels) :]:
            axes.axis("off")
    keys = (axes.get_legend_handles_labels() for axes in fans)
    handles, labels = max(keys, key=lambda key: len(key[1]))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )
    if title:
        figure.suptitle(title, fontsize=13, color=INK)
    return save(figure, path)


def loss_curve(rows: Sequence[dict[str, Any]], path: str | Path) -> Path | None:
    """Draw loss, its running average and the learning rate over steps into a PNG.

    Args:
      rows: rows of `metrics.jsonl`; those without a loss (scores, a skipped step) leave a gap.
      path: the file to write.

    Returns:
      `path`, or None when no row has a loss.
    """
    rows = [row for row in rows if "loss" in row]
    if not rows:
        return None
    steps = np.array([row["step"] for row in rows])
    loss, average, rate = (_column(rows, name) for name in ("loss", "loss_ema", "learning_rate"))
    figure = new_figure(8.0, 4.2)
    axes = figure.subplots()
    style(axes)
    marker = "o" if len(rows) < 3 else None
    axes.plot(steps, loss, color=LOSS, alpha=0.35, linewidth=1.0, marker=marker, label="loss")
    axes.plot(steps, average, color=LOSS, linewidth=2.0, label="running average")
    finite = loss[np.isfinite(loss)]
    if len(finite) and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    handles, labels = axes.get_legend_handles_labels()
    if np.isfinite(rate).any():
        right = axes.twinx()
        right.plot(steps, rate, color=MUTED, linewidth=1.2, linestyle="--", label="learning rate")
        right.set_ylabel("learning rate", color=MUTED)
        log_axis(right, rate)
        right.tick_params(which="both", colors=MUTED, labelsize=8, length=0)
        right.spines[:].set_visible(False)
        extra, names = right.get_legend_handles_labels()
        handles, labels = handles + extra, labels + names
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9
    )
    return save(figure, path)


def sweep(
    rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, suggestion: float, path: str | Path
) -> Path:
    """Draw losses (n,), and their running mean, over learning rates, and the suggested one."""
    figure = new_figure(8.0, 4.2)
    axes = figure.subplots()
    style(axes)
    axes.plot(rates, losses, color=LOSS, alpha=0.35, linewidth=1.0, label="loss")
    axes.plot(rates, smooth, color=LOSS, linewidth=2.0, label="running mean")
    axes.axvline(suggestion, color=INK, linewidth=1.0, linestyle=":", label=f"{suggestion:.2g}")
    axes.set_xscale("log")
    low, high = smooth.min(), max(losses[0], smooth.max())
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def confusion_matrix(
    counts: np.ndarray, labels: Sequence[str], path: str | Path, title: str = ""
) -> Path:
    """Draw rows by class (down) and predicted class (across), as shares of each class.

    Args:
      counts: (classes, classes) rows by class and predicted class.
      labels: names of the classes.
      path: PNG to write.
      title: heading.
    """
    counts = np.asarray(counts, np.float64)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros_like(counts), where=rows > 0)
    size = max(4.0, 0.55 * len(labels) + 2.2)
    figure = new_figure(size + 0.6, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            text = f"{100 * shares[row, column]:.0f}\n{counts[row, column]:,.0f}"
            colour = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    places = np.arange(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    figure.colorbar(image, ax=axes, fraction=0.04, label="share of the true class")
    if title:
        axes.set_title(f"{title}: percent and rows of each class", fontsize=10, color=INK)
    return save(figure, path)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    horizon = panel.quantiles.shape[-1]
    history = panel.history[-_shown(horizon) :]
    past = np.arange(1 - len(history), 1)
    future = np.arange(1, horizon + 1)
    style(axes)
    axes.plot(past, history, color=INK, linewidth=1.1, label="history")

    # The forecast is drawn from the last observed value, so that bands grow out of the history.
    joined = len(history) > 0 and np.isfinite(history[-1])
    steps = np.concatenate([[0], future]) if joined else future

    def curve(values: np.ndarray) -> np.ndarray:
        return np.concatenate([history[-1:], values]) if joined else values

    levels = np.asarray(panel.levels, np.float64)
    pairs = [(low, _opposite(levels, low)) for low in range(len(levels)) if levels[low] < 0.49]
    pairs = [(low, high) for low, high in pairs if high is not None]
    # A few nested bands read better than ten.
    chosen = pairs[:: max(1, math.ceil(len(pairs) / len(_BANDS)))]
    for shade, (low, high) in enumerate(chosen):
        axes.fill_between(
            steps,
            curve(panel.quantiles[low]),
            curve(panel.quantiles[high]),
            color=_BANDS[shade],
            linewidth=0,
            label=f"{levels[low] * 100:.0f}–{levels[high] * 100:.0f} %",
        )
    median = int(np.argmin(np.abs(levels - 0.5)))
    axes.plot(steps, curve(panel.quantiles[median]), color=_FORECAST, linewidth=1.8, label="median")
    if panel.truth is not None:
        axes.plot(steps, curve(panel.truth), color=INK, linewidth=1.1, linestyle=":", label="truth")
    axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_title(panel.title, fontsize=10, color=INK, loc="left")
    axes.margins(x=0.01)


def _draw_covariates(axes: Axes, panel: Panel) -> None:
    horizon = panel.quantiles.shape[-1]
    style(axes)
    for number, (name, values) in enumerate(panel.covariates.items()):
        values = np.asarray(values, np.float64)[-_shown(horizon) - horizon :]
        steps = np.arange(1 - len(values), 1) + horizon
        spread = np.nanstd(values)
        axes.plot(
            steps,
            (values - np.nanmean(values)) / (spread if spread > 0 else 1.0),
            color=_COVARIATES[number % len(_COVARIATES)],
            linewidth=1.0,
            label=name,
        )
    axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_yticks([])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))  # room for the names
    axes.legend(loc="upper left", ncols=4, frameon=False, fontsize=7, borderpad=0)


def _shown(horizon: int) -> int:
    """Steps of history in a panel."""
    return max(_HISTORY_SHOWN * horizon, 24)


def _opposite(levels: np.ndarray, low: int) -> int | None:
    """Index of the level 1 − levels[low], or None."""
    matches = np.flatnonzero(np.abs(levels - (1 - levels[low])) < 1e-6)
    return int(matches[0]) if len(matches) else None


def _column(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    values = [row.get(name) for row in rows]
    return np.array([math.nan if value is None else value for value in values], np.float64)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    # A Figure of its own canvas, not pyplot: no global state, no window, no backend to choose.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes) -> None:
    """Give axes the look of all plots."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(which="both", colors=INK, labelsize=8, length=0)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure beside `path` and rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    figure.savefig(beside, dpi=150)
    beside.replace(path)
    return path
