"""TCM: random temporal causal models, driven autoregressively.

A directed graph of variables; each depends on the past of its parents, at lags of its own and
through linear or nonlinear functions, and on its own past. Some variables have a season of their
own from outside. Ansari et al., "Chronos-2: From Univariate to Universal Forecasting" (2025),
section 4, name such a generator; sizes and shares are our own. All functions have slopes of at most
one and the weights into a variable add up to less than one, so that every model forgets where it
began.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic import draws as draws_lib
from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, standardised

VARIABLES = 5
LAGS = 12  # longest lag
_BURN_IN = 64
FUNCTIONS = (  # of slope one at most: linear, saturating, falling again, leaky, even
    lambda x: x,
    lambda x: x / (1 + jnp.abs(x)),
    lambda x: x / (1 + x * x),
    lambda x: jnp.maximum(x, 0.2 * x),
    jnp.abs,
)


class Graph(NamedTuple):
    """A model of V variables; entry (i, j) is the influence of variable j on variable i.

    Attributes:
      weights: (V, V) float32, 0 where there is none.
      lags: (V, V) int32, 1 … `LAGS`.
      functions: (V, V) int32, numbers in `FUNCTIONS`.
    """

    weights: jax.Array
    lags: jax.Array
    functions: jax.Array


def sample(keys: jax.Array, calendars: Calendar, seasons: jax.Array) -> jax.Array:
    """Return one variable of each of many random models, (rows, length)."""

    def finish(key: jax.Array, values: jax.Array) -> jax.Array:
        draws = Draws(key, 4)
        wandering = standardised(jnp.cumsum(values))
        values = jnp.where(draws.chance(0.2), wandering, values)
        return (values + draws.normal(0.0, 4.0)) * draws.log_normal(10.0, 1.5)

    keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    nonlinear = jnp.zeros(len(seasons), bool)
    return jax.vmap(finish)(keys[0], systems(keys[1], seasons, nonlinear, VARIABLES)[:, 0])


def systems(keys: jax.Array, seasons: jax.Array, linear: jax.Array, variables: int) -> jax.Array:
    """Return all variables of random models, (rows, variables, length), of unit variance.

    Args:
      keys: (rows,).
      seasons: (rows, length), what comes from outside to some variables of each model.
      linear: (rows,) bool; True makes a vector autoregression with correlated shocks.
      variables: of each model.
    """
    graphs, inputs = jax.vmap(lambda *row: _model(*row, variables))(keys, seasons, linear)
    values = drive(graphs, inputs)[..., _BURN_IN:]
    return jax.vmap(jax.vmap(standardised))(values)


def drive(graphs: Graph, inputs: jax.Array) -> jax.Array:
    """Run models forward.

    Rows come last inside the loop, so that its small operations are done for many rows at once.

    Args:
      graphs: of (rows,) models.
      inputs: (rows, variables, length), what comes to each variable from outside.

    Returns:
      (rows, variables, length).
    """
    weights, lags, functions = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), graphs)
    at_lag = lags == jnp.arange(1, LAGS + 1)[:, None, None, None]  # (lag, to, from, row)
    rows, variables, _ = inputs.shape

    def step(past: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = jnp.sum(jnp.where(at_lag, past[:, None], 0.0), axis=0)  # (to, from, row)
        images = jax.lax.select_n(functions, *(function(seen) for function in FUNCTIONS))
        value = jnp.sum(weights * images, axis=1) + now
        return jnp.concatenate([value[None], past[:-1]]), value

    start = jnp.zeros((LAGS, variables, rows))
    _, values = jax.lax.scan(step, start, jnp.transpose(inputs, (2, 1, 0)))
    return jnp.transpose(values, (2, 1, 0))


def _model(
    key: jax.Array, season: jax.Array, all_linear: jax.Array, variables: int
) -> tuple[Graph, jax.Array]:
    """Return a random graph, and what comes from outside, (variables, burn-in + length)."""
    draw_key, noise_key = jax.random.split(key)
    square, column = (variables, variables), (variables, 1)
    draws = Draws(draw_key, 6 * variables**2 + 5 * variables + 3)
    own = jnp.eye(variables, dtype=bool)
    linked = (draws.uniform(shape=square) < draws.uniform(0.15, 0.6)) | own
    weights = draws.normal(shape=square) * linked
    weights = jnp.where(own, jnp.abs(weights) * draws.log_uniform(0.3, 3.0), weights)
    total = jnp.abs(weights).sum(axis=1, keepdims=True)
    weights = weights / total * draws.uniform(0.3, 0.97, column)
    # Half of the lags are short. A variable remembers its last value, at least.
    lags = jnp.floor((LAGS + 1) ** draws.uniform(shape=square)).astype(jnp.int32)
    lags = jnp.where(own, 1, jnp.clip(lags, 1, LAGS))
    linear = own | all_linear | (draws.uniform(shape=square) < 0.4)
    functions = jnp.where(linear, 0, draws.integer(0, len(FUNCTIONS), square))

    size = draws.log_uniform(0.05, 1.0) * draws.log_normal(1.0, 0.6, column)
    heavy = draws.uniform(shape=column) < 0.2
    shocks = draws_lib.noise(noise_key, variables * (_BURN_IN + len(season)), jnp.bool_(False))
    shocks = shocks.reshape(variables, -1)
    shocks = jnp.where(heavy, jnp.clip(shocks**3 / jnp.sqrt(15.0), -8, 8), shocks)
    mixing = own + 0.7 * draws.normal(shape=square) * all_linear
    shocks = mixing @ shocks
    driven = (draws.uniform(shape=column) < 0.35) * draws.log_normal(0.7, 0.6, column)
    inputs = size * shocks + driven * jnp.pad(season, (_BURN_IN, 0))
    return Graph(weights, lags, functions), inputs
