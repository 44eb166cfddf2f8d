"""Quantiles around a point forecast that never cross."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.ttm.config import Quantiles
from tsmjax.models.ttm.mixer import linear
from tsmjax.nn.activations import gelu

_LEAST_STEP = 1e-6  # between neighbouring quantiles
_EPSILON = 1e-5


class Convolution(nnx.Module):
    """Convolution over the second-last axis with zero padding: (…, T, inputs) → (…, T, outputs).

    Parameters: ``kernel`` (size, inputs, outputs), size odd, and ``bias`` (outputs,).
    """

    def __init__(self, size: int, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        limit = (size * inputs) ** -0.5

        def uniform(shape: tuple[int, ...]) -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit))

        self.kernel, self.bias = uniform((size, inputs, outputs)), uniform((outputs,))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (…, T, inputs) to (…, T, outputs)."""
        kernel = self.kernel[...]
        size, length = kernel.shape[0], x.shape[-2]
        edges = ((0, 0),) * (x.ndim - 2) + ((size // 2, size // 2), (0, 0))
        padded = jnp.pad(x.astype(kernel.dtype), edges)
        taps = (padded[..., i : i + length, :] @ kernel[i] for i in range(size))
        return sum(taps, self.bias[...])


class InstanceNorm(nnx.Module):
    """Standardise each row of (…, T, 1) over its T steps, in fp32, then scale and shift."""

    def __init__(self):
        self.scale, self.bias = nnx.Param(jnp.ones((1,))), nnx.Param(jnp.zeros((1,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise (…, T, 1)."""
        x = x.astype(jnp.float32)
        x = x - x.mean(axis=-2, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-2, keepdims=True) + _EPSILON)
        return x * self.scale[...] + self.bias[...]


class QuantileHead(nnx.Module):
    """Predict the distances between neighbouring quantiles from the shape of the forecast.

    Every channel goes through the same weights. Distances are positive, so quantiles are ordered.
    """

    def __init__(self, config: Quantiles, tokens: int, features: int, *, rngs: nnx.Rngs):
        """Build the head for decoder states of `tokens` tokens and `features` features."""
        hidden = config.hidden
        self.config = config
        self.smooth = Convolution(config.kernel_size, 1, 1, rngs=rngs)
        self.norm = InstanceNorm()
        self.expand = Convolution(1, 1, hidden, rngs=rngs)
        pool, flatten = config.decoder == "pool", config.decoder == "flatten"
        per_token = config.decoder_features
        self.condition = linear(features, hidden, rngs=rngs) if pool else None
        self.token_condition = linear(features, per_token, rngs=rngs) if flatten else None
        self.flat_condition = linear(tokens * per_token, hidden, rngs=rngs) if flatten else None
        inputs = 2 * hidden if config.decoder and config.concatenate else hidden
        self.output = Convolution(1, inputs, len(config.levels), rngs=rngs)

    def __call__(self, forecast: jax.Array, states: jax.Array) -> jax.Array:
        """Return quantiles (B, C, Q, F), ascending.

        Args:
          forecast: (B, C, F) point forecast in normalised space.
          states: (B, C, N, D) decoder states.
        """
        h = self.expand(self.norm(self.smooth(forecast[..., None])))
        h = gelu(h)
        if self.config.decoder:
            condition = self._condition(states)[:, :, None]
            if self.config.concatenate:
                h = jnp.concatenate([h, jnp.broadcast_to(condition, h.shape)], axis=-1)
            else:
                h = h + condition
        output = jnp.moveaxis(self.output(h), -1, 2).astype(jnp.float32)
        side = len(self.config.levels) // 2
        shift, down, up = jnp.split(output, (1, 1 + side), axis=2)
        median = forecast[:, :, None].astype(jnp.float32)
        if self.config.shift_median:
            median = median + shift
        down, up = (jnp.cumsum(jax.nn.softplus(raw) + _LEAST_STEP, axis=2) for raw in (down, up))
        return jnp.concatenate([(median - down)[:, :, ::-1], median, median + up], axis=2)

    def _condition(self, states: jax.Array) -> jax.Array:
        """Summarise decoder states (B, C, N, D) as (B, C, hidden)."""
        if self.condition:
            return self.condition(states.mean(axis=2))
        tokens = self.token_condition(states)
        return self.flat_condition(tokens.reshape(*tokens.shape[:2], -1))
