"""LAST-E v3: spatial graph convolution, separable temporal convolution, motion gates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.last.blocks import (
    BatchNorm,
    JointAttention,
    Pass,
    Pointwise,
    SeparableTCN,
    Shortcut,
    along_time,
    drop_path,
    hard_swish,
)
from tsmjax.models.last.graph import Graph
from tsmjax.nn.linear import Linear

STREAMS = ("joint", "joint_velocity", "bone")
BODIES = "first"
NORM = "graph"


@dataclasses.dataclass(frozen=True)
class Size:
    """A published size.

    Attributes:
      stem: width of the stem.
      channels: width of each stage.
      blocks: blocks of each stage.
      hops: greatest distance of neighbours.
      subset_attention: weigh the subsets of the graph clip by clip.
      bottleneck: heads of the information-bottleneck loss.
      dropout: before the classifier.
      drop_path: of the last block; rising linearly from 0 at the first.
      hybrid: gates of the last stage see frequencies too.
    """

    stem: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    hops: int
    subset_attention: bool
    bottleneck: bool
    dropout: float
    drop_path: float
    hybrid: bool = False


SIZES = {
    "nano": Size(24, (32, 48, 64), (1, 1, 1), 1, False, False, 0.2, 0.0),
    "small": Size(32, (48, 64, 96), (1, 2, 2), 2, True, False, 0.25, 0.0),
    "base": Size(48, (64, 96, 128), (2, 2, 2), 2, True, True, 0.3, 0.05),
    "large": Size(48, (80, 112, 160), (2, 2, 2), 2, True, True, 0.3, 0.1, hybrid=True),
}


class SpatialGCN(nnx.Module):
    """Graph convolution with a weight for each edge, and subsets weighed clip by clip.

    K groups of channels from one 1×1 convolution are mixed by A_k ∘ E_k, E being one at first, and
    added; with attention, each clip weighs the groups by the softmax of a projection of their
    means.

    Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), section 3.5 (edge
    importance), and Lee et al., "HD-GCN" (2023), section 3.4 (attention over subsets).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        graph: Graph,
        joints: int,
        attention: bool,
        *,
        rngs: nnx.Rngs,
    ):
        K = graph.count
        self.conv = Pointwise(inputs, K * outputs, rngs=rngs)
        self.edge = nnx.Param(jnp.ones((K, joints, joints)))
        self.attention = Linear(K * outputs, K, std=0.01, rngs=rngs) if attention else None
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.graph = graph

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T, N)."""
        edges = self.edge[...]
        graphs = jnp.asarray(self.graph.subsets(), edges.dtype) * edges.swapaxes(1, 2)
        y = self.conv(x)
        y = y.reshape(len(graphs), -1, *y.shape[1:])
        if self.attention is None:
            return self.norm(jnp.einsum("kwv,kcvtn->cwtn", graphs, y), run)
        y = jnp.einsum("kwv,kcvtn->kcwtn", graphs, y)
        means = y.mean(axis=(2, 3)).reshape(-1, y.shape[-1])
        weights = jax.nn.softmax(self.attention(means.T).astype(jnp.float32), axis=-1)
        y = (y * weights.T.astype(y.dtype)[:, None, None, None]).sum(axis=0)
        return self.norm(y, run)


class MotionGate(nnx.Module):
    """Gate channels by how much they move, blended in by a factor that starts at zero.

    With the mean of |x_{t+1} − x_t| and, for "hybrid", the mean power in three bands of frequency,
    through → C/4 → C and a sigmoid to g: x + α · (x · g − x).
    """

    def __init__(self, channels: int, hybrid: bool, *, rngs: nnx.Rngs):
        inner = max(4, channels // 4)
        inputs = 4 * channels if hybrid else channels
        self.reduce = Linear(inputs, inner, std=0.01, rngs=rngs)
        self.expand = Linear(inner, channels, std=0.01, rngs=rngs)
        self.alpha = nnx.Param(jnp.zeros((channels,)))
        self.hybrid = hybrid

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        energy = jnp.abs(x[:, :, 1:] - x[:, :, :-1]).mean(axis=(1, 2))
        if self.hybrid:
            energy = jnp.concatenate([energy, *_bands(x)])
        gate = jax.nn.sigmoid(self.expand(jax.nn.relu(self.reduce(energy.T)))).T
        return x * (1 + self.alpha[...][:, None, None, None] * (gate[:, None, None] - 1))


class Block(nnx.Module):
    """Spatial graph convolution, temporal convolution, motion gate, joint attention, residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        hybrid: bool,
        rate: float,
        graph: Graph,
        joints: int,
        subset_attention: bool,
        *,
        rngs: nnx.Rngs,
    ):
        self.gcn = SpatialGCN(inputs, outputs, graph, joints, subset_attention, rngs=rngs)
        self.tcn = SeparableTCN(outputs, stride=stride, rngs=rngs)
        self.gate = MotionGate(outputs, hybrid, rngs=rngs)
        self.attention = JointAttention(outputs, rngs=rngs)
        self.shortcut = Shortcut(inputs, outputs, stride, rngs=rngs)
        self.drop_path = rate

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        y = self.gate(self.tcn(hard_swish(self.gcn(x, run)), run))
        y = drop_path(self.attention(y, run), self.drop_path, key)
        return self.shortcut(x, run) + y


def _bands(x: jax.Array) -> list[jax.Array]:
    """Mean power of (C, V, T, N) in three bands of its real Fourier transform, (C, N) each."""
    frames = x.shape[2]
    angle = 2 * np.pi / frames * np.outer(np.arange(frames // 2 + 1), np.arange(frames))
    x = x.astype(jnp.float32)
    power = jnp.square(along_time(np.cos(angle), x)) + jnp.square(along_time(np.sin(angle), x))
    third = max(power.shape[2] // 3, 1)
    bands = (slice(0, third), slice(third, 2 * third), slice(2 * third, None))
    return [power[:, :, band].mean(axis=(1, 2)) for band in bands]
