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


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, over the last axis.

    Computed in fp32 and returned in the dtype of its parameters.

    Source: Ba et al., "Layer Normalization" (2016), equation 4.
    """

    def __init__(self, features: int, *, epsilon: float, rngs: nnx.Rngs):
        del rngs  # constant initialisation; the argument keeps every module's signature the same
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise (…, features)."""
        scale, bias = self.scale[...], self.bias[...]
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        y = y * scale.astype(jnp.float32) + bias.astype(jnp.float32)
        return y.astype(scale.dtype)
