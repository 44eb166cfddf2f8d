"""The mesh decides where work is done, and no number: one device, data parallel, FSDP × TP."""

import functools
import json

import jax
import numpy as np
import pytest

import tsmjax
from configs import chronos2_test
from tsmjax import sharding

STEPS = 20


def train(walks, run, **mesh):
    """Train twenty steps and return (losses, scores of validation and test)."""
    config = chronos2_test.get_config(walks).to_dict()
    config["model"] |= {"d_model": 32, "d_kv": 8, "d_ff": 64, "context_length": 64}
    config["model"] |= {"dropout_rate": 0.1}
    config["optim"] |= {"length": STEPS, "lr": 1e-4, "schedule": "constant", "warmup": 0}
    config["evals"] |= {"every": STEPS}
    config["log"] |= {"every": 1, "plots": False, "tensorboard": False}
    config["mesh"] = {"replicate_below": 0, **mesh}
    outcome = tsmjax.train(config, workdir=str(run))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    scores = {f"{split}/{k}": v for split in ("best", "test") for k, v in outcome[split].items()}
    return losses, scores


@pytest.fixture(scope="module")
def alone(walks, tmp_path_factory):
    """The numbers of one device."""
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", one)
        return train(walks, tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param({"replica": 8}, id="8 replicas"),
        pytest.param({"replica": 1, "fsdp": 4, "tensor": 2}, id="4 fsdp x 2 tensor"),
    ],
)
def test_losses_and_scores_are_those_of_one_device(walks, alone, tmp_path, mesh):
    losses, scores = train(walks, tmp_path / "run", **mesh)
    assert len(losses) == STEPS and len(set(losses)) == STEPS
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    assert scores.keys() == alone[1].keys() and any("wql" in name for name in scores)
    np.testing.assert_allclose([*scores.values()], [*alone[1].values()], rtol=1e-5)
