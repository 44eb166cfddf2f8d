"""Long data frames in and out: one row for each series and time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from tsmjax.errors import InputError, closest
from tsmjax.forecasting.inputs import Series, stacked


class Columns(NamedTuple):
    """Names of the columns that mean something.

    Attributes:
      id: which series a row belongs to.
      time: when it was.
      targets: what to forecast.
    """

    id: str
    time: str
    targets: Sequence[str]


def check(
    df: pd.DataFrame, future_df: pd.DataFrame | None, columns: Columns, horizon: int
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Check both frames, and sort them by series (as they first appear) and time.

    Raises:
      InputError: for a missing or wrong column, an empty frame, duplicate or missing times, or
        future rows that do not belong to the series.
    """
    require(df, (columns.id, columns.time, *columns.targets), "The data frame")
    for name in columns.targets:
        if not types.is_numeric_dtype(df[name]):
            raise InputError(
                f"The target column {name!r} is of type {df[name].dtype}, but must hold numbers."
            )
    df = _sorted(df, columns, pd.unique(df[columns.id]), "The data frame")
    if future_df is None:
        return df, None
    where = "The frame of future covariates"
    require(future_df, (columns.id, columns.time), where)
    for name in future_df.columns:
        if name in columns.targets:
            raise InputError(f"{where} has the target column {name!r}: remove it.")
        if name not in df.columns:
            raise InputError(
                f"{where} has a column {name!r} that the data frame lacks"
                f"{closest(str(name), map(str, df.columns))}; add its past, or remove it."
            )
    future_df = _sorted(future_df, columns, pd.unique(df[columns.id]), where)
    rows = future_df[columns.id].value_counts().reindex(pd.unique(df[columns.id]), fill_value=0)
    wrong = rows[rows != horizon]
    if len(wrong):
        raise InputError(
            f"{where} has {wrong.iloc[0]} rows for series {wrong.index[0]!r}, but the prediction "
            f"length is {horizon}: give one row for each step."
        )
    return df, future_df


def tasks(
    df: pd.DataFrame, future_df: pd.DataFrame | None, columns: Columns, horizon: int
) -> list[Series]:
    """Turn sorted frames into tasks, in the order in which the series appear.

    Columns of `df` that are neither targets nor named in `columns` are covariates, known ahead
    when `future_df` has them. Columns of other types than numbers are categories.
    """
    names = [c for c in df.columns if c not in (columns.id, columns.time, *columns.targets)]
    past = {}
    for name in names:
        numeric = types.is_numeric_dtype(df[name]) and not types.is_bool_dtype(df[name])
        past[name] = df[name].astype(np.float32 if numeric else "category")
    known = [name for name in names if future_df is not None and name in future_df.columns]
    return stacked(
        df[list(columns.targets)].to_numpy(np.float32, na_value=np.nan).T,
        past,
        {name: future_df[name] for name in known} if future_df is not None else {},
        known,
        lengths(df, columns),
        horizon,
    )


def future_index(df: pd.DataFrame, columns: Columns, horizon: int, freq: str) -> pd.DataFrame:
    """Return series and time of the `horizon` steps after the end of each series.

    Args:
      df: a sorted frame.
      columns: names of its columns.
      horizon: steps ahead.
      freq: pandas frequency of the steps.

    Raises:
      InputError: when pandas does not know the frequency.
    """
    ends = np.cumsum(lengths(df, columns))
    times = pd.DatetimeIndex(df[columns.time])
    try:
        step = pd.tseries.frequencies.to_offset(freq)
    except ValueError as error:
        raise InputError(f"freq is {freq!r}, which pandas does not know: {error}.") from error
    last, place = np.unique(times.asi8[ends - 1], return_inverse=True)
    last = pd.DatetimeIndex(times[ends - 1][np.unique(place, return_index=True)[1]], freq=None)
    with warnings.catch_warnings():
        # Business days and their like are added one by one, which pandas warns of.
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        steps = [last + n * step for n in range(1, horizon + 1)]
    ahead = np.stack([one.asi8 for one in steps], axis=1)[place].ravel()
    unit = steps[0].dtype if last.tz is None else f"datetime64[{steps[0].unit}]"
    ahead = pd.DatetimeIndex(ahead.astype("int64").view(np.dtype(unit)))
    if last.tz is not None:
        ahead = ahead.tz_localize("UTC").tz_convert(last.tz)
    ids = df[columns.id].to_numpy()[ends - 1]
    return pd.DataFrame({columns.id: np.repeat(ids, horizon), columns.time: ahead})


def check_times(future_df: pd.DataFrame, index: pd.DataFrame, columns: Columns) -> None:
    """Raise InputError when the future rows are not at the times of `index`."""
    given, expected = (pd.DatetimeIndex(frame[columns.time]) for frame in (future_df, index))
    wrong = np.flatnonzero(given != expected)
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"The future covariates of series {index[columns.id].iloc[row]!r} are for "
            f"{given[row]}, where {expected[row]} is forecast: give the steps that follow its "
            "past, or set validate_inputs=False."
        )


def result(
    index: pd.DataFrame,
    targets: Sequence[str],
    point: Sequence[np.ndarray],
    quantiles: Sequence[np.ndarray],
    levels: Sequence[float],
) -> pd.DataFrame:
    """Lay out forecasts as a frame, sorted by series, target and time.

    Args:
      index: series and time of each step, as `future_index` makes it.
      targets: names of the targets.
      point: (targets, horizon) of each series.
      quantiles: (targets, horizon, levels) of each series.
      levels: quantile levels; each becomes a column named like it.
    """
    horizon = point[0].shape[1]
    rows = np.arange(len(index)).reshape(-1, 1, horizon)
    rows = np.broadcast_to(rows, (len(point), len(targets), horizon)).ravel()
    frame = index.iloc[rows].reset_index(drop=True)
    frame["target_name"] = np.tile(np.repeat(list(targets), horizon), len(point))
    frame["predictions"] = np.stack(point).ravel()
    values = np.stack(quantiles).reshape(len(frame), len(levels))
    for number, level in enumerate(levels):
        frame[str(level)] = values[:, number]
    return frame


def require(df: pd.DataFrame, names: Sequence[str], where: str) -> None:
    """Raise InputError when a column is missing, or there are no rows."""
    for name in names:
        if name not in df.columns:
            known = [str(column) for column in df.columns]
            raise InputError(
                f"{where} has no column {name!r}{closest(str(name), known)}; its columns are "
                f"{', '.join(known) or 'none'}."
            )
    if not len(df):
        raise InputError(f"{where} is empty: give at least one row.")


def _sorted(df: pd.DataFrame, columns: Columns, order: np.ndarray, where: str) -> pd.DataFrame:
    """Return the rows by series, in `order`, and time."""
    if not types.is_datetime64_any_dtype(df[columns.time]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a slow, mixed format
                df = df.assign(**{columns.time: pd.to_datetime(df[columns.time])})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where} has a column {columns.time!r} that does not hold times: {error}."
            ) from error
    for name in (columns.id, columns.time):
        if df[name].isna().any():
            row = int(np.flatnonzero(df[name].isna())[0])
            raise InputError(f"{where} has no {name!r} in row {row}.")
    series = pd.Index(order).get_indexer(df[columns.id])
    if (series < 0).any():
        stranger = df[columns.id].iloc[int(np.flatnonzero(series < 0)[0])]
        raise InputError(f"{where} has a series {stranger!r} that the data frame lacks.")
    time = pd.DatetimeIndex(df[columns.time]).asi8
    if (np.lexsort([time, series]) != np.arange(len(df))).any():
        rows = np.lexsort([time, series])
        df, series, time = df.iloc[rows], series[rows], time[rows]
    same = np.flatnonzero((np.diff(series) == 0) & (np.diff(time) == 0))
    if len(same):
        row = df.iloc[same[0]]
        raise InputError(
            f"{where} has several rows for series {row[columns.id]!r} at {row[columns.time]}: keep "
            "one of them."
        )
    return df.reset_index(drop=True)


def lengths(df: pd.DataFrame, columns: Columns) -> np.ndarray:
    """Rows of each series of a sorted frame."""
    series = pd.factorize(df[columns.id])[0]
    return np.bincount(series)


def frequency(df: pd.DataFrame, columns: Columns) -> str:
    """Infer the frequency that all series of three or more rows of a sorted frame share.

    Raises:
      InputError: when it cannot be told, or differs between series.
    """
    ends = np.cumsum(lengths(df, columns))
    times = pd.DatetimeIndex(df[columns.time])
    seen: Mapping[bytes, str] = {}
    found: dict[str, str] = {}
    begin = 0
    for end in ends:
        one, begin = times[begin:end], end
        if len(one) < 3:
            continue  # two points have a distance, not a frequency
        key = one.asi8.tobytes()
        if key not in seen:
            freq = pd.infer_freq(one)
            name = df[columns.id].iloc[end - 1]
            if freq is None:
                raise InputError(
                    f"The times of series {name!r} are irregular: fill the gaps with NaN rows, or "
                    "say freq= to take the rows as they come."
                )
            seen[key] = freq
            found.setdefault(freq, name)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise InputError(
            f"Series {first!r} has the frequency {one} and series {second!r} {other}: forecast "
            "them in calls of their own, or say freq=."
        )
    if not found:
        raise InputError(
            "No series has three rows from which to infer the frequency: say freq=, such as 'h' or "
            "'D'."
        )
    return next(iter(found))
