"""Dropout as a function: the key decides, and no key means no dropout."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero each element with probability `rate` and rescale the others; identity without a key.

    Source: Srivastava et al., "Dropout" (2014), section 4 (inverted scaling).
    """
    if key is None or rate == 0.0:
        return x
    dropped = round(rate * 2**32)
    keep = _bits(key, x.shape) >= jnp.uint32(dropped)
    return jnp.where(keep, x / (1.0 - dropped / 2**32), 0).astype(x.dtype)


def split(key: jax.Array | None, count: int) -> list[jax.Array] | list[None]:
    """Split a dropout key into `count` keys; None stays None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def _bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return 32 random bits for each element: its number, hashed with two words of the key.

    JAX's own generator costs about ten times as much, a third of the training step of a small
    model, and a mask needs no more than a good hash. Its constants were found by the search of
    github.com/skeeto/hash-prospector for the least bias.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    number = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):  # a sum over axes: it shards and fuses, a reshaped iota does not
        stride = math.prod(shape[axis + 1 :]) % 2**32
        number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    bits = number ^ first
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15) ^ second) * jnp.uint32(0xD35A2D97)
    return bits ^ (bits >> 15)
