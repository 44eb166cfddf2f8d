"""Frequencies in their many spellings."""

import pytest

from tsmjax.data.frequency import same_step
from tsmjax.errors import InputError

KNOWN = ("min", "5min", "h", "D", "W")


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        *((name, "h") for name in ("h", "1h", "H", "60min", "60T", "3600s", "0 days 01:00:00")),
        *((name, "5min") for name in ("5min", "5T", "300s", "0 days 00:05:00")),
        *((name, "W") for name in ("W", "W-SUN", "W-SAT", "1W")),
        *((name, None) for name in ("2h", "MS", "M", "QS-OCT", "YE")),
        ("T", "min"),
        ("D", "D"),
    ],
)
def test_spellings_of_one_step_are_the_same(freq, expected):
    assert same_step(freq, KNOWN) == expected


@pytest.mark.parametrize("freq", ["hourly", "five minutes", ""])
def test_what_is_no_frequency_is_refused(freq):
    with pytest.raises(InputError, match="is no frequency"):
        same_step(freq, KNOWN)
