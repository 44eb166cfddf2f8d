"""The Llama decoder: causal attention with shared key heads, rotary positions, gated perceptrons.

Dimensions: B rows, L tokens, D model width, V vocabulary, S slots of a cache.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.llama.config import Config
from tsmjax.nn import stack
from tsmjax.nn.attention import attend
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import RMSNorm
from tsmjax.nn.rope import angles_at, rotate


class Cache(NamedTuple):
    """Keys and values of past tokens.

    Attributes:
      k: (layers, B, S, key heads, features), rotated.
      v: (layers, B, S, key heads, features).
    """

    k: jax.Array
    v: jax.Array


class Asking(NamedTuple):
    """The tokens whose states are wanted.

    Attributes:
      places: (B, U) int, where they are among the tokens.
      angles: cos and sin of their positions, each (B, U, features).
    """

    places: jax.Array
    angles: tuple[jax.Array, jax.Array]


def pick(x: jax.Array, places: jax.Array) -> jax.Array:
    """Take the rows (B, U, D) of `x` (B, L, D) at `places` (B, U)."""
    return jnp.take_along_axis(x, places[..., None], axis=1)


class Attention(nnx.Module):
    """Pre-norm causal self-attention whose key and value heads serve several query heads each."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, std = config.d_model, config.initializer_range
        inner, shared = config.num_heads * config.d_kv, config.num_kv_heads * config.d_kv
        self.norm = RMSNorm(d, epsilon=config.norm_epsilon, init=1.0, rngs=rngs)
        self.q = Linear(d, inner, std=std, rngs=rngs)
        self.k = Linear(d, shared, std=std, rngs=rngs)
        self.v = Linear(d, shared, std=std, rngs=rngs)
        self.o = Linear(inner, d, std=std, rngs=rngs)
        self.d_kv = config.d_kv

    def __call__(
        self,
        h: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        mask: jax.Array | None,
        past: tuple[jax.Array, jax.Array] | None = None,
        start: jax.Array | int = 0,
        asking: Asking | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Return the sublayer's update of `h` (B, L, D), and what is to be cached.

        Args:
          h: hidden states.
          angles: cos and sin of the tokens' positions.
          mask: without `past`, what is hidden beside the future, None for nothing; with it, (B, 1,
            L, S), True where a token sees a slot.
          past: keys and values (B, S, key heads, features) of a cache.
          start: slot of the first token of `h`.
          asking: the tokens whose update (B, U, D) is wanted, with a `mask` (B, 1, U, L) that also
            hides the future from them; None for all.
        """
        x = self.norm(h)
        k, v = rotate(self._heads(self.k(x)), *angles), self._heads(self.v(x))
        if asking is not None:
            x, angles = pick(x, asking.places), asking.angles
        q = rotate(self._heads(self.q(x)), *angles)
        if past is not None:
            k, v = past = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, axis=1)
                for old, new in zip(past, (k, v), strict=True)
            )
        causal = past is None and asking is None
        y = attend(q, k, v, mask, scale=self.d_kv**-0.5, causal=causal)
        return self.o(y.reshape(*y.shape[:2], -1)), past

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], -1, self.d_kv)


class FeedForward(nnx.Module):
    """Pre-norm gated perceptron, ``down(silu(gate(x)) · up(x))``.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020), equation 6 (SwiGLU).
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, inner, std = config.d_model, config.d_ff, config.initializer_range
        self.norm = RMSNorm(d, epsilon=config.norm_epsilon, init=1.0, rngs=rngs)
        self.gate = Linear(d, inner, std=std, rngs=rngs)
        self.up = Linear(d, inner, std=std, rngs=rngs)
        self.down = Linear(inner, d, std=std, rngs=rngs)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Return the sublayer's update of `h` (B, L, D)."""
        x = self.norm(h)
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """One decoder block: attention and feed-forward, each with a shortcut."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        h: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        mask: jax.Array | None,
        past: tuple[jax.Array, jax.Array] | None = None,
        start: jax.Array | int = 0,
        asking: Asking | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Map hidden states (B, L, D) to hidden states; arguments of `Attention`."""
        update, past = self.attention(h, angles, mask, past, start, asking)
        h = (h if asking is None else pick(h, asking.places)) + update
        return h + self.feed_forward(h), past


class Model(nnx.Module):
    """The Llama language model."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embedding(
            config.vocab_size, config.d_model, std=config.initializer_range, rngs=rngs
        )
        self.blocks = stack.build(
            lambda rngs: Block(config, rngs=rngs),
            config.num_layers,
            scan=config.scan_layers,
            rngs=rngs,
        )
        self.final_norm = RMSNorm(config.d_model, epsilon=config.norm_epsilon, init=1.0, rngs=rngs)
        self.output = (
            None
            if config.tie_embeddings
            else Linear(config.d_model, config.vocab_size, std=config.initializer_range, rngs=rngs)
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map tokens (B, L) int to the logits (B, L, V) fp32 of each next token."""
        return self.logits(self.hidden(self.embed(tokens)))

    def hidden(
        self,
        x: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        places: jax.Array | None = None,
    ) -> jax.Array:
        """Map vectors (B, L, D), embedded tokens or others, to states after the final norm.

        Args:
          x: input vectors. Padding belongs behind the tokens, which then never see it.
          positions: (B, L) int; None counts from 0.
          segments: (B, L) int, the text that a token belongs to when a row packs several: a token
            sees its own text alone. None for one text a row.
          places: (B, U) int, the tokens whose states are wanted, so that the last block computes
            no others; None for all.

        Returns:
          (B, L, D), or (B, U, D).
        """
        positions = jnp.arange(x.shape[1]) if positions is None else positions
        angles = angles_at(positions, self.config.frequencies())
        mask = None
        if segments is not None:
            mask = (segments[:, :, None] == segments[:, None, :])[:, None]

        def call(block: Block, h: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(h, angles, mask)[0], None

        last = None
        if places is not None:
            asking, seen = self._asking(places, positions, segments)

            def last(block: Block, h: jax.Array, _: None) -> tuple[jax.Array, None]:
                return block(h, angles, seen, asking=asking)[0], None

        h, _ = stack.run(self.blocks, call, x, remat=self.config.remat, last=last)
        return self.final_norm(h)

    def _asking(
        self, places: jax.Array, positions: jax.Array, segments: jax.Array | None
    ) -> tuple[Asking, jax.Array]:
        """Describe the tokens at `places` (B, U), and what they see (B, 1, U, L)."""
        length = positions.shape[-1]
        positions = jnp.broadcast_to(positions, (len(places), length))
        at = jnp.take_along_axis(positions, places, axis=1)
        seen = jnp.arange(length) <= places[..., None]
        if segments is not None:
            own = jnp.take_along_axis(segments, places, axis=1)
            seen &= own[..., None] == segments[:, None, :]
        return Asking(places, angles_at(at, self.config.frequencies())), seen[:, None]

    def logits(self, h: jax.Array) -> jax.Array:
        """Map final states (…, D) to logits (…, V) fp32."""
        if self.output is not None:
            return self.output(h).astype(jnp.float32)
        table = self.embed.embedding[...]
        return jnp.einsum(
            "...d,vd->...v", h.astype(table.dtype), table, preferred_element_type=jnp.float32
        )

    def cache(self, rows: int, slots: int, dtype: jnp.dtype) -> Cache:
        """Make an empty cache of `slots` tokens for each of `rows` sequences."""
        config = self.config
        shape = (config.num_layers, rows, slots, config.num_kv_heads, config.d_kv)
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def extend(
        self,
        x: jax.Array,
        positions: jax.Array,
        cache: Cache,
        start: jax.Array | int,
        mask: jax.Array,
    ) -> tuple[jax.Array, Cache]:
        """Run further tokens beside those of a cache.

        Args:
          x: their vectors (B, L, D).
          positions: (B, L) int.
          cache: keys and values of the tokens before; the new ones go to slots start … start+L−1.
          start: slot of the first of them.
          mask: (B, L, S), True where a token sees a slot.

        Returns:
          States after the final norm (B, L, D), and the cache with the new tokens.
        """
        angles = angles_at(positions, self.config.frequencies())

        def call(block: Block, h: jax.Array, past: Cache) -> tuple[jax.Array, Cache]:
            h, past = block(h, angles, mask[:, None], tuple(past), start)
            return h, Cache(*past)

        h, cache = stack.run(self.blocks, call, x, cache)
        return self.final_norm(h), cache
