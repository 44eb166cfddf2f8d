"""The raw records of a person, as every reader hands them on, and what readers share."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd

from tsmjax.errors import InputError

CLOCK = r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?"  # a time without a date
_FIRST_DAY = pd.Timestamp("2024-01-01")


@dataclasses.dataclass(frozen=True)
class Person:
    """The raw records of one person.

    Attributes:
      name: identifier of the records.
      readings: glucose in mg/dL by time, as recorded.
      meals: carbohydrate in g by time; None when the files have none.
      insulin: doses in U by time; None when the files have none.
      amounts: by name, further amounts by time that add up: steps, meals without their size …
      levels: by name, values by time that hold until the next: basal (U/h), heart rate …
      subject: whose records they are, where a person has several; empty for `name`.
    """

    name: str
    readings: pd.Series
    meals: pd.Series | None = None
    insulin: pd.Series | None = None
    amounts: dict[str, pd.Series] = dataclasses.field(default_factory=dict)
    levels: dict[str, pd.Series] = dataclasses.field(default_factory=dict)
    subject: str = ""


def times(name: str, texts: pd.Series) -> pd.DatetimeIndex:
    """Read times; those with a zone become UTC.

    Raises:
      InputError: when one is no time.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a format that has to be guessed
            return pd.DatetimeIndex(pd.to_datetime(texts, utc=True).dt.tz_localize(None))
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} has a time that is none ({error}).") from error


def follow_clock(name: str, texts: pd.Series) -> pd.DatetimeIndex:
    """Date clock times without dates, in order: one that goes backwards begins another day.

    Raises:
      InputError: when one is not of the form HH:MM:SS.
    """
    texts = texts.astype(str).str.strip()
    if not texts.str.fullmatch(CLOCK).all():
        raise InputError(f"{name} has a time that is not of the form HH:MM:SS.")
    clock = pd.to_timedelta(texts.where(texts.str.count(":") == 2, texts + ":00"))
    days = (clock.diff() < pd.Timedelta(0)).cumsum()
    return pd.DatetimeIndex(_FIRST_DAY + clock + pd.to_timedelta(days, unit="D"))


def numbers(name: str, cells: pd.Series) -> pd.Series:
    """Read numbers, empty cells as NaN.

    Raises:
      InputError: when a cell holds something else.
    """
    found = pd.to_numeric(cells, errors="coerce")
    wrong = found.isna() & cells.notna()
    if wrong.any():
        raise InputError(
            f"{name} has {int(wrong.sum())} cells in {cells.name!r} that are no numbers, the first "
            f"is {cells[wrong].iloc[0]!r}: correct or empty them."
        )
    return found.astype(np.float64)
