"""T5 as Chronos uses it: an encoder of the past, and a decoder of what follows.

Dimensions: B rows, L tokens of the past, T tokens of the decoder, D model width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.chronos_t5.config import Config
from tsmjax.models.chronos_t5.decoder import Decoder
from tsmjax.models.chronos_t5.layers import Attention, FeedForward, RelativeBias
from tsmjax.nn import stack
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.norms import RMSNorm


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
    """The encoder, and the decoder if the config has one.

    It runs without dropout, whoever trains it, as frozen encoders do.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, init = config.d_model, config.initializer_factor
        self.config = config
        self.embed = Embedding(config.vocab_size, d, std=init, rngs=rngs)
        self.relative_bias = RelativeBias(config, rngs=rngs)
        self.blocks = stack.build(
            lambda rngs: Block(config, rngs=rngs),
            config.num_layers,
            scan=config.scan_layers,
            rngs=rngs,
        )
        self.final_norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs) if config.decoder else None

    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Map tokens to states after the final norm.

        Args:
          tokens: (B, L) int, with the end token.
          mask: (B, L) bool, False where a value is missing; None for nowhere.

        Returns:
          (B, L, D). States at missing values are finite but meaningless.
        """
        bias = self.relative_bias.matrix(tokens.shape[1])
        seen = None if mask is None else mask[:, None, None, :]

        def call(block: Block, h: jax.Array, _: None) -> tuple[jax.Array, None]:
            return block(h, bias, seen), None

        h, _ = stack.run(self.blocks, call, self.embed(tokens), remat=self.config.remat)
        return self.final_norm(h)

    def decode(
        self, given: jax.Array, states: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Map the tokens before each place, and the encoder's states, to logits of the next token.

        Args:
          given: (B, T) int, the padding token first and then what has been decoded.
          states: (B, L, D), what the encoder made of the past.
          mask: (B, L) bool, False where a value of the past is missing; None for nowhere.

        Returns:
          (B, T, vocabulary) fp32.
        """
        return self.logits(self.decoder(self.embed(given), states, mask))

    def logits(self, h: jax.Array) -> jax.Array:
        """Project states of the decoder (…, D) on the table of tokens: (…, vocabulary), fp32.

        Source: Raffel et al. (2020), section 2.1; their code divides by √D.
        """
        table = self.embed.embedding[...]
        return ((h * h.shape[-1] ** -0.5) @ table.T).astype(jnp.float32)
