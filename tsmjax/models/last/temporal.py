"""Depthwise convolution along time, as a sum of shifted and scaled copies.

XLA runs a grouped convolution with one channel a group as a scalar loop on CPUs. The sum of k
shifted copies is one fused vector loop instead, and the gradient of the kernel comes out of a
matrix product: the k sums of products that it is would each be a slow pass over both arrays.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.models.last import operators


def depthwise(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    dilation: int = 1,
    causal: jax.Array | bool | None = None,
) -> jax.Array:
    """Convolve each channel of `x` along time with its own kernel.

    Args:
      x: (C, V, T, N); the stride divides T.
      kernel: (k, C), k odd.
      stride: frames between outputs.
      dilation: frames between taps.
      causal: None or False pads (k − 1) · dilation / 2 zeros on both sides, as PyTorch does; True
        pads all of them in front, so that no output sees a later frame. May be traced.

    Returns:
      (C, V, T / stride, N).
    """
    if operators.convolutions() and (causal is None or isinstance(causal, bool)):
        return operators.depthwise(x, kernel, stride, dilation, bool(causal))
    size, frames = kernel.shape[0], x.shape[2]
    half = (size - 1) * dilation // 2
    if causal is None or causal is False:
        x = _pad(x, half, half)
    elif causal is True:
        x = _pad(x, 2 * half, 0)
    else:
        start = jnp.where(causal, 0, half)
        x = jax.lax.dynamic_slice_in_dim(_pad(x, 2 * half, half), start, frames + 2 * half, axis=2)
    places = dilation * np.arange(size)
    outputs = frames // stride
    total = 0
    for phase in range(stride):
        taps = np.flatnonzero(places % stride == phase)
        if len(taps):
            offsets = tuple(int(place) for place in places[taps] // stride)
            part = x[:, :, phase::stride][:, :, : outputs + offsets[-1]]
            total = total + _taps(part, kernel[taps[0] : taps[-1] + 1 : _step(taps)], offsets)
    return total


def _step(taps: np.ndarray) -> int:
    return int(taps[1] - taps[0]) if len(taps) > 1 else 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _taps(x: jax.Array, weights: jax.Array, offsets: tuple[int, ...]) -> jax.Array:
    """y[t] = Σ_j weights[j] · x[t + offsets[j]]; offsets ascend, the last reaches the end of x."""
    frames = x.shape[2] - max(offsets)
    x = jax.lax.optimization_barrier(x)  # else the loop would carry the padding's bounds checks
    weights = weights[:, :, None, None, None].astype(x.dtype)
    return sum(
        weights[j] * jax.lax.slice_in_dim(x, offset, offset + frames, axis=2)
        for j, offset in enumerate(offsets)
    )


def _taps_forward(x, weights, offsets):
    return _taps(x, weights, offsets), (x, weights)


def _taps_backward(offsets, residuals, dy):
    x, weights = residuals
    last = max(offsets)
    flipped = tuple(last - offset for offset in reversed(offsets))
    dx = _taps(_pad(dy, last, last - min(offsets)), weights[::-1], flipped)
    products = jnp.einsum(
        "cvtn,cvsn->cvts", dy, x.astype(dy.dtype), preferred_element_type=jnp.float32
    )
    diagonals = _diagonals(products.sum(axis=1))[:, np.array(offsets)]
    return dx, diagonals.T.astype(weights.dtype)


def _diagonals(x: jax.Array) -> jax.Array:
    """Sums of the diagonals (t, t + o) of (C, T, S), for o = 0 … S − T, as (C, S + 1).

    Rows that are one longer put what lies on a diagonal into one column.
    """
    C, T, S = x.shape
    return jnp.pad(x.reshape(C, T * S), ((0, 0), (0, T))).reshape(C, T, S + 1).sum(axis=1)


_taps.defvjp(_taps_forward, _taps_backward)


def _pad(x: jax.Array, before: int, after: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
