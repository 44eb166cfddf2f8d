"""The decoder of T5: what has been decoded and the states of the encoder to what comes next.

Dimensions: B rows, S continuations of each, T decoded tokens, L tokens of the past, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.chronos_t5.config import Config
from tsmjax.models.chronos_t5.layers import Attention, FeedForward, RelativeBias
from tsmjax.nn import stack
from tsmjax.nn.norms import RMSNorm


class Memory(NamedTuple):
    """What the blocks have seen, each array with a leading layer axis.

    Attributes:
      keys, values: (layers, B · S, T, heads, features), of decoded tokens.
      past_keys, past_values: (layers, B, L, heads, features), of the encoder's states.
    """

    keys: jax.Array
    values: jax.Array
    past_keys: jax.Array
    past_values: jax.Array


class DecoderBlock(nnx.Module):
    """One decoder block: causal self-attention, attention to the past, feed-forward."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.cross_attention = Attention(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        h: jax.Array,
        bias: jax.Array,
        before: jax.Array,
        states: jax.Array,
        seen: jax.Array | None,
    ) -> jax.Array:
        """Map hidden states (B, T, D) to hidden states.

        Args:
          h: hidden states.
          bias: (1, heads, T, T), added to the logits of the self-attention.
          before: (T, T) bool, which tokens a query may attend to.
          states: (B, L, D), the encoder's.
          seen: (B, 1, 1, L) bool, False where the past has no value; None for nowhere.
        """
        h = h + self.attention(h, bias, before)
        return self._rest(h, *self.cross_attention.memory(states), seen)

    def extend(
        self, h: jax.Array, bias: jax.Array, at: jax.Array, memory: Memory, seen: jax.Array | None
    ) -> tuple[jax.Array, Memory]:
        """Take one more token of each continuation.

        Args:
          h: (B, S, D) hidden states of the token.
          bias: (1, heads, 1, T), added to the logits of its self-attention.
          at: number of tokens before it.
          memory: this block's part, without the layer axis.
          seen: see `__call__`.

        Returns:
          Its next hidden states, and the memory with the token.
        """
        x = self.attention.norm(h).reshape(-1, 1, h.shape[-1])
        new = self.attention.memory(x)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, one, at, axis=1)
            for old, one in zip((memory.keys, memory.values), new, strict=True)
        )
        before = jnp.arange(keys.shape[1]) <= at
        h = h + self.attention.attend(x, keys, values, before, bias).reshape(h.shape)
        memory = memory._replace(keys=keys, values=values)
        return self._rest(h, memory.past_keys, memory.past_values, seen), memory

    def _rest(
        self, h: jax.Array, keys: jax.Array, values: jax.Array, seen: jax.Array | None
    ) -> jax.Array:
        x = self.cross_attention.norm(h)
        h = h + self.cross_attention.attend(x, keys, values, seen)
        return h + self.feed_forward(h)


class Decoder(nnx.Module):
    """All decoder blocks; the table of tokens, and of the output, is the model's."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, init = config.d_model, config.initializer_factor
        self.config = config
        self.relative_bias = RelativeBias(config, causal=True, rngs=rngs)
        self.blocks = stack.build(
            lambda rngs: DecoderBlock(config, rngs=rngs),
            config.num_layers,
            scan=config.scan_layers,
            rngs=rngs,
        )
        self.final_norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)

    def __call__(self, h: jax.Array, states: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Map vectors of the tokens so far (B, T, D) to states after the final norm.

        Args:
          h: vectors of tokens.
          states: (B, L, D), the encoder's.
          mask: (B, L) bool, False where the past has no value; None for nowhere.
        """
        length = h.shape[1]
        bias, before = self.relative_bias.matrix(length), jnp.tri(length, dtype=bool)
        seen = None if mask is None else mask[:, None, None, :]

        def call(block: DecoderBlock, h: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(h, bias, before, states, seen), None

        h, _ = stack.run(self.blocks, call, h, remat=self.config.remat)
        return self.final_norm(h)

    def start(self, states: jax.Array, continuations: int, length: int) -> Memory:
        """Return the memory of blocks that have seen the encoder's states (B, L, D) alone."""
        config = self.config
        rows = states.shape[0] * continuations
        shape = (config.num_layers, rows, length, config.num_heads, config.d_kv)
        empty = jnp.zeros(shape, states.dtype)

        def read(block: DecoderBlock, carry: None, _: None) -> tuple[None, tuple]:
            return carry, block.cross_attention.memory(states)

        _, past = stack.run(self.blocks, read, None)
        return Memory(empty, empty, *past)

    def extend(
        self, h: jax.Array, at: jax.Array, memory: Memory, mask: jax.Array | None
    ) -> tuple[jax.Array, Memory]:
        """Take the vectors (B, S, D) of one more token of each continuation.

        Returns:
          Their states after the final norm (B, S, D), and the memory with them.
        """
        bias = self.relative_bias.matrix(memory.keys.shape[2], at)
        seen = None if mask is None else mask[:, None, None, :]

        def call(block: DecoderBlock, h: jax.Array, given: Memory) -> tuple[jax.Array, Memory]:
            return block.extend(h, bias, at, given, seen)

        h, memory = stack.run(self.blocks, call, h, memory)
        return self.final_norm(h), memory
