"""Rotary position embedding in the half-rotation layout of Llama."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rotary_angles(length: int, features: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Return cos and sin, each (length, features) fp32, for positions 0 … length − 1.

    Source: Su et al., "RoFormer" (2021), equation 15. Feature i is paired with i + features/2.
    """
    frequencies = theta ** (-jnp.arange(0, features, 2, dtype=jnp.float32) / features)
    return angles_at(jnp.arange(length), frequencies)


def angles_at(positions: jax.Array, frequencies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cos and sin, each (…, features) fp32, at positions (…,), of features/2 frequencies."""
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate `x` (…, length, heads, features) by `cos`, `sin` (…, length, features)."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (table.astype(x.dtype)[..., None, :] for table in (cos, sin))
    return x * cos + turned * sin
