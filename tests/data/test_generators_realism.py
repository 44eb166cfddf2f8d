"""What befalls generated series: each alone does what its name says, and each is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.data.synthetic import realism
from tsmjax.data.synthetic.draws import Draws

LENGTH, ROWS = 400, 500
KEYS = jax.random.split(jax.random.key(0), ROWS)
WAVE = jnp.sin(jnp.arange(LENGTH) * 0.7) * 3 + 10
SPREAD, MEAN = jnp.std(WAVE), jnp.mean(WAVE)


def rows_of(function):
    """Return what `function` (key, draws) makes of the wave, (ROWS, LENGTH)."""
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, Draws(key, 32))))(KEYS))


@pytest.mark.parametrize("used", [LENGTH, 40])
def test_level_shifts_fall_into_the_series(used):
    found = rows_of(lambda k, d: realism.level_shifts(d, WAVE, SPREAD, used)) - np.asarray(WAVE)
    jumps = np.abs(np.diff(found, axis=1)) > 1e-3
    assert not jumps[:, : max(0, LENGTH - used - 1)].any()
    inside = jumps[:, LENGTH - used :].sum(axis=1)
    assert inside.max() <= 6 and (inside > 0).mean() > 0.9
    # Most levels stay; some return to what they were.
    back = (inside >= 2) & (np.abs(found[:, -1]) < 1e-3)
    assert 0.02 < back.mean() < 0.4


def test_outliers_are_few_and_large():
    found = rows_of(lambda k, d: realism.outliers(k, d, WAVE, SPREAD)) - np.asarray(WAVE)
    hit = found != 0
    assert 0.002 < hit.mean() < 0.03 and hit.mean(axis=1).max() < 0.08
    size = np.abs(found[hit]) / float(SPREAD)
    assert 1.5 < np.median(size) < 4 and size.max() > 6
    signs = [np.sign(row[row != 0]).sum() / max(1, (row != 0).sum()) for row in found]
    several = np.asarray(signs)[hit.sum(axis=1) >= 5]
    assert (several == 1).mean() > 0.15 and (several == -1).mean() > 0.03
    assert (np.abs(several) < 1).mean() > 0.3


def test_clipped_series_rest_on_a_limit():
    found = rows_of(lambda k, d: realism.clipped(d, WAVE, MEAN, SPREAD))
    wave = np.asarray(WAVE)
    floor = (found >= wave).all(axis=1) & (found > wave).any(axis=1)
    ceiling = (found <= wave).all(axis=1) & (found < wave).any(axis=1)
    assert (floor ^ ceiling).all() and 0.6 < floor.mean() < 0.8
    for row in found:
        changed = row != wave
        assert len(np.unique(row[changed])) == 1 and 0.02 < changed.mean() < 0.7


def test_quantised_series_have_few_levels():
    found = rows_of(lambda k, d: realism.quantised(d, WAVE, SPREAD))
    off = np.abs(found - np.asarray(WAVE))
    levels = np.asarray([np.unique(row.round(5)) for row in found], dtype=object)
    steps = np.asarray([np.diff(row).min() for row in levels]) / float(SPREAD)
    assert steps.min() < 0.03 and steps.max() > 0.4 and (steps < 0.52).all()
    for row, level, step in zip(off, levels, steps, strict=True):
        assert row.max() <= step * float(SPREAD) * 0.51
        multiples = np.diff(level) / (step * float(SPREAD))
        np.testing.assert_allclose(multiples, multiples.round(), atol=0.02)


@pytest.mark.parametrize("used", [LENGTH, 60])
def test_missing_steps_are_scattered_or_in_blocks(used):
    found = rows_of(lambda k, d: realism.missing(k, LENGTH, used, 1.0))[:, LENGTH - used :]
    share = found.mean(axis=1)
    assert share.max() < 0.6 and (share > 0).mean() > 0.7
    runs = np.asarray([np.diff(np.flatnonzero(np.diff(np.r_[0, row, 0])))[::2].max(initial=0)
                       for row in found])  # fmt: skip
    if used == LENGTH:
        assert 0.25 < (runs > 10).mean() < 0.5  # four in ten are blocks, some of them short


def test_nothing_is_missing_unless_asked():
    run = jax.jit(jax.vmap(realism.missing, in_axes=(0, None, None, None)), static_argnums=1)
    assert not run(KEYS, LENGTH, LENGTH, 0.0).any()
    share = np.asarray(run(KEYS, LENGTH, LENGTH, 0.3)).any(axis=1).mean()
    assert 0.2 < share < 0.36


def test_everything_is_drawn_in_its_share_and_most_series_pass():
    run = jax.jit(jax.vmap(realism.realistic, in_axes=(0, None, None)))
    keys = jax.random.split(jax.random.key(1), 2000)
    wave = np.asarray(WAVE)
    found = np.asarray(run(keys, WAVE, LENGTH))
    assert np.isfinite(found).all() and (found >= 0).all()  # what was positive stays positive
    changed = (found != wave).mean(axis=1)
    # 0.93 · 0.88 · 0.95 · 0.9 of the series keep all of their values.
    assert (changed == 0).mean() == pytest.approx(0.7, abs=0.04)
    assert ((changed > 0) & (changed < 0.06)).mean() == pytest.approx(0.1, abs=0.03)  # outliers
    few = np.asarray([len(np.unique(row)) < LENGTH * 0.6 for row in found])
    assert few.mean() > 0.05
    counts = np.asarray(run(keys, jnp.round(WAVE), LENGTH))
    whole = (counts == counts.round()).all(axis=1)
    assert whole.mean() > 0.85  # all but the quantised and the clipped
