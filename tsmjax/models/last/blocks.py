"""Layers that the skeleton models share.

Activations are (C, V, T, N): channels, joints, frames, and rows N (clips times bodies). So a 1×1
convolution and the mixing of joints are matrix products without a transpose, a shift along time
or a gather of joints moves long contiguous pieces, and sums over rows vectorise; on a CPU this
order is several times faster than channels last.

Convolutions are drawn from N(0, 2 / fan-out), the classifier from N(0, 0.01²), all gates and tables
are zero at first, as in the reference implementation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.last import operators
from tsmjax.models.last.temporal import depthwise
from tsmjax.nn import products
from tsmjax.nn.dropout import dropout
from tsmjax.nn.linear import Linear

EPSILON = 1e-5
MOMENTUM = 0.9  # share of the old running statistics in the new ones


class Pass(NamedTuple):
    """What every block of a forward pass is told.

    Attributes:
      train: BatchNorm normalises by the batch and moves its running statistics.
      rows: (N,) 1 for rows that count in these statistics, else 0; None when all do.
      causal: None, or whether temporal convolutions see the past only; may be traced.
    """

    train: bool
    rows: jax.Array | None = None
    causal: jax.Array | bool | None = None

    def tiled(self, count: int) -> Pass:
        """Return the same for `count` copies of the rows, one behind the other."""
        return self if self.rows is None else self._replace(rows=jnp.tile(self.rows, count))


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the leading one.

    Statistics are float32, and those of the whole batch on all devices; the running variance is
    the biased one.

    Source: Ioffe & Szegedy, "Batch Normalization" (2015), algorithm 1.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del rngs  # constant initialisation; the argument keeps every module's signature the same
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Normalise (C, …, N)."""
        if run.train:
            mean, var = _moments(x, run.rows)
            self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * mean
            self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * var
        else:
            mean, var = self.mean[...], self.var[...]
        scale = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + EPSILON)
        shift = self.bias[...].astype(jnp.float32) - mean * scale
        y = x.astype(jnp.float32) * _column(scale, x) + _column(shift, x)
        return y.astype(x.dtype)


class Pointwise(Linear):
    """1×1 convolution: `Linear` over the leading axis, (inputs, …) to (outputs, …)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = False,
        std: float | None = None,
        rngs: nnx.Rngs,
    ):
        std = (2 / outputs) ** 0.5 if std is None else std
        super().__init__(inputs, outputs, std=std, bias=bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (inputs, …) to (outputs, …)."""
        x = x.astype(self.kernel[...].dtype)
        y = self._product(self.kernel[...], x)
        if self.lora_scale is not None:
            inner = self._product(self.lora_a[...], x)
            y = y + self.lora_scale * self._product(self.lora_b[...], inner)
        return y if self.bias is None else y + _column(self.bias[...], y)

    def _product(self, kernel: jax.Array, x: jax.Array) -> jax.Array:
        if operators.convolutions() and x.ndim == 4:
            return operators.pointwise(x, kernel)
        return products.leading(x, kernel)


class Depthwise(nnx.Module):
    """Convolution along time, each channel by itself: ``kernel`` (k, C)."""

    def __init__(
        self, channels: int, size: int, *, stride: int = 1, dilation: int = 1, rngs: nnx.Rngs
    ):
        # The fan-out of PyTorch's formula counts all channels of the group convolution.
        std = (2 / (channels * size)) ** 0.5
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (size, channels)))
        self.stride, self.dilation = stride, dilation

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C, V, T / stride, N)."""
        return depthwise(x, self.kernel[...], self.stride, self.dilation, run.causal)


class Shortcut(nnx.Module):
    """Residual path: the identity, or 1×1 convolution with stride and BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, bias: bool = False, rngs: nnx.Rngs
    ):
        self.stride = stride
        change = inputs != outputs or stride != 1
        self.conv = Pointwise(inputs, outputs, bias=bias, rngs=rngs) if change else None
        self.norm = BatchNorm(outputs, rngs=rngs) if change else None

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C', V, T / stride, N)."""
        return x if self.conv is None else self.norm(self.conv(x[:, :, :: self.stride]), run)


class JointAttention(nnx.Module):
    """Gates over frames and over joints, blended in by a factor that starts at zero.

    With a_t from the mean over joints and a_s from the mean over frames, each through
    C → C/4 → C: x + α · (x · a_t · a_s − x).

    Source: Song et al., "EfficientGCN" (2022), section 3.4, with two reductions instead of one.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.temporal = _Squeeze(channels, rngs=rngs)
        self.spatial = _Squeeze(channels, rngs=rngs)
        self.alpha = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        gate = self.temporal(x.mean(axis=1, keepdims=True), run)
        gate = gate * self.spatial(x.mean(axis=2, keepdims=True), run)
        return x * (1 + _column(self.alpha[...], x) * (gate - 1))


class _Squeeze(nnx.Module):
    """1×1 convolution to a quarter, BatchNorm, ReLU, 1×1 convolution back, sigmoid."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        inner = max(4, channels // 4)
        self.reduce = Pointwise(channels, inner, rngs=rngs)
        self.norm = BatchNorm(inner, rngs=rngs)
        self.expand = Pointwise(inner, channels, rngs=rngs)

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        return jax.nn.sigmoid(self.expand(jax.nn.relu(self.norm(self.reduce(x), run))))


class SeparableTCN(nnx.Module):
    """Expand to r·C, depthwise convolution along time, project back, and a residual of its own.

    Args of the constructor: channels C, expansion r, stride, and whether a strided residual is a
    convolution with BatchNorm ("conv") or keeps every other frame ("subsample").

    Source: Song et al., "EfficientGCN" (2022), section 3.3 (expanded separable layer).
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: float = 2.0,
        stride: int = 1,
        residual: str = "conv",
        rngs: nnx.Rngs,
    ):
        inner = int(channels * expansion)
        self.expand = Pointwise(channels, inner, rngs=rngs)
        self.expand_norm = BatchNorm(inner, rngs=rngs)
        self.depthwise = Depthwise(inner, 5, stride=stride, rngs=rngs)
        self.depthwise_norm = BatchNorm(inner, rngs=rngs)
        self.project = Pointwise(inner, channels, rngs=rngs)
        self.project_norm = BatchNorm(channels, rngs=rngs)
        self.stride = stride
        conv = residual == "conv"
        self.shortcut = Shortcut(channels, channels, stride, rngs=rngs) if conv else None

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to (C, V, T / stride, N)."""
        y = hard_swish(self.expand_norm(self.expand(x), run))
        y = hard_swish(self.depthwise_norm(self.depthwise(y, run), run))
        y = self.project_norm(self.project(y), run)
        return y + (self.shortcut(x, run) if self.shortcut else x[:, :, :: self.stride])


class StreamConcat(nnx.Module):
    """Stem of several streams: BatchNorm of each, one 1×1 convolution, BatchNorm, often ReLU."""

    def __init__(self, streams: int, outputs: int, *, relu: bool = True, rngs: nnx.Rngs):
        self.stream_norms = nnx.List([BatchNorm(3, rngs=rngs) for _ in range(streams)])
        self.conv = Pointwise(3 * streams, outputs, rngs=rngs)
        self.norm = BatchNorm(outputs, rngs=rngs)
        self.relu = relu

    def __call__(self, streams: list[jax.Array], run: Pass) -> jax.Array:
        """Map streams (3, V, T, N) to (C, V, T, N)."""
        pairs = zip(self.stream_norms, streams, strict=True)
        x = jnp.concatenate([norm(stream, run) for norm, stream in pairs])
        x = self.norm(self.conv(x), run)
        return jax.nn.relu(x) if self.relu else x


class GatedPool(nnx.Module):
    """Pool over joints and frames: σ(g) · mean + (1 − σ(g)) · max, per channel."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        del rngs
        self.gate = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to (C, N)."""
        return self.blend(x.mean(axis=(1, 2)), x.max(axis=(1, 2)))

    def blend(self, mean: jax.Array, largest: jax.Array) -> jax.Array:
        """Join both poolings, (C, N) each."""
        gate = jax.nn.sigmoid(self.gate[...])[:, None]
        return gate * mean + (1 - gate) * largest


class Classifier(nnx.Module):
    """Dropout and the last projection, with BatchNorm before them when asked for."""

    def __init__(
        self, channels: int, classes: int, rate: float, *, norm: bool = True, rngs: nnx.Rngs
    ):
        self.norm = BatchNorm(channels, rngs=rngs) if norm else None
        self.linear = Linear(channels, classes, std=0.01, bias=True, rngs=rngs)
        self.rate = rate

    def __call__(self, pooled: jax.Array, run: Pass, key: jax.Array | None) -> jax.Array:
        """Map pooled features (C, N) to logits (N, classes), float32."""
        x = pooled if self.norm is None else self.norm(pooled, run)
        return self.linear(dropout(x.T, self.rate, key)).astype(jnp.float32)


class Bottleneck(nnx.Module):
    """Mean and log-variance of a latent from pooled features: heads of the bottleneck losses."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        size = min(128, channels)
        self.mean = Linear(channels, size, std=0.01, bias=True, rngs=rngs)
        self.log_variance = Linear(channels, size, std=0.01, bias=True, rngs=rngs)

    def __call__(self, pooled: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map pooled features (C, N) to two arrays (N, D), float32."""
        heads = (self.mean, self.log_variance)
        mean, log_variance = (head(pooled.T).astype(jnp.float32) for head in heads)
        return mean, log_variance


def mix(x: jax.Array, graphs: jax.Array) -> jax.Array:
    """Mix the joints of (C, V, T, N) by graphs (C or 1, V, V); row v says what joint v receives."""
    graphs = jnp.broadcast_to(graphs, (x.shape[0], *graphs.shape[1:])).astype(x.dtype)
    return jnp.einsum("cwv,cvtn->cwtn", graphs, x)


def hard_swish(x: jax.Array) -> jax.Array:
    """X · clip(x + 3, 0, 6) / 6."""
    return jax.nn.hard_swish(x) if operators.named() else x * jnp.clip(x + 3, 0, 6) * (1 / 6)


def drop_path(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Drop a whole residual branch (C, V, T, N) of a row with probability `rate`.

    The others are divided by the chance to stay. Without a key nothing is dropped.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (2016).
    """
    if key is None or rate == 0.0:
        return x
    return x * dropout(jnp.ones(x.shape[-1], x.dtype), rate, key)


def dct_matrix(frames: int) -> np.ndarray:
    """Orthonormal DCT-II, (frequency, frame) float32; its inverse is its transpose."""
    k, t = np.arange(frames)[:, None], np.arange(frames)[None, :]
    matrix = np.sqrt(2 / frames) * np.cos(np.pi / frames * (t + 0.5) * k)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def along_time(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """Apply a constant matrix (T', T) to the frames of (C, V, T, N)."""
    constant = jnp.asarray(matrix, x.dtype)
    return jnp.einsum("st,cvtn->cvsn", constant, x)


def _moments(x: jax.Array, rows: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of (C, …, N) for each leading index, over rows that count."""
    x = x.astype(jnp.float32)
    axes = tuple(range(1, x.ndim))
    if rows is None:
        mean, square = x.mean(axes), jnp.square(x).mean(axes)
    else:
        count = jnp.maximum(rows.sum(), 1.0) * (x[0].size / x.shape[-1])
        mean = (x * rows).sum(axes) / count
        square = (jnp.square(x) * rows).sum(axes) / count
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _column(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Align (C,) with the leading axis of `like`."""
    return vector.reshape(-1, *(1,) * (like.ndim - 1))
