"""The encoder of Chronos-T5 beside that of transformers: blocks, states, gradients."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import torch
from transformers import T5EncoderModel

from convert.verify import Row, gradient_rows, max_error, state_rows
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import chronos_t5
from tsmjax.nn.functional import abstract, merge

STATE_TOLERANCE = 1e-4  # relative to the largest hidden state
TOKEN_TOLERANCE = 1e-3  # share of tokens in a neighbouring bin: Chronos scales in float32


@dataclasses.dataclass
class Trace:
    """What a forward and backward pass computed; everything in the reference's layout and names.

    Attributes:
      states: stage → hidden states (tokens, D) of observed values.
      gradients: tensor name → gradient of a weighted sum of the final states.
    """

    states: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def verify(folder: Path) -> list[Row]:
    """Compare on random walks with missing values.

    Args:
      folder: Hugging Face folder with the weights.
    """
    values = weights.read(folder, "chronos_t5").config_values
    config = build(chronos_t5.Config, values, "model")
    series = example(min(config.tokenizer.context_length, 200))
    tokens = chronos_t5.tokenize(config.tokenizer, series)
    theirs = reference(folder, tokens.ids, tokens.mask)
    mine = ours(folder, tokens.ids, tokens.mask)
    return [
        *token_rows(folder, series, tokens),
        *state_rows(mine.states, theirs.states, STATE_TOLERANCE),
        *gradient_rows(mine.gradients, theirs.gradients),
    ]


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
    """Run the encoder of transformers in evaluation mode."""
    model = T5EncoderModel.from_pretrained(folder).eval().float()
    states = {}

    def keep(name: str):
        def hook(module, arguments, output):
            h = output if torch.is_tensor(output) else output[0]
            states[name] = h.detach().numpy()[mask]

        return hook

    for index, block in enumerate(model.encoder.block):
        block.register_forward_hook(keep(f"block {index}"))
    model.encoder.final_layer_norm.register_forward_hook(keep("final norm"))
    h = model(
        torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask.astype(np.int64))
    ).last_hidden_state
    (h * torch.from_numpy(_weights(h.shape, mask))).sum().backward()
    return Trace(states, {name: p.grad.numpy() for name, p in model.named_parameters()})


def ours(folder: Path, ids: np.ndarray, mask: np.ndarray) -> Trace:
    """Run our encoder on the same tokens; see `reference`."""
    found = weights.read(folder, "chronos_t5", model_overrides={"scan_layers": False})
    config = build(chronos_t5.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))
    run_block = chronos_t5.Block.__call__

    def total(params):
        states = {}

        def recording(block, *arguments):
            h = run_block(block, *arguments)
            states[f"block {len(states)}"] = h
            return h

        with mock.patch.object(chronos_t5.Block, "__call__", recording):
            h = states["final norm"] = merge(graph, params, {})(ids, mask)
        return (h * _weights(h.shape, mask)).sum(), states

    tree, states = jax.jit(jax.grad(total, has_aux=True))(found.params)
    return Trace(
        states={name: np.asarray(h)[mask] for name, h in states.items()},
        gradients=weights.tensors("chronos_t5", found.config_values, tree),
    )


def _weights(shape: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """Fixed random weights of the states, 0 where a value is missing."""
    drawn = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return drawn * mask[..., None].astype(np.float32)
