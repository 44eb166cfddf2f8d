"""BatchNorm of a trained skeleton model, multiplied into the projections beside it.

In evaluation BatchNorm is an affine map of each channel, s · x + t. Behind a convolution its scale
goes into the kernel and its shift becomes a bias; the norms of the input streams, and the one
before the classifier, go into the projection that follows. Where something else stands between
(ReLU, or attention that reads the values) a norm stays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.last import last_base, last_e, last_e_v3, last_v2, shiftfuse
from tsmjax.models.last.blocks import (
    EPSILON,
    BatchNorm,
    Classifier,
    Pass,
    SeparableTCN,
    Shortcut,
    StreamConcat,
    _Squeeze,
)
from tsmjax.models.last.model import Model
from tsmjax.nn import functional
from tsmjax.nn.linear import Linear

# Class → (paths of the convolutions whose sum is normalised, name of the norm behind them).
_BEHIND: dict[type, tuple[tuple[tuple[str, ...], str], ...]] = {
    Shortcut: ((("conv",), "norm"),),
    SeparableTCN: (
        (("expand",), "expand_norm"),
        (("depthwise",), "depthwise_norm"),
        (("project",), "project_norm"),
    ),
    _Squeeze: ((("reduce",), "norm"),),
    StreamConcat: ((("conv",), "norm"),),
    shiftfuse.Block: ((("conv",), "norm"),),
    last_e.StreamFusion: ((("conv",), "norm"),),
    last_e.Branch: ((("pointwise",), "output_norm"),),
    last_e.Block: ((("gcn/conv",), "gcn_norm"),),
    last_v2.TemporalConv: ((("pointwise",), "output_norm"),),
    last_v2.Block: ((("gcn/convs/*",), "gcn_norm"),),
    last_e_v3.SpatialGCN: ((("conv",), "norm"),),
    last_base.CrossTemporalGCN: ((("conv",), "norm"),),
    last_base.Block: ((("depthwise",), "norm"),),
}


class Shift(nnx.Module):
    """What is left of a BatchNorm whose scale went into a kernel: a bias, or nothing."""

    def __init__(self, bias: jax.Array | None):
        self.bias = None if bias is None else nnx.Param(bias)

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, …) to the same shape."""
        if self.bias is None:
            return x
        return x + self.bias[...].reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)


def fold(model: Model) -> Model:
    """Return a model for evaluation that gives what `model` gives, with fewer operations.

    Its statistics are those of the norms that could not be folded; it must not be trained.
    """
    model = functional.merge(*functional.split(model))
    for _, node in list(nnx.iter_graph(model)):
        if isinstance(node, StreamConcat):
            _fold_streams(node)
        if isinstance(node, Classifier) and node.norm is not None:
            scale, shift = _affine(node.norm)
            _fold_before(node.linear, scale, shift)
            node.norm = None
        for paths, name in _BEHIND.get(type(node), ()):
            norm = getattr(node, name)
            if isinstance(norm, BatchNorm) and not _reads_values(node):
                convs = [conv for path in paths for conv in _find(node, path)]
                setattr(node, name, _fold_behind(convs, norm))
    return model


def norms(model: Model) -> int:
    """Number of BatchNorms in a model."""
    return sum(isinstance(node, BatchNorm) for _, node in nnx.iter_graph(model))


def _reads_values(node: nnx.Module) -> bool:
    """Whether attention over subsets looks at what the convolution says, before its norm."""
    return isinstance(node, last_e_v3.SpatialGCN) and node.attention is not None


def _find(node: nnx.Module, path: str) -> list[nnx.Module]:
    for name in path.split("/"):
        node = node if name == "*" else getattr(node, name)
    return list(node) if path.endswith("*") else [node]


def _affine(norm: BatchNorm) -> tuple[jax.Array, jax.Array]:
    scale = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + EPSILON)
    return scale, norm.bias[...] - norm.mean[...] * scale


def _fold_behind(convs: list[nnx.Module], norm: BatchNorm) -> Shift:
    """Scale the output channels of convolutions, (inputs, copies · outputs), and keep the shift."""
    scale, shift = _affine(norm)
    for conv in convs:
        outputs = conv.kernel.shape[-1]
        factors = jnp.tile(scale, outputs // len(scale))
        conv.kernel = nnx.Param(conv.kernel[...] * factors)
        if getattr(conv, "bias", None) is not None:
            conv.bias = nnx.Param(conv.bias[...] * factors)
    return Shift(shift)


def _fold_before(linear: Linear, scale: jax.Array, shift: jax.Array) -> None:
    """Let a projection take x instead of scale · x + shift."""
    kernel = linear.kernel[...]
    old = 0.0 if linear.bias is None else linear.bias[...]
    linear.bias = nnx.data(nnx.Param(old + shift @ kernel))  # None was static until now
    linear.kernel = nnx.Param(scale[:, None] * kernel)


def _fold_streams(stem: StreamConcat) -> None:
    pairs = [_affine(norm) for norm in stem.stream_norms]
    scale, shift = (jnp.concatenate(parts) for parts in zip(*pairs, strict=True))
    _fold_before(stem.conv, scale, shift)
    stem.stream_norms = nnx.List([Shift(None) for _ in pairs])
