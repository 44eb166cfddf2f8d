"""A table of learned vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Embedding(nnx.Module):
    """Look rows of a table up. Parameter: ``embedding`` (entries, features), from N(0, std²)."""

    def __init__(self, entries: int, features: int, *, std: float = 1.0, rngs: nnx.Rngs):
        self.embedding = nnx.Param(std * jax.random.normal(rngs.params(), (entries, features)))

    def __call__(self, index: jax.Array) -> jax.Array:
        """Map integers (…,) to vectors (…, features); NaN for an entry that there is not."""
        return jnp.take(self.embedding[...], index, axis=0)
