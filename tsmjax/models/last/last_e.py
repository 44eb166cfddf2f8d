"""LAST-E: streams fused at the input, a directional graph convolution, two temporal scales."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.last.blocks import (
    BatchNorm,
    Depthwise,
    JointAttention,
    Pass,
    Pointwise,
    Shortcut,
    drop_path,
    mix,
)
from tsmjax.models.last.graph import Graph
from tsmjax.nn.dropout import dropout, split

STREAMS = ("joint", "joint_velocity", "bone")
BODIES = "first"
NORM = "subset"
_DROPOUT = 0.1  # behind the temporal convolutions


@dataclasses.dataclass(frozen=True)
class Size:
    """A published size: width, blocks and gates (`JointAttention`) of each stage."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    attention: tuple[bool, ...]
    hops: int = 1
    dropout: float = 0.3
    drop_path: float = 0.0


SIZES = {
    "nano": Size((24, 48, 96), (2, 2, 3), (False, False, True)),
    "small": Size((32, 64, 128), (2, 3, 3), (False, True, True)),
    "base": Size((40, 80, 160), (3, 4, 4), (True, True, True)),
    "large": Size((48, 96, 192), (4, 5, 5), (True, True, True)),
}


class StreamFusion(nnx.Module):
    """BatchNorm of each stream, a shared 1×1 convolution, and a weighted sum per channel.

    The weights are a softmax over streams. The shared BatchNorm sees all streams together, in
    training as in evaluation.
    """

    def __init__(self, streams: int, outputs: int, *, rngs: nnx.Rngs):
        self.stream_norms = nnx.List([BatchNorm(3, rngs=rngs) for _ in range(streams)])
        self.conv = Pointwise(3, outputs, rngs=rngs)
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.stream_weights = nnx.Param(jnp.zeros((streams, outputs)))

    def __call__(self, streams: list[jax.Array], run: Pass) -> jax.Array:
        """Map streams (3, V, T, N) to (C, V, T, N)."""
        count, rows = len(streams), streams[0].shape[-1]
        pairs = zip(self.stream_norms, streams, strict=True)
        x = jnp.concatenate([norm(stream, run) for norm, stream in pairs], axis=-1)
        x = jax.nn.relu(self.norm(self.conv(x), run.tiled(count)))
        weights = jax.nn.softmax(self.stream_weights[...].astype(jnp.float32), axis=0)
        x = x.reshape(*x.shape[:-1], count, rows)
        return jnp.einsum("cvtsn,sc->cvtn", x, weights.astype(x.dtype))


class DirectionalGCN(nnx.Module):
    """Graph convolution whose channels weigh the subsets by a softmax of their own.

    y = W · Σ_k softmax_k(α)_{k,c} · (A_k x)_c with α = 0 at first.
    """

    def __init__(self, inputs: int, outputs: int, graph: Graph, *, rngs: nnx.Rngs):
        self.alpha = nnx.Param(jnp.zeros((graph.count, inputs)))
        self.conv = Pointwise(inputs, outputs, rngs=rngs)
        self.graph = graph

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T, N)."""
        weights = jax.nn.softmax(self.alpha[...].astype(jnp.float32), axis=0)
        graphs = jnp.einsum("kc,kwv->cwv", weights, self.graph.subsets())
        return self.conv(mix(x, graphs))


class Branch(nnx.Module):
    """BatchNorm, ReLU, depthwise convolution of nine frames, 1×1 convolution, BatchNorm."""

    def __init__(self, channels: int, stride: int, dilation: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(channels, rngs=rngs)
        self.depthwise = Depthwise(channels, 9, stride=stride, dilation=dilation, rngs=rngs)
        self.pointwise = Pointwise(channels, channels, rngs=rngs)
        self.output_norm = BatchNorm(channels, rngs=rngs)

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C, V, T / stride, N)."""
        y = self.depthwise(jax.nn.relu(self.norm(x, run)), run)
        return self.output_norm(self.pointwise(y), run)


class Block(nnx.Module):
    """Graph convolution, gates, both temporal scales side by side, residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        attention: bool,
        rate: float,
        graph: Graph,
        *,
        rngs: nnx.Rngs,
    ):
        self.gcn = DirectionalGCN(inputs, outputs, graph, rngs=rngs)
        self.gcn_norm = BatchNorm(outputs, rngs=rngs)
        self.attention = JointAttention(outputs, rngs=rngs) if attention else None
        self.branches = nnx.List([Branch(outputs // 2, stride, d, rngs=rngs) for d in (1, 2)])
        self.shortcut = Shortcut(inputs, outputs, stride, bias=True, rngs=rngs)
        self.drop_path = rate

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        dropout_key, path_key = split(key, 2)
        y = jax.nn.relu(self.gcn_norm(self.gcn(x), run))
        if self.attention:
            y = self.attention(y, run)
        halves = zip(self.branches, jnp.split(y, 2), strict=True)
        y = jnp.concatenate([branch(half, run) for branch, half in halves])
        y = drop_path(dropout(y, _DROPOUT, dropout_key), self.drop_path, path_key)
        return jax.nn.relu(y + self.shortcut(x, run))
