"""Dropout as a function: the key decides, and no key means no dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero each element with probability `rate` and rescale the others; identity without a key.

    Source: Srivastava et al., "Dropout" (2014), section 4 (inverted scaling).
    """
    if key is None or rate == 0.0:
        return x
    # 16 random bits an element cost half of a float draw; the rate is exact to 2^-17.
    dropped = round(rate * 2**16)
    keep = jax.random.bits(key, x.shape, jnp.uint16) >= dropped
    return jnp.where(keep, x / (1.0 - dropped / 2**16), 0).astype(x.dtype)


def split(key: jax.Array | None, count: int) -> list[jax.Array] | list[None]:
    """Split a dropout key into `count` keys; None stays None."""
    return [None] * count if key is None else list(jax.random.split(key, count))
