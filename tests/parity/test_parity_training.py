"""Twenty optimiser steps from the same weights on the same batches, beside PyTorch's AdamW."""

import jax
import numpy as np
import pytest
import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model

from convert.verify_chronos2 import example, pack, spread
from tsmjax import optim, sharding, state, step, weights
from tsmjax.config import resolve

STEPS, CONTEXT, HORIZON = 20, 128, 40
SIZE = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = Chronos2CoreConfig(
        **SIZE,
        dropout_rate=0.0,
        architectures=["Chronos2Model"],
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config={
            "input_patch_size": 16,
            "output_patch_size": 16,
            "input_patch_stride": 16,
            "use_reg_token": True,
            "use_arcsinh": True,
            "context_length": CONTEXT,
            "quantiles": [round(0.1 * i, 1) for i in range(1, 10)],
            "max_output_patches": 3,
            "time_encoding_scale": CONTEXT,
        },
    )
    path = tmp_path_factory.mktemp("reference") / "model"
    Chronos2Model(config).save_pretrained(path)
    return path


def cases():
    return [example(CONTEXT, HORIZON, rows=12, seed=seed) for seed in range(STEPS)]


def reference_losses(model, groups, settings):
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"])
    losses = []
    for case in cases():
        loss = model(
            context=torch.tensor(case.context),
            group_ids=torch.tensor(case.group_ids),
            future_covariates=torch.tensor(case.future),
            future_target=torch.tensor(case.target),
            num_output_patches=3,
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        optimizer.step()
        losses.append(loss.item())
    return losses


def decay_groups(model):
    plain = [p for name, p in model.named_parameters() if "norm" in name or "bias" in name]
    names = {id(p) for p in plain}
    decayed = [p for p in model.parameters() if id(p) not in names]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def our_step(folder, settings, **model):
    """The compiled step and its start, on one device: (state, frozen leaves, step)."""
    found = weights.read(folder)
    config = resolve(
        {
            "model": {"family": found.family, **found.config_values, **model},
            "task": {"kind": "forecast"},
            "data": {
                "sources": ({"path": "unused", "weight": 1.0},),
                "prediction_length": 3 * 16,
            },
            "optim": {"schedule": "constant", **settings},
            "mesh": {"replica": 1},
        }
    )
    task = config.build_task()
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
    current, frozen = init(jax.random.key(0))
    params = weights.relayout(found.params, plan.model_params())
    current, frozen = state.replace_model(current, frozen, params, {})
    schedule = optim.learning_rate(config.optim, STEPS)
    train = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract)
    return current, frozen, train


def our_batch(case, packs=None):
    rows = pack(case.group_ids, packs)
    blank = np.full((len(case.target), 48 - HORIZON), np.nan, np.float32)
    return {
        "context": spread(case.context, rows),
        "target": spread(np.concatenate([case.target, blank], 1), rows),
        "future": spread(np.concatenate([case.future, blank], 1), rows),
        "group": np.where(rows >= 0, case.group_ids[rows], -1).astype(np.int32),
        "patches": np.full(len(rows), 3, np.int32),
    }


def our_losses(folder, settings, packs):
    current, frozen, train = our_step(folder, {**settings, "weight_decay": 0.01})
    losses = []
    for case in cases():
        current, metrics = train(current, frozen, our_batch(case, packs), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.parametrize(("packs", "accumulate"), [(None, 1), (3, 1), (4, 2)])
def test_losses_of_twenty_steps_agree(folder, packs, accumulate):
    """Groups one to a pack, packed together, and accumulated over uneven micro-batches."""
    settings = {"lr": 1e-4, "clip": 1.0}
    model = Chronos2Model.from_pretrained(folder).train()
    expected = reference_losses(model, decay_groups(model), settings)
    found = our_losses(folder, {**settings, "accumulate": accumulate}, packs)
    assert expected[-1] != expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
