"""Tables of readings become windows: rates, gaps, persons, labels, refusals."""

import numpy as np
import pandas as pd
import pytest

from tsmjax.errors import InputError
from tsmjax.wearables.streams import windows_of

NAMES = {"time_column": "time", "subject_column": "subject", "label_column": "label"}


def table(steps=40, rate=4.0):
    time = np.arange(steps) / rate
    return pd.DataFrame({"time": time, "y acc": time + 100, "x acc": time, "note": "a"})


def cut(frame, overlap=0.5, window=8, rate=4.0, **changes):
    names = {**NAMES, **changes}
    return windows_of(frame, ("x_acc", "y_acc"), window, rate, overlap=overlap, **names)


def test_channels_are_found_by_name_and_windows_keep_their_times():
    found = cut(table())
    assert found.windows.shape == (9, 2, 8) and found.windows.dtype == np.float32
    np.testing.assert_array_equal(found.windows[:, 0, 0] * 1e9, found.starts)
    np.testing.assert_array_equal(found.windows[:, 1], found.windows[:, 0] + 100)
    assert found.names == () and set(found.subjects) == {""}
    assert (found.labels == -1).all()


def test_persons_are_cut_one_by_one_and_sorted_by_time():
    frame = table(32).assign(subject=[2, 1] * 16).iloc[::-1]
    found = cut(frame, window=8, rate=2.0)
    assert found.subjects == ["1"] * 3 + ["2"] * 3
    np.testing.assert_array_equal(found.windows[0, 0], 0.25 + np.arange(8) / 2)


def test_a_multiple_of_the_rate_is_lowered_and_gaps_are_not_spanned():
    frame = table(80, rate=8.0)
    frame.loc[frame["time"] >= 5, "time"] += 60
    found = cut(frame, overlap=0.0)
    np.testing.assert_array_equal(found.starts / 1e9, [0, 2, 3, 65, 67, 68])
    np.testing.assert_array_equal(found.windows[0, 0], np.arange(8) / 4)


def test_the_most_frequent_label_of_a_window_counts():
    labels = ["walk"] * 13 + ["sit"] * 11 + [None] * 16
    found = cut(table().assign(label=labels), overlap=0.0)
    assert found.names == ("sit", "walk")
    assert found.labels.tolist() == [1, 1, 0, -1, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"time": "tme"}), "no column 'time'.*mean 'tme'"),
        (lambda f: f.rename(columns={"x acc": "xacc"}), "channel 'x_acc'"),
        (lambda f: f.assign(**{"x acc": "a"}), "holds texts"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.iloc[:7], "no window: it takes 2 s"),
        (lambda f: f.assign(time=f["time"] * 0.7), "5.714.* readings a second"),
        (lambda f: f.assign(time=1.0), "never go on"),
        (lambda f: f.assign(time=[np.nan, *f["time"][1:]]), "row without a time"),
        (lambda f: f.assign(time="soon"), "a time that is none"),
        (lambda f: f.assign(**{"x acc": np.nan}), "no window"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        cut(change(table()))
