"""How the next token of a generated text is drawn."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sampling(NamedTuple):
    """How the next token is drawn.

    Attributes:
      temperature: divisor of the logits; 0 takes the most likely token.
      top_k: only so many most likely tokens may be drawn; 0 for all.
      top_p: only the most likely tokens may be drawn that together reach this probability.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def draw(self, logits: jax.Array, key: jax.Array) -> jax.Array:
        """Draw one token for each row of `logits` (B, V).

        Source: Fan et al., "Hierarchical Neural Story Generation" (2018), section 5.4 (top k);
        Holtzman et al., "The Curious Case of Neural Text Degeneration" (2020), section 3.1 (top p).
        """
        if self.temperature == 0.0:
            return jnp.argmax(logits, axis=-1)
        logits = logits / self.temperature
        lowest = jnp.finfo(logits.dtype).min
        if 0 < self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < least, lowest, logits)
        if self.top_p < 1.0:
            ordered = jnp.sort(logits, axis=-1, descending=True)
            chances = jax.nn.softmax(ordered, axis=-1)
            inside = jnp.cumsum(chances, axis=-1) - chances < self.top_p
            least = jnp.where(inside, ordered, jnp.inf).min(axis=-1, keepdims=True)
            logits = jnp.where(logits < least, lowest, logits)
        return jax.random.categorical(key, logits, axis=-1)
