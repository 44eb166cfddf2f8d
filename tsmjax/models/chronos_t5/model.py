"""The T5 encoder: bidirectional attention with learned biases for relative positions.

Dimensions: B rows, L tokens, D model width.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.chronos_t5.config import Config
from tsmjax.nn import stack
from tsmjax.nn.attention import attend
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import RMSNorm


def buckets(length: int, count: int, max_distance: int) -> np.ndarray:
    """Number of the learned bias of each (query, key) pair, (length, length) int32.

    Half of the `count` biases are for keys ahead. Of each half, the first half are for single
    distances, the others for ranges that grow up to `max_distance`. The ranges are computed in
    float32, in which the reference decides what lies on an edge.

    Source: Raffel et al. (2020), section 2.1.
    """
    relative = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = count // 2
    exact = half // 2
    distance = np.abs(relative)
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    growth = np.log(ratio) / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + growth.astype(np.int32), half - 1)
    return (half * (relative > 0) + np.where(distance < exact, distance, far)).astype(np.int32)


class Attention(nnx.Module):
    """Pre-norm multi-head self-attention without biases, and without a factor on the logits."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, inner, init = config.d_model, config.num_heads * config.d_kv, config.initializer_factor
        self.norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)
        self.q = Linear(d, inner, std=init * (d * config.d_kv) ** -0.5, rngs=rngs)
        self.k = Linear(d, inner, std=init * d**-0.5, rngs=rngs)
        self.v = Linear(d, inner, std=init * d**-0.5, rngs=rngs)
        self.o = Linear(inner, d, std=init * inner**-0.5, rngs=rngs)
        self.num_heads = config.num_heads

    def __call__(self, h: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Return the sublayer's update of `h` (B, L, D).

        Args:
          h: hidden states.
          bias: (1, heads, L, L), added to the logits.
          mask: (B, L), False where a token may not be attended to; None for nowhere.
        """
        x = self.norm(h)
        q, k, v = (
            one(x).reshape(*x.shape[:-1], self.num_heads, -1) for one in (self.q, self.k, self.v)
        )
        mask = None if mask is None else mask[:, None, None, :]
        y = attend(q, k, v, mask, scale=1.0, bias=bias)
        return self.o(y.reshape(*h.shape[:-1], -1))


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


class Block(nnx.Module):
    """One encoder block: attention and feed-forward, each with a shortcut."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(self, h: jax.Array, bias: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Map hidden states (B, L, D) to hidden states; arguments of `Attention`."""
        h = h + self.attention(h, bias, mask)
        return h + self.feed_forward(h)


class Model(nnx.Module):
    """The encoder. Like all frozen encoders it runs without dropout, whoever trains it."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, init = config.d_model, config.initializer_factor
        self.config = config
        self.embed = Embedding(config.vocab_size, d, std=init, rngs=rngs)
        self.relative_bias = Embedding(
            config.relative_buckets, config.num_heads, std=init * d**-0.5, rngs=rngs
        )
        self.blocks = stack.build(
            lambda rngs: Block(config, rngs=rngs),
            config.num_layers,
            scan=config.scan_layers,
            rngs=rngs,
        )
        self.final_norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Map tokens to states after the final norm.

        Args:
          tokens: (B, L) int, with the end token.
          mask: (B, L) bool, False where a value is missing; None for nowhere.

        Returns:
          (B, L, D). States at missing values are finite but meaningless.
        """
        config = self.config
        index = buckets(tokens.shape[1], config.relative_buckets, config.relative_max_distance)
        bias = jnp.moveaxis(self.relative_bias(index), -1, 0)[None]

        def call(block: Block, h: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(h, bias, mask), None

        h, _ = stack.run(self.blocks, call, self.embed(tokens), remat=config.remat)
        return self.final_norm(h)
