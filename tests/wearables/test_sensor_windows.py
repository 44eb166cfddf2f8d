"""Time grids, lower rates, windows, caps and splits by person."""

import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.wearables import recordings, splits
from tsmjax.wearables.recordings import Recording, decimated, interpolated, on_grid
from tsmjax.wearables.windows import Cutting, capped, cut, majority, stretches


def recording(labels, rate=10.0, times=None, values=None) -> Recording:
    labels = np.asarray(labels, np.int16)
    steps = np.arange(len(labels))
    times = np.round(steps * 1e9 / rate).astype(np.int64) if times is None else times
    values = np.stack([steps, -steps], axis=1) if values is None else values
    return Recording("p", times, values.astype(np.float32), labels)


def test_windows_of_the_seed_have_303_or_304_steps():
    settings = {"rate": 100.0, "seconds": 300.0, "factor": 99}
    assert Cutting(**settings).window == 303
    assert Cutting(**settings, order="window_first").window == 304
    assert Cutting(**settings).low_rate == pytest.approx(1.0101, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"factor": 10}, "window of 300 s has 3000 steps at 10 Hz, but the time-series encoder"),
        ({"factor": 99, "seconds": 0.5}, "needs two"),
        ({"factor": 0}, "downsample factor is 0"),
        ({"factor": 99, "overlap": 1.0}, "overlap is 1.0"),
        ({"factor": 99, "min_fraction": 0.0}, "minimal label fraction is 0.0"),
        ({"rate": 0.0}, "sampling rate is 0.0"),
    ],
)
def test_impossible_windows_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Cutting(**{"rate": 100.0, "seconds": 300.0, **settings})


def test_no_window_spans_a_gap_in_time():
    times = np.arange(60) * 10**8
    times[25:] += 10**9  # a second is missing
    found = cut(recording([0] * 60, times=times), Cutting(10.0, 1.0, overlap=0.5))
    assert found.starts.tolist() == [0, 5, 10, 15, 25, 30, 35, 40, 45, 50]
    assert found.times.tolist() == times[found.starts].tolist()
    joined = cut(recording([0] * 60, times=times), Cutting(10.0, 1.0, ignore_gaps=True))
    assert 20 in joined.starts  # what the published preprocessing does


def test_labels_are_counted_over_the_whole_window():
    # Six unlabelled steps, then four of class 2; then three classes.
    labels = [-1] * 6 + [2] * 4 + [0] * 4 + [1] * 4 + [-1] * 2
    found = cut(recording(labels), Cutting(10.0, 1.0, overlap=0.0, min_fraction=0.4))
    assert found.labels.tolist() == [2, 0]  # of two equal classes the lower id
    assert found.fractions.tolist() == [0.4, 0.4]
    strict = cut(recording(labels), Cutting(10.0, 1.0, overlap=0.0, min_fraction=0.5))
    assert strict.dropped == {"windows below the minimal label fraction": 2}
    none = cut(recording([-1] * 10 + [0] * 10), Cutting(10.0, 1.0, overlap=0.0))
    assert none.dropped == {"windows without a label": 1}
    np.testing.assert_array_equal(majority(np.array([3, 3, 1]), np.array([0]), 3)[0], [3])


def test_windows_within_one_activity_end_flush():
    labels = [0] * 24 + [1] * 8 + [-1] * 5 + [2] * 10
    found = cut(recording(labels), Cutting(10.0, 1.0, within="label", flush=True))
    assert found.labels.tolist() == [0, 0, 0, 0, 2]
    firsts = [found.values[start, 0] for start in found.starts]
    assert firsts == [0, 5, 10, 14, 37]
    assert (found.fractions == 1).all()
    expected = {"stretches shorter than a window": 1, "stretches without a label": 1}
    assert found.dropped == expected


@pytest.mark.parametrize("order", ["decimate_first", "window_first"])
@pytest.mark.parametrize("antialias", recordings.ANTIALIAS)
def test_a_lower_rate_has_the_same_windows_either_way(order, antialias):
    steps = np.arange(2000)
    slow = np.stack([np.sin(steps / 300), np.ones(2000)], axis=1)
    cutting = Cutting(100.0, 4.0, factor=10, antialias=antialias, order=order)
    found = cut(recording([1] * 2000, 100.0, values=slow), cutting)
    assert found.starts[1] - found.starts[0] == (20 if order == "decimate_first" else 40)
    for start, time in zip(found.starts, found.times, strict=True):
        window = found.values[start : start + cutting.window]
        at = time // 10**7 + 10 * np.arange(40)
        np.testing.assert_allclose(window[:, 0], np.sin(at / 300), atol=0.04)
        np.testing.assert_allclose(window[:, 1], 1, rtol=1e-6)


def test_antialiasing_removes_what_picking_folds_down():
    time = np.arange(4000) / 100
    fast = np.sin(2 * np.pi * 9.7 * time)[:, None]  # shows as 0.3 Hz when every tenth is picked
    slow = np.sin(2 * np.pi * 1.0 * time)[:, None]
    powers = {how: decimated(fast, 10, how)[20:-20].std() for how in recordings.ANTIALIAS}
    assert powers["none"] == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert powers["mean"] < 0.05
    assert powers["fir"] < 0.01
    np.testing.assert_allclose(decimated(slow, 10, "fir")[20:-20], slow[::10][20:-20], atol=0.02)
    assert decimated(np.arange(25.0)[:, None], 10, "mean")[:, 0].tolist() == [4.5, 14.5, 22.0]


def test_short_gaps_of_values_are_bridged_and_long_ones_break_windows():
    values = np.tile(np.arange(40.0)[:, None], 2)
    values[5:7, 0] = np.nan
    values[8, 1] = np.inf
    values[20:26, 1] = np.nan
    values[39] = np.nan
    filled = interpolated(values.astype(np.float32), 3)
    np.testing.assert_array_equal(filled[:20], np.tile(np.arange(20.0)[:, None], 2))
    assert np.isnan(filled[20:26, 1]).all()
    assert np.isnan(filled[39]).all()
    cutting = Cutting(10.0, 1.0, overlap=0.0, max_missing=0.3)
    found = cut(recording([0] * 40, values=values), cutting)
    assert found.starts.tolist() == [0, 10]
    assert found.dropped == {"windows with missing values": 2}


def test_grids_keep_exact_values_and_leave_holes():
    times = np.array([0, 50, 110, 700, 750]) * 10**6 + 1_700_000_000_000_000_000
    values = np.array([[0.0], [5.0], [11.0], [70.0], [75.0]])
    grid = times[0] + np.array([0, 50, 100, 400, 700, 750, 800]) * 10**6
    found = on_grid(times, values, grid, 0.3)[:, 0]
    np.testing.assert_allclose(found, [0, 5, 10, np.nan, 70, 75, np.nan], rtol=1e-6)


def test_stretches_are_low_rate_pieces_between_gaps():
    times = np.arange(100) * 10**8
    times[50:] += 10**10
    found = stretches(recording([0] * 100, times=times), Cutting(10.0, 2.0, factor=4))
    assert [len(part.values) for part in found] == [13, 13]
    assert found[1].times[0] == times[50]


def test_caps_share_a_class_among_persons():
    labels = np.array([0] * 60 + [1] * 50 + [2] * 4)
    groups = np.array([0] * 40 + [1] * 20 + [0] * 5 + [1] * 22 + [2] * 23 + [2] * 4)
    first = capped(labels, groups, 0.25, "first", 0)
    chosen = labels[first]
    assert np.bincount(chosen).tolist() == [15, 15, 4]
    assert [int((groups[first] == g)[chosen == 1].sum()) for g in range(3)] == [5, 5, 5]
    assert first[:8].tolist() == list(range(8))  # eight of the first person, seven of the second
    assert first[8] == 40
    random = capped(labels, groups, 0.25, "random", 0)
    assert np.bincount(labels[random]).tolist() == [15, 15, 4]
    assert random.tolist() != first.tolist()
    assert random.tolist() == capped(labels, groups, 0.25, "random", 0).tolist()
    assert len(set(random.tolist())) == len(random)
    few = np.array([0] * 3 + [1] * 57)  # the first person has less than a share
    shared = [capped(labels[:60], few, 0.5, "first", 0, refill=refill) for refill in (True, False)]
    assert [len(found) for found in shared] == [30, 18]
    with pytest.raises(InputError, match="leaves no window: the largest class has 60"):
        capped(labels, groups, 0.01, "first", 0)


def test_a_person_is_in_one_split_whatever_the_order_of_the_folder():
    names = [f"P{number:03d}" for number in range(1, 21)]
    order = splits.draw(reversed(names), None, 42)
    assert order == splits.draw(names, None, 42) != names
    found = splits.by_share(order, 75, 0.2)
    counts = [list(found.values()).count(name) for name in ("train", "validation", "test")]
    assert counts == [12, 3, 5]
    two = splits.by_share(splits.draw(names, 2, 42), 50, 0.15)
    assert sorted(two.values()) == ["test", "train"]
    assert splits.by_share(["a", "b", "c"], 67, 0.15) == {
        **{"a": "train", "b": "validation", "c": "test"}
    }
    assert sorted(["P10", "P9", "a"], key=splits.natural) == ["P9", "P10", "a"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: splits.draw(["a"], 2, 0), "2 participants are asked for, but there are 1"),
        (lambda: splits.by_share(["a"], 0, 0.1), "train/test split is 0"),
        (lambda: splits.by_share(["a"], 50, 1.0), "validation share is 1"),
        (lambda: splits.by_name(["P001"], {"test": ["P01"]}), "did you mean 'P001'"),
        (
            lambda: splits.by_name(["a", "b"], {"train": ["a"], "test": ["a"]}),
            "put into train and into test",
        ),
    ],
)
def test_impossible_splits_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
