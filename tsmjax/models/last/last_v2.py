"""LAST-v2: one shared backbone for each stream, adaptive graphs, linear attention along time."""

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
from tsmjax.nn.linear import Linear

STREAMS = ("joint", "joint_velocity", "bone")
BODIES = "mean_logits"
NORM = "subset"
_DROPOUT = 0.1  # behind temporal convolution or attention
_HEADS = 4


@dataclasses.dataclass(frozen=True)
class Size:
    """A size: width, blocks and linear attention of each stage."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    attention: tuple[bool, ...] = (False, True, True)
    hops: int = 1
    dropout: float = 0.3
    drop_path: float = 0.0


# `*_ref` are the published ones; the others have the numbers of parameters that were announced.
SIZES = {
    "small": Size((80, 160, 320), (3, 3, 4)),
    "base": Size((96, 192, 384), (4, 5, 5)),
    "large": Size((120, 240, 480), (6, 4, 5)),
    "small_ref": Size((64, 128, 256), (3, 3, 4), (False, False, True)),
    "large_ref": Size((128, 256, 512), (6, 6, 6)),
}


class StreamNorms(nnx.Module):
    """BatchNorm of each stream; the streams then follow one another as rows."""

    def __init__(self, streams: int, *, rngs: nnx.Rngs):
        self.stream_norms = nnx.List([BatchNorm(3, rngs=rngs) for _ in range(streams)])

    def __call__(self, streams: list[jax.Array], run: Pass) -> jax.Array:
        """Map S streams (3, V, T, N) to (3, V, T, S · N)."""
        pairs = zip(self.stream_norms, streams, strict=True)
        return jnp.concatenate([norm(stream, run) for norm, stream in pairs], axis=-1)


class AdaptiveGCN(nnx.Module):
    """Graph convolution over fixed subsets, a learned graph, and a graph of each clip.

    Each graph has a 1×1 convolution of its own, and the results are added. The learned graph A
    starts at zero and is taken as |A| / √((1 + d_i)(1 + d_j)) with degrees d of |A|, so that it can
    leave zero; the clip's is the softmax of the cosine similarity of projected joints.

    Source: Shi et al., "Two-Stream Adaptive Graph Convolutional Networks" (2019), section 4.1.
    """

    def __init__(self, inputs: int, outputs: int, graph: Graph, joints: int, *, rngs: nnx.Rngs):
        self.learned = nnx.Param(jnp.zeros((joints, joints)))
        self.project = Pointwise(inputs, max(4, inputs // 8), rngs=rngs)
        convs = [Pointwise(inputs, outputs, rngs=rngs) for _ in range(graph.count + 2)]
        self.convs = nnx.List(convs)
        self.graph = graph

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T, N)."""
        graphs = jnp.concatenate([self.graph.subsets(), self._learned().T[None]])
        y = self.convs[-1](jnp.einsum("nvw,cvtn->cwtn", self._of_clips(x), x))
        for number, graph in enumerate(graphs):
            y = y + self.convs[number](mix(x, graph[None]))
        return y

    def _learned(self) -> jax.Array:
        graph = self.learned[...]
        graph = jnp.where(graph < 0, -graph, graph)  # |A|, with a slope at zero
        scale = jax.lax.rsqrt(1 + graph.sum(axis=1))
        return scale[:, None] * graph * scale[None, :]

    def _of_clips(self, x: jax.Array) -> jax.Array:
        """Graphs of the clips, (N, V, V), rows (senders) summing to 1."""
        z = self.project(x.mean(axis=2)).astype(jnp.float32)
        z = z * jax.lax.rsqrt(jnp.square(z).sum(axis=0, keepdims=True) + 1e-12)
        return jax.nn.softmax(jnp.einsum("dvn,dwn->nvw", z, z), axis=-1).astype(x.dtype)


class TemporalConv(nnx.Module):
    """BatchNorm, ReLU, depthwise convolution of nine frames, 1×1 convolution, BatchNorm."""

    def __init__(self, channels: int, stride: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(channels, rngs=rngs)
        self.depthwise = Depthwise(channels, 9, stride=stride, rngs=rngs)
        self.pointwise = Pointwise(channels, channels, rngs=rngs)
        self.output_norm = BatchNorm(channels, rngs=rngs)

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C, V, T / stride, N)."""
        y = self.depthwise(jax.nn.relu(self.norm(x, run)), run)
        return dropout(self.output_norm(self.pointwise(y), run), _DROPOUT, key)


class LinearAttention(nnx.Module):
    """Attention of each joint along its frames, linear in their number.

    With φ(u) = elu(u) + 1: out_t = φ(q_t) · Σ_s φ(k_s) v_sᵀ / max(φ(q_t) · Σ_s φ(k_s), 1e-4), sums
    in float32. A stride averages three frames.

    Source: Katharopoulos et al., "Transformers are RNNs" (2020), equation 5.
    """

    def __init__(self, channels: int, stride: int, *, rngs: nnx.Rngs):
        self.qkv = Linear(channels, 3 * channels, std=0.01, rngs=rngs)
        self.output = Linear(channels, channels, std=0.01, bias=True, rngs=rngs)
        self.stride = stride

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C, V, T / stride, N)."""
        C, V, T, N = x.shape
        rows = x.transpose(3, 1, 2, 0).reshape(N * V, T, C)
        qkv = self.qkv(rows).reshape(N * V, T, 3, _HEADS, -1).astype(jnp.float32)
        q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
        q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
        y = q @ (k.swapaxes(-1, -2) @ v)
        y = y / jnp.maximum((q * k.sum(axis=2, keepdims=True)).sum(axis=-1, keepdims=True), 1e-4)
        y = self.output(y.swapaxes(1, 2).reshape(N * V, T, C).astype(x.dtype))
        y = dropout(y, _DROPOUT, key).reshape(N, V, T, C).transpose(3, 1, 2, 0)
        return y if self.stride == 1 else average_frames(y, self.stride)


class Block(nnx.Module):
    """Adaptive graph convolution, gates, convolution or attention along time, residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        attention: bool,
        rate: float,
        graph: Graph,
        joints: int,
        *,
        rngs: nnx.Rngs,
    ):
        self.gcn = AdaptiveGCN(inputs, outputs, graph, joints, rngs=rngs)
        self.gcn_norm = BatchNorm(outputs, rngs=rngs)
        self.attention = JointAttention(outputs, rngs=rngs)
        temporal = LinearAttention if attention else TemporalConv
        self.temporal = temporal(outputs, stride, rngs=rngs)
        self.shortcut = Shortcut(inputs, outputs, stride, bias=True, rngs=rngs)
        self.drop_path = rate

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        dropout_key, path_key = split(key, 2)
        y = jax.nn.relu(self.gcn_norm(self.gcn(x), run))
        y = self.temporal(self.attention(y, run), run, dropout_key)
        return jax.nn.relu(drop_path(y, self.drop_path, path_key) + self.shortcut(x, run))


def average_frames(x: jax.Array, stride: int) -> jax.Array:
    """Average three frames around every `stride`-th one, zeros beyond the ends, (C, V, T, N)."""
    frames = x.shape[2]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return sum(padded[:, :, i : i + frames : stride] for i in range(3)) / 3
