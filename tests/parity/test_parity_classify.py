"""The weighted loss of activities against PyTorch's, over micro-batches and devices."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import torch
import toy_windows as toy

from tsmjax import optim, sharding, state, step
from tsmjax.config import resolve

PARTS, DEVICES = 2, 4


@pytest.mark.parametrize("rows_per_mean", [0, 4])
def test_loss_and_gradient_of_the_head_are_those_of_pytorch(tmp_path, rows_per_mean):
    """Over two micro-batches on four devices; with means of four windows each too."""
    config = resolve(
        toy.config(
            toy.write(tmp_path / "windows"),
            task={"compat": {"rows_per_mean": rows_per_mean}},
            optim={
                **{"accumulate": PARTS, "optimizer": "sgd", "momentum": 0.0, "nesterov": False},
                **{"lr": 1.0, "clip": 0.0},
            },
        )
    )
    task, mesh = config.build_task(), sharding.make_mesh(config.mesh, jax.devices()[:DEVICES])
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
    before, frozen = init(jax.random.key(0))
    schedule = optim.learning_rate(config.optim, 20)
    run = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract, donate=False)
    batch = task.batches("train", 0, 1)[0]
    after, metrics = run(before, frozen, sharding.put_batch(batch, mesh), jax.random.key(1))

    @jax.jit
    def pooled(params, frozen):
        model = plan.assemble(params, {"model": {}}, frozen).model
        h = model.llm.hidden(task._embed(model, batch))
        return h[np.arange(16), batch["lengths"] - 1]

    kernel = np.asarray(before["params"]["model"]["head"]["kernel"])
    h = torch.tensor(np.asarray(pooled(before["params"], frozen)))
    head = torch.tensor(kernel, requires_grad=True)
    labels, weight = torch.tensor(batch["label"]).long(), torch.tensor(task.class_weights)
    groups = [np.arange(16)]
    if rows_per_mean:  # row i is in micro-batch i mod PARTS
        groups = [np.arange(16)[part::PARTS] for part in range(PARTS)]
        groups = [own[at : at + 4] for own in groups for at in (0, 4)]
    losses = [
        torch.nn.functional.cross_entropy(h[rows] @ head, labels[rows], weight) for rows in groups
    ]
    loss = torch.stack(losses).mean()
    loss.backward()
    np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=1e-5)
    moved = kernel - np.asarray(after["params"]["model"]["head"]["kernel"])
    np.testing.assert_allclose(moved, head.grad.numpy(), rtol=1e-3, atol=1e-6)
