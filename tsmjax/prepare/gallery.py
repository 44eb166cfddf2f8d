"""Draw pictures of what is generated: series, groups, realism and mixtures, on one page.

For example:
  python -m tsmjax.prepare gallery --dst pictures --seed 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from tsmjax.data.cache import beside
from tsmjax.data.synthetic import (
    arma,
    blocks,
    calendar,
    corpus,
    draws,
    ets,
    kernel_synth,
    kernels,
    mixing,
    multivariate,
    realism,
    seasons,
    structural,
    tsi,
    tsmixup,
)
from tsmjax.data.synthetic.draws import Draws, standardised
from tsmjax.errors import InputError

_LENGTH, _SHORTEST = 384, 72
_COLUMNS = 4
_LINE, _BEFORE = "#1f4e79", "#b9b9b9"
_ROLES = {
    multivariate.TARGET: ("target", "#1f4e79"),
    multivariate.PAST: ("past-only covariate", "#c05a00"),
    multivariate.KNOWN: ("known covariate", "#2e7d32"),
}


class Panel(NamedTuple):
    """One small plot.

    Attributes:
      title: above it.
      values: (length,), NaN where missing.
      before: (length,) the same series before something was done to it, in grey.
      color: of the line.
    """

    title: str
    values: np.ndarray
    before: np.ndarray | None = None
    color: str = _LINE


class Picture(NamedTuple):
    """One file of the gallery.

    Attributes:
      title: heading on the page.
      caption: below it, one or two sentences.
      panels: function of the key that makes the plots, row by row.
      columns: plots beside each other.
    """

    title: str
    caption: str
    panels: Callable[[jax.Array], Sequence[Panel]]
    columns: int = _COLUMNS


def run(arguments: list[str]) -> None:
    """Write the pictures and their page.

    Raises:
      InputError: when the folder holds something else, or --seed is negative.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.prepare gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dst", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=tuple(PICTURES), help=", ".join(PICTURES)
    )
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}, but must be at least 0.")
    if options.dst.exists() and not options.dst.is_dir():
        raise InputError(f"{options.dst} is a file: choose another --dst.")
    options.dst.mkdir(parents=True, exist_ok=True)
    names = options.only or tuple(PICTURES)
    for name in track(names, "Drawing", console=Console(stderr=True), transient=True):
        _save(PICTURES[name], jax.random.key(options.seed), options.dst / f"{name}.png")
    with beside(options.dst / "index.md") as unfinished:
        unfinished.write_text(_page(names, options.seed))
    Console().print(f"{options.dst / 'index.md'}: {len(names)} pictures.", markup=False)


def _page(names: Sequence[str], seed: int) -> str:
    parts = [
        "# Generated series\n",
        f"Drawn by `python -m tsmjax.prepare gallery --seed {seed}`; every plot has a scale of its "
        "own.\n",
    ]
    for name in names:
        picture = PICTURES[name]
        parts.append(f"## {picture.title}\n\n{picture.caption}\n\n![{picture.title}]({name}.png)\n")
    return "\n".join(parts)


def _save(picture: Picture, key: jax.Array, path: Path) -> None:
    panels = picture.panels(key)
    rows = -(-len(panels) // picture.columns)
    figure = Figure(figsize=(9, 1.05 * rows), layout="constrained")
    grid = figure.subplots(rows, picture.columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid, panels, strict=False):
        _plot(axes, panel)
    with beside(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=80, pil_kwargs={"optimize": True})


def _plot(axes: Axes, panel: Panel) -> None:
    if panel.before is not None:
        axes.plot(panel.before, color=_BEFORE, linewidth=0.7)
    # A lone value between two gaps has no line: it gets a point.
    known = np.isfinite(panel.values)
    alone = known & ~np.r_[False, known[:-1]] & ~np.r_[known[1:], False]
    axes.plot(panel.values, color=panel.color, linewidth=0.7)
    axes.plot(np.flatnonzero(alone), panel.values[alone], ".", color=panel.color, markersize=1)
    axes.set_title(panel.title, fontsize=7, pad=2)
    axes.set_xticks([])
    axes.tick_params(labelsize=5, length=1.5, pad=1)
    axes.yaxis.get_offset_text().set_fontsize(5)
    axes.locator_params(axis="y", nbins=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _clocks(key: jax.Array, count: int) -> calendar.Calendar:
    keys = jax.random.split(key, count)
    return jax.jit(jax.vmap(lambda k: calendar.draw(k, _LENGTH, _SHORTEST)))(keys)


def _names(clocks: calendar.Calendar) -> list[str]:
    rows = zip(np.asarray(clocks.frequency), np.asarray(clocks.used), strict=True)
    return [f"{calendar.NAMES[number]}, {used} steps" for number, used in rows]


def _generator(name: str) -> Callable[[jax.Array], list[Panel]]:
    """Return the plots of 12 series of a generator, as it makes them."""

    def panels(key: jax.Array) -> list[Panel]:
        keys = jax.random.split(key, 3)
        clocks = _clocks(keys[0], 12)
        share = tuple(int(name == other) for other in blocks.GENERATORS)
        made = jax.jit(lambda k: blocks.univariate(k, clocks, share))(keys[1])
        rows = zip(_names(clocks), np.asarray(made), np.asarray(clocks.used), strict=True)
        return [Panel(title, values[-used:]) for title, values, used in rows]

    return panels


def _ets(key: jax.Array) -> list[Panel]:
    """Trends in columns, seasons in rows; errors take turns."""
    forms = [
        ((row + column) % 2, column, row)
        for row in range(len(ets.SEASONS))
        for column in range(len(ets.TRENDS))
    ]
    frequency = calendar.FREQUENCIES["MS"]
    time = jnp.arange(180.0)
    clock = calendar.Calendar(
        jnp.int32(calendar.NAMES.index("MS")),
        jnp.int32(180),
        0.0,
        jnp.asarray(frequency.periods),
        time,
        time / 179,
    )
    made = jax.jit(jax.vmap(lambda k, form: ets.path(k, Draws(k, 80), ets.Form(*form), clock)))(
        jax.random.split(key, len(forms)), tuple(jnp.asarray(forms).T)
    )
    titles = [f"{ets.ERRORS[e]}, {ets.TRENDS[t]}, {ets.SEASONS[s]}" for e, t, s in forms]
    return [Panel(title, values) for title, values in zip(titles, np.asarray(made), strict=True)]


_KERNELS = ("constant", "white {:g}", "dot {:g}", "RBF {:g}", "RQ {:g}", "period {:g}")


def _kernels(key: jax.Array) -> list[Panel]:
    """Some kernels alone, then composites."""
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    chosen = [[2], [4], [6], [9], [12], [18]]
    chosen += [random.choice(33, count).tolist() for count in (2, 2, 3, 3, 4, 5)]
    products = [random.random(kernel_synth.MAX_KERNELS) < 0.5 for _ in chosen]
    padded = [(entries + [0] * kernel_synth.MAX_KERNELS)[: kernel_synth.MAX_KERNELS]
              for entries in chosen]  # fmt: skip
    made = jax.jit(jax.vmap(lambda k, c, p, n: kernels.process(k, c, p, n, _LENGTH)))(
        jax.random.split(key, len(chosen)),
        jnp.asarray(padded),
        jnp.asarray(products),
        jnp.asarray([len(entries) for entries in chosen]),
    )
    titles = []
    for entries, product in zip(chosen, products, strict=True):
        title = ""
        for place, entry in enumerate(entries):
            kind, parameter = kernels.BANK[entry]
            sign = ("", " × " if product[place] else " + ")[place > 0]
            title += sign + _KERNELS[int(kind)].format(parameter)
        titles.append(title if len(title) < 35 else title[:33] + " …")
    return [Panel(title, values) for title, values in zip(titles, np.asarray(made), strict=True)]


def _on_the_host(key: jax.Array) -> list[Panel]:
    """Rows of the generators in NumPy."""
    seed = _seed(key)
    plots = [Panel(f"tsi {n}", tsi.sample(seed, n, _SHORTEST, _LENGTH)) for n in range(8)]
    return plots + [
        Panel(f"kernel_synth {n}", kernel_synth.sample(seed, n, _LENGTH)) for n in range(8)
    ]


def _seed(key: jax.Array) -> int:
    return int(jax.random.key_data(key)[-1])


def _seasons(key: jax.Array) -> list[Panel]:
    clocks = _clocks(key, 12)
    made = jax.jit(jax.vmap(seasons.seasonal))(jax.random.split(key, 12), clocks)
    rows = zip(_names(clocks), np.asarray(made), np.asarray(clocks.used), strict=True)
    return [Panel(title, values[-used:]) for title, values, used in rows]


def _realism(key: jax.Array) -> list[Panel]:
    """Of 24 draws of each operation the one that changes most and the median one."""
    time = jnp.arange(_LENGTH)
    noise = draws.noise(key, _LENGTH, jnp.bool_(False))
    wave = 10 + 2 * jnp.sin(2 * jnp.pi * time / 96) + 0.3 * noise
    mean, spread = wave.mean(), wave.std()

    def gaps(key: jax.Array, taken: Draws) -> jax.Array:
        return jnp.where(realism.missing(key, _LENGTH, _LENGTH, 1.0), jnp.nan, wave)

    def unrest(key: jax.Array, taken: Draws) -> jax.Array:
        walk = jnp.cumsum(jax.random.normal(key, (_LENGTH,)))
        size = jnp.exp(taken.uniform(0.05, 0.1) * (walk - walk.mean()))
        return wave + 0.3 * (size - 1) * noise

    operations = {
        "level shifts": lambda k, d: realism.level_shifts(d, wave, spread, _LENGTH),
        "outliers": lambda k, d: realism.outliers(k, d, wave, spread),
        "clipped": lambda k, d: realism.clipped(d, wave, mean, spread),
        "quantised": lambda k, d: realism.quantised(d, wave, spread),
        "missing": gaps,
        "changing variance": unrest,
    }
    panels = []
    for name, operation in operations.items():
        made = jax.jit(jax.vmap(lambda k, f=operation: f(k, Draws(k, 32))))(
            jax.random.split(key, 24)
        )
        change = np.asarray(jnp.abs(jnp.nan_to_num(made) - wave).sum(axis=1))
        # A gap would not be seen on the series without it.
        before = None if name == "missing" else np.asarray(wave)
        panels += [Panel(name, np.asarray(made[at]), before) for at in np.argsort(change)[[-1, 12]]]
    return panels


def _counts(key: jax.Array) -> list[Panel]:
    rate = jnp.exp(jnp.sin(2 * jnp.pi * jnp.arange(_LENGTH) / 96))

    def one(key: jax.Array) -> jax.Array:
        return structural.counts(jax.random.split(key, 3), Draws(key, 8), rate)

    made = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, 8)))
    return [Panel(f"{(row == 0).mean():.0%} zeros", row) for row in made]


def _dependence(name: str) -> Callable[[jax.Array], list[Panel]]:
    """Return the plots of three groups, a column each: mixed roles, targets, known covariates."""

    def panels(key: jax.Array) -> list[Panel]:
        keys = jax.random.split(key, 4)
        roles = _groups(keys[0])
        series = jax.vmap(jax.vmap(standardised))(_bases(keys[1]))
        used = jnp.full(3, _LENGTH)
        pattern = series[:, 0]
        made = blocks.RULES[name](jax.random.split(keys[2], 3), roles, series, used, pattern)
        kind, follows = np.asarray(roles.kind), np.asarray(roles.follows)
        plots = []
        for variate, group in np.ndindex(kind.shape[1], 3):
            role, color = _ROLES[int(kind[group, variate])]
            side = ", follows" if follows[group, variate] else ", leads"
            title = role if name in ("cointegrated", "sequential") else role + side
            plots.append(Panel(title, np.asarray(made[group, variate]), color=color))
        return plots

    return panels


def _groups(key: jax.Array) -> multivariate.Roles:
    """Return roles of three groups of four: all roles, targets only, one target and known ones."""
    drawn = jax.jit(jax.vmap(lambda k: multivariate.roles(k, 4)))(jax.random.split(key, 2000))
    kind, follows = np.asarray(drawn.kind), np.asarray(drawn.follows)
    target, past, known = multivariate.TARGET, multivariate.PAST, multivariate.KNOWN
    wanted = ([target, past, known, known], [target] * 4, [target, known, known, known])
    found = [np.flatnonzero((kind == row).all(axis=1) & follows[:, 0])[0] for row in wanted]
    return jax.tree.map(lambda leaf: leaf[np.asarray(found)], drawn)


def _bases(key: jax.Array) -> jax.Array:
    """Return 3 × 4 series that the rules combine: autoregressive, some of them with a season."""

    def one(key: jax.Array, number: jax.Array) -> jax.Array:
        values = arma.autoregressive(key, Draws(key, 8), _LENGTH)
        wave = jnp.sin(2 * jnp.pi * jnp.arange(_LENGTH) / (24 + 12 * number))
        return jnp.where(number % 2 == 0, jnp.cumsum(values), wave + 0.3 * values)

    keys = jax.random.split(key, (3, 4))
    return jax.jit(jax.vmap(jax.vmap(one), in_axes=(0, None)))(keys, jnp.arange(4))


def _items(key: jax.Array) -> list[Panel]:
    """Finished groups, one a row: dressed, with gaps and everything else."""
    parameters = corpus.DEFAULTS | {"min_length": _SHORTEST, "max_length": _LENGTH}
    parameters |= {"variates": _COLUMNS, "seed": _seed(key)}
    plots = []
    for item in corpus.items(0, **parameters):
        if sum(map(len, item)) < _COLUMNS:
            continue
        for values, (role, color) in zip(item, _ROLES.values(), strict=True):
            plots += [Panel(f"{role}, {len(row)} steps", row, color=color) for row in values]
        if len(plots) >= 5 * _COLUMNS:
            return plots
    return plots


def _mixup(key: jax.Array) -> list[Panel]:
    """Mixtures of whole series, then of the windows of a batch (the window before in grey)."""
    seed = _seed(key)
    series = [tsi.sample(seed, n, 2 * _LENGTH, 2 * _LENGTH) for n in range(40)]
    random = np.random.default_rng(seed)
    plots = [Panel("of series", tsmixup.mix(series, random, _SHORTEST, _LENGTH)) for _ in range(4)]
    windows = jnp.stack([values[: _LENGTH + 1] for values in series if len(values) > _LENGTH])
    context, _ = mixing.mixed(key, windows[:, :-1], windows[:, -1:], 1.0)
    changed = ~np.isclose(context, windows[:, :-1], rtol=1e-3).all(axis=1)
    return plots + [
        Panel("in a batch", np.asarray(context[row]), np.asarray(windows[row, :-1]))
        for row in np.flatnonzero(changed)[:4]
    ]


PICTURES = {
    "structural": Picture(
        "structural (TSI)",
        "Trend, seasons of a calendar and an irregular part, added or multiplied, or as counts.",
        _generator("structural"),
    ),
    "seasons": Picture(
        "Seasons",
        "What the generators take as seasons: days in weeks, years, holidays, drifting heights.",
        _seasons,
    ),
    "arima": Picture(
        "arima", "ARIMA with a seasonal part, of both signs or positive.", _generator("arima")
    ),
    "ets": Picture(
        "ets",
        "Exponential smoothing, 15 of its 30 forms: error, trend (columns), season (rows); A is "
        "added, M multiplied, d damped, N none.",
        _ets,
        len(ets.TRENDS),
    ),
    "kernels": Picture(
        "kernels", "Gaussian processes by random features: kernels alone, and joined.", _kernels
    ),
    "tcm": Picture(
        "tcm", "One variable of each of 12 random temporal causal models.", _generator("tcm")
    ),
    "growth": Picture("growth", "Running totals, and what they add up.", _generator("growth")),
    "counts": Picture(
        "Counts", "Poisson counts of one rate: frequent, rare, with idle steps.", _counts
    ),
    "realism": Picture(
        "Realism",
        "The strongest and the median of 24 draws of each operation; in grey the series before it.",
        _realism,
    ),
    "host": Picture(
        "tsi and kernel_synth", "The generators in NumPy, for `embedded:` paths.", _on_the_host
    ),
    "mixup": Picture(
        "TSMixup",
        "Convex sums of up to three series; in a batch, the window before it in grey.",
        _mixup,
    ),
    **{
        name: Picture(f"Dependence: {name.replace('_', '-')}", caption, _dependence(name), 3)
        for name, caption in {
            "linear": "Followers are linear mixtures of leaders. A column is a group.",
            "nonlinear": "Followers are nonlinear functions of mixtures of leaders.",
            "lead_lag": "Followers repeat mixtures of leaders some steps later.",
            "cointegrated": "All share one or two random walks and stay within some distance.",
            "sequential": "Vector autoregressions (outer columns) and causal models (middle).",
        }.items()
    },
    "groups": Picture(
        "Finished groups",
        "Items of `generated:corpus?variates=4`, one a row: covariates that became flags or "
        "levels, gaps, shifts.",
        _items,
    ),
}
