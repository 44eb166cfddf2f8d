"""Skeleton models beside their equations in PyTorch: same weights, logits and every gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import last_torch  # noqa: E402
from convert import torch_checkpoint  # noqa: E402
from tsmjax import weights  # noqa: E402
from tsmjax.config import build  # noqa: E402
from tsmjax.models import last  # noqa: E402
from tsmjax.nn.functional import abstract, merge  # noqa: E402

NETS, FRAMES, CLASSES = last.NETS, 16, 5
NARROW = {"channels": (8, 16, 24), "blocks": (1, 1, 1)}
TINY = {
    "last_e": dataclasses.replace(
        NETS["last_e"].SIZES["nano"], **NARROW, attention=(False, True, True)
    ),
    "last_v2": dataclasses.replace(NETS["last_v2"].SIZES["base"], **NARROW),
    "last_e_v3": dataclasses.replace(NETS["last_e_v3"].SIZES["large"], **NARROW, stem=8),
    "shiftfuse": dataclasses.replace(NETS["shiftfuse"].SIZES["nano_ref"], **NARROW, stem=8),
}
REFERENCES = {
    "last_e": last_torch.LastE,
    "last_v2": last_torch.LastV2,
    "last_e_v3": last_torch.LastEV3,
    "shiftfuse": lambda size, classes: last_torch.ShiftFuse(size, classes, FRAMES),
}


def reference_of(net):
    """A reference with weights, and running statistics, that make every tensor matter."""
    torch.manual_seed(0)
    model = REFERENCES[net](TINY[net], CLASSES)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if x.ndim == 1 or not x.any() or name.endswith("edge"):
                x.add_(0.3 * torch.randn_like(x))
        for name, x in model.named_buffers():
            if name.endswith("running_mean"):
                x.copy_(0.1 * torch.randn_like(x))
            elif name.endswith("running_var"):
                x.copy_(0.5 + torch.rand_like(x))
    return model.eval()


SLOW = ("last_v2", "last_e_v3")  # half a minute of compiling each


@pytest.mark.parametrize(
    "net", [pytest.param(net, marks=pytest.mark.slow if net in SLOW else ()) for net in REFERENCES]
)
def test_checkpoint_gives_the_logits_and_gradients_of_the_equations(net, tmp_path, monkeypatch):
    monkeypatch.setitem(NETS[net].SIZES, "tiny_ref", TINY[net])
    reference = reference_of(net)
    torch.save({"model_state_dict": reference.state_dict(), "epoch": 3}, tmp_path / "best.pth")
    found = torch_checkpoint.read(tmp_path / "best.pth", "last")
    assert (found.config_values["net"], found.config_values["size"]) == (net, "tiny_ref")
    values = {**found.config_values, "frames": FRAMES}
    config = build(last.Config, values, "model")
    graph, _, _ = abstract(lambda rngs: last.Model(config, rngs=rngs))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, FRAMES, 25, 3)).astype(np.float32)
    weight = rng.normal(size=(2, CLASSES)).astype(np.float32)

    given = [torch.tensor(stream).permute(0, 3, 1, 2) for stream in x]
    logits = reference(given)
    (logits * torch.tensor(weight)).sum().backward()

    @jax.jit
    def compute(params):
        def loss(params):
            model = merge(graph, params, found.stats)
            streams = dict(zip(last.input_streams(config), jnp.asarray(x)[:, :, None], strict=True))
            out = model(streams)["logits"]
            return (out * weight).sum(), out

        return jax.grad(loss, has_aux=True)(params)

    gradient, ours = compute(found.params)
    np.testing.assert_allclose(ours, logits.detach(), rtol=1e-4, atol=1e-5)
    named = weights.tensors("last", values, gradient)
    theirs = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert theirs.keys() == {name for name in named if not name.startswith("fc_")}
    for name, expected in theirs.items():
        scale = float(expected.abs().max()) + 1e-6
        np.testing.assert_allclose(named[name] / scale, expected / scale, atol=2e-4, err_msg=name)
