"""Llama beside the model of transformers: blocks, logits, loss of the next token, gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import torch
from transformers import LlamaForCausalLM

from convert.verify import Row, gradient_rows, max_error, state_rows
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import llama
from tsmjax.nn.functional import abstract, merge
from tsmjax.nn.losses import cross_entropy

STATE_TOLERANCE = 1e-4  # relative to the largest hidden state
LOGIT_TOLERANCE = 1e-4  # relative to the largest logit
LOSS_TOLERANCE = 1e-5  # relative


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


@dataclasses.dataclass
class Trace:
    """What a forward and backward pass computed; everything in the reference's layout and names.

    Attributes:
      states: stage → hidden states (tokens, D) of what is no padding.
      logits: (tokens, V), the same.
      loss: mean cross-entropy of the next tokens.
      gradients: tensor name → gradient.
    """

    states: dict[str, np.ndarray]
    logits: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]


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
    theirs, mine = reference(folder, case), ours(folder, case)
    logit = float(np.abs(theirs.logits).max())
    return [
        *state_rows(mine.states, theirs.states, STATE_TOLERANCE),
        Row("logits", max_error(mine.logits, theirs.logits), LOGIT_TOLERANCE * logit),
        Row("loss", abs(mine.loss - theirs.loss), LOSS_TOLERANCE * abs(theirs.loss)),
        *gradient_rows(mine.gradients, theirs.gradients),
    ]


def reference(folder: Path, case: Case) -> Trace:
    """Run the model of transformers in evaluation mode."""
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval().float()
    states = {}

    def keep(name: str):
        def hook(module, arguments, output):
            h = output if torch.is_tensor(output) else output[0]
            states[name] = h.detach().numpy()[case.real]

        return hook

    model.model.embed_tokens.register_forward_hook(keep("embedding"))
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(keep(f"block {index}"))
    model.model.norm.register_forward_hook(keep("final norm"))
    output = model(
        torch.from_numpy(case.tokens), attention_mask=torch.from_numpy(case.real.astype(np.int64))
    )
    loss = torch.nn.functional.cross_entropy(
        output.logits.flatten(0, 1), torch.from_numpy(case.labels).flatten(), ignore_index=-1
    )
    loss.backward()
    return Trace(
        states=states,
        logits=output.logits.detach().numpy()[case.real],
        loss=float(loss.detach()),
        gradients={name: p.grad.numpy() for name, p in model.named_parameters()},
    )


def ours(folder: Path, case: Case) -> Trace:
    """Run our model on the same batch; see `reference`."""
    found = weights.read(folder, "llama", model_overrides={"scan_layers": False})
    config = build(llama.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    run_block = llama.Block.__call__

    def loss(params):
        model = merge(graph, params, {})
        x = model.embed(case.tokens)
        states = {"embedding": x}

        def recording(block, *arguments):
            h, past = run_block(block, *arguments)
            states[f"block {len(states) - 1}"] = h
            return h, past

        with mock.patch.object(llama.Block, "__call__", recording):
            states["final norm"] = model.hidden(x)
        logits = model.logits(states["final norm"])
        losses = cross_entropy(logits, case.labels)
        return losses.sum() / (case.labels >= 0).sum(), (logits, states)

    (value, seen), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
    logits, states = jax.tree.map(lambda x: np.asarray(x)[case.real], seen)
    return Trace(states, logits, float(value), weights.tensors("llama", found.config_values, tree))
