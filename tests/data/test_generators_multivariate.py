"""Groups of series: every role is drawn, and every kind of dependence is what its name says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.data.synthetic import multivariate, tcm
from tsmjax.data.synthetic.multivariate import EMPTY, KNOWN, PAST, TARGET, Roles

VARIATES, LENGTH, GROUPS = 4, 600, 200
KEYS = jax.random.split(jax.random.key(0), GROUPS)
# The last two follow the first two.
FOLLOWS = np.asarray([False, False, True, True])
ROLE = Roles(jnp.full(VARIATES, TARGET), jnp.asarray(FOLLOWS))


def white(seed=0):
    return np.random.default_rng(seed).normal(size=(GROUPS, VARIATES, LENGTH)).astype(np.float32)


def walks(seed=0):
    paths = np.cumsum(white(seed), axis=2)
    return (paths - paths.mean(2, keepdims=True)) / paths.std(2, keepdims=True)


def run(rule, series, *rest):
    def one(key, row):
        return rule(key, ROLE, row, *rest)

    return np.asarray(jax.jit(jax.vmap(one))(KEYS, series))


def residual(values, causes):
    """Return what regressions on `causes`, (groups, causes, length), leave of (groups, length)."""
    values, causes = (
        np.float64(x) - np.float64(x).mean(-1, keepdims=True) for x in (values, causes)
    )
    gram = causes @ causes.swapaxes(1, 2)
    weights = np.linalg.solve(gram, causes @ values[..., None])
    return values - (causes * weights).sum(axis=1)


def unexplained(values, causes):
    """Return the share of the variance that a regression leaves, for each group."""
    return residual(values, causes).var(axis=-1) / np.float64(values).var(axis=-1)


@functools.cache
def drawn_roles(variates):
    keys = jax.random.split(jax.random.key(1), 2000)
    found = jax.jit(jax.vmap(lambda k: multivariate.roles(k, variates)))(keys)
    return np.asarray(found.kind), np.asarray(found.follows)


@pytest.mark.parametrize("variates", [2, 3, 8])
def test_groups_have_two_variates_a_target_and_a_leader(variates):
    kind, follows = drawn_roles(variates)
    used = (kind != EMPTY).sum(axis=1)
    assert (np.bincount(used, minlength=variates + 1)[2:] > 0.8 * 2000 / (variates - 1)).all()
    assert used.min() == 2 and (kind[:, 0] == TARGET).all()
    # Targets, past-only, known, then nothing.
    order = np.where(kind == EMPTY, 9, kind)
    assert (np.diff(order, axis=1) >= 0).all()
    leads = ~follows & (kind != EMPTY)
    assert leads.any(axis=1).all() and not (follows & (kind == EMPTY)).any()


def test_all_mixtures_of_roles_are_drawn():
    kind, follows = drawn_roles(8)
    has = {role: (kind == role).any(axis=1) for role in (TARGET, PAST, KNOWN)}
    assert 0.35 < (~has[PAST] & ~has[KNOWN]).mean() < 0.55  # targets only
    assert 0.15 < (has[PAST] & ~has[KNOWN]).mean() < 0.35
    assert 0.15 < (~has[PAST] & has[KNOWN]).mean() < 0.4
    assert (has[PAST] & has[KNOWN]).mean() > 0.05
    assert ((kind == TARGET).sum(axis=1) > 1).mean() > 0.4
    covariates = (kind == PAST) | (kind == KNOWN)
    assert follows[kind == TARGET].mean() > 0.5 > 0.4 > follows[covariates].mean() > 0.1


def test_leaders_are_left_as_they_are():
    series = white()
    for rule, rest in (
        (multivariate.linear, ()),
        (multivariate.nonlinear, ()),
        (multivariate.lead_lag, (LENGTH,)),
    ):
        found = run(rule, series, *rest)
        np.testing.assert_array_equal(found[:, ~FOLLOWS], series[:, ~FOLLOWS])
        assert not np.allclose(found[:, FOLLOWS], series[:, FOLLOWS], atol=0.1)
        assert np.isfinite(found).all()


def test_linear_followers_are_sums_of_leaders_and_something_of_their_own():
    series = white()
    found = run(multivariate.linear, series)
    for follower in np.flatnonzero(FOLLOWS):
        left = unexplained(found[:, follower], series[:, ~FOLLOWS])
        assert np.median(left) < 0.1 and (left < 0.55).all()
        own = np.concatenate([series[:, ~FOLLOWS], series[:, [follower]]], axis=1)
        assert (unexplained(found[:, follower], own) < 1e-6).all()
        # The whole of a follower depends on its leaders: weights are of unit length.
        other = [name for name in np.flatnonzero(FOLLOWS) if name != follower]
        assert np.median(unexplained(found[:, follower], series[:, other])) > 0.95


def test_nonlinear_followers_are_functions_that_no_line_explains():
    series = white()
    lines, curves = (run(rule, series) for rule in (multivariate.linear, multivariate.nonlinear))
    leaders = series[:, ~FOLLOWS]
    left = [unexplained(found[:, 2], leaders) for found in (lines, curves)]
    assert (left[1] > 0.5).mean() > 0.3 and (left[1] > 0.05).mean() > (left[0] > 0.05).mean()
    # Even functions and products are explained by squares and absolute values.
    first, second = leaders[:, 0], leaders[:, 1]
    features = [first, second, first**2, second**2, first * second]
    features += [np.abs(a * first + b * second) for a, b in ((1, 0), (0, 1), (1, 1), (1, -1))]
    richer = unexplained(curves[:, 2], np.stack(features, axis=1))
    assert np.median(richer) < 0.5 * np.median(left[1])


@pytest.mark.parametrize("used", [LENGTH, 60])
def test_followers_lag_their_leaders(used):
    role = Roles(jnp.full(2, TARGET), jnp.asarray([False, True]))
    series = white(1)[:, :2]
    one = jax.vmap(lambda key, row: multivariate.lead_lag(key, role, row, used))
    found = np.asarray(jax.jit(one)(KEYS, series))
    lags = np.arange(-60, 61)
    middle = slice(100, LENGTH - 100)

    def correlation(leader, follower, lag):
        return np.corrcoef(leader[middle.start - lag : middle.stop - lag], follower[middle])[0, 1]

    peaks = np.abs([[correlation(a, b, lag) for lag in lags] for a, b in found])
    at = lags[peaks.argmax(axis=1)]
    clear = peaks.max(axis=1) > 0.7
    assert clear.mean() > 0.9
    most = min(multivariate.LONGEST_LEAD, used // 6)
    assert at[clear].min() >= 0 and most * 0.8 < at[clear].max() <= most
    # Short lags are as frequent as long ones on a logarithmic scale.
    assert 0.25 < (at[clear] <= np.sqrt(most)).mean() < 0.75
    assert (np.sort(peaks, axis=1)[:, -2] < 0.35)[clear].all()  # nothing but the peak
    # Nobody waits for the leader: the first steps move as the rest does.
    early = [
        row[1, :lag].var() / row[1].var() for row, lag in zip(found, at, strict=True) if lag > 4
    ]
    assert np.median(early) > 0.4


def dickey_fuller(values):
    """Return the t statistic of a unit root with a constant; about −2.9 is the 5 per cent point."""
    past = np.float64(values[:, :-1])
    past -= past.mean(axis=1, keepdims=True)
    change = np.diff(np.float64(values))
    size = (past**2).sum(axis=1)
    slope = (past * change).sum(axis=1) / size
    left = change - change.mean(axis=1, keepdims=True) - slope[:, None] * past
    return slope / np.sqrt(left.var(axis=1) / size)


@pytest.mark.parametrize("used", [LENGTH, 100])
def test_cointegrated_series_wander_together(used):
    one = jax.vmap(lambda key, row: multivariate.cointegrated(key, row, used))
    found = np.asarray(jax.jit(one)(KEYS, white(2)))[:, :, LENGTH - used :]
    # Two common walks at most: what they leave of the third variate is stationary.
    wandering = dickey_fuller(np.concatenate([found[:, 0], found[:, 1], found[:, 2]]))
    steady = dickey_fuller(residual(found[:, 2], found[:, :2]))
    assert np.median(steady) < -8 and (steady < -3.5).mean() > 0.9
    # The series themselves carry more noise the shorter they are; the walk is there in all.
    assert np.median(wandering) > np.median(steady) / 2
    smooth = found[:, :, : used // 10 * 10].reshape(GROUPS, VARIATES, -1, 10).mean(axis=3)
    share = smooth.var(axis=2) / found.var(axis=2)
    assert np.median(share) > 0.7
    # However short, the walks are of unit size in the series, and loadings about one.
    assert 0.8 < np.median(found.std(axis=2)) < 1.6


def test_independent_walks_are_not_cointegrated():
    # What the test above would see if every variate had a walk of its own.
    found = walks(3)
    assert np.median(dickey_fuller(residual(found[:, 2], found[:, :2]))) > -4


def test_linear_systems_are_vector_autoregressions():
    count, order = 60, tcm.LAGS
    linear = np.arange(count) % 2 == 0
    make = jax.jit(lambda *inputs: tcm.systems(*inputs, 3))
    found = np.float64(make(KEYS[:count], jnp.zeros((count, 1500)), linear))
    np.testing.assert_allclose(found.mean(axis=2), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=2), 1, atol=1e-3)
    past = np.concatenate([found[:, :, order - k : -k] for k in range(1, order + 1)], axis=1)
    own, now = past[:, ::3], found[:, :, order:]
    left = np.stack([residual(now[:, variate], past) for variate in range(3)], axis=1)
    alone = residual(now[:, 0], own).var(axis=1) / left[:, 0].var(axis=1)
    left /= left.std(axis=2, keepdims=True)
    # All lags of all variates are in the regression: nothing is left to predict.
    later = [left[:, :, k:] @ left[:, :, :-k].swapaxes(1, 2) / 1500 for k in (1, 3, 7)]
    assert np.abs(later)[:, linear].max() < 0.12
    # The past of others helps, more than 24 coefficients of nothing would.
    assert (alone > 1.05).mean() > 0.2
    # Shocks are correlated in vector autoregressions, and independent in causal models.
    shocks = np.abs(left @ left.swapaxes(1, 2) / 1500 - np.eye(3)).max(axis=(1, 2))
    assert np.median(shocks[linear]) > 0.25 and np.median(shocks[~linear]) < 0.15


def test_covariates_become_flags_and_levels_and_targets_do_not():
    wave = jnp.sin(jnp.arange(300) * 0.1) * 1.4
    dress = jax.jit(jax.vmap(multivariate.dressed, in_axes=(0, None, None)))

    def levels(role):
        found = np.asarray(dress(KEYS, jnp.int32(role), wave))
        assert np.isfinite(found).all()
        return np.asarray([len(np.unique(row)) for row in found]), found

    for role in (PAST, KNOWN):
        count, found = levels(role)
        flags = found[count <= 2]
        assert 0.15 < (count <= 2).mean() < 0.4 and set(np.unique(flags)) <= {-1.0, 0.0, 1.0}
        assert 0.05 < ((count > 2) & (count < 12)).mean() < 0.3
    count, found = levels(TARGET)
    assert (count > 100).all()
    assert (found > 0).all(axis=1).mean() > 0.2 and found.std(axis=1).max() > 100
