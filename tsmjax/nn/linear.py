"""The one linear projection that every model uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.nn import layout


class Linear(nnx.Module):
    """Affine map ``x @ kernel + bias`` over the last axis, in the dtype of the kernel.

    Parameters: ``kernel`` (inputs, outputs), drawn from N(0, std²), and ``bias`` (outputs,), zero.
    `adapt` adds ``lora_a`` (inputs, rank) and ``lora_b`` (rank, outputs); `shrink` adds
    ``kernel_scale`` (outputs,), which multiplies the product when the kernel is int8.
    """

    def __init__(
        self, inputs: int, outputs: int, *, std: float, bias: bool = False, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,))) if bias else None
        self.small = False
        self.lora_scale = None

    def shrink(self) -> None:
        """Let the kernel be int8 once it is frozen (see `tsmjax.nn.int8`)."""
        *layers, _, outputs = self.kernel.shape
        self.kernel_scale = nnx.Param(jnp.ones((*layers, outputs)))
        self.small = True

    def adapt(self, rank: int, scale: float, *, rngs: nnx.Rngs) -> None:
        """Add the low-rank update ``scale · x @ lora_a @ lora_b``, which is zero at first.

        A projection whose kernel is a stack over layers gets a stack of updates. ``lora_a`` is
        uniform within ±1/√inputs, as in PEFT.

        Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), section 4.1.
        """
        *layers, inputs, outputs = self.kernel.shape
        limit = inputs**-0.5
        shape = (*layers, inputs, rank)
        self.lora_a = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit)
        )
        self.lora_b = nnx.Param(jnp.zeros((*layers, rank, outputs)))
        self.lora_scale = scale

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (…, inputs) to (…, outputs)."""
        kernel = self.kernel[...]
        if self.small:
            scale = self.kernel_scale[...]
            x = x.astype(scale.dtype)
            y = layout.project(x, kernel.astype(scale.dtype)) * scale
        else:
            x = x.astype(kernel.dtype)
            y = layout.project(x, kernel)
        if self.lora_scale is not None:
            y = y + self.lora_scale * (x @ self.lora_a[...] @ self.lora_b[...])
        return y if self.bias is None else y + self.bias[...]
