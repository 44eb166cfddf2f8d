"""Skeleton models at the edge: frame by frame, and without BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tsmjax.data import motion
from tsmjax.errors import InputError
from tsmjax.models import last
from tsmjax.models.last import blocks, folding, operators
from tsmjax.models.last.streaming import Stream
from tsmjax.nn.functional import abstract, flatten, merge, unflatten

SMALL = {"channels": (8, 16, 8), "blocks": (1, 2, 1), "frames": 8, "num_classes": 3}
STRICT = {
    **{"net": "shiftfuse", "size": "nano", "causal": "strict", "skeleton": "ucla20"},
    **{"shiftfuse": last.ShiftFuseParts(dct_gate="none")},
}


def model_of(**values):
    config = last.Config(**{**SMALL, **values})
    graph, *trees = abstract(lambda rngs: last.Model(config, rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        start = 1.0 if path.endswith(("scale", "var", "edge")) else 0.0
        spread = (leaf.shape[0] if leaf.ndim > 1 else 10) ** -0.5
        return jnp.asarray(start + spread * rng.uniform(-1, 1, leaf.shape), jnp.float32)

    drawn = [unflatten({p: draw(p, x) for p, x in flatten(tree).items()}) for tree in trees]
    return config, merge(graph, *drawn)


def streams_of(config, joints):
    parents = last.skeleton(config.skeleton).parents()
    names = last.input_streams(config)
    return motion.streams(joints, names, parents, config.causal == "strict")


def joints_of(config, clips=2):
    size = last.skeleton(config.skeleton).size
    shape = (clips, 1, config.frames, size, 3)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def test_frame_by_frame_is_the_whole_clip():
    config, model = model_of(**STRICT)
    joints = joints_of(config)
    streams = streams_of(config, joints)
    whole = jax.jit(lambda streams: model(streams)["logits"])(streams)
    stream = Stream(model, clips=2)
    for frame in range(config.frames):
        logits = stream.push({name: x[:, 0, frame] for name, x in streams.items()})
    np.testing.assert_allclose(logits, whole, atol=1e-5)
    assert np.abs(np.asarray(whole)).max() > 0.01
    stream.reset()
    again = stream.push({name: x[:, 0, 0] for name, x in streams.items()})
    assert np.isfinite(again).all() and stream.frame == 1
    with pytest.raises(InputError, match="The stream bone is not there"):
        stream.push({name: x[:, 0, 0] for name, x in streams.items() if name != "bone"})


def test_velocities_look_back_where_the_model_does():
    joints = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 4, 20, 3)), jnp.float32)
    parents = last.skeleton("ucla20").parents()
    found = motion.streams(joints, ("joint_velocity",), parents, backward=True)["joint_velocity"]
    np.testing.assert_allclose(found[0, 0, 1:], joints[0, 0, 1:] - joints[0, 0, :-1], atol=1e-6)
    assert not found[0, 0, 0].any()


@pytest.mark.parametrize(
    "values", [{"net": "last_e", "size": "nano"}, {**STRICT, "shiftfuse": last.ShiftFuseParts()}]
)
def test_nets_that_see_whole_clips_cannot_be_strictly_causal(values):
    config = last.Config(**{**SMALL, **values, "causal": "strict"})
    with pytest.raises(InputError, match=r"model\.causal is 'strict', but"):
        abstract(lambda rngs: last.Model(config, rngs=rngs))


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"net": "shiftfuse", "size": "nano"}, 0),
        pytest.param({"net": "last_e", "size": "nano"}, 3 + 4 * 2, marks=pytest.mark.slow),
        pytest.param({"net": "last_v2", "size": "small"}, 3 + 1, marks=pytest.mark.slow),
        pytest.param({"net": "last_e_v3", "size": "base"}, 4, marks=pytest.mark.slow),
        pytest.param({"net": "last_base", "size": "base"}, 0, marks=pytest.mark.slow),
    ],
    ids=lambda value: value["net"] if isinstance(value, dict) else "",
)
def test_a_folded_model_gives_what_the_model_gives(values, left):
    config, model = model_of(**values)
    folded = folding.fold(model)
    assert folding.norms(model) > left and folding.norms(folded) == left
    streams = streams_of(config, joints_of(config))

    @jax.jit
    def both(streams):
        return model(streams)["logits"], folded(streams)["logits"]

    one, other = both(streams)
    np.testing.assert_allclose(other, one, atol=2e-5 * float(jnp.abs(one).max() + 1))
    assert float(jnp.ptp(one)) > 0.01


def test_convolutions_written_as_such_are_what_they_were():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 3, 12, 2)), jnp.float32)
    taps = jnp.asarray(rng.normal(size=(5, 6)), jnp.float32)
    pointwise = blocks.Pointwise(6, 4, rngs=nnx.Rngs(0))

    def compute(x):
        each = [blocks.depthwise(x, taps, *how) for how in ((1,), (2,), (1, 2), (1, 2, True))]
        return [*each, pointwise(x), blocks.hard_swish(x)]

    def exported(x):
        with operators.exported(convolutions=True):
            return compute(x)

    assert "conv_general_dilated" not in str(jax.make_jaxpr(compute)(x))
    written = str(jax.make_jaxpr(exported)(x))
    assert written.count("conv_general_dilated[") == 5 and "hard_sigmoid" in written
    for found, wanted in zip(jax.jit(exported)(x), jax.jit(compute)(x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
