"""Chronos-2: raw series in, quantiles in the units of the series out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tsmjax.export.head import Head, Input, of_model, size, walks
from tsmjax.nn.functional import Tree
from tsmjax.tasks.forecast import flip_mean


def head(
    path: str,
    *,
    context: int | None = None,
    horizon: int | None = None,
    series: int | None = None,
) -> Head:
    """Describe the forecaster at fixed lengths.

    Args:
      path: run folder, Hugging Face folder or hub id.
      context: steps of the past; None for all that the model takes. A shorter past is padded with
        NaN in front, which changes nothing.
      horizon: steps ahead; None for the longest of one pass.
      series: related series that are forecast together, with covariates; None for one.
    """
    loaded, rebuild, weights = of_model(path)
    config = loaded.task.config.model
    context = size("context", context, config.context_length, 1, config.context_length)
    horizon = size("horizon", horizon, config.horizon, 1, config.horizon)
    series = size("series", series, 1, 1, 1024)
    patches = -(-horizon // config.patch_size)
    inputs = {
        "context": Input(
            (None, series, context), "float32", "the past, oldest first; NaN = missing"
        )
    }
    if series > 1:
        inputs["future"] = Input(
            *((None, series, horizon), "float32"),
            "values known ahead, of covariates; NaN = unknown",
        )
        inputs["group"] = Input(
            *((None, series), "int32"),
            "series of equal number see each other; -1 = no series, whose forecast means nothing",
        )

    flip_invariant = loaded.task.config.task.flip_invariant

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        model = rebuild(weights)

        def forecast(sign: int) -> jax.Array:
            future = sign * batch["future"] if "future" in batch else None
            predictions, loc_scale = model(
                *(sign * batch["context"], future, batch.get("group")), output_patches=patches
            )
            return model.unscale(predictions, loc_scale)[..., :horizon]

        quantiles = forecast(1)
        if flip_invariant:
            quantiles = flip_mean(quantiles, forecast(-1))
        return {"quantiles": quantiles}

    def sample(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        x = walks(rng, (rows, series, context + horizon))
        batch: dict[str, Any] = {"context": x[..., :context]}
        if series > 1:
            unknown = rng.random((rows, series, 1)) < 0.5
            batch["future"] = np.where(unknown, np.float32(np.nan), x[..., context:])
            batch["group"] = rng.integers(0, 2, (rows, series)).astype(np.int32)
        return batch

    levels = ", ".join(f"{level:g}" for level in config.quantiles)
    return Head(
        *("chronos2", "model", function, weights, inputs),
        {
            "quantiles": f"(batch, {series}, {len(config.quantiles)}, {horizon}) forecasts at the "
            f"levels {levels}, in the units of the series"
        },
        {
            "quantiles": list(config.quantiles),
            "context_length": context,
            "horizon": horizon,
            "preprocessing": "inside: missing values, scaling, arcsinh and back",
        },
        sample,
    )
