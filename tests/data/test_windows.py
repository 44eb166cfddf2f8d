"""Windows: every one valid, every one drawn once an epoch, as often as it should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsmjax.data.windows import Windows
from tsmjax.errors import InputError


def make(lengths, sampling="series", **options):
    defaults = dict(name="demo", seed=0, horizon=8, min_past=3, min_future=1)
    return Windows(np.asarray(lengths), sampling=sampling, **(defaults | options))


lengths = st.lists(st.integers(0, 60), min_size=1, max_size=30)


@given(
    lengths,
    st.sampled_from(["series", "windows"]),
    st.integers(1, 10),
    st.integers(1, 10),
    st.integers(1, 16),
    st.integers(1, 16),
    st.integers(0, 5),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_every_window_is_valid(
    lengths, sampling, min_past, min_future, longest, drawn, holdout, stride, seed
):
    needed = min_past + min_future + holdout
    lengths = [*lengths, needed]
    windows = make(
        lengths,
        sampling,
        min_past=min_past,
        min_future=min_future,
        horizon=longest,
        holdout=holdout,
        stride=stride,
        seed=seed,
    )
    series, cuts = windows.locate(np.arange(2 * windows.size), min(drawn, longest))
    usable = np.asarray(lengths)[series] - holdout
    assert (cuts >= min_past).all()
    # The drawn horizon fits, or nothing but the least past is given.
    assert ((usable - cuts >= min(drawn, longest)) | (cuts == min_past)).all()
    assert (usable - cuts >= 1).all()
    valid = {i for i, length in enumerate(lengths) if length >= needed}
    assert set(series.tolist()) == valid


def test_an_epoch_has_every_series_once_in_a_new_order():
    windows = make([20] * 50)
    first, _ = windows.locate(np.arange(50), 8)
    second, _ = windows.locate(np.arange(50, 100), 8)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)


def test_cuts_are_uniform_and_shorter_horizons_reach_further():
    windows = make([20])
    _, cuts = windows.locate(np.arange(13_000), 8)
    counts = np.bincount(cuts)
    assert counts[:3].sum() == 0 and len(counts) == 13  # 3 … 20 − 8
    assert (np.abs(counts[3:] - 1300) < 200).all()
    _, cuts = windows.locate(np.arange(1000), 2)
    assert cuts.max() == 18


def test_windows_sampling_has_every_cut_once():
    windows = make([20, 5, 9, 30], "windows", stride=3)
    series, cuts = windows.locate(np.arange(windows.size), 8)
    found = sorted(zip(series.tolist(), cuts.tolist(), strict=True))
    expected = []
    for number, length in enumerate([20, 5, 9, 30]):
        last = length - min(8, length - 3)
        expected += [(number, cut) for cut in range(last, 2, -3)]
    assert found == sorted(expected)


def test_series_sampling_ignores_length_and_windows_sampling_does_not():
    lengths = [11, 1010]
    series, _ = make(lengths).locate(np.arange(1000), 8)
    assert (series == 0).sum() == 500
    series, _ = make(lengths, "windows").locate(np.arange(1001), 8)
    assert (series == 0).sum() == 1


def test_a_known_least_length_spares_looking():
    class Untouched:
        def __len__(self):
            return 7

        def __ge__(self, other):
            raise AssertionError("lengths were read")

    windows = Windows(
        Untouched(),
        name="demo",
        sampling="series",
        seed=0,
        horizon=8,
        min_past=3,
        min_future=1,
        min_length=4,
    )
    assert windows.size == 7


def test_all_too_short():
    with pytest.raises(InputError) as caught:
        make([5, 9], min_past=10, min_future=2, holdout=3)
    message = str(caught.value)
    assert "demo" in message and "9 steps" in message and "15 are needed" in message
    assert "min_past=10" in message and "holdout=3" in message
