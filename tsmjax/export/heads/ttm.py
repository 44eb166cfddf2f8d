"""TinyTimeMixer: raw channels in, forecasts in their units out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError
from tsmjax.export.head import Head, Input, of_model, size, walks
from tsmjax.nn.functional import Tree


def head(path: str, *, channels: int | None = None) -> Head:
    """Describe the forecaster.

    Args:
      path: run folder, Hugging Face folder or hub id.
      channels: number of channels, for models that do not fix it; None for the config's.

    Raises:
      InputError: when the model was built for another number of channels.
    """
    loaded, rebuild, weights = of_model(path)
    config, facts = loaded.task.config.model, loaded.artefacts
    # A run standardises its table before the model sees it.
    mean, deviation = (
        np.asarray(facts.get(name, ()), np.float32) for name in ("mean", "deviation")
    )
    fixed = len(mean) or (config.num_input_channels if config.mixes_channels else 0)
    if fixed and channels not in (None, fixed):
        raise InputError(f"--channels is {channels}, but this model was trained on {fixed}.")
    channels = fixed or size("channels", channels, config.num_input_channels, 1, 4096)
    predicted = list(range(channels)) if config.predicted is None else list(config.predicted)
    past, ahead = (None, channels, config.context_length), (None, channels, config.horizon)
    inputs = {"context": Input(past, "float32", "the past, oldest first; NaN = missing")}
    if config.known_channels:
        known = ", ".join(map(str, config.known_channels))
        inputs["future"] = Input(
            ahead, "float32", f"values known ahead of channels {known}; others are not looked at"
        )
    if config.categories:
        shape = (None, len(config.categories))
        inputs["static"] = Input(shape, "int32", "numbers of the static categories")
    if config.frequency_vocabulary:
        inputs["frequency"] = Input((None,), "int32", "number of the frequency token; 0 = any")
    shift = mean[:, None] if len(mean) else np.zeros((channels, 1), np.float32)
    scale = deviation[:, None] if len(mean) else np.ones((channels, 1), np.float32)

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        model = rebuild(weights)
        standard = {name: batch[name] for name in ("context", "future") if name in batch}
        if len(mean):
            standard = {name: (x - shift) / scale for name, x in standard.items()}
        predictions, loc_scale = model(
            standard["context"],
            standard.get("future"),
            static=batch.get("static"),
            frequency=batch.get("frequency"),
        )
        forecast = model.unscale(predictions, loc_scale)
        if len(mean):
            places = np.asarray(predicted)
            forecast = forecast * scale[places, :, None] + shift[places, :, None]
        return {"forecast": jnp.asarray(forecast)}

    def sample(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        x = scale * walks(rng, (rows, channels, past[-1] + ahead[-1])) + shift
        batch = {"context": x[..., : past[-1]]}
        if config.known_channels:
            batch["future"] = x[..., past[-1] :]
        if config.categories:
            columns = [rng.integers(0, entries, rows) for entries in config.categories]
            batch["static"] = np.stack(columns, axis=1).astype(np.int32)
        if config.frequency_vocabulary:
            batch["frequency"] = rng.integers(0, config.frequency_vocabulary, rows, np.int32)
        return batch

    levels = list(config.quantiles)
    named = {name: facts[name] for name in ("names", "categories") if name in facts}
    if config.frequency_vocabulary:
        named["frequencies"] = dict(loaded.task.family.FREQUENCIES)
    return Head(
        *("ttm", "model", function, weights, inputs),
        {
            "forecast": f"(batch, {len(predicted)}, {len(levels)}, {config.horizon}) forecasts of "
            f"channels {', '.join(map(str, predicted))}, in the units of the channels"
        },
        {
            "quantiles": levels,
            "predicted_channels": predicted,
            "context_length": config.context_length,
            "horizon": config.horizon,
            "preprocessing": "inside: missing values, scaling and back"
            + (", standardisation of the training table" if len(mean) else ""),
            **named,
        },
        sample,
    )
