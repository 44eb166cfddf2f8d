"""TTM beside the model of granite-tsfm: layers, forecast, loss, gradients.

The reference computes as with all switches of `compat` on, so that is how both are compared.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from tsfm_public.models.tinytimemixer import TinyTimeMixerForPrediction
from tsfm_public.models.tinytimemixer.modeling_tinytimemixer import (
    TinyTimeMixerForDecomposedPrediction,
    TinyTimeMixerLayer,
    TinyTimeMixerPositionalEncoding,
)

from convert import verify as shared
from convert.reference import gradients as gradients_of
from convert.reference import load, record
from convert.verify import Row, Trace
from tsmjax import weights
from tsmjax.config import resolve
from tsmjax.models.ttm import Compat, Config
from tsmjax.models.ttm.mixer import Layer
from tsmjax.nn.functional import abstract, merge
from tsmjax.tasks import Modules
from tsmjax.tasks.multivariate import Task

TOLERANCE = 1e-5  # relative to the largest state or forecast, or absolute where that is below 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch in the reference's layout, NaN = missing.

    Attributes:
      past: (B, T, C).
      future: (B, F, C), of all channels.
      static: (B, categories) int, or None.
      frequency: (B,) int, or None.
    """

    past: np.ndarray
    future: np.ndarray
    static: np.ndarray | None = None
    frequency: np.ndarray | None = None


def reference_class(hf: dict[str, Any]) -> type:
    """Return the class of the reference for a config.json."""
    return (
        TinyTimeMixerForDecomposedPrediction if hf.get("decompose") else TinyTimeMixerForPrediction
    )


def verify(folder: Path) -> list[Row]:
    """Compare on seasonal random walks with missing values.

    Args:
      folder: Hugging Face folder with the weights.
    """
    _, task = read(folder)
    return compare(folder, example(task.config.model))


def example(config: Config, windows: int = 5, seed: int = 0) -> Case:
    """Draw seasonal random walks with gaps for a model of `config`.

    The reference counts missing labels in the loss of quantiles and of decomposed models, so that
    there are none for these.
    """
    rng = np.random.default_rng(seed)
    T, F, C = config.context_length, config.horizon, config.num_input_channels
    t = np.arange(T + F)[:, None]
    walk = rng.normal(size=(windows, T + F, C)).cumsum(axis=1) * 0.1
    season = 2.0 * np.sin(2 * np.pi * t / rng.integers(5, 40, (windows, 1, C)))
    x = (walk + season + rng.normal(0, 3, (windows, 1, C))).astype(np.float32)
    past, future = x[:, :T], x[:, T:]
    past[rng.random(past.shape) < 0.1] = np.nan
    gaps = rng.random(future.shape) < 0.1
    gaps[..., list(config.known_channels)] = False
    if not (config.quantile_head.levels or config.decomposition.enabled):
        future[gaps] = np.nan
    static = frequency = None
    if config.categories:
        static = np.stack([rng.integers(0, size, windows) for size in config.categories], axis=1)
    if config.frequency_vocabulary:
        frequency = rng.integers(0, config.frequency_vocabulary, windows)
    return Case(past, future, static, frequency)


def read(folder: Path) -> tuple[weights.Imported, Task]:
    """Read weights, and build the training task for them, with every switch of `compat` on."""
    switches = {field.name: True for field in dataclasses.fields(Compat)}
    found = weights.read(folder, "ttm", model_overrides={"compat": switches})
    model = {"family": "ttm", **found.config_values}
    config = resolve({"model": model, "task": {"kind": weights.task("ttm")}})
    return found, config.build_task()


def compare(folder: Path, case: Case, gradients: bool = True) -> list[Row]:
    """Run both implementations on `case` and compare what they compute.

    Args:
      folder: Hugging Face folder with the weights.
      case: the batch.
      gradients: compare the gradients too.
    """
    theirs = reference(folder, case, gradients)
    mine = ours(folder, case, gradients)
    if len(mine.states) != len(theirs.states):
        raise AssertionError(f"{len(mine.states)} layers of ours, {len(theirs.states)} of theirs")
    mine.states = dict(zip(theirs.states, mine.states.values(), strict=True))
    return shared.compare(mine, theirs, TOLERANCE, at_least=1.0)


def reference(folder: Path, case: Case, gradients: bool) -> Trace:
    """Run granite-tsfm's model in evaluation mode."""
    kind = reference_class(json.loads((folder / "config.json").read_text()))
    model, lost = load(kind, folder)
    for module in model.modules():
        # The table of sines is fixed, which transformers 5 forgets when it loads the weights.
        fixed = isinstance(module, TinyTimeMixerPositionalEncoding)
        if fixed and model.config.positional_encoding_type == "sincos":
            module.position_enc.requires_grad_(False)
    states = record(
        {
            name.replace(".encoder.mlp_mixer_encoder", "").replace("mixer_layers", "layers"): module
            for name, module in model.named_modules()
            if isinstance(module, TinyTimeMixerLayer)
        }
    )

    def observed(x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        seen = np.isfinite(x)
        return torch.tensor(np.where(seen, x, 0.0)), torch.tensor(seen.astype(np.float32))

    (past, past_seen), (future, future_seen) = observed(case.past), observed(case.future)
    with torch.set_grad_enabled(gradients):
        output = model(
            past,
            future_values=future,
            past_observed_mask=past_seen,
            future_observed_mask=future_seen,
            freq_token=None if case.frequency is None else torch.tensor(case.frequency),
            static_categorical_values=None if case.static is None else torch.tensor(case.static),
        )
        if gradients:
            output.loss.backward()
    if output.quantile_outputs is None:
        forecast = output.prediction_outputs.detach().permute(0, 2, 1)[:, :, None]
    else:
        forecast = output.quantile_outputs.detach().permute(0, 3, 1, 2)
    found = gradients_of(model) if gradients else {}
    return Trace(states, {"forecast": forecast.numpy()}, found, float(output.loss.detach()), lost)


def ours(folder: Path, case: Case, gradients: bool) -> Trace:
    """Run our model and the loss of our training task on the same batch; see `reference`."""
    found, task = read(folder)
    graph, _, _ = abstract(lambda rngs: task.build(rngs).model)
    batch = {
        "context": case.past.swapaxes(1, 2),
        "target": case.future.swapaxes(1, 2),
        "future": case.future.swapaxes(1, 2),
    }
    if case.static is not None:
        batch["static"] = case.static
    if case.frequency is not None:
        batch["frequency"] = case.frequency
    counts = task.weights(batch)

    def loss(params):
        model, states = merge(graph, params, {}), []
        sums = task.terms(Modules(model), batch, None, False)
        total = sum(task.coefficients[name] * sums[name] / counts[name] for name in sums)
        with shared.recording(Layer, lambda x: states.append(jnp.moveaxis(x, 0, 2))):
            forecast = task.predict(model, batch)
        return total, (forecast, states)

    if gradients:
        (value, seen), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
        named = weights.tensors("ttm", found.config_values, tree)
    else:
        (value, seen), named = jax.jit(loss)(found.params), {}
    forecast, layers = jax.tree.map(np.asarray, seen)
    states = {f"layer {index}": h for index, h in enumerate(layers)}
    return Trace(states, {"forecast": forecast}, named, float(value))
