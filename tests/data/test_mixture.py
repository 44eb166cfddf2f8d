"""Mixtures: exact shares, exact ordinals, any place at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmjax.data.mixture import Mixture
from tsmjax.errors import InputError

weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(weights, st.integers(0, 2**31), st.integers(0, 10**6))
def test_counts_are_exact_and_never_off_by_one(shares, seed, blocks):
    mixture = Mixture(shares, seed)
    counts = mixture.counts(blocks)
    wanted = blocks * mixture.block * np.asarray(shares) / np.sum(shares)
    assert counts.sum() == blocks * mixture.block
    assert (np.abs(counts - wanted) < 1).all()
    assert (mixture.counts(blocks + 1) >= counts).all()


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=6), st.integers(0, 2**31))
def test_ordinals_of_each_source_count_up_without_a_hole(shares, seed):
    mixture = Mixture(shares, seed)
    source, ordinal = mixture.locate(np.arange(3 * mixture.block))
    for number in range(len(shares)):
        mine = ordinal[source == number]
        assert np.array_equal(mine, np.arange(len(mine)))


def test_a_draw_does_not_depend_on_what_was_asked_before():
    mixture = Mixture([1, 2, 3], seed=4)
    source, ordinal = mixture.locate(np.arange(1000))
    some = np.asarray([999, 3, 500])
    assert np.array_equal(mixture.locate(some), (source[some], ordinal[some]))


def test_the_order_is_shuffled_and_seeded():
    first, _ = Mixture([1, 1], 0).locate(np.arange(64))
    other, _ = Mixture([1, 1], 1).locate(np.arange(64))
    assert not np.array_equal(first, other)
    assert 20 < np.abs(np.diff(first)).sum() < 44  # neither in runs nor alternating


def test_every_block_has_its_own_order():
    source, _ = Mixture([1, 1], 0).locate(np.arange(128))
    assert not np.array_equal(source[:64], source[64:])


def test_a_place_far_away_costs_nothing():
    source, ordinal = Mixture([0.9, 0.1], 0).locate(np.asarray([10**13]))
    share = [0.9, 0.1][source[0]]
    assert abs(ordinal[0] / 10**13 - share) < 1e-9


@pytest.mark.parametrize("shares", [[1, 0], [1, -1], [1, float("nan")], [1, 1e-9]])
def test_weights_that_cannot_be_kept(shares):
    with pytest.raises(InputError, match="weight"):
        Mixture(shares, 0)


def test_what_was_drawn_is_what_the_draws_were():
    mixture = Mixture([0.7, 0.2, 0.1], seed=5)
    for first, last in ((0, 0), (0, 7), (3, 1000), (5000, 12345)):
        source, _ = mixture.locate(np.arange(first, last))
        assert mixture.drawn(first, last).tolist() == np.bincount(source, minlength=3).tolist()
