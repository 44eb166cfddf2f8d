"""How the skeleton models shard, which of their parameters decay, and what they cost."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from tsmjax.models.last.config import Config
from tsmjax.models.last.model import Model, input_streams
from tsmjax.models.last.skeletons import skeleton
from tsmjax.nn.functional import abstract, merge

# All parameters together are smaller than one activation: every device holds them whole.
SHARDING = ((r".*", ()),)

# Structural tables and gates are free to leave their start: no weight decay, as with biases and
# norm scales. The kernels of 1×1 and depthwise convolutions and of projections decay.
TABLES = (
    r"/(alpha|stream_weights|learned|edge|group_graphs|graphs|prototypes|queries)$",
    r"/(mask|gate|frame_gate|embedding|joint_weights|frame_positions|joint_positions)$",
)
DECAY = tuple((pattern, 0.0) for pattern in (*TABLES, r"(^|/)(bias|scale)$"))


@functools.lru_cache
def flops(config: Config, clips: int) -> float:
    """FLOPs of one forward pass: matrix products and depthwise convolutions of one body a clip.

    Nets that read all bodies cost this times their number; training costs three times that.
    """
    graph, params, stats = abstract(lambda rngs: Model(config, rngs=rngs))
    shape = (1, 1, config.frames, skeleton(config.skeleton).size, 3)
    streams = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name in input_streams(config)}

    def logits(params, stats, streams):
        return merge(graph, params, stats)(streams)["logits"]

    return 2.0 * clips * _products(jax.make_jaxpr(logits)(params, stats, streams).jaxpr)


def _products(jaxpr: Any, inside_taps: bool = False) -> int:
    """Multiply-adds of the matrix products, and of the sums of taps, in a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        size = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += size * math.prod(shape[axis] for axis in contracted)
        elif equation.primitive.name == "mul" and inside_taps:
            total += size
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                taps = equation.primitive.name.startswith("custom_vjp")
                total += _products(inner, inside_taps or taps)
    return total
