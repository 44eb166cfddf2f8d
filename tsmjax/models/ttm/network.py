"""The TTM network: normalised context in, normalised forecast out.

Dimensions: B series groups, C channels, T context steps, P patch, N tokens, D width of the
backbone, Dd width of the decoder, Cp predicted channels, Ce channels known ahead, Q quantiles.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.models.ttm.config import Config
from tsmjax.models.ttm.forecast_mixing import ForecastMixer
from tsmjax.models.ttm.mixer import Mixer, TokenLinear, linear
from tsmjax.models.ttm.quantile_head import QuantileHead
from tsmjax.models.ttm.tokens import (
    FrequencyPrefix,
    MultiScalePatcher,
    PositionalEncoding,
    SpectrumTokens,
)
from tsmjax.nn.dropout import dropout, split
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.norms import LayerNorm


class Backbone(nnx.Module):
    """Patches to tokens, prefix tokens, and the mixer over them."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        P, D, N = config.patch_length, config.d_model, config.num_tokens
        T, spectrum = config.context_length, config.spectrum.count
        self.patcher = (
            MultiScalePatcher(T // P * P, P, D, rngs=rngs)
            if config.multi_scale
            else linear(P, D, rngs=rngs)
        )
        self.frequency = (
            FrequencyPrefix(config.frequency_vocabulary, P, D, rngs=rngs)
            if config.frequency_vocabulary
            else None
        )
        self.registers = (
            nnx.Param(jax.random.normal(rngs.params(), (config.register_tokens, D)))
            if config.register_tokens
            else None
        )
        self.spectrum = SpectrumTokens(T, D, config.spectrum, rngs=rngs) if spectrum else None
        self.positions = (
            PositionalEncoding(N, D, learned=config.positions == "random", rngs=rngs)
            if config.positions != "none"
            else None
        )
        self.base_norm = (
            LayerNorm(N * D, epsilon=config.norm_eps, rngs=rngs)
            if config.multi_scale or config.base_norm
            else None
        )
        self.mixer = Mixer(
            config.num_layers,
            config.adaptive_patching_levels,
            N,
            D,
            config.num_input_channels if config.mode == "mix_channel" else None,
            config.mixing,
            rngs=rngs,
        )

    def __call__(
        self,
        z: jax.Array,
        patches: jax.Array,
        frequency: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        """Return hidden states (N, B, C, D).

        Args:
          z: (B, C, T) normalised context.
          patches: (B, C, N, P) its patches.
          frequency: (B,) number of the frequency token; None = 0.
          key: dropout key.
        """
        x = self.patcher(patches)
        B, C, _, D = x.shape
        prefixes = []
        if self.spectrum:
            prefixes.append(self.spectrum(z))
        if self.registers:
            registers = self.registers[...]
            prefixes.append(jnp.broadcast_to(registers, (B, C, *registers.shape)))
        if self.frequency:
            frequency = jnp.zeros(B, jnp.int32) if frequency is None else frequency
            token = self.frequency(frequency)[:, None, None]
            prefixes.append(jnp.broadcast_to(token, (B, C, 1, D)))
        x = jnp.concatenate([*prefixes, x], axis=2)
        if self.positions:
            x = self.positions(x)
        if self.base_norm:
            x = self.base_norm(x.reshape(B, C, -1)).reshape(x.shape)
        return self.mixer(jnp.moveaxis(x, 2, 0), key)


class Decoder(nnx.Module):
    """A narrower mixer behind the backbone, which may mix channels and see static categories."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        P, D, Dd = config.patch_length, config.d_model, config.decoder_d_model
        self.adapter = linear(D, Dd, TokenLinear, rngs=rngs) if Dd != D else None
        self.raw = linear(P, Dd, rngs=rngs) if config.decoder_raw_residual else None
        self.categories = nnx.List(
            [Embedding(entries, Dd, rngs=rngs) for entries in config.categories]
        )
        channels = config.num_input_channels + len(config.categories)
        self.mixer = Mixer(
            config.decoder_num_layers,
            config.decoder_adaptive_patching_levels,
            config.num_tokens,
            Dd,
            channels if config.decoder_mode == "mix_channel" else None,
            dataclasses.replace(config.mixing, dropout=config.head_dropout),
            rngs=rngs,
        )

    def __call__(
        self,
        h: jax.Array,
        patches: jax.Array,
        static: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        """Map the backbone's states (N, B, C, D) to (N, B, C, Dd).

        Args:
          h: hidden states.
          patches: (B, C, patches, P) of the normalised context.
          static: (B, categories) int values of the static categories.
          key: dropout key.
        """
        N, _, C, _ = h.shape
        h = self.adapter(h) if self.adapter else h
        if self.raw:
            empty = ((0, 0), (0, 0), (N - patches.shape[2], 0), (0, 0))
            h = h + jnp.moveaxis(self.raw(jnp.pad(patches, empty)), 2, 0)
        if self.categories:
            vectors = [table(static[:, i]) for i, table in enumerate(self.categories)]
            extra = jnp.stack(vectors, axis=1)  # categories are channels that no one forecasts
            extra = jnp.broadcast_to(extra, (N, *extra.shape))
            h = jnp.concatenate([h, extra], axis=2)
        return self.mixer(h, key)[:, :, :C]


class Head(nnx.Module):
    """Tokens to forecast, and forecast mixing."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        width = config.decoder_d_model if config.use_decoder else config.d_model
        self.config = config
        self.forecast = linear(config.num_tokens * width, config.prediction_length, rngs=rngs)
        gate = "softmax" if config.gate == "none" else config.gate
        self.mixing = (
            ForecastMixer(
                config.forecast_mixing,
                len(config.predicted or range(config.num_input_channels)),
                len(config.known_channels),
                dataclasses.replace(config.mixing, dropout=config.head_dropout, gate=gate),
                rngs=rngs,
            )
            if config.forecast_mixing.enabled
            else None
        )

    def __call__(
        self, states: jax.Array, past: jax.Array, known: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Return the forecast (B, Cp, horizon) in normalised space.

        Args:
          states: (B, C, N, Dd).
          past: (B, C, T) as forecast mixing sees it.
          known: (B, Ce, horizon) as forecast mixing sees it.
          key: dropout key.
        """
        flat_key, mixing_key = split(key, 2)
        predicted = self.config.predicted
        chosen = states if predicted is None else states[:, np.asarray(predicted)]
        flat = dropout(chosen.reshape(*chosen.shape[:2], -1), self.config.head_dropout, flat_key)
        forecast = self.forecast(flat)[..., : self.config.horizon]
        if self.mixing:
            channels = (*(predicted or range(past.shape[1])), *self.config.known_channels)
            past = past[:, np.asarray(channels)]
            forecast = self.mixing(forecast, known, past, mixing_key)
        return forecast


class Network(nnx.Module):
    """Backbone, decoder, head and quantile head: normalised context in, normalised forecast out."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        self.backbone = Backbone(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs) if config.use_decoder else None
        self.head = Head(config, rngs=rngs)
        width = config.decoder_d_model if config.use_decoder else config.d_model
        self.quantile_head = (
            QuantileHead(config.quantile_head, config.num_tokens, width, rngs=rngs)
            if config.quantile_head.levels
            else None
        )

    def __call__(
        self,
        z: jax.Array,
        past: jax.Array,
        known: jax.Array,
        static: jax.Array | None,
        frequency: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        """Return the forecast (B, Cp, Q, horizon).

        Args:
          z: (B, C, T) normalised context without missing values.
          past: (B, C, T) the context as forecast mixing sees it.
          known: (B, Ce, horizon) values known ahead as forecast mixing sees them.
          static: (B, categories) values of the static categories.
          frequency: (B,) number of the frequency token.
          key: dropout key.
        """
        encode_key, head_key = split(key, 2)
        states = self.encode(z, static, frequency, encode_key)
        forecast = self.head(states, past, known, head_key).astype(jnp.float32)
        return self.quantile_head(forecast, states) if self.quantile_head else forecast[:, :, None]

    def encode(
        self,
        z: jax.Array,
        static: jax.Array | None,
        frequency: jax.Array | None,
        key: jax.Array | None,
    ) -> jax.Array:
        """Return the states (B, C, N, Dd) that the head sees; arguments of `__call__`."""
        P = self.config.patch_length
        patches = z[..., z.shape[-1] % P :].reshape(*z.shape[:2], -1, P)
        backbone_key, decoder_key = split(key, 2)
        h = self.backbone(z, patches, frequency, backbone_key)
        if self.decoder:
            h = self.decoder(h, patches, static, decoder_key)
        return jnp.moveaxis(h, 0, 2)
