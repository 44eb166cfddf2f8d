"""TSMixup over the rows of a batch."""

import jax
import numpy as np

from tsmjax.data.synthetic.mixing import mixed


def run(context, target, share=0.999, seed=0):
    found = mixed(jax.random.key(seed), np.float32(context), np.float32(target), share)
    return tuple(map(np.asarray, found))


def test_mixtures_are_convex_sums_of_scaled_windows():
    # Constant windows are one after scaling, so their mixtures are as they were.
    levels = np.asarray([2.0, 50.0, 1000.0, 7.0])[:, None]
    context, target = run(levels * np.ones((4, 12)), levels * np.ones((4, 5)))
    np.testing.assert_allclose(context, levels * np.ones((4, 12)), rtol=1e-5)
    np.testing.assert_allclose(target, levels * np.ones((4, 5)), rtol=1e-5)


def test_about_two_thirds_of_the_rows_chosen_have_parts_of_other_rows():
    rng = np.random.default_rng(0)
    context, target = rng.normal(size=(3000, 8)), rng.normal(size=(3000, 3))
    found, after = run(context, target, share=0.5)
    changed = ~np.isclose(found, context, rtol=1e-4).all(axis=1)
    assert 0.28 < changed.mean() < 0.38  # half of the rows, of which a third has one window alone
    assert np.array_equal(changed, ~np.isclose(after, target, rtol=1e-4).all(axis=1))
    np.testing.assert_array_equal(found[~changed], np.float32(context)[~changed])


def test_what_one_window_misses_the_mixture_misses():
    rng = np.random.default_rng(1)
    context, target = rng.normal(size=(400, 10)), rng.normal(size=(400, 4))
    context[:200, :6] = np.nan  # short pasts
    target[::3, 2:] = np.nan
    found, after = run(context, target)
    assert np.isnan(found[:200, :6]).all() and np.isfinite(found[:, 6:]).all()
    assert np.isnan(after[::3, 2:]).all() and np.isfinite(after[:, :2]).all()
    assert 0.2 < np.isnan(found[200:, 0]).mean() < 0.7


def test_rows_without_values_change_nothing():
    context, target = np.full((6, 4), np.nan), np.ones((6, 2))
    context[0] = 0.0
    found, after = run(context, target)
    np.testing.assert_array_equal(found, np.float32(context))
    assert np.isfinite(after).all()
