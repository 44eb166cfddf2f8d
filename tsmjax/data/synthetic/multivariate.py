"""Multivariatizers: how the series of a group depend on each other, and which are covariates.

Ansari et al., "Chronos-2: From Univariate to Universal Forecasting" (2025), section 4, train on
generated series with cotemporaneous and with sequential dependence; how they impose it is not
published, and what is here is our own. All functions take the series of one group, of unit size.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic.draws import Draws, choose, standardised
from tsmjax.data.synthetic.tcm import FUNCTIONS

EMPTY, TARGET, PAST, KNOWN = range(4)
LONGEST_LEAD = 48


class Roles(NamedTuple):
    """Which variates of a group are what, targets first, then past-only and known covariates.

    Attributes:
      kind: (variates,) int32 of `EMPTY`, `TARGET`, `PAST`, `KNOWN`.
      follows: (variates,) bool; made from those that do not follow.
    """

    kind: jax.Array
    follows: jax.Array


def roles(key: jax.Array, variates: int) -> Roles:
    """Draw the number of variates of a group and their roles: at least one target, two variates.

    Two groups in five have targets only, two in five one target, the rest any number.
    """
    draws = Draws(key, variates + 8)
    used = draws.integer(2, variates + 1)
    any_number = draws.integer(1, used + 1)
    targets = choose(draws.pick((0.4, 0.4, 0.2)), used, jnp.ones_like(used), any_number)
    # Covariates are all known, all unknown, or mixed.
    known = draws.integer(0, used - targets + 1)
    known = choose(draws.pick((0.3, 0.2, 0.5)), used - targets, jnp.zeros_like(used), known)
    slot = jnp.arange(variates)
    kind = jnp.where(slot < targets, TARGET, jnp.where(slot < used - known, PAST, KNOWN))
    kind = jnp.where(slot < used, kind, EMPTY)
    # Mostly covariates lead and targets follow. Somebody must lead.
    chance = jnp.where(kind == TARGET, jnp.where(targets == used, 0.6, 0.85), 0.3)
    follows = (draws.uniform(shape=(variates,)) < chance) & (kind != EMPTY)
    last = slot == used - 1
    return Roles(kind, follows & ~(last & (follows | (kind == EMPTY)).all()))


def _weights(draws: Draws, role: Roles) -> jax.Array:
    """Return (to, from) weights from leading to following variates, rows of unit length or zero.

    Takes 2 · variates² draws.
    """
    square = (len(role.kind),) * 2
    leads = ~role.follows & (role.kind != EMPTY)
    chosen = draws.uniform(shape=square) < 0.6
    # A follower that has drawn no leader takes them all.
    chosen = jnp.where((chosen & leads).any(axis=1, keepdims=True), chosen, True)
    weights = draws.normal(shape=square) * (chosen & leads & role.follows[:, None])
    length = jnp.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights / jnp.maximum(length, 1e-6)


def _blend(draws: Draws, role: Roles, series: jax.Array, common: jax.Array) -> jax.Array:
    """Return `common` with some of its own for each follower, and the leaders as they are."""
    own = draws.log_uniform(0.02, 1.0) * draws.uniform(shape=(len(series), 1))
    return jnp.where(role.follows[:, None], common + own * series, series)


def linear(key: jax.Array, role: Roles, series: jax.Array) -> jax.Array:
    """Followers are linear mixtures of leaders at the same step, (variates, length)."""
    draws = Draws(key, 2 * len(series) ** 2 + len(series) + 2)
    return _blend(draws, role, series, _weights(draws, role) @ series)


def nonlinear(key: jax.Array, role: Roles, series: jax.Array) -> jax.Array:
    """Followers are nonlinear functions of mixtures of leaders at the same step, and products."""
    draws = Draws(key, 4 * len(series) ** 2 + 5 * len(series) + 2)
    first, second = (_weights(draws, role) @ series for _ in range(2))
    kinds = draws.integer(0, len(FUNCTIONS) + 2, (len(series), 1))
    cases = [function(2 * first) for function in FUNCTIONS]
    cases += [jnp.clip(first * second, -6, 6), jnp.where(first > 0, second, -0.3 * second)]
    common = jax.lax.select_n(jnp.broadcast_to(kinds, first.shape), *cases)
    return _blend(draws, role, series, common)


def lead_lag(key: jax.Array, role: Roles, series: jax.Array, used: jax.Array) -> jax.Array:
    """Followers are mixtures of what leaders were some steps before, each lag of its own."""
    count, length = series.shape
    draws = Draws(key, 3 * count**2 + count + 2)
    weights = _weights(draws, role)
    most = jnp.clip(used / 6.0, 1.0, LONGEST_LEAD)
    lags = jnp.floor((most + 1) ** draws.uniform(shape=(count, count))).astype(jnp.int32)

    def before(leader: jax.Array, lag: jax.Array) -> jax.Array:
        # What was before the array is its beginning, backwards.
        return leader[jnp.abs(jnp.arange(length) - lag)]

    delayed = jax.vmap(jax.vmap(before), in_axes=(None, 0))(series, lags)  # (to, from, length)
    return _blend(draws, role, series, jnp.einsum("ij,ijt->it", weights, delayed))


def cointegrated(key: jax.Array, series: jax.Array, used: jax.Array) -> jax.Array:
    """All share one or two random walks, and stay within some distance of them."""
    draw_key, walk_key = jax.random.split(key)
    count, length = series.shape
    draws = Draws(draw_key, 3 * count + 3)
    walks = jnp.cumsum(jax.random.normal(walk_key, (2, length)), axis=1)
    inside = jnp.arange(length) >= length - used
    walks = jax.vmap(standardised, in_axes=(0, None))(walks, inside)
    loading = draws.normal(1.0, 0.5, (count, 2)) * jnp.stack([jnp.ones(()), draws.chance(0.4)])
    return loading @ walks + draws.log_uniform(0.05, 0.6) * draws.uniform(shape=(count, 1)) * series


def dressed(key: jax.Array, kind: jax.Array, values: jax.Array) -> jax.Array:
    """Return one variate in units of its own; some covariates become flags or few levels.

    Args:
      key: of this variate.
      kind: scalar, its role.
      values: (length,), of about unit size.
    """
    draws = Draws(key, 10)
    covariate = (kind == PAST) | (kind == KNOWN)
    flag = (values > draws.uniform(-0.5, 1.8)).astype(jnp.float32)
    levels = jnp.round(values * draws.uniform(0.5, 2.0))
    form = draws.pick((0.6, 0.25, 0.15)) * covariate
    positive = jnp.exp(jnp.clip(draws.log_normal(0.3, 0.6) * values, -8, 8))
    plain = jnp.where(draws.chance(0.3), positive, values + draws.normal(0.0, 4.0))
    plain = plain * draws.log_normal(30.0, 2.0)
    return choose(form, plain, flag, levels)
