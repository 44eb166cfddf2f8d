"""The one linear projection that every model uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Linear(nnx.Module):
    """Affine map ``x @ kernel + bias`` over the last axis, in the dtype of the kernel.

    Parameters: ``kernel`` (inputs, outputs), drawn from N(0, std²), and ``bias`` (outputs,), zero.
    """

    def __init__(
        self, inputs: int, outputs: int, *, std: float, bias: bool = False, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,))) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (…, inputs) to (…, outputs)."""
        kernel = self.kernel[...]
        y = x.astype(kernel.dtype) @ kernel
        return y if self.bias is None else y + self.bias[...]
