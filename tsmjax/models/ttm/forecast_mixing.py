"""Forecast mixing: the forecast of each channel is corrected by those of the others around it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.ttm.config import ForecastMixing
from tsmjax.models.ttm.mixer import Gate, Mixer, Mixing, TokenLinear, linear


class ForecastMixer(nnx.Module):
    """Add to each step of the forecast a projection of its neighbourhood over all channels.

    Source: Ekambaram et al., "Tiny Time Mixers" (2024), section 3.2 (exogenous mixer).
    """

    def __init__(
        self,
        config: ForecastMixing,
        predicted: int,
        known: int,
        mixing: Mixing,
        *,
        rngs: nnx.Rngs,
    ):
        """Build the mixer for `predicted` forecast channels and `known` channels known ahead."""
        self.config = config
        channels, width = predicted + known, 2 * config.context_length + 1
        mixing = mixing if config.gate else dataclasses.replace(mixing, gate=None)
        self.embed = linear(width, 2 * width, TokenLinear, rngs=rngs) if config.layers else None
        width = 2 * width if config.layers else width
        self.mixer = (
            Mixer(config.layers, 0, channels, width, None, mixing, rngs=rngs)
            if config.layers
            else None
        )
        self.gate = Gate(channels * width, mixing, rngs=rngs) if config.gate else None
        self.output = linear(channels * width, predicted, rngs=rngs)

    def __call__(
        self, forecast: jax.Array, known: jax.Array, past: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Return the corrected forecast (B, Cp, F).

        Args:
          forecast: (B, Cp, F) of the predicted channels.
          known: (B, Ce, F) of the channels known ahead.
          past: (B, Cp + Ce, T) of both, predicted channels first.
          key: dropout key.
        """
        k, offset = self.config.context_length, self.config.past_offset
        ahead = jnp.concatenate([forecast, known], axis=1)
        edge = jnp.zeros((*ahead.shape[:2], k), ahead.dtype)
        before = edge
        if self.config.prepend_past:
            end = past.shape[-1] - offset
            before = past[..., end - k : end]
        extended = jnp.concatenate([before, ahead, edge], axis=-1)
        steps = ahead.shape[-1]
        near = [extended[..., i : i + steps] for i in range(2 * k + 1)]
        h = jnp.stack(near, axis=-1).swapaxes(0, 1)  # channels lead: they are the mixer's tokens
        if self.mixer:
            h = self.mixer(self.embed(h), key)
        h = jnp.moveaxis(h, 0, 2).reshape(*h.shape[1:3], -1)
        h = self.gate(h) if self.gate else h
        return forecast + self.output(h).swapaxes(1, 2)
