"""Tables of sensor readings: from columns to recordings, and to windows that a model can read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.wearables.recordings import UNLABELLED, Antialias, Recording
from tsmjax.wearables.windows import Cutting, cut

_TOLERANCE = 0.02  # relative difference of two rates that count as one


class Stream(NamedTuple):
    """Windows of a table, in order of subject and time.

    Attributes:
      windows: (n, channels, steps) float32.
      subjects: n names; empty where the table names nobody.
      starts: (n,) int64 nanoseconds.
      labels: (n,) int, place of the most frequent label in `names`, `UNLABELLED` for none.
      names: labels that the table has.
    """

    windows: np.ndarray
    subjects: list[str]
    starts: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def marker(column: str) -> str:
    """Return the name of the channel that a column becomes: letters, digits and ``_``."""
    return re.sub(r"\W+", "_", column).strip("_") or "channel"


def nanoseconds(times: pd.Series, where: str) -> np.ndarray:
    """Return times, numbers of seconds or dates, as int64 nanoseconds.

    Raises:
      InputError: when one is missing, or no time.
    """
    if pd.api.types.is_numeric_dtype(times):
        if not np.isfinite(times).all():
            raise InputError(f"{where} has a row without a time.")
        return np.round(times.to_numpy(np.float64) * 1e9).astype(np.int64)
    try:
        parsed = pd.to_datetime(times, utc=True, format="ISO8601").dt.tz_localize(None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} has a time that is none ({error}).") from error
    if parsed.isna().any():
        raise InputError(f"{where} has a row without a time.")
    return parsed.to_numpy("datetime64[ns]").astype(np.int64)


def usual_rate(times: np.ndarray, where: str) -> float:
    """Return the usual number of rows a second, from int64 nanoseconds.

    Raises:
      InputError: when time never goes on.
    """
    passed = np.diff(times)
    passed = passed[passed > 0]
    if not len(passed):
        raise InputError(f"The times of {where} never go on: say --rate, or correct them.")
    return round(1e9 / float(np.median(passed)), 6)


def windows_of(
    table: pd.DataFrame,
    channels: Sequence[str],
    window: int,
    rate: float,
    *,
    time_column: str,
    subject_column: str,
    label_column: str,
    overlap: float,
    antialias: Antialias = "none",
    where: str = "The table",
) -> Stream:
    """Cut a table into windows.

    Args:
      table: a column for the time, one for each channel and, where there are such, one for the
        subject and one for the label; others are ignored.
      channels: names of the channels.
      window: steps of a window.
      rate: steps a second of a window (Hz); that of the table may be a multiple of it.
      time_column: seconds or dates.
      subject_column: who wore the sensor; may be absent.
      label_column: what is known of the activity; may be absent.
      overlap: share of a window that the next one repeats.
      antialias: how the rate of the table is lowered.
      where: readable origin, for messages.

    Raises:
      InputError: when a column is missing, the rate is another, or no window is left.
    """
    if time_column not in table.columns:
        near = closest(time_column, map(str, table.columns))
        raise InputError(
            f"{where} has no column {time_column!r}{near}: say which one holds the time."
        )
    if not len(table):
        raise InputError(f"{where} has no rows.")
    columns = _columns(table, channels, where)
    table = table.assign(**{time_column: nanoseconds(table[time_column], where)})
    named = subject_column in table.columns
    people = table[subject_column].astype(str) if named else pd.Series("", index=table.index)
    labels, names = np.zeros(len(table), np.int16), ()
    if label_column in table.columns:
        codes, found = pd.factorize(table[label_column].astype("string").str.strip(), sort=True)
        labels, names = (codes + 1).astype(np.int16), tuple(map(str, found))  # 0: no label
    windows, subjects, starts, ids = [], [], [], []
    for person in dict.fromkeys(people):
        rows = np.flatnonzero(people.to_numpy() == person)
        rows = rows[np.argsort(table[time_column].to_numpy()[rows], kind="stable")]
        times = table[time_column].to_numpy()[rows]
        values = table[columns].to_numpy(np.float32)[rows]
        cutting = _cutting(usual_rate(times, where), rate, window, overlap, antialias, where)
        found = cut(Recording(person, times, values, labels[rows]), cutting)
        windows += [found.values[at : at + window].T for at in found.starts]
        subjects += [person] * len(found.starts)
        starts.append(found.times)
        ids.append(found.labels.astype(np.int64) - 1)
    if not windows:
        raise InputError(
            f"{where} has no window: it takes {window / rate:g} s of readings without a gap."
        )
    unlabelled = np.concatenate(ids)
    return Stream(
        np.stack(windows).astype(np.float32),
        subjects,
        np.concatenate(starts),
        np.where(unlabelled < 0, UNLABELLED, unlabelled),
        names,
    )


def _columns(table: pd.DataFrame, channels: Sequence[str], where: str) -> list[str]:
    """Return the column of each channel, by its own name or that of its marker."""
    by_marker = {marker(str(name)): name for name in table.columns}
    lacking = [name for name in channels if name not in by_marker]
    if lacking:
        raise InputError(
            f"{where} has no column for the channel {lacking[0]!r}"
            f"{closest(lacking[0], by_marker)}; the model reads {', '.join(channels)}."
        )
    columns = [by_marker[name] for name in channels]
    for name in columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"Column {name!r} of {where} holds texts, but a channel is numbers.")
    return columns


def _cutting(
    raw: float, rate: float, window: int, overlap: float, antialias: Antialias, where: str
) -> Cutting:
    """Return how to cut a recording of `raw` Hz into windows of `rate` Hz."""
    factor = max(round(raw / rate), 1)
    if abs(raw / factor / rate - 1) > _TOLERANCE:
        raise InputError(
            f"{where} has {raw:g} readings a second, but the model was trained with {rate:g}, and "
            "the one is no multiple of the other: resample the table."
        )
    return Cutting(
        rate=raw,
        seconds=window * factor / raw,
        factor=factor,
        antialias=antialias,
        overlap=overlap,
        flush=True,
        min_fraction=1e-9,
    )
