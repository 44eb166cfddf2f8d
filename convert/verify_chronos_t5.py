"""Chronos-T5 beside T5 of transformers: blocks, states, logits, gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import T5EncoderModel, T5ForConditionalGeneration

from convert.reference import gradients, load, record
from convert.verify import Row, Trace, compare, max_error, recording, unrolled
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import chronos_t5
from tsmjax.nn.functional import abstract, merge

# Factor of random initial weights with which every block changes its input by a fifth to a half.
INITIALIZER_FACTOR = 0.5
TOKEN_TOLERANCE = 1e-3  # share of tokens in a neighbouring bin: Chronos scales in float32


def reference_class(hf: dict[str, Any]) -> type:
    """Return the class of the reference for a config.json."""
    return T5ForConditionalGeneration if hf["is_encoder_decoder"] else T5EncoderModel


def verify(folder: Path) -> list[Row]:
    """Compare on random walks with missing values.

    Args:
      folder: Hugging Face folder with the weights.
    """
    values = weights.read(folder, "chronos_t5").config_values
    config = build(chronos_t5.Config, values, "model")
    series = example(min(config.tokenizer.context_length, 150))
    tokens = chronos_t5.tokenize(config.tokenizer, series)
    inputs = (tokens.ids, tokens.mask)
    if config.decoder:
        start = np.full((len(series), 1), config.tokenizer.pad_token, np.int32)
        inputs = (*inputs, np.concatenate([start, tokens.ids[:, -40:-1]], axis=1))
    theirs, mine = reference(folder, *inputs), ours(folder, *inputs)
    # In deep models with ReLU, rounding alone moves some units across zero.
    again = reference(folder, *inputs, double=True)
    return [*token_rows(folder, series, tokens), *compare(mine, theirs, again=again, kinks=True)]


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


def reference(
    folder: Path,
    ids: np.ndarray,
    mask: np.ndarray,
    given: np.ndarray | None = None,
    double: bool = False,
) -> Trace:
    """Run the model of transformers in evaluation mode.

    States are those of observed values. Gradients are those of a weighted sum of the logits or,
    without a decoder, of the final states.

    Args:
      folder: Hugging Face folder.
      ids: (B, L) tokens.
      mask: (B, L), False where a value is missing.
      given: (B, T) tokens of the decoder; None for the encoder alone.
      double: compute in float64.
    """
    model, lost = load(T5EncoderModel if given is None else T5ForConditionalGeneration, folder)
    model = model.double() if double else model
    states = record(_stages(model.encoder, "block"), lambda h: h[mask])
    inputs = {"attention_mask": torch.from_numpy(mask.astype(np.int64))}
    decoded: dict[str, np.ndarray] = {}
    if given is not None:
        decoded = record(_stages(model.decoder, "decoder block"))
        inputs["decoder_input_ids"] = torch.from_numpy(given).long()
    output = model(torch.from_numpy(ids).long(), **inputs)
    result = output.last_hidden_state if given is None else output.logits
    weights = torch.from_numpy(_weights(result.shape, mask, given))
    (result * weights.to(result.dtype)).sum().backward()
    outputs = {} if given is None else {"logits": result.detach().numpy()}
    return Trace(states | decoded, outputs, gradients(model), lost=lost)


def _stages(side: torch.nn.Module, name: str) -> dict[str, torch.nn.Module]:
    blocks = {f"{name} {index}": block for index, block in enumerate(side.block)}
    return {**blocks, f"{name.replace('block', 'final norm')}": side.final_layer_norm}


def ours(folder: Path, ids: np.ndarray, mask: np.ndarray, given: np.ndarray | None = None) -> Trace:
    """Run our model on the same tokens; see `reference`."""
    found = weights.read(folder, "chronos_t5")
    config = build(chronos_t5.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))

    def result(model: chronos_t5.Model) -> tuple[jax.Array, jax.Array]:
        h = model(ids, mask)
        return h, h if given is None else model.decode(given, h, mask)

    def total(params):
        _, y = result(merge(graph, params, {}))
        return (y * _weights(y.shape, mask, given)).sum()

    tree = jax.jit(jax.grad(total))(found.params)
    model, blocks, decoded = unrolled(chronos_t5, config, found.params), [], []
    with (
        recording(chronos_t5.Block, blocks.append),
        recording(chronos_t5.DecoderBlock, decoded.append),
        recording(chronos_t5.Decoder, decoded.append),
    ):
        final, y = result(model)
    stages = {**{f"block {index}": h for index, h in enumerate(blocks)}, "final norm": final}
    states = {stage: np.asarray(h)[mask] for stage, h in stages.items()}
    if given is not None:
        names = [*(f"decoder block {i}" for i in range(len(blocks))), "decoder final norm"]
        states |= {name: np.asarray(h) for name, h in zip(names, decoded, strict=True)}
    outputs = {} if given is None else {"logits": np.asarray(y)}
    return Trace(states, outputs, weights.tensors("chronos_t5", found.config_values, tree))


def _weights(shape: tuple[int, ...], mask: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Fixed random weights of what is summed, 0 for states at missing values."""
    drawn = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return drawn if given is not None else drawn * mask[..., None].astype(np.float32)
