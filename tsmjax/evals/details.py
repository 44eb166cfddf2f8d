"""What result tables and reports say of a forecast beyond WQL and MASE: point errors, calibration.

Definitions are those of GluonTS, the median being the point forecast. All figures come from sums
that may be added over windows, batches and hosts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tsmjax.evals import metrics

ALPHA = 0.05  # of the interval that MSIS scores, from the level α/2 to 1 − α/2
_SCALARS = (
    *("observed", "squared", "absolute", "interval", "crossed"),
    *("percentage", "percentage_cells", "symmetric", "symmetric_cells"),
)


def zeros(count: int) -> dict[str, np.ndarray]:
    """Return empty sums of `count` data sets: (count,), and (count, levels) for `covered`."""
    return {name: np.zeros(count) for name in _SCALARS} | {
        "covered": np.zeros((count, len(metrics.LEVELS)))
    }


def sums(
    label: np.ndarray, quantiles: np.ndarray, levels: Sequence[float], scale: float
) -> dict[str, float | np.ndarray]:
    """Sum over the observed steps of one window.

    Args:
      label: (H,), NaN = missing.
      quantiles: (Q, H) forecast.
      levels: its Q levels, ascending.
      scale: seasonal error of the series; intervals of series without one are left out.
    """
    seen = ~np.isnan(label)
    y, forecast = np.asarray(label[seen], np.float64), np.asarray(quantiles[:, seen], np.float64)
    scored = metrics.interpolate(levels, forecast, metrics.LEVELS)
    low, high = metrics.interpolate(levels, forecast, (ALPHA / 2, 1 - ALPHA / 2))
    median = scored[metrics.LEVELS.index(0.5)]
    error, size = np.abs(y - median), np.abs(y) + np.abs(median)
    missed = 2 / ALPHA * (np.maximum(low - y, 0) + np.maximum(y - high, 0))
    some, both = y != 0, size > 0
    return {
        "observed": len(y),
        "squared": np.sum(error**2),
        "absolute": error.sum(),
        "percentage": np.sum(error[some] / np.abs(y[some])),
        "percentage_cells": some.sum(),
        "symmetric": np.sum(2 * error[both] / size[both]),
        "symmetric_cells": both.sum(),
        "interval": np.sum(high - low + missed) / scale if scale > 0 else 0.0,
        "covered": (y <= scored).sum(axis=1),
        "crossed": (np.diff(forecast, axis=0) < 0).any(axis=0).sum(),
    }


def figures(total: Mapping[str, np.ndarray], dataset: int) -> dict[str, float]:
    """Turn the total sums of a data set into figures by name; NaN where nothing was observed.

    Beside point errors and MSIS: ``crossing``, the share of steps at which a quantile lies below
    the one before it; ``interval_80``, the share of labels between the levels 0.1 and 0.9; and
    ``calibration_error``, the mean distance between a level and the share of labels below it.
    """
    found = {name: np.asarray(values[dataset], np.float64) for name, values in total.items()}
    observed = found["observed"] or np.nan
    squared, absolute = found["squared"] / observed, found["absolute"] / observed
    size = found["label"] / observed or np.nan
    covered = found["covered"] / observed
    return {
        "MSE": float(squared),
        "MAE": float(absolute),
        "RMSE": float(np.sqrt(squared)),
        "NRMSE": float(np.sqrt(squared) / size),
        "ND": float(absolute / size),
        "MAPE": float(found["percentage"] / (found["percentage_cells"] or np.nan)),
        "sMAPE": float(found["symmetric"] / (found["symmetric_cells"] or np.nan)),
        "MSIS": float(found["interval"] / (found["cells"] or np.nan)),
        "crossing": float(found["crossed"] / observed),
        "interval_80": float(covered[-1] - covered[0]),
        "calibration_error": float(np.abs(covered - metrics.LEVELS).mean()),
    }
