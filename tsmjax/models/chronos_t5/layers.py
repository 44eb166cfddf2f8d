"""Layers of T5: learned biases for relative positions, attention, feed-forward.

Dimensions: B rows, L tokens, T queries, D model width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.chronos_t5.config import Config
from tsmjax.nn.attention import attend
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import RMSNorm


def buckets(length: int, count: int, max_distance: int, causal: bool = False) -> np.ndarray:
    """Number of the learned bias of each (query, key) pair, (length, length) int32.

    Half of the `count` biases are for keys ahead; all are for keys behind if the attention is
    `causal`. On each side the first half are for single distances, the others for ranges that grow
    up to `max_distance`. The ranges are computed in float32, in which the reference decides what
    lies on an edge.

    Source: Raffel et al. (2020), section 2.1.
    """
    relative = np.arange(length)[None, :] - np.arange(length)[:, None]
    side = count if causal else count // 2
    exact = side // 2
    distance = np.maximum(-relative, 0) if causal else np.abs(relative)
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    growth = np.log(ratio) / np.float32(math.log(max_distance / exact)) * np.float32(side - exact)
    far = np.minimum(exact + growth.astype(np.int32), side - 1)
    ahead = 0 if causal else side * (relative > 0)
    return (ahead + np.where(distance < exact, distance, far)).astype(np.int32)


class RelativeBias(Embedding):
    """The learned biases of one side of the model, shared by its blocks: (buckets, heads)."""

    def __init__(self, config: Config, *, causal: bool = False, rngs: nnx.Rngs):
        std = config.initializer_factor * config.d_model**-0.5
        super().__init__(config.relative_buckets, config.num_heads, std=std, rngs=rngs)
        self.max_distance, self.causal = config.relative_max_distance, causal

    def matrix(self, length: int, at: jax.Array | None = None) -> jax.Array:
        """Return what is added to the logits of `length` tokens, (1, heads, length, length).

        With `at`, only the row of this query: (1, heads, 1, length).
        """
        count = self.embedding.shape[0]
        index = jnp.asarray(buckets(length, count, self.max_distance, self.causal))
        return jnp.moveaxis(self(index if at is None else index[at][None]), -1, 0)[None]


class Attention(nnx.Module):
    """Pre-norm multi-head attention without biases, and without a factor on the logits."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, inner, init = config.d_model, config.num_heads * config.d_kv, config.initializer_factor
        self.norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)
        self.q = Linear(d, inner, std=init * (d * config.d_kv) ** -0.5, rngs=rngs)
        self.k = Linear(d, inner, std=init * d**-0.5, rngs=rngs)
        self.v = Linear(d, inner, std=init * d**-0.5, rngs=rngs)
        self.o = Linear(inner, d, std=init * inner**-0.5, rngs=rngs)
        self.num_heads = config.num_heads

    def __call__(self, h: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Return the self-attention's update of `h` (B, L, D).

        Args:
          h: hidden states.
          bias: (1, heads, L, L), added to the logits.
          mask: bool, broadcastable to (B, heads, L, L), False where a query may not attend to a
            token; None for nowhere.
        """
        x = self.norm(h)
        return self.attend(x, *self.memory(x), mask, bias)

    def memory(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return keys and values (B, L, heads, features) of states (B, L, D)."""
        return self._heads(self.k(x)), self._heads(self.v(x))

    def attend(
        self,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: jax.Array | None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """Let normalised states `x` (B, T, D) attend to given keys and values."""
        y = attend(self._heads(self.q(x)), keys, values, mask, scale=1.0, bias=bias)
        return self.o(y.reshape(*x.shape[:-1], -1))

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)


class FeedForward(nnx.Module):
    """Pre-norm perceptron without biases: ReLU, or gated by an (approximate) GELU.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020), equation 6 (GEGLU).
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, inner, init = config.d_model, config.d_ff, config.initializer_factor
        self.norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)
        self.gated = config.feed_forward == "gated-gelu"
        for name in ("gate", "up") if self.gated else ("wi",):
            setattr(self, name, Linear(d, inner, std=init * d**-0.5, rngs=rngs))
        self.wo = Linear(inner, d, std=init * inner**-0.5, rngs=rngs)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Return the sublayer's update of `h` (B, L, D)."""
        x = self.norm(h)
        if not self.gated:
            return self.wo(jax.nn.relu(self.wi(x)))
        return self.wo(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))
