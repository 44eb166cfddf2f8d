"""Gated MLP-Mixer blocks: mixing over tokens, features and channels in turn.

Hidden states are (N, B, C, D): N tokens, B series groups, C channels, D features. Tokens lead, so
that mixing over them is one matrix product without a transpose, twice as fast on a CPU as with
tokens behind.

Source: Ekambaram et al., "TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series
Forecasting" (2023), section 3.3, and "Tiny Time Mixers" (2024), section 3.1 (adaptive patching).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.nn import products
from tsmjax.nn.activations import gelu, softmax
from tsmjax.nn.attention import attend
from tsmjax.nn.dropout import dropout, split
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import LayerNorm

GATES = ("softmax", "sigmoid", "glu", "group_sigmoid")
_LEAST_FEATURES = 4  # a level that would leave no more features than this keeps the patches


@dataclasses.dataclass(frozen=True)
class Mixing:
    """What all blocks of a mixer share.

    Attributes:
      expansion: hidden width of a perceptron, as a multiple of its input.
      dropout: rate of every dropout.
      gate: None, or how a block's output is gated; one of `GATES`.
      gate_groups: groups of "group_sigmoid".
      batch_norm: normalise with BatchNorm over features instead of LayerNorm.
      epsilon: added to the variance in the norms.
      heads: heads of an attention over tokens inside the token mixer; 0 for none.
    """

    expansion: int = 2
    dropout: float = 0.0
    gate: str | None = "softmax"
    gate_groups: int = 8
    batch_norm: bool = False
    epsilon: float = 1e-5
    heads: int = 0


class TokenLinear(Linear):
    """`Linear` for states with leading tokens."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (…, inputs) to (…, outputs)."""
        x = x.astype(self.kernel[...].dtype)
        y = self._product(x, self.kernel[...])
        if self.lora_scale is not None:
            inner = self._product(x, self.lora_a[...])
            y = y + self.lora_scale * self._product(inner, self.lora_b[...])
        return self._shifted(y, self.bias[...])

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return products.trailing(x, kernel)

    def _shifted(self, y: jax.Array, bias: jax.Array) -> jax.Array:
        return y + bias


class LeadingLinear(TokenLinear):
    """`TokenLinear` over the first axis: maps (inputs, …) to (outputs, …)."""

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return products.leading(x, kernel)

    def _shifted(self, y: jax.Array, bias: jax.Array) -> jax.Array:
        return y + bias.reshape(-1, *(1,) * (y.ndim - 1))


def linear(inputs: int, outputs: int, kind: type[Linear] = Linear, *, rngs: nnx.Rngs) -> Linear:
    """Build a projection whose weights and biases are uniform within ±1/√inputs, as in PyTorch."""
    layer = kind(inputs, outputs, std=0.0, bias=True, rngs=rngs)
    limit = inputs**-0.5
    for name in ("kernel", "bias"):
        shape = getattr(layer, name).shape
        value = jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit)
        setattr(layer, name, nnx.Param(value))
    return layer


def norm(features: int, mixing: Mixing, *, rngs: nnx.Rngs) -> LayerNorm | nnx.BatchNorm:
    """Build the norm that `mixing` asks for; `normalise` calls it."""
    if mixing.batch_norm:
        return nnx.BatchNorm(features, momentum=0.9, epsilon=mixing.epsilon, rngs=rngs)
    return LayerNorm(features, epsilon=mixing.epsilon, rngs=rngs)


def normalise(layer: LayerNorm | nnx.BatchNorm, x: jax.Array, train: bool) -> jax.Array:
    """Apply a norm to `x` (…, features); BatchNorm takes the batch's own statistics to train."""
    if isinstance(layer, nnx.BatchNorm):
        return layer(x, use_running_average=not train)
    return layer(x)


class MLP(nnx.Module):
    """Two-layer perceptron with exact GELU, over the last or the first axis."""

    def __init__(self, size: int, mixing: Mixing, *, leading: bool = False, rngs: nnx.Rngs):
        hidden = size * mixing.expansion
        kind = LeadingLinear if leading else TokenLinear
        self.fc1 = linear(size, hidden, kind, rngs=rngs)
        self.fc2 = linear(hidden, size, kind, rngs=rngs)
        self.dropout = mixing.dropout

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map an array to one of the same shape."""
        hidden_key, output_key = split(key, 2)
        y = gelu(self.fc1(x))
        return dropout(self.fc2(dropout(y, self.dropout, hidden_key)), self.dropout, output_key)


class Gate(nnx.Module):
    """Weigh the entries along the last or the first axis by a gate computed from them.

    The "softmax" gate sums to 1 over the axis; "sigmoid" gates each entry on its own,
    "group_sigmoid" groups of neighbours by their mean logit; "glu" gates a projection.
    """

    def __init__(self, size: int, mixing: Mixing, *, leading: bool = False, rngs: nnx.Rngs):
        self.mode, self.axis = mixing.gate, 0 if leading else -1
        # The largest number of groups up to the wanted one that divides the axis.
        wanted = max(1, min(mixing.gate_groups, size))
        self.groups = next(groups for groups in range(wanted, 0, -1) if size % groups == 0)
        outputs = 2 * size if self.mode == "glu" else size
        kind = LeadingLinear if leading else TokenLinear
        self.projection = linear(size, outputs, kind, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map an array to one of the same shape."""
        logits = self.projection(x)
        if self.mode == "glu":
            content, logits = jnp.split(logits, 2, axis=self.axis)
            return content * jax.nn.sigmoid(logits)
        if self.mode == "softmax":
            return x * softmax(logits, self.axis)
        if self.mode == "group_sigmoid":
            logits = jnp.moveaxis(logits, self.axis, -1)
            means = logits.reshape(*logits.shape[:-1], self.groups, -1).mean(axis=-1)
            logits = jnp.repeat(means, logits.shape[-1] // self.groups, axis=-1)
            logits = jnp.moveaxis(logits, -1, self.axis)
        return x * jax.nn.sigmoid(logits)


class FeatureMixer(nnx.Module):
    """Mix the features of each token."""

    def __init__(self, features: int, mixing: Mixing, *, rngs: nnx.Rngs):
        self.norm = norm(features, mixing, rngs=rngs)
        self.mlp = MLP(features, mixing, rngs=rngs)
        self.gate = Gate(features, mixing, rngs=rngs) if mixing.gate else None

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        y = self.mlp(normalise(self.norm, x, key is not None), key)
        return x + (self.gate(y) if self.gate else y)


class TokenMixer(nnx.Module):
    """Mix the tokens of each channel, feature by feature; optionally attend over them too."""

    def __init__(self, tokens: int, features: int, mixing: Mixing, *, rngs: nnx.Rngs):
        self.norm = norm(features, mixing, rngs=rngs)
        self.mlp = MLP(tokens, mixing, leading=True, rngs=rngs)
        self.gate = Gate(tokens, mixing, leading=True, rngs=rngs) if mixing.gate else None
        self.attention = TokenAttention(features, mixing, rngs=rngs) if mixing.heads else None
        self.attention_norm = norm(features, mixing, rngs=rngs) if mixing.heads else None

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        mlp_key, attention_key = split(key, 2)
        h = normalise(self.norm, x, key is not None)
        y = self.mlp(h, mlp_key)
        y = self.gate(y) if self.gate else y
        if self.attention:
            y = y + self.attention(h, attention_key)
            y = normalise(self.attention_norm, y, key is not None)
        return x + y


class TokenAttention(nnx.Module):
    """Multi-head self-attention over the tokens of each channel, with biases."""

    def __init__(self, features: int, mixing: Mixing, *, rngs: nnx.Rngs):
        self.q, self.k, self.v, self.o = (
            linear(features, features, TokenLinear, rngs=rngs) for _ in range(4)
        )
        self.heads, self.dropout = mixing.heads, mixing.dropout

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        N, B, C, D = x.shape

        def heads(projection: Linear) -> jax.Array:
            return projection(x).reshape(N, B * C, self.heads, -1).swapaxes(0, 1)

        scale = (D // self.heads) ** -0.5
        q, k, v = (heads(projection) for projection in (self.q, self.k, self.v))
        y = attend(q, k, v, scale=scale, dropout_rate=self.dropout, key=key)
        return self.o(y.swapaxes(0, 1).reshape(N, B, C, D))


class ChannelMixer(nnx.Module):
    """Mix the channels of each token; here the gate comes before the perceptron."""

    def __init__(self, channels: int, features: int, mixing: Mixing, *, rngs: nnx.Rngs):
        self.norm = norm(features, mixing, rngs=rngs)
        self.gate = Gate(channels, mixing, leading=True, rngs=rngs) if mixing.gate else None
        self.mlp = MLP(channels, mixing, leading=True, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        y = jnp.moveaxis(normalise(self.norm, x, key is not None), 2, 0)
        y = self.gate(y) if self.gate else y
        return x + jnp.moveaxis(self.mlp(y, key), 0, 2)


class Layer(nnx.Module):
    """Channel mixer (when channels are mixed), token mixer (of two tokens or more), feature mixer.

    Args of the constructor: tokens N, features D, channels C or None to leave channels apart.
    """

    def __init__(
        self, tokens: int, features: int, channels: int | None, mixing: Mixing, *, rngs: nnx.Rngs
    ):
        self.channel_mixer = (
            ChannelMixer(channels, features, mixing, rngs=rngs) if channels else None
        )
        self.token_mixer = TokenMixer(tokens, features, mixing, rngs=rngs) if tokens > 1 else None
        self.feature_mixer = FeatureMixer(features, mixing, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        mixers = (self.channel_mixer, self.token_mixer, self.feature_mixer)
        for mixer, mixer_key in zip(mixers, split(key, 3), strict=True):
            if mixer:
                x = mixer(x, mixer_key)
        return x


class Level(nnx.Module):
    """Layers that see each token cut into `factor` tokens of fewer features."""

    def __init__(
        self,
        factor: int,
        layers: int,
        tokens: int,
        features: int,
        channels: int | None,
        mixing: Mixing,
        *,
        rngs: nnx.Rngs,
    ):
        self.factor = factor
        self.layers = nnx.List(
            [
                Layer(tokens * factor, features // factor, channels, mixing, rngs=rngs)
                for _ in range(layers)
            ]
        )

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        N, B, C, D = x.shape
        x = jnp.moveaxis(x.reshape(N, B, C, self.factor, -1), 3, 1)
        x = x.reshape(N * self.factor, B, C, -1)
        for layer, layer_key in zip(self.layers, split(key, len(self.layers)), strict=True):
            x = layer(x, layer_key)
        return jnp.moveaxis(x.reshape(N, self.factor, B, C, -1), 1, 3).reshape(N, B, C, D)


class Mixer(nnx.Module):
    """A stack of layers, or, with adaptive patching, one such stack for each level.

    The levels run from the finest to the coarsest: level i cuts each token into 2^i.
    """

    def __init__(
        self,
        layers: int,
        levels: int,
        tokens: int,
        features: int,
        channels: int | None,
        mixing: Mixing,
        *,
        rngs: nnx.Rngs,
    ):
        """Build the stack.

        Args:
          layers: layers, of each level when there are levels.
          levels: levels of adaptive patching; 0 for none.
          tokens: number of tokens, N.
          features: features of a token, D; 2^(levels − 1) divides it.
          channels: number of channels, C; None leaves them apart.
          mixing: what all blocks share.
          rngs: initialisation randomness.
        """
        shape = (tokens, features, channels, mixing)
        self.levels = nnx.List(
            [
                Level(level_factor(features, level), layers, *shape, rngs=rngs)
                for level in reversed(range(levels))
            ]
        )
        plain = 0 if levels else layers
        self.layers = nnx.List([Layer(*shape, rngs=rngs) for _ in range(plain)])

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Map hidden states (N, B, C, D) to hidden states."""
        stack = [*self.levels, *self.layers]
        for block, block_key in zip(stack, split(key, len(stack)), strict=True):
            x = block(x, block_key)
        return x


def level_factor(features: int, level: int) -> int:
    """Tokens that a token of `features` is cut into at a level of adaptive patching."""
    factor = 2**level
    return factor if features // factor > _LEAST_FEATURES else 1
