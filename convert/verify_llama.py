"""Llama beside the model of transformers: blocks, logits, loss of the next token, gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import LlamaForCausalLM

from convert import verify as shared
from convert.reference import gradients as gradients_of
from convert.reference import load, record
from convert.verify import Row, Trace
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import llama
from tsmjax.nn.functional import abstract, merge
from tsmjax.nn.losses import cross_entropy


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch of texts, padded on the right.

    Attributes:
      tokens: (B, L) int.
      lengths: (B,) int.
    """

    tokens: np.ndarray
    lengths: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """Where tokens are no padding, (B, L)."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None]

    @property
    def labels(self) -> np.ndarray:
        """The next token of each (B, L), −1 where there is none."""
        following = np.roll(np.where(self.real, self.tokens, -1), -1, axis=1)
        following[:, -1] = -1
        return following


def reference_class(hf: dict[str, Any]) -> type:
    """Return the class of the reference for a config.json."""
    return LlamaForCausalLM


def verify(folder: Path) -> list[Row]:
    """Compare on random texts of several lengths.

    Args:
      folder: Hugging Face folder with the weights.
    """
    values = weights.read(folder, "llama").config_values
    return compare(folder, example(values["vocab_size"], min(values["max_positions"], 64)))


def example(vocabulary: int, length: int, rows: int = 3, seed: int = 0) -> Case:
    """Draw texts of random tokens; the first fills its row."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(max(2, length // 2), length + 1, rows)
    lengths[0] = length
    return Case(rng.integers(0, vocabulary, (rows, length)), lengths)


def compare(folder: Path, case: Case) -> list[Row]:
    """Run both implementations on `case` and compare what they compute."""
    return shared.compare(ours(folder, case), reference(folder, case))


def reference(folder: Path, case: Case) -> Trace:
    """Run the model of transformers in evaluation mode; states are those of real tokens."""
    model, lost = load(LlamaForCausalLM, folder, attn_implementation="eager")
    stages = {
        "embedding": model.model.embed_tokens,
        **{f"block {index}": layer for index, layer in enumerate(model.model.layers)},
        "final norm": model.model.norm,
    }
    states = record(stages, lambda h: h[case.real])
    output = model(
        torch.from_numpy(case.tokens), attention_mask=torch.from_numpy(case.real.astype(np.int64))
    )
    loss = torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), torch.from_numpy(case.labels).flatten(), ignore_index=-1
    )
    loss.backward()
    logits = output.logits.detach().numpy()[case.real]
    return Trace(states, {"logits": logits}, gradients_of(model), float(loss.detach()), lost)


def ours(folder: Path, case: Case) -> Trace:
    """Run our model on the same batch; see `reference`."""
    found = weights.read(folder, "llama")
    config = build(llama.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))

    def loss(params):
        model = merge(graph, params, {})
        logits = model.logits(model.hidden(model.embed(case.tokens)))
        losses = cross_entropy(logits, case.labels)
        return losses.sum() / (case.labels >= 0).sum(), logits

    (value, logits), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
    model, blocks = shared.unrolled(llama, config, found.params), []
    embedded = model.embed(case.tokens)
    with shared.recording(llama.Block, lambda output: blocks.append(output[0])):
        final = model.hidden(embedded)
    named = {f"block {index}": h for index, h in enumerate(blocks)}
    stages = {"embedding": embedded, **named, "final norm": final}
    states = {stage: np.asarray(h)[case.real] for stage, h in stages.items()}
    gradients = weights.tensors("llama", found.config_values, tree)
    return Trace(states, {"logits": np.asarray(logits)[case.real]}, gradients, float(value))
