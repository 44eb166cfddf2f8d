"""Convolutions and activations as operators of that name, for programs that are exported.

Training writes convolutions as matrix products and as sums of shifted copies, which XLA runs
several times faster on CPUs. Other runtimes are built around the operators themselves: they
recognise them, add biases inside, and quantise their kernels by channels.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_convolutions: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    "convolutions", default=None
)


@contextlib.contextmanager
def exported(convolutions: bool) -> Iterator[None]:
    """Say, while a model is traced, that its program will be exported.

    Args:
      convolutions: also write convolutions as such. They have their rows in front, activations here
        behind; only with a single row is that no copy.
    """
    token = _convolutions.set(convolutions)
    try:
        yield
    finally:
        _convolutions.reset(token)


def named() -> bool:
    """Whether activations keep their names."""
    return _convolutions.get() is not None


def convolutions() -> bool:
    """Whether convolutions are written as such."""
    return bool(_convolutions.get())


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Map (C, V, T, N) to (C', V, T, N) by a 1×1 convolution with `kernel` (C, C')."""
    return _convolve(x, kernel[None, None])


def depthwise(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, causal: bool
) -> jax.Array:
    """Do what `tsmjax.models.last.temporal.depthwise` does."""
    reach = (kernel.shape[0] - 1) * dilation
    padding = (reach, 0) if causal else (reach // 2, reach // 2)
    return _convolve(x, kernel[None, :, None], stride, dilation, padding, x.shape[0])


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        *(x, kernel.astype(x.dtype), (1, stride), [(0, 0), padding]),
        rhs_dilation=(1, dilation),
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
        feature_group_count=groups,
    )
