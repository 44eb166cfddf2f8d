"""Counter-based randomness: bijective, uniform, and the same for ever."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tsmjax.data.counter import below, mix, permute


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 2**31))
def test_permutations_are_bijective(size, seed, epoch):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed, epoch)), np.arange(size))


def test_permutation_of_millions_needs_no_table():
    size = 10**12 + 39
    some = np.random.default_rng(0).integers(0, size, 1000)
    images = permute(some, size, 7)
    assert len(np.unique(images)) == len(np.unique(some)) and images.max() < size
    assert abs(images.mean() / size - 0.5) < 0.05


def test_each_element_has_its_own_key():
    together = permute(np.arange(6) % 3, 3, 5, np.arange(6) // 3)
    apart = np.concatenate([permute(np.arange(3), 3, 5, epoch) for epoch in (0, 1)])
    assert np.array_equal(together, apart)


def test_all_orders_of_three_are_equally_likely():
    keys = np.arange(6000)[:, None]
    orders = permute(np.broadcast_to(np.arange(3), (6000, 3)), 3, keys)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (np.abs(counts - 1000) < 150).all()  # five standard deviations


def test_neighbouring_places_do_not_stay_neighbours():
    images = permute(np.arange(10_000), 10_000, 1)
    assert abs(np.corrcoef(images[:-1], images[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(images, permute(np.arange(10_000), 10_000, 2))[0, 1]) < 0.05


def test_draws_are_uniform_and_below_the_limit():
    draws = below(np.full(60_000, 6), 3, np.arange(60_000))
    counts = np.bincount(draws)
    assert len(counts) == 6 and (np.abs(counts - 10_000) < 500).all()


def test_order_and_number_of_words_matter():
    assert len({int(mix(1, 2)), int(mix(2, 1)), int(mix(1, 2, 0)), int(mix(0, 1, 2))}) == 4


def test_values_never_change():
    # A run that is continued by a later version must see the same data.
    assert int(mix(1, 2, 3)) == 15020427595393229491
    assert permute(np.arange(8), 8, 42).tolist() == [4, 6, 2, 7, 3, 0, 5, 1]
