"""ShiftFuse (LAST-Lite): joints shifted between channels, fixed gates, no graph convolution."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.last.blocks import (
    BatchNorm,
    Pass,
    Pointwise,
    SeparableTCN,
    Shortcut,
    along_time,
    dct_matrix,
    drop_path,
    hard_swish,
)
from tsmjax.models.last.config import ShiftFuseParts
from tsmjax.models.last.graph import shift_table

STREAMS = ("joint", "joint_velocity", "bone")
BODIES = "first"
NORM = "graph"  # no net of this family mixes joints by a graph's weights


@dataclasses.dataclass(frozen=True)
class Size:
    """A size: width of the stem, width and blocks of each stage, reach of the shift, parts."""

    stem: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    hops: int
    dropout: float
    parts: ShiftFuseParts
    drop_path: float = 0.0


_PUBLISHED = ShiftFuseParts("region", 2.0, "conv", "block", "residual", "full")
_SLIM = dataclasses.replace(_PUBLISHED, inner_residual="subsample", joint_embedding="stage")
# `*_ref` are the published ones; the others have the numbers of parameters that were announced.
SIZES = {
    "nano": Size(
        *(24, (32, 48, 64), (1, 1, 1), 1, 0.1),
        dataclasses.replace(_SLIM, frame_gate="rank_one"),
    ),
    "small": Size(
        *(32, (48, 72, 96), (1, 2, 2), 2, 0.15),
        dataclasses.replace(_SLIM, expansion=1.5),
    ),
    "nano_ref": Size(24, (32, 48, 64), (1, 1, 1), 1, 0.1, _PUBLISHED),
    "small_ref": Size(32, (48, 72, 96), (1, 2, 2), 2, 0.15, _PUBLISHED),
}


class Shift(nnx.Module):
    """Let each channel of a joint take the value of another joint: a gather, no parameters.

    Source: Cheng et al., "Skeleton-Based Action Recognition with Shift Graph Convolutional Network"
    (2020), section 4.1, with tables made of body regions.
    """

    def __init__(self, skeleton: str, channels: int, hops: int, kind: str):
        self.table = (skeleton, channels, hops, kind)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        if self.table[-1] == "none":
            return x
        C, V = x.shape[:2]
        places = shift_table(*self.table) + V * np.arange(C)[:, None]
        return jnp.take(x.reshape(C * V, *x.shape[2:]), places.ravel(), axis=0).reshape(x.shape)


class JointEmbedding(nnx.Module):
    """An additive vector for each joint.

    Source: Zhang et al., "Semantics-Guided Neural Networks" (2020), section 3.2.
    """

    def __init__(self, channels: int, joints: int, *, rngs: nnx.Rngs):
        del rngs
        self.embedding = nnx.Param(jnp.zeros((channels, joints)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        return x + self.embedding[...][:, :, None, None]


class FrequencyGate(nnx.Module):
    """Gate the frequencies of each channel: D^T (σ(mask) ∘ D x) with the orthonormal DCT-II D.

    "residual" adds x to the result. The transform is computed in float32.
    """

    def __init__(self, channels: int, frames: int, kind: str, *, rngs: nnx.Rngs):
        del rngs
        self.mask = nnx.Param(jnp.zeros((channels, frames)))
        self.residual = kind == "residual"

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        matrix = dct_matrix(x.shape[2])
        gate = jax.nn.sigmoid(self.mask[...].astype(jnp.float32))[:, None, :, None]
        y = along_time(matrix.T, gate * along_time(matrix, x.astype(jnp.float32)))
        return x + y.astype(x.dtype) if self.residual else y.astype(x.dtype)


class FrameGate(nnx.Module):
    """Gate every frame of each channel by σ(g); of rank one, g is a sum over both."""

    def __init__(self, channels: int, frames: int, kind: str, *, rngs: nnx.Rngs):
        del rngs
        full = kind == "full"
        self.gate = nnx.Param(jnp.zeros((channels, frames) if full else (channels,)))
        self.frame_gate = None if full else nnx.Param(jnp.zeros((frames,)))

    def __call__(self, x: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """Map (C, V, T, N), which begins with the frame `first` of a clip, to the same shape."""
        gate = self.gate[...]
        if self.frame_gate is not None:
            gate = gate[:, None] + self.frame_gate[...]
        gate = jax.lax.dynamic_slice_in_dim(gate, first, x.shape[2], axis=1)
        return x * jax.nn.sigmoid(gate)[:, None, :, None]


class Block(nnx.Module):
    """Shift, 1×1 convolution, joint embedding, frequency gate, temporal convolution, frame gate."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        frames: int,
        rate: float,
        shift: Shift,
        embedding: JointEmbedding | None,
        parts: ShiftFuseParts,
        *,
        rngs: nnx.Rngs,
    ):
        self.shift = shift
        self.conv = Pointwise(inputs, outputs, rngs=rngs)
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.embedding = embedding
        gated, framed = parts.dct_gate != "none", parts.frame_gate != "none"
        self.dct_gate = FrequencyGate(outputs, frames, parts.dct_gate, rngs=rngs) if gated else None
        self.tcn = SeparableTCN(
            outputs,
            expansion=parts.expansion,
            stride=stride,
            residual=parts.inner_residual,
            rngs=rngs,
        )
        self.frame_gate = (
            FrameGate(outputs, frames // stride, parts.frame_gate, rngs=rngs) if framed else None
        )
        self.shortcut = Shortcut(inputs, outputs, stride, rngs=rngs)
        self.drop_path = rate

    def __call__(self, x: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        y = hard_swish(self.norm(self.conv(self.shift(x)), run))
        for gate in (self.embedding, self.dct_gate):
            y = gate(y) if gate else y
        y = self.tcn(y, run)
        y = self.frame_gate(y) if self.frame_gate else y
        return self.shortcut(x, run) + drop_path(y, self.drop_path, key)
