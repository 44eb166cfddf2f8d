"""The encoder of Chronos-T5 beside that of transformers: blocks, states, gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import T5EncoderModel

from convert.reference import gradients, load, record
from convert.verify import Row, Trace, compare, max_error, recording, unrolled
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import chronos_t5
from tsmjax.nn.functional import abstract, merge

TOKEN_TOLERANCE = 1e-3  # share of tokens in a neighbouring bin: Chronos scales in float32


def reference_class(hf: dict[str, Any]) -> type:
    """Return the class of the reference for a config.json."""
    return T5EncoderModel


def verify(folder: Path) -> list[Row]:
    """Compare on random walks with missing values.

    Args:
      folder: Hugging Face folder with the weights.
    """
    values = weights.read(folder, "chronos_t5").config_values
    config = build(chronos_t5.Config, values, "model")
    series = example(min(config.tokenizer.context_length, 150))
    tokens = chronos_t5.tokenize(config.tokenizer, series)
    theirs = reference(folder, tokens.ids, tokens.mask)
    mine = ours(folder, tokens.ids, tokens.mask)
    return [*token_rows(folder, series, tokens), *compare(mine, theirs)]


def example(length: int, rows: int = 4, seed: int = 0) -> np.ndarray:
    """Draw random walks (rows, length) with gaps; the first has none, the last is constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, length)).cumsum(axis=1) + rng.normal(0, 3, (rows, 1))
    gaps = rng.random(x.shape) < 0.1
    gaps[0] = False
    x[-1] = 2.5
    return np.where(gaps, np.nan, x).astype(np.float32)


def token_rows(folder: Path, series: np.ndarray, tokens: chronos_t5.Tokens) -> list[Row]:
    """Compare tokens with those of chronos-forecasting, where that is installed and has them."""
    entries = json.loads((folder / "config.json").read_text())["chronos_config"]
    try:
        from chronos.chronos import ChronosConfig, MeanScaleUniformBins
    except ImportError:
        return []
    if entries["tokenizer_class"] != "MeanScaleUniformBins":
        return []
    rest = {"prediction_length": 64, "num_samples": 1, "temperature": 1.0, "top_k": 50, "top_p": 1}
    reference = MeanScaleUniformBins(
        **entries["tokenizer_kwargs"], config=ChronosConfig(**{**rest, **entries})
    )
    ids, mask, scale = reference.context_input_transform(torch.from_numpy(series))
    apart = np.abs(ids.numpy() - tokens.ids)
    return [
        Row("tokens", max_error(tokens.ids, ids.numpy()), 1.0),
        Row("tokens in another bin", float((apart > 0).mean()), TOKEN_TOLERANCE),
        Row("mask", float((mask.numpy() != tokens.mask).sum()), 0.0),
        Row("scale", max_error(tokens.scale, scale.numpy()), 1e-6 * float(scale.max())),
    ]


def reference(folder: Path, ids: np.ndarray, mask: np.ndarray) -> Trace:
    """Run the encoder of transformers in evaluation mode.

    States are those of observed values; gradients those of a weighted sum of the final states.
    """
    model, lost = load(T5EncoderModel, folder)
    blocks = {f"block {index}": block for index, block in enumerate(model.encoder.block)}
    stages = {**blocks, "final norm": model.encoder.final_layer_norm}
    states = record(stages, lambda h: h[mask])
    h = model(
        torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask.astype(np.int64))
    ).last_hidden_state
    (h * torch.from_numpy(_weights(h.shape, mask))).sum().backward()
    return Trace(states, {}, gradients(model), lost=lost)


def ours(folder: Path, ids: np.ndarray, mask: np.ndarray) -> Trace:
    """Run our encoder on the same tokens; see `reference`."""
    found = weights.read(folder, "chronos_t5")
    config = build(chronos_t5.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))

    def total(params):
        h = merge(graph, params, {})(ids, mask)
        return (h * _weights(h.shape, mask)).sum()

    tree = jax.jit(jax.grad(total))(found.params)
    model, blocks = unrolled(chronos_t5, config, found.params), []
    with recording(chronos_t5.Block, blocks.append):
        final = model(ids, mask)
    stages = {**{f"block {index}": h for index, h in enumerate(blocks)}, "final norm": final}
    states = {stage: np.asarray(h)[mask] for stage, h in stages.items()}
    return Trace(states, {}, weights.tensors("chronos_t5", found.config_values, tree))


def _weights(shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """Fixed random weights of the states, 0 where a value is missing."""
    drawn = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return drawn * mask[..., None].astype(np.float32)
