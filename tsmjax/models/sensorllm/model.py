"""The SensorLLM network: encoder, projection, splice, language model, head.

Dimensions: B windows, C channels, W readings and the end token, E encoder width, L tokens of a
prompt, D width of the language model, K activities, S numbers told of a channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models import chronos_t5, llama
from tsmjax.models.sensorllm.config import Config
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.linear import Linear
from tsmjax.wearables.summaries import TOLD

_STD = 0.02  # of initial weights, as in the language model


class Projection(nnx.Module):
    """Perceptron from the encoder's width to the language model's, with exact GELUs between.

    Source: Li et al. (2024), section 3.2.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [
                Linear(inputs, outputs, std=_STD, bias=True, rngs=rngs)
                for inputs, outputs in itertools.pairwise(widths)
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (…, E) to (…, D)."""
        for index, layer in enumerate(self.layers):
            x = layer(jax.nn.gelu(x, approximate=False) if index else x)
        return x


class Model(nnx.Module):
    """A language model that reads sensor channels among its tokens."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.llm = llama.Model(config.llm, rngs=rngs)
        self.encoder = chronos_t5.Model(config.encoder, rngs=rngs)
        d = config.llm.d_model
        self.projection = Projection(config.proj_widths, rngs=rngs)
        self.statistics = Projection((TOLD, d, d), rngs=rngs) if config.statistics else None
        self.new_tokens = Embedding(config.new_tokens, d, std=_STD, rngs=rngs)
        self.head = (
            Linear(d, len(config.labels), std=_STD, rngs=rngs)
            if config.model_type == "classification"
            else None
        )

    def encode(self, series: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Map tokens of channels (B, C, W) int to states (B, C, W, E); `mask` as in the encoder."""
        flat = series.reshape(-1, series.shape[-1])
        mask = None if mask is None else mask.reshape(flat.shape)
        return self.encoder(flat, mask).reshape(*series.shape, -1)

    def embed(
        self,
        tokens: jax.Array,
        ts_index: jax.Array,
        features: jax.Array,
        statistics: jax.Array | None = None,
    ) -> jax.Array:
        """Put projected states between the embedded tokens of a prompt.

        Args:
          tokens: (B, L) int; those from the language model's vocabulary size on are markers.
          ts_index: (B, L) int, the number of a vector of the row, counted through channels and
            readings (or patches of them); −1 for a token of text.
          features: (B, C, W, E) states of the encoder.
          statistics: (B, C, S) what is told of the channels, for a model that reads it; None tells
            none.

        Returns:
          (B, L, D).
        """
        states = self.projection(self._patches(features))
        if self.config.compat.last_channel_grad_only:
            last = jnp.arange(states.shape[1])[:, None, None] == states.shape[1] - 1
            states = jnp.where(last, states, jax.lax.stop_gradient(states))
        states = states.reshape(states.shape[0], -1, states.shape[-1])
        taken = jnp.take_along_axis(states, jnp.maximum(ts_index, 0)[..., None], axis=1)
        text = self.embed_text(tokens)
        if self.statistics is not None and statistics is not None:
            marker = tokens - self.config.llm.vocab_size
            told = self.statistics(statistics)
            told = jnp.take_along_axis(told, jnp.maximum(marker // 2, 0)[..., None], axis=1)
            starts = (marker >= 0) & (marker % 2 == 0)
            text = text + jnp.where(starts[..., None], told, 0).astype(text.dtype)
        return jnp.where(ts_index[..., None] >= 0, taken.astype(text.dtype), text)

    def _patches(self, features: jax.Array) -> jax.Array:
        """Join neighbouring states (B, C, W, E) to (B, C, W / patch, patch · E)."""
        patch, (*rows, states, width) = self.config.proj_patch, features.shape
        features = jnp.pad(features, ((0, 0), (0, 0), (0, -states % patch), (0, 0)))
        return features.reshape(*rows, -1, patch * width)

    def embed_text(self, tokens: jax.Array) -> jax.Array:
        """Map tokens (…,) of text and markers to vectors (…, D)."""
        size = self.config.llm.vocab_size
        markers = self.new_tokens.embedding[...]
        if self.config.compat.last_channel_grad_only:
            last = jnp.arange(len(markers))[:, None] >= len(markers) - 2
            markers = jnp.where(last, markers, jax.lax.stop_gradient(markers))
        old = self.llm.embed(jnp.minimum(tokens, size - 1))
        new = jnp.take(markers, jnp.maximum(tokens - size, 0), axis=0)
        return jnp.where(tokens[..., None] >= size, new.astype(old.dtype), old)

    def classify(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Map prompts (B, L, D), padded on the right to `lengths` (B,), to logits (B, K) fp32."""
        pooled = self.llm.hidden(x, places=(lengths - 1)[:, None])[:, 0]
        return self.head(pooled).astype(jnp.float32)
