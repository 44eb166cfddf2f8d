"""LAST-Base: graphs across frames and of prototypes, gates of frequencies, two kinds of attention.

What the published notes leave open is decided here: a block convolves along time behind its graph
convolution, context beyond the clip repeats its first or last frame, positions are a sum of one
table for frames and one for joints, and the skeleton's edges enter the softmax multiplied by
``graph_scale``.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.last.blocks import (
    BatchNorm,
    Depthwise,
    JointAttention,
    Pass,
    Pointwise,
    Shortcut,
    along_time,
    dct_matrix,
    drop_path,
)
from tsmjax.models.last.config import BaseParts
from tsmjax.models.last.graph import Graph
from tsmjax.models.last.last_e_v3 import SpatialGCN
from tsmjax.models.last.partitions import PartitionedAttention, RegionAttention
from tsmjax.nn.linear import Linear

STREAMS = ("joint",)
BODIES = "mean_features"
NORM = "graph"
_PROTOTYPES = 15
_GROUPS = 4  # of channels, with a graph each


@dataclasses.dataclass(frozen=True)
class Size:
    """The one size: width and blocks of each stage."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    hops: int = 1
    dropout: float = 0.3
    drop_path: float = 0.2  # of the last stage; half of it in the second, none in the first


SIZES = {"base": Size((128, 256, 384), (3, 4, 3))}


class GraphBank(nnx.Module):
    """Graphs of the prototypes, (15, V, V), shared by all blocks; zero at first."""

    def __init__(self, joints: int, *, rngs: nnx.Rngs):
        del rngs
        self.graphs = nnx.Param(jnp.zeros((_PROTOTYPES, joints, joints)))


class CrossTemporalGCN(nnx.Module):
    """Graph convolution with graphs predicted for each clip, and for each group of channels.

    Group g mixes its channels by the row softmax of

        s · A + ΔA + A_g + Σ_k w_k B_k,

    A the normalised skeleton, ΔA predicted from the means of frames t, t ± 1 and t ± 3, A_g
    learned, B_k the bank's graphs and w the softmax of the clip's mean along the block's
    prototypes.

    Source: Chen et al., "Channel-wise Topology Refinement Graph Convolution" (2021), equation 5,
    for graphs of groups of channels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        graph: Graph,
        joints: int,
        bank: GraphBank | None,
        parts: BaseParts,
        *,
        rngs: nnx.Rngs,
    ):
        squeezed = inputs // 8

        def linear(inputs: int, outputs: int, std: float) -> Linear:
            return Linear(inputs, outputs, std=std, bias=True, rngs=rngs)

        self.squeeze = linear(5 * inputs, squeezed, (5 * inputs) ** -0.5)
        self.hidden = linear(squeezed, parts.hidden, squeezed**-0.5)
        self.delta = linear(parts.hidden, joints * joints, 0.01)
        self.conv = Pointwise(inputs, outputs, bias=True, rngs=rngs)
        self.group_graphs = nnx.Param(jnp.zeros((_GROUPS, joints, joints)))
        self.bank = bank
        drawn = inputs**-0.5 * jax.random.normal(rngs.params(), (_PROTOTYPES, inputs))
        self.prototypes = None if bank is None else nnx.Param(drawn)
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.graph, self.scale = graph, parts.graph_scale

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T, N)."""
        V, T, N = x.shape[1:]
        frames = x.mean(axis=1)
        delta = self.delta(jax.nn.relu(self.hidden(self.squeeze(self._context(frames, run)))))
        physical = self.scale * self.graph.subsets().sum(axis=0)
        graphs = delta.reshape(N, 1, V, V) + physical + self.group_graphs[...]
        if self.bank is not None:
            likeness = frames.mean(axis=1).T @ self.prototypes[...].T
            weights = jax.nn.softmax(likeness.astype(jnp.float32), axis=-1).astype(x.dtype)
            graphs = graphs + jnp.einsum("nk,kwv->nwv", weights, self.bank.graphs[...])[:, None]
        graphs = jax.nn.softmax(graphs.astype(jnp.float32), axis=-1).astype(x.dtype)
        y = self.conv(x).reshape(_GROUPS, -1, V, T, N)
        return self.norm(jnp.einsum("ngwv,gcvtn->gcwtn", graphs, y).reshape(-1, V, T, N), run)

    def _context(self, frames: jax.Array, run: Pass) -> jax.Array:
        """Means of frames (C, T, N) and of their neighbours in time, (N, 5C)."""
        count = frames.shape[1]
        parts = [frames]
        for offset in (-1, 1, -3, 3):
            moved = frames[:, np.clip(np.arange(count) + offset, 0, count - 1)]
            if offset > 0 and run.causal is not None:
                moved = jnp.where(run.causal, frames, moved)
            parts.append(moved)
        return jnp.concatenate([part.mean(axis=1) for part in parts]).T


class FrequencyGate(nnx.Module):
    """Gate the frequencies of a clip: x + D^T (g ∘ D x), g from the mean of the spectrum D x."""

    def __init__(self, channels: int, frames: int, *, rngs: nnx.Rngs):
        inner = channels // 4
        self.reduce = Linear(channels, inner, std=0.01, bias=True, rngs=rngs)
        self.expand = Linear(inner, frames, std=0.01, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        matrix = dct_matrix(x.shape[2])
        spectrum = along_time(matrix, x.astype(jnp.float32))
        means = spectrum.mean(axis=(1, 2)).T
        gate = jax.nn.sigmoid(self.expand(jax.nn.relu(self.reduce(means)))).astype(jnp.float32)
        return x + along_time(matrix.T, spectrum * gate.T).astype(x.dtype)


class Block(nnx.Module):
    """Graph, time, frequencies, pairs of joints and frames, body regions; and a residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        frames: int,
        rate: float,
        graph: Graph,
        joints: int,
        bank: GraphBank | None,
        parts: BaseParts,
        *,
        rngs: nnx.Rngs,
    ):
        if parts.spatial == "ctp":
            self.gcn = CrossTemporalGCN(inputs, outputs, graph, joints, bank, parts, rngs=rngs)
        else:
            self.gcn = SpatialGCN(inputs, outputs, graph, joints, False, rngs=rngs)
        self.depthwise = Depthwise(outputs, 9, stride=stride, rngs=rngs)
        self.norm = BatchNorm(outputs, rngs=rngs)
        frames = frames // stride
        self.frequency_gate = (
            FrequencyGate(outputs, frames, rngs=rngs) if parts.frequency_gate else None
        )
        self.attention = {
            "partitioned": lambda: PartitionedAttention(
                outputs, frames, graph.skeleton, parts, rngs=rngs
            ),
            "joint": lambda: JointAttention(outputs, rngs=rngs),
            "none": lambda: None,
        }[parts.attention]()
        self.regions = (
            RegionAttention(outputs, graph.skeleton, rngs=rngs) if parts.regions else None
        )
        self.shortcut = Shortcut(inputs, outputs, stride, rngs=rngs)
        self.drop_path = rate

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        y = jax.nn.gelu(self.gcn(x, run), approximate=False)
        y = self.norm(self.depthwise(y, run), run)
        y = self.frequency_gate(y) if self.frequency_gate else y
        y = self.attention(y, run) if self.attention else y
        y = self.regions(y) if self.regions else y
        return self.shortcut(x, run) + drop_path(y, self.drop_path, key)
