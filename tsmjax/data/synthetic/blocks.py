"""Blocks of generated series: one compiled function of a key, the unit of everything generated.

A block holds 1,024 series, alone or in groups. It is made at once, so that a generator's share is a
fixed number of rows and none is computed in vain, and the same way everywhere: what is written to
disk and what is made during training are the same blocks. A generator is
a function (keys, calendars, seasons) → (rows, length).
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data.synthetic import (
    arma,
    calendar,
    ets,
    kernels,
    multivariate,
    realism,
    seasons,
    structural,
    tcm,
)
from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.corpus import DEPENDENCES, SHARES
from tsmjax.data.synthetic.draws import standardised

GENERATORS = {
    "structural": jax.vmap(structural.sample),
    "arima": jax.vmap(arma.sample),
    "ets": jax.vmap(ets.sample),
    "kernels": jax.vmap(kernels.sample),
    "tcm": tcm.sample,
    "growth": jax.vmap(structural.growth_curve),
}
assert tuple(GENERATORS) == tuple(SHARES)


class Block(NamedTuple):
    """Generated items.

    Attributes:
      values: (items, variates, length) float32; a series lies at the end of its row, with NaN
        before it, and NaN where it misses values.
      roles: (items, variates) int32, what each variate is: `multivariate.EMPTY`, `TARGET`, `PAST`
        or `KNOWN`, in this order but for empty ones, which come last.
      used: (items,) int32, length of each series.
    """

    values: jax.Array
    roles: jax.Array
    used: jax.Array


@functools.partial(
    jax.jit, static_argnames=("shares", "variates", "length", "min_length", "missing", "size")
)
def block(
    key: jax.Array,
    *,
    shares: tuple[int, ...],
    variates: int = 1,
    length: int,
    min_length: int = 32,
    missing: float = 0.1,
    size: int,
) -> Block:
    """Generate one block.

    Args:
      key: of this block.
      shares: of the generators, in the order of `GENERATORS`; exact within one row a block.
      variates: most variates of an item; above 1 all items are groups of two and more.
      length: greatest length.
      min_length: least length.
      missing: share of the series that miss some of their values.
      size: number of items.
    """
    keys = iter(jax.random.split(key, 8))
    clocks = jax.vmap(lambda k: calendar.draw(k, length, min_length))(
        jax.random.split(next(keys), size)
    )
    inside = jnp.arange(length) >= length - clocks.used[:, None]
    if variates == 1:
        values = univariate(next(keys), clocks, shares)[:, None]
        kinds = jnp.full((size, 1), multivariate.TARGET)
    else:
        roles = jax.vmap(lambda k: multivariate.roles(k, variates))(
            jax.random.split(next(keys), size)
        )
        values = dependent(next(keys), clocks, roles, inside, shares)
        kinds = roles.kind
    # A part of a block has all generators and all kinds of dependence, as the whole has.
    order = jax.random.permutation(next(keys), size)
    values, kinds, inside, used = values[order], kinds[order], inside[order], clocks.used[order]

    rows = size * variates
    each = functools.partial(jnp.repeat, repeats=variates, axis=0)
    values = jax.vmap(realism.realistic)(
        jax.random.split(next(keys), rows), values.reshape(rows, length), each(used)
    )
    holes = jax.vmap(lambda k, n: realism.missing(k, length, n, missing))(
        jax.random.split(next(keys), rows), each(used)
    )
    # What is known of the future is known without gaps.
    holes = holes & (kinds.reshape(rows, 1) != multivariate.KNOWN)
    absent = holes | ~each(inside) | (kinds.reshape(rows, 1) == multivariate.EMPTY)
    values = jnp.where(absent, jnp.nan, values)
    return Block(values.reshape(size, variates, length), kinds, used)


def univariate(key: jax.Array, clocks: Calendar, shares: tuple[int, ...]) -> jax.Array:
    """Return independent series, (rows, length), in the order of their generators."""
    size = len(clocks.used)
    generator_key, season_key = jax.random.split(key)
    patterns = jax.vmap(seasons.seasonal)(jax.random.split(season_key, size), clocks)
    inputs = jax.random.split(generator_key, size), clocks, patterns
    return _in_parts(list(GENERATORS.values()), shares, inputs)


def dependent(
    key: jax.Array,
    clocks: Calendar,
    roles: multivariate.Roles,
    inside: jax.Array,
    shares: tuple[int, ...],
) -> jax.Array:
    """Return groups of series that depend on each other, (groups, variates, length)."""
    groups, variates = roles.kind.shape
    keys = jax.random.split(key, 5)
    # A series of any generator may come to any group, as long as it has the group's calendar.
    order = jax.random.permutation(keys[0], groups * variates)
    scattered = jax.tree.map(lambda leaf: leaf[order // variates], clocks)
    series = univariate(keys[1], scattered, shares)[jnp.argsort(order)]
    series = series.reshape(groups, variates, -1)
    series = jax.vmap(jax.vmap(standardised, in_axes=(0, None)))(series, inside)
    pattern = jax.vmap(seasons.seasonal)(jax.random.split(keys[2], groups), clocks)

    inputs = jax.random.split(keys[3], groups), roles, series, clocks.used, pattern
    values = _in_parts(list(RULES.values()), tuple(DEPENDENCES.values()), inputs)
    dress = jax.vmap(jax.vmap(multivariate.dressed))
    return dress(jax.random.split(keys[4], (groups, variates)), roles.kind, values)


def _systems(
    keys: jax.Array,
    roles: multivariate.Roles,
    series: jax.Array,
    used: jax.Array,
    patterns: jax.Array,
) -> jax.Array:
    linear = jnp.arange(len(keys)) % 2 == 0
    return tcm.systems(keys, patterns, linear, series.shape[1])


# Functions of (keys, roles, series, used, seasons), each with groups as the leading axis.
RULES = {
    "linear": lambda k, r, s, u, p: jax.vmap(multivariate.linear)(k, r, s),
    "nonlinear": lambda k, r, s, u, p: jax.vmap(multivariate.nonlinear)(k, r, s),
    "lead_lag": lambda k, r, s, u, p: jax.vmap(multivariate.lead_lag)(k, r, s, u),
    "cointegrated": lambda k, r, s, u, p: jax.vmap(multivariate.cointegrated)(k, s, u),
    "sequential": _systems,
}
assert tuple(RULES) == tuple(DEPENDENCES)


def _in_parts(functions: list, shares: tuple[int, ...], inputs: tuple) -> jax.Array:
    """Apply each function to its share of the leading rows of all inputs."""
    rows = len(inputs[0])
    edges = np.round(np.cumsum([0, *shares]) / sum(shares) * rows).astype(int)
    parts = []
    for function, low, high in zip(functions, edges[:-1], edges[1:], strict=True):
        mine = jax.tree.map(operator.itemgetter(slice(low, high)), inputs)
        if low < high:
            parts.append(function(*mine))
    return jnp.concatenate(parts)
