"""Tokens of TinyTimeMixer that are not single patches of the series."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.models.ttm.config import Spectrum, patches_of_scales
from tsmjax.models.ttm.mixer import linear
from tsmjax.nn.activations import gelu
from tsmjax.nn.embedding import Embedding


class MultiScalePatcher(nnx.Module):
    """Patches of the series and of its averages over 2, 4, 8, … steps; the coarsest come first."""

    def __init__(self, length: int, patch: int, features: int, *, rngs: nnx.Rngs):
        """Build a projection for each scale of a series of `length` steps."""
        self.patch = patch
        scales = len(patches_of_scales(length, patch))
        self.projections = nnx.List([linear(patch, features, rngs=rngs) for _ in range(scales)])

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Embed (B, C, N, patch) as (B, C, tokens, features)."""
        series = patches.reshape(*patches.shape[:2], -1)
        tokens = []
        for level, project in enumerate(self.projections):
            width = 2**level
            whole = series[..., : series.shape[-1] // width * width]
            means = whole.reshape(*series.shape[:2], -1, width).mean(axis=-1)
            count = means.shape[-1] // self.patch
            means = means[..., means.shape[-1] - count * self.patch :]
            tokens.append(project(means.reshape(*series.shape[:2], count, self.patch)))
        return jnp.concatenate(tokens[::-1], axis=2)


class FrequencyPrefix(nnx.Module):
    """One token that says how long a step is."""

    def __init__(self, entries: int, patch: int, features: int, *, rngs: nnx.Rngs):
        hidden = (patch + features) // 2
        self.embedding = Embedding(entries, patch, rngs=rngs)
        self.fc1 = linear(patch, hidden, rngs=rngs)
        self.fc2 = linear(hidden, features, rngs=rngs)

    def __call__(self, frequency: jax.Array) -> jax.Array:
        """Map frequency numbers (B,) to tokens (B, features)."""
        return self.fc2(gelu(self.fc1(self.embedding(frequency))))


class SpectrumTokens(nnx.Module):
    """Tokens of the strongest frequencies of each channel: one each, or one for all of them."""

    def __init__(self, length: int, features: int, config: Spectrum, *, rngs: nnx.Rngs):
        """Build the tokens for a series of `length` steps."""
        count = config.count
        self.count, self.skip_mean, self.bins = count, config.skip_mean, length // 2 + 1
        width = max(4, min(64, features // count)) if config.one_token else features
        self.embedding = Embedding(self.bins, width, rngs=rngs) if config.embed else None
        self.fc1 = None if config.embed else linear(1, width, rngs=rngs)
        self.fc2 = None if config.embed else linear(width, width, rngs=rngs)
        self.join = linear(count * width, features, rngs=rngs) if config.one_token else None

    def __call__(self, z: jax.Array) -> jax.Array:
        """Map a series in normalised space (B, C, T) to tokens (B, C, tokens, features)."""
        strength = jnp.abs(jnp.fft.rfft(z, axis=-1))
        if self.skip_mean:
            strength = strength.at[..., 0].set(0.0)
        _, found = jax.lax.top_k(strength, self.count)
        if self.embedding:
            tokens = self.embedding(found)
        else:
            tokens = self.fc2(jax.nn.relu(self.fc1(found[..., None] / self.bins)))
        if self.join:
            tokens = self.join(tokens.reshape(*tokens.shape[:2], 1, -1))
        return tokens


class PositionalEncoding(nnx.Module):
    """A vector added to each token: learned, or fixed sines and cosines.

    Parameter: ``bias`` (tokens, features). A fixed one is stored too, but gets no gradient.
    """

    def __init__(self, tokens: int, features: int, *, learned: bool, rngs: nnx.Rngs):
        self.learned = learned
        shape = (tokens, features)
        self.bias = nnx.Param(jax.random.normal(rngs.params(), shape) if learned else waves(*shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Add to (…, tokens, features)."""
        bias = self.bias[...]
        return x + (bias if self.learned else jax.lax.stop_gradient(bias))


def waves(tokens: int, features: int) -> jax.Array:
    """Sines (even features) and cosines (odd ones) of the position, centred, deviation 0.1.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """
    rates = 10000.0 ** (-jnp.arange(0, features, 2) / features)
    angles = jnp.arange(tokens)[:, None] * rates
    table = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(tokens, -1)
    table = table[:, :features]
    table = table - table.mean()
    return table / (10.0 * table.std(ddof=1))
