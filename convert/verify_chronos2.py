"""Chronos-2 beside the model of chronos-forecasting: blocks, predictions, loss, gradients."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import torch
from chronos.chronos2.model import Chronos2Model

from convert.verify import Row, max_error
from tsmjax import weights
from tsmjax.config import resolve
from tsmjax.models import chronos2
from tsmjax.nn.functional import abstract, merge
from tsmjax.tasks import Modules

PREDICTION_TOLERANCE = 1e-4  # in normalised space; relative where everything is below 1
STATE_TOLERANCE = 1e-4  # relative to the largest hidden state
LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = (1e-4, 1e-6)  # relative to the tensor's norm and to the whole gradient's


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


@dataclasses.dataclass
class Trace:
    """What a forward and backward pass computed; everything in the reference's layout and names.

    Attributes:
      states: stage → hidden states (B, T, D).
      predictions: (B, Q, H) in normalised space.
      loss: the training loss.
      gradients: tensor name → gradient.
    """

    states: dict[str, np.ndarray]
    predictions: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]


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
    mine = ours(folder, case, gradients)
    seen = mine.states.pop("observed")

    def row(name: str, error, floor: float, detail: bool = False) -> Row:
        return Row(name, error(mine), max(floor, 3 * error(eager)), detail)

    rows = []
    for stage, expected in theirs.states.items():
        size = float(np.abs(expected[seen]).max())
        rows.append(
            row(
                stage,
                lambda x, s=stage, e=expected: max_error(x.states[s][seen], e[seen]),
                STATE_TOLERANCE * size,
            )
        )
    rows.append(
        row(
            "predictions",
            lambda x: max_error(x.predictions, theirs.predictions),
            PREDICTION_TOLERANCE * min(1.0, float(np.abs(theirs.predictions).max())),
        )
    )
    rows.append(row("loss", lambda x: abs(x.loss - theirs.loss), LOSS_TOLERANCE * abs(theirs.loss)))
    whole = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in theirs.gradients.values()))
    relative, absolute = GRADIENT_TOLERANCE
    rows += [
        row(
            f"gradient {name}",
            lambda x, n=name, g=expected: float(np.linalg.norm(x.gradients[n] - g)),
            float(relative * np.linalg.norm(expected) + absolute * whole),
            detail=True,
        )
        for name, expected in theirs.gradients.items()
    ]
    return rows


def reference(folder: Path, case: Case, attention: str, gradients: bool) -> Trace:
    """Run chronos-forecasting's model in evaluation mode.

    Args:
      folder: Hugging Face folder with the weights.
      case: the batch.
      attention: its attention kernel, "sdpa" or "eager".
      gradients: run the backward pass too.
    """
    model = Chronos2Model.from_pretrained(folder, attn_implementation=attention).eval().float()
    states, heads = {}, []

    def keep(name: str):
        def hook(module, arguments, output):
            states[name] = (output if torch.is_tensor(output) else output[0]).detach().numpy()

        return hook

    for index, block in enumerate(model.encoder.block):
        block.register_forward_hook(keep(f"block {index}"))
    model.encoder.final_layer_norm.register_forward_hook(keep("final norm"))
    model.output_patch_embedding.register_forward_hook(lambda m, a, y: heads.append(y.detach()))
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
    head = heads[0].reshape(len(case.context), patches, -1, size).numpy()
    return Trace(
        states=states,
        predictions=head.swapaxes(1, 2).reshape(len(case.context), -1, patches * size),
        loss=float(output.loss.detach()),
        gradients={
            name: parameter.grad.numpy()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        },
    )


def ours(folder: Path, case: Case, gradients: bool) -> Trace:
    """Run our model and the loss of our training task on the same batch; see `reference`."""
    found = weights.read(folder, "chronos2")
    patches = -(-case.target.shape[1] // found.config_values["output_patch_size"])
    model_values = {**found.config_values, "family": "chronos2", "max_output_patches": patches}
    config = resolve({"model": model_values, "task": {"kind": weights.task("chronos2")}})
    task = config.build_task()
    graph, _, _ = abstract(lambda rngs: chronos2.Model(config.model, rngs=rngs))
    unrolled = dataclasses.replace(config.model, scan_layers=False)
    unrolled_graph, layout, _ = abstract(lambda rngs: chronos2.Model(unrolled, rngs=rngs))

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

    states = {}
    run_block = chronos2.Block.__call__

    def recording(block, *arguments):
        h = run_block(block, *arguments)
        states[f"block {len(states)}"] = gather(h, rows)
        return h

    model = merge(unrolled_graph, weights.relayout(found.params, layout), {})
    with mock.patch.object(chronos2.Block, "__call__", recording):
        inputs = (batch[name] for name in ("context", "future", "group"))
        final, _ = model.encode(*inputs, output_patches=patches)
    states["final norm"] = gather(final, rows)
    _, observed, _ = model.embed_tokens(
        batch["context"], batch["future"], None, output_patches=patches
    )
    states["observed"] = gather(observed, rows)
    return Trace(states, gather(predictions, rows), float(value), named)


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
