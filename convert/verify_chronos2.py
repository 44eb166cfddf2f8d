"""Chronos-2 beside the model of chronos-forecasting: blocks, predictions, loss, gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from chronos.chronos2.model import Chronos2Model

from convert import verify as shared
from convert.reference import gradients as gradients_of
from convert.reference import load, record
from convert.verify import Row, Trace
from tsmjax import weights
from tsmjax.config import resolve
from tsmjax.models import chronos2
from tsmjax.nn.functional import abstract, merge
from tsmjax.tasks import Modules

# Factor of random initial weights with which states stay of order one and every block changes its
# input by a third; with larger ones attention is so sharp that rounding decides where it looks.
INITIALIZER_FACTOR = 0.05


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch in the reference's layout: one row a series, NaN = missing.

    Attributes:
      context: (B, C).
      target: (B, H), all NaN for covariates.
      future: (B, H) known future covariates.
      group_ids: (B,) id of each row's group.
      packs: number of packs the groups are dealt to in our layout; None = one group a pack.
    """

    context: np.ndarray
    target: np.ndarray
    future: np.ndarray
    group_ids: np.ndarray
    packs: int | None = None


def reference_class(hf: dict[str, Any]) -> type:
    """Return the class of the reference for a config.json."""
    return Chronos2Model


def verify(folder: Path) -> list[Row]:
    """Compare on a batch of mixed groups with missing values and covariates.

    Args:
      folder: Hugging Face folder with the weights.
    """
    values = weights.read(folder, "chronos2").config_values
    patch = values["output_patch_size"]
    horizon = max(1, min(3, values["max_output_patches"]) * patch - patch // 2)
    return compare(folder, example(min(values["context_length"], 20 * patch), horizon))


def example(context: int, horizon: int, rows: int = 7, seed: int = 0) -> Case:
    """Draw seasonal random walks in groups of up to three, with gaps and both kinds of covariates.

    The first group has a target, a past-only and a known-future covariate; the second two targets;
    the third one target and a known covariate; further rows are alone.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(context + horizon)
    x = rng.normal(size=(rows, t.size)).cumsum(axis=1) * 0.3
    x += 2.0 * np.sin(2 * np.pi * t / rng.integers(5, 40, (rows, 1))) + rng.normal(0, 5, (rows, 1))
    past, ahead = x[:, :context].astype(np.float32), x[:, context:].astype(np.float32)
    past[rng.random(past.shape) < 0.05] = np.nan
    past[1, : context // 2] = np.nan
    group_ids = np.array([0, 0, 0, 1, 1, 2, 2, *range(3, rows)])[:rows]
    target, future = ahead.copy(), np.full_like(ahead, np.nan)
    target[rng.random(target.shape) < 0.1] = np.nan
    for covariate, known in ((1, False), (2, True), (6, True)):
        if covariate < rows:
            target[covariate] = np.nan
            if known:
                future[covariate] = ahead[covariate]
    return Case(past, target, future, group_ids)


def compare(folder: Path, case: Case, gradients: bool = True) -> list[Row]:
    """Run both implementations on `case` and compare what they compute.

    Where rounding makes the reference's two attention kernels disagree by more than the fixed
    tolerance, three times that disagreement is allowed.

    Args:
      folder: Hugging Face folder with the weights.
      case: the batch.
      gradients: compare the gradients too.
    """
    theirs = reference(folder, case, "sdpa", gradients)
    eager = reference(folder, case, "eager", gradients)
    mine, seen = ours(folder, case, gradients)
    for trace in (mine, theirs, eager):
        trace.states = {stage: h[seen] for stage, h in trace.states.items()}
    return shared.compare(mine, theirs, again=eager)


def reference(folder: Path, case: Case, attention: str, gradients: bool) -> Trace:
    """Run chronos-forecasting's model in evaluation mode.

    Args:
      folder: Hugging Face folder with the weights.
      case: the batch.
      attention: its attention kernel, "sdpa" or "eager".
      gradients: run the backward pass too.
    """
    model, lost = load(Chronos2Model, folder, attn_implementation=attention)
    blocks = {f"block {index}": block for index, block in enumerate(model.encoder.block)}
    states = record({**blocks, "final norm": model.encoder.final_layer_norm})
    heads = record({"head": model.output_patch_embedding})
    size = model.chronos_config.output_patch_size
    patches = -(-case.target.shape[1] // size)
    with torch.set_grad_enabled(gradients):
        output = model(
            torch.from_numpy(case.context),
            group_ids=torch.from_numpy(case.group_ids),
            future_covariates=torch.from_numpy(case.future),
            future_target=torch.from_numpy(case.target),
            num_output_patches=patches,
        )
        if gradients:
            output.loss.backward()
    head = heads["head"].reshape(len(case.context), patches, -1, size)
    predictions = head.swapaxes(1, 2).reshape(len(case.context), -1, patches * size)
    found = gradients_of(model) if gradients else {}
    return Trace(states, {"predictions": predictions}, found, float(output.loss.detach()), lost)


def ours(folder: Path, case: Case, gradients: bool) -> tuple[Trace, np.ndarray]:
    """Run our model and the loss of our training task on the same batch; see `reference`.

    Returns:
      The trace, and which tokens (B, T) hold observed values.
    """
    found = weights.read(folder, "chronos2")
    patches = -(-case.target.shape[1] // found.config_values["output_patch_size"])
    model_values = {**found.config_values, "family": "chronos2", "max_output_patches": patches}
    config = resolve({"model": model_values, "task": {"kind": weights.task("chronos2")}})
    task = config.build_task()
    graph, _, _ = abstract(lambda rngs: chronos2.Model(config.model, rngs=rngs))

    rows = pack(case.group_ids, case.packs)
    missing = patches * config.model.patch_size - case.target.shape[1]
    widen = ((0, 0), (0, missing))
    target, future = (np.pad(x, widen, constant_values=np.nan) for x in (case.target, case.future))
    batch = {
        "context": spread(case.context, rows),
        "target": spread(target, rows),
        "future": spread(future, rows),
        "group": np.where(rows >= 0, case.group_ids[rows], -1),
        "patches": np.full(len(rows), patches, np.int32),
    }

    def loss(params):
        model = merge(graph, params, {})
        predictions, _ = model(
            *(batch[name] for name in ("context", "future", "group", "patches")),
            output_patches=patches,
        )
        sums = task.terms(Modules(model), batch, None, False)
        return sums["loss_padded"] / task.weights(batch)["loss_padded"], predictions

    if gradients:
        (value, predictions), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
        named = weights.tensors("chronos2", found.config_values, tree)
    else:
        (value, predictions), named = jax.jit(loss)(found.params), {}

    blocks = []
    model = shared.unrolled(chronos2, config.model, found.params)
    with shared.recording(chronos2.Block, blocks.append):
        inputs = (batch[name] for name in ("context", "future", "group"))
        final, _ = model.encode(*inputs, output_patches=patches)
    stages = {**{f"block {index}": h for index, h in enumerate(blocks)}, "final norm": final}
    states = {stage: gather(h, rows) for stage, h in stages.items()}
    _, observed, _ = model.embed_tokens(
        batch["context"], batch["future"], None, output_patches=patches
    )
    outputs = {"predictions": gather(predictions, rows)}
    return Trace(states, outputs, named, float(value)), gather(observed, rows)


def pack(group_ids: np.ndarray, packs: int | None = None) -> np.ndarray:
    """Deal whole groups to packs.

    Args:
      group_ids: (B,) id of each row's group.
      packs: number of packs; None = one group a pack.

    Returns:
      (packs, slots) row numbers, −1 = empty slot.
    """
    groups = [np.flatnonzero(group_ids == name) for name in dict.fromkeys(group_ids.tolist())]
    dealt = [np.concatenate(groups[i :: packs or len(groups)]) for i in range(packs or len(groups))]
    rows = np.full((len(dealt), max(map(len, dealt))), -1)
    for p, members in enumerate(dealt):
        rows[p, : len(members)] = members
    return rows


def spread(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Lay out flat rows (B, …) as packs (P, S, …), NaN in empty slots."""
    return np.where((rows >= 0)[..., None], x[rows], np.float32(np.nan))


def gather(y: jax.Array, rows: np.ndarray) -> np.ndarray:
    """Undo `spread` for an output (P, S, …)."""
    flat = np.asarray(y)[rows >= 0]
    return flat[np.argsort(rows[rows >= 0])]
