"""Rolling origin: forecasts of what has already happened, made without looking ahead, and scores.

Source: Tashman (2000), "Out-of-sample tests of forecasting accuracy: an analysis and review".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.forecasting import frames
from tsmjax.forecasting.inputs import Series

_ROWS = 2_000_000  # of the pasts that are laid out at a time

# (tasks) → quantiles (targets, horizon, levels) and median (targets, horizon) of each
Forecast = Callable[[list[Series]], tuple[list[np.ndarray], list[np.ndarray]]]


class Plan(NamedTuple):
    """What to forecast.

    Attributes:
      horizon: steps to forecast.
      windows: forecasts of each series; the last one ends with the series.
      stride: steps between two of them.
      context_length: steps of the past that the model sees.
      known: columns known ahead.
      levels: quantile levels.
      season: steps of a season.
    """

    horizon: int
    windows: int
    stride: int
    context_length: int
    known: Sequence[str]
    levels: Sequence[float]
    season: int


def run(df: pd.DataFrame, columns: frames.Columns, plan: Plan, forecast: Forecast) -> pd.DataFrame:
    """Forecast all windows of the series in a sorted frame; see `Forecaster.backtest`.

    Raises:
      InputError: when no series has a window.
    """
    lengths = frames.lengths(df, columns)
    back = plan.horizon + np.arange(plan.windows - 1, -1, -1) * plan.stride
    items = np.repeat(np.arange(len(lengths)), plan.windows)
    cuts = (lengths[:, None] - back).ravel()
    items, cuts = items[cuts > 0], cuts[cuts > 0]
    if not len(cuts):
        raise InputError(
            f"No series is long enough: the longest has {lengths.max()} steps, and "
            f"{plan.horizon} are forecast from at least one before; give longer series."
        )
    first = (np.cumsum(lengths) - lengths)[items]
    # Categories are encoded by what is seen of them, so their whole past counts.
    covariates = [name for name in df.columns if name not in (columns.id, columns.time)]
    plain = all(
        types.is_numeric_dtype(df[name]) and not types.is_bool_dtype(df[name])
        for name in covariates
    )
    seen = np.minimum(cuts, plan.context_length) if plain else cuts
    parts = [
        _windows(df, columns, plan, forecast, first[part], cuts[part], seen[part])
        for part in _chunks(seen)
    ]
    return pd.concat(parts, ignore_index=True)


def scores(frame: pd.DataFrame, by: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Score the forecasts of a backtest; missing observations count nowhere.

    Args:
      frame: what `Forecaster.backtest` returned, or some of its rows.
      by: column or columns to score apart, such as "item_id", "cutoff", "step" or "target_name";
        None scores all rows together.

    Returns:
      A frame with the columns ``mae`` and ``rmse`` in the units of the data, ``mase`` (Hyndman and
      Koehler 2006) and ``wql`` (see `tsmjax.evals.metrics`), and a row for each group.

    Raises:
      InputError: when `by` is no column of the frame.
    """
    frames.require(frame, ("target", "predictions", "seasonal_error"), "The backtest")
    if by is None:
        return pd.DataFrame([_scores(frame)])
    names = [by] if isinstance(by, str) else list(by)
    frames.require(frame, names, "The backtest")
    groups = [(key, _scores(rows)) for key, rows in frame.groupby(names, sort=False)]
    index = pd.MultiIndex.from_tuples([key for key, _ in groups], names=names)
    index = index.get_level_values(0) if len(names) == 1 else index
    return pd.DataFrame([found for _, found in groups], index=index)


def _scores(frame: pd.DataFrame) -> dict[str, float]:
    label, point = (frame[name].to_numpy(np.float64) for name in ("target", "predictions"))
    seen = np.isfinite(label)
    label, error = np.where(seen, label, np.nan), (label - point)[seen]
    total, count = metrics.scaled_error_sum(
        label[:, None], point[:, None], frame["seasonal_error"].to_numpy()
    )
    levels = [name for name in frame.columns if _is_level(name)]
    losses = metrics.quantile_loss_sums(
        label, frame[levels].to_numpy().T, [float(name) for name in levels]
    )
    return {
        "mae": float(np.abs(error).mean()) if len(error) else np.nan,
        "rmse": float(np.sqrt(np.square(error).mean())) if len(error) else np.nan,
        "mase": metrics.mean_absolute_scaled_error(total, count),
        "wql": metrics.weighted_quantile_loss(losses, metrics.absolute_label_sum(label)),
    }


def _is_level(name: str) -> bool:
    try:
        return 0 < float(name) < 1
    except ValueError:
        return False


def _chunks(seen: np.ndarray) -> Iterator[slice]:
    """Divide windows that see so many steps into stretches of about `_ROWS` in all."""
    group = (np.cumsum(seen) - seen) // _ROWS
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1), len(seen)]
    return itertools.starmap(slice, itertools.pairwise(edges))


def _windows(
    df: pd.DataFrame,
    columns: frames.Columns,
    plan: Plan,
    forecast: Forecast,
    first: np.ndarray,
    cuts: np.ndarray,
    seen: np.ndarray,
) -> pd.DataFrame:
    """Forecast some windows: where their series begin, where they are cut, what they see."""
    number = np.arange(len(cuts))
    before = np.repeat(first + cuts - np.cumsum(seen), seen) + np.arange(seen.sum())
    ahead = (first + cuts)[:, None] + np.arange(plan.horizon)
    past = df.iloc[before].assign(**{columns.id: np.repeat(number, seen)})
    future = None
    if plan.known:
        future = df[[columns.id, columns.time, *plan.known]].iloc[ahead.ravel()]
        future = future.assign(**{columns.id: np.repeat(number, plan.horizon)})
    found, median = forecast(frames.tasks(past, future, columns, plan.horizon))

    values = df[list(columns.targets)].to_numpy(np.float64, na_value=np.nan)
    values[np.isinf(values)] = np.nan
    error = np.array(
        [
            [metrics.seasonal_error(row, plan.season) for row in values[begin : begin + cut].T]
            for begin, cut in zip(first, cuts, strict=True)
        ]
    )
    steps = df[[columns.id, columns.time]].iloc[ahead.ravel()]
    origin = df[columns.time].iloc[np.repeat(first + cuts - 1, plan.horizon)]
    steps.insert(1, "cutoff", origin.array)
    steps["step"] = np.tile(1 + np.arange(plan.horizon), len(cuts))
    frame = frames.result(steps, columns.targets, median, found, plan.levels)
    place = frame.columns.get_loc("predictions")
    frame.insert(place, "target", values[ahead].swapaxes(1, 2).ravel())
    frame.insert(place + 2, "seasonal_error", np.repeat(error.ravel(), plan.horizon))
    return frame
