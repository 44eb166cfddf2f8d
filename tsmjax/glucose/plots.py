"""Error grids as pictures: predicted against reference glucose, over the zones of clinical risk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsmjax.errors import InputError
from tsmjax.glucose.metrics import ZONES, clarke_zones, parkes_zones, to_mg, to_mmol, zone_shares
from tsmjax.monitor.plots import INK, MUTED, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = ("#e3f1e4", "#f4f3d7", "#fbe6c8", "#f6d0c5", "#e8bcc4")
_STRONG = ("#2e7d32", "#8a8417", "#d98200", "#d1495b", "#7a1f3d")
_PIXELS = 600
_HIGHEST = {"clarke": 400.0, "parkes": 550.0}  # mg/dL, the sides of the published grids


def clarke_grid(
    reference: np.ndarray, predicted: np.ndarray, path: str | Path, title: str = ""
) -> Path:
    """Draw the Clarke error grid of readings in mg/dL into a PNG; missing values are left out."""
    return _draw(reference, predicted, path, title or "Clarke error grid", clarke_zones, "clarke")


def parkes_grid(
    reference: np.ndarray,
    predicted: np.ndarray,
    path: str | Path,
    title: str = "",
    diabetes: int = 1,
) -> Path:
    """Draw the consensus error grid of readings in mg/dL into a PNG; missing values are left out.

    Args:
      reference: what was measured.
      predicted: what was forecast, of the same shape.
      path: the file to write.
      title: heading.
      diabetes: 1 or 2, the type.
    """
    return _draw(
        reference,
        predicted,
        path,
        title or f"Parkes error grid, type {diabetes} diabetes",
        lambda x, y: parkes_zones(x, y, diabetes),
        "parkes",
    )


def _draw(
    reference: np.ndarray,
    predicted: np.ndarray,
    path: str | Path,
    title: str,
    zones_of: Callable,
    grid: str,
) -> Path:
    x, y = (np.ravel(np.asarray(values, np.float64)) for values in (reference, predicted))
    if x.shape != y.shape:
        raise InputError(f"There are {len(x)} reference and {len(y)} predicted values: pair them.")
    zones = zones_of(x, y)
    if not (zones >= 0).any():
        raise InputError("No pair of reference and predicted glucose is complete: nothing to draw.")
    highest = max(_HIGHEST[grid], 50 * np.ceil(max(np.nanmax(x), np.nanmax(y)) / 50))
    figure = new_figure(7.0, 6.8)
    axes = figure.subplots()
    style(axes)
    axes.grid(visible=False)
    _draw_zones(axes, zones_of, highest)
    axes.plot([0, highest], [0, highest], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    shares = zone_shares(zones)
    alpha = float(np.clip(400 / len(x), 0.15, 0.8))
    for number, letter in enumerate(ZONES):
        chosen = zones == number
        axes.scatter(
            x[chosen], y[chosen], s=7, color=_STRONG[number], alpha=alpha, linewidth=0, zorder=3
        )
        label = f"{letter}  {shares[letter] * 100:.1f} %"
        axes.scatter([], [], s=28, color=_STRONG[number], linewidth=0, label=label)
    axes.set(xlim=(0, highest), ylim=(0, highest), aspect="equal")
    axes.set_xlabel("reference glucose, mg/dL")
    axes.set_ylabel("predicted glucose, mg/dL")
    for side in ("top", "right"):
        make = axes.secondary_xaxis if side == "top" else axes.secondary_yaxis
        other = make(side, functions=(to_mmol, to_mg))
        other.tick_params(colors=MUTED, labelsize=8, length=0)
        other.spines[:].set_visible(False)
        other.set(**{"xlabel" if side == "top" else "ylabel": "mmol/L"})
    figure.suptitle(f"{title}, {(zones >= 0).sum():,} points", fontsize=12, color=INK)
    figure.legend(loc="outside lower center", ncols=len(ZONES), frameon=False, fontsize=9)
    return save(figure, path)


def _draw_zones(axes: Axes, zones_of: Callable, highest: float) -> None:
    """Fill the zones as the metric tells them, and put their letters in."""
    from matplotlib.colors import ListedColormap

    centres = (np.arange(_PIXELS) + 0.5) * highest / _PIXELS
    x, y = np.meshgrid(centres, centres)
    zones = zones_of(x, y)
    corners = (0, highest, 0, highest)
    axes.imshow(
        zones,
        **{"origin": "lower", "extent": corners, "interpolation": "nearest"},
        **{"cmap": ListedColormap(_PALE), "vmin": 0, "vmax": len(ZONES) - 1},
    )
    for number in range(len(ZONES)):
        axes.contour(x, y, zones == number, levels=[0.5], colors="white", linewidths=0.8)
    for number, letter in enumerate(ZONES):
        sides = [x == x] if number == 0 else [y > x, y < x]
        for side in sides:
            inside = (zones == number) & side
            if not inside.any():
                continue
            # The middle of the zone, or the point of it that is nearest to it.
            middle = x[inside].mean(), y[inside].mean()
            distance = (x[inside] - middle[0]) ** 2 + (y[inside] - middle[1]) ** 2
            nearest = distance.argmin()
            axes.text(
                x[inside][nearest],
                y[inside][nearest],
                letter,
                **{"color": _STRONG[number], "fontsize": 15, "fontweight": "bold"},
                **{"ha": "center", "va": "center", "zorder": 4, "alpha": 0.9},
            )
