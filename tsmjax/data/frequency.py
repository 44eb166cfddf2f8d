"""Step lengths in their many spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from tsmjax.errors import InputError, closest

# Pandas renamed these; other libraries still write them.
_OLD = {"T": "min", "H": "h", "S": "s", "L": "ms", "U": "us", "M": "ME", "Q": "QE", "Y": "YE"}


def same_step(freq: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` frequencies with the steps of `freq`, or None.

    ``"1h"``, ``"H"``, ``"60min"``, ``"3600s"`` and ``"0 days 01:00:00"`` all have the steps of
    ``"h"``; a week is a week, whatever day it ends on.

    Raises:
      InputError: when `freq` is no frequency.
    """
    step = _step(freq)
    return next((name for name in known if _step(name) == step), None)


def at_least_daily(freq: str) -> bool:
    """Tell whether the steps of a frequency are a day or longer.

    Raises:
      InputError: when `freq` is no frequency.
    """
    step = _step(freq)
    if isinstance(step, pd.Timedelta):
        return step >= pd.Timedelta(days=1)
    return not isinstance(step, pd.offsets.BusinessHour)


def _step(freq: str) -> object:
    """Something that is equal for frequencies of the same step."""
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Za-z]+)?", freq.strip())
    text = freq
    if match:
        number, base, anchor = match[1] or "1", match[2], match[3] or ""
        base = _OLD.get(base, base)
        text = f"{number}{base}" if base == "W" else f"{number}{base}{anchor}"
    try:
        offset = pd.tseries.frequencies.to_offset(text if match else pd.Timedelta(text))
        return pd.Timedelta(offset) if isinstance(offset, pd.offsets.Tick) else offset
    except ValueError as error:
        known = ("s", "min", "h", "D", "W", "MS", "QS", "YS")
        raise InputError(f"{freq!r} is no frequency{closest(freq, known)}.") from error
