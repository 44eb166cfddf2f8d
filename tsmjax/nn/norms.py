"""Normalisation layers over the feature axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class RMSNorm(nnx.Module):
    """Root mean square layer norm: ``scale * x / rms(x)``, no mean and no bias.

    Computed in fp32 and returned in the dtype of its parameter.

    Source: Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4; the form
    used by T5.
    """

    def __init__(self, features: int, *, epsilon: float, init: float, rngs: nnx.Rngs):
        del rngs  # constant initialisation; the argument keeps every module's signature the same
        self.scale = nnx.Param(jnp.full((features,), init))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise (…, features)."""
        scale = self.scale[...]
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        return (y * scale.astype(jnp.float32)).astype(scale.dtype)
