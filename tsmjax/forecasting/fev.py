"""Tasks of the benchmark library `fev`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from tsmjax.errors import InputError
from tsmjax.forecasting import frames

if TYPE_CHECKING:
    from tsmjax.forecaster import Forecaster


def predict(
    forecaster: Forecaster,
    task: Any,
    batch_size: int,
    as_univariate: bool,
    finetune_kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> tuple[list[Any], float]:
    """Forecast all windows of a task; see `Forecaster.predict_fev`."""
    try:
        import fev
    except ImportError as error:
        raise InputError("predict_fev needs the package fev: pip install fev.") from error

    def frames_of(window: Any) -> tuple[pd.DataFrame, pd.DataFrame | None, list[str]]:
        past, future, _ = fev.convert_input_data(
            window, adapter="pandas", as_univariate=as_univariate
        )
        if as_univariate:
            return past[[window.id_column, window.timestamp_column, "target"]], None, ["target"]
        known = future if window.known_dynamic_columns else None
        return past, known, list(window.target_columns)

    model = forecaster
    if finetune_kwargs is not None:
        window = task.get_window(0)
        past, future, targets = frames_of(window)
        columns = frames.Columns(window.id_column, window.timestamp_column, targets)
        past, future = frames.check(past, future, columns, window.horizon)
        inputs = frames.tasks(past, future, columns, window.horizon)
        model = forecaster.fit(
            inputs, window.horizon, **{"batch_size": batch_size, **finetune_kwargs}
        )
    found, seconds = [], 0.0
    for window in task.iter_windows():
        past, future, targets = frames_of(window)
        started = time.monotonic()
        frame = model.predict_df(
            past,
            future_df=future,
            id_column=window.id_column,
            timestamp_column=window.timestamp_column,
            target=targets,
            prediction_length=window.horizon,
            quantile_levels=task.quantile_levels,
            batch_size=batch_size,
            **options,
        )
        seconds += time.monotonic() - started
        found.append(
            fev.utils.convert_forecast_df_to_predictions(
                frame,
                horizon=window.horizon,
                quantile_levels=task.quantile_levels,
                target_columns=window.target_columns,
            )
        )
    return found, seconds
