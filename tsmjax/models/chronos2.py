"""Chronos-2: an encoder that forecasts quantiles of groups of related series in one pass.

Source: Ansari et al., "Chronos-2: From Univariate to Universal Forecasting" (2025),
arXiv 2510.15821; section numbers below are that report's.

Dimensions: P packs, S slots (series) in a pack, C context steps, N context patches, O output
patches, T = N + 1 + O tokens (without a REG token T = N + O), D model width, Q quantile levels.
A pack holds whole groups of related series and nothing ever attends across packs, so packs are
the axis to shard.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.errors import InputError
from tsmjax.nn import instance_norm, stack
from tsmjax.nn.attention import attend
from tsmjax.nn.dropout import dropout, split
from tsmjax.nn.instance_norm import LocScale
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import RMSNorm
from tsmjax.nn.patching import patchify
from tsmjax.nn.residual_mlp import ResidualBlock
from tsmjax.nn.rope import rotary_angles, rotate

QUANTILES_21 = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
QUANTILES_13 = (0.01, 0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.99)


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are those of the published base model.

    Attributes:
      d_model: width of the hidden states.
      d_kv: width of one attention head; even.
      d_ff: hidden width of the feed-forward layers and of the patch embeddings.
      num_layers: number of encoder blocks.
      num_heads: attention heads; heads · d_kv need not be d_model.
      dropout_rate: rate of every dropout.
      layer_norm_epsilon: added to the mean square in the norms.
      initializer_factor: scale of the initial weights, and the initial value of the norms' scales.
      rope_theta: base of the rotary frequencies.
      context_length: longest context in steps; older steps are dropped.
      input_patch_size: steps in a context patch.
      output_patch_size: steps in an output patch; equals `input_patch_size`.
      input_patch_stride: distance between context patches; equals `input_patch_size`.
      quantiles: predicted levels, increasing, inside (0, 1).
      max_output_patches: longest forecast of one pass, in patches.
      time_encoding_scale: steps that make one unit of the time feature; None means context_length.
      use_reg_token: put a learned token between context and future.
      use_arcsinh: compress standardised values with arcsinh.
      scan_layers: stack the blocks and scan over them, for short compile times.
      remat: what the backward pass recomputes: "none", all but the matmuls ("dots"), or "full".
    """

    d_model: int = 768
    d_kv: int = 64
    d_ff: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 0.05
    rope_theta: float = 10000.0
    context_length: int = 8192
    input_patch_size: int = 16
    output_patch_size: int = 16
    input_patch_stride: int = 16
    quantiles: tuple[float, ...] = QUANTILES_21
    max_output_patches: int = 64
    time_encoding_scale: int | None = 8192
    use_reg_token: bool = True
    use_arcsinh: bool = True
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self):
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        for name in (
            *("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "layer_norm_epsilon"),
            *("initializer_factor", "rope_theta", "context_length", "input_patch_size"),
            *("max_output_patches", "time_encoding_scale"),
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"model.{name} is {value}, but must be positive.")
        if self.d_kv % 2:
            raise InputError(f"model.d_kv is {self.d_kv}, but rotary embedding needs an even one.")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise InputError(f"model.dropout_rate is {self.dropout_rate}, but must be in [0, 1).")
        for name in ("output_patch_size", "input_patch_stride"):
            if getattr(self, name) != self.input_patch_size:
                raise InputError(
                    f"model.{name} is {getattr(self, name)}, but must equal "
                    f"model.input_patch_size, which is {self.input_patch_size}."
                )
        ordered = all(a < b for a, b in zip(self.quantiles, self.quantiles[1:], strict=False))
        if not self.quantiles or not ordered or min(self.quantiles) <= 0 or self.quantiles[-1] >= 1:
            raise InputError(
                f"model.quantiles is {list(self.quantiles)}, but must hold increasing levels "
                "between 0 and 1."
            )
        stack.check_remat(self.remat)

    @property
    def patch_size(self) -> int:
        """Steps in a patch."""
        return self.input_patch_size

    @property
    def horizon(self) -> int:
        """Longest forecast of one pass, in steps."""
        return self.max_output_patches * self.patch_size


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
        self.dropout_rate = config.dropout_rate

    def heads(self, x: jax.Array) -> jax.Array:
        """Split (B, T, inner) into (B, T, heads, d_kv)."""
        return x.reshape(*x.shape[:-1], self.num_heads, -1)


class TimeAttention(Attention):
    """Bidirectional attention along the time of each series, with rotary positions (3.1)."""

    def __call__(
        self,
        h: jax.Array,
        mask: jax.Array,
        angles: tuple[jax.Array, jax.Array],
        key: jax.Array | None,
        used: int,
    ) -> jax.Array:
        """Return the sublayer's update (P, S, used, D) of the last `used` tokens of `h`.

        Args:
          h: hidden states (P, S, T, D).
          mask: (P, S, T), False hides a token.
          angles: of `rotary_angles`.
          key: dropout key.
          used: tokens at the end that ask; all answer.
        """
        P, S, T, D = h.shape
        attention_key, output_key = split(key, 2)
        x = self.norm(h).reshape(P * S, T, D)
        y = attend(
            rotate(self.heads(self.q(x[:, T - used :])), *(table[T - used :] for table in angles)),
            rotate(self.heads(self.k(x)), *angles),
            self.heads(self.v(x)),
            mask.reshape(P * S, 1, 1, T),
            scale=1.0,
            dropout_rate=self.dropout_rate,
            key=attention_key,
        )
        y = self.o(y.reshape(P, S, used, -1))
        return dropout(y, self.dropout_rate, output_key)


class GroupAttention(Attention):
    """Attention across the series of a group, at each time patch on its own (3.1)."""

    def __call__(self, h: jax.Array, mask: jax.Array | None, key: jax.Array | None) -> jax.Array:
        """Return the sublayer's update of `h` (P, S, T, D).

        Args:
          h: hidden states.
          mask: (P, T, S, S), True where a slot sees another one; None when every series is alone.
            The softmax over one member is 1, so that the sublayer needs no queries and keys.
          key: dropout key.
        """
        P, S, T, D = h.shape
        attention_key, output_key = split(key, 2)
        x = self.norm(h)
        if mask is None:
            v = self.heads(self.v(x))
            if attention_key is not None:
                weight = jnp.ones((*v.shape[:-1], 1), v.dtype)
                v = v * dropout(weight, self.dropout_rate, attention_key)
            y = v.reshape(P, S, T, -1)
        else:
            x = x.swapaxes(1, 2).reshape(P * T, S, D)
            y = attend(
                self.heads(self.q(x)),
                self.heads(self.k(x)),
                self.heads(self.v(x)),
                mask.reshape(P * T, 1, S, S),
                scale=1.0,
                dropout_rate=self.dropout_rate,
                key=attention_key,
            )
            y = y.reshape(P, T, S, -1).swapaxes(1, 2)
        return dropout(self.o(y), self.dropout_rate, output_key)


class FeedForward(nnx.Module):
    """Pre-norm two-layer perceptron without biases."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        d, inner, init = config.d_model, config.d_ff, config.initializer_factor
        self.norm = RMSNorm(d, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs)
        self.wi = Linear(d, inner, std=init * d**-0.5, rngs=rngs)
        self.wo = Linear(inner, d, std=init * inner**-0.5, rngs=rngs)
        self.dropout_rate = config.dropout_rate

    def __call__(self, h: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the sublayer's update of `h` (…, D)."""
        hidden_key, output_key = split(key, 2)
        y = dropout(jax.nn.relu(self.wi(self.norm(h))), self.dropout_rate, hidden_key)
        return dropout(self.wo(y), self.dropout_rate, output_key)


class Block(nnx.Module):
    """One encoder block: time attention, group attention, feed-forward, each with a shortcut."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.time_attention = TimeAttention(config, rngs=rngs)
        self.group_attention = GroupAttention(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        h: jax.Array,
        time_mask: jax.Array,
        group_mask: jax.Array | None,
        angles: tuple[jax.Array, jax.Array],
        key: jax.Array | None,
        used: int | None = None,
    ) -> jax.Array:
        """Map hidden states (P, S, T, D) to those of the last `used` tokens, None = of all."""
        time_key, group_key, feed_forward_key = split(key, 3)
        skipped = 0 if used is None else h.shape[2] - used
        update = self.time_attention(h, time_mask, angles, time_key, h.shape[2] - skipped)
        h = h[:, :, skipped:] + update
        group_mask = None if group_mask is None else group_mask[:, skipped:]
        h = h + self.group_attention(h, group_mask, group_key)
        return h + self.feed_forward(h, feed_forward_key)


class Embedding(nnx.Module):
    """Learned vectors of the special tokens; row 0 is padding and unused, row 1 is REG."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        shape = (2 if config.use_reg_token else 1, config.d_model)
        self.embedding = nnx.Param(
            config.initializer_factor * jax.random.normal(rngs.params(), shape)
        )


class Model(nnx.Module):
    """The Chronos-2 forecaster.

    `__call__` predicts in the normalised space in which the loss lives; `unscale` brings the
    predictions back to the units of the data.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        patch, init, rate = config.patch_size, config.initializer_factor, config.dropout_rate
        self.config = config
        self.shared = Embedding(config, rngs=rngs)
        self.input_patch_embedding = ResidualBlock(
            *(3 * patch, config.d_ff, config.d_model), init=init, dropout_rate=rate, rngs=rngs
        )
        self.blocks = stack.build(
            lambda rngs: Block(config, rngs=rngs),
            config.num_layers,
            scan=config.scan_layers,
            rngs=rngs,
        )
        self.final_norm = RMSNorm(
            config.d_model, epsilon=config.layer_norm_epsilon, init=init, rngs=rngs
        )
        self.output_patch_embedding = ResidualBlock(
            *(config.d_model, config.d_ff, len(config.quantiles) * patch),
            init=init,
            dropout_rate=rate,
            rngs=rngs,
        )

    def __call__(
        self,
        context: jax.Array,
        future: jax.Array | None = None,
        group: jax.Array | None = None,
        patches: jax.Array | None = None,
        *,
        output_patches: int,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, LocScale]:
        """Predict quantiles of the next `output_patches` patches of every series.

        Args:
          context: (P, S, C) fp32, NaN (or ±inf) = missing; only the last context_length count.
          future: (P, S, H) fp32 known future values, NaN = unknown, H ≤ output_patches · patch;
            None = nothing known.
          group: (P, S) int, id of the group inside its pack, −1 = empty slot; None = every series
            on its own.
          patches: (P,) int, output patches in use: predictions of these equal those of a call with
            that many `output_patches`, and the later ones are meaningless. None = all.
          output_patches: number of output patches, static.
          key: dropout key; None = no dropout.

        Returns:
          Predictions (P, S, Q, output_patches · patch) fp32 in normalised space, and the (loc,
          scale), each (P, S, 1), with which to undo the normalisation.
        """
        encode_key, output_key = split(key, 2)
        h, loc_scale = self.encode(
            *(context, future, group, patches),
            output_patches=output_patches,
            key=encode_key,
            used=output_patches,
        )
        y = self.output_patch_embedding(h, output_key)
        levels = len(self.config.quantiles)
        y = y.reshape(*y.shape[:3], levels, self.config.patch_size)
        y = y.swapaxes(2, 3).reshape(*y.shape[:2], levels, -1)
        return y.astype(jnp.float32), loc_scale

    def encode(
        self,
        context: jax.Array,
        future: jax.Array | None = None,
        group: jax.Array | None = None,
        patches: jax.Array | None = None,
        *,
        output_patches: int,
        key: jax.Array | None = None,
        used: int | None = None,
    ) -> tuple[jax.Array, LocScale]:
        """Return the final hidden states (P, S, T, D) and (loc, scale); arguments of `__call__`.

        The tokens are the context patches, oldest first, the REG token if there is one, and the
        output patches. States at patches without an observation are finite but meaningless.
        With `used`, only the states of that many last tokens (P, S, used, D): the last block then
        spares what no later one reads.
        """
        h, observed, loc_scale = self.embed_tokens(
            context, future, patches, output_patches=output_patches
        )
        embed_key, blocks_key, final_key = split(key, 3)
        group_mask = None
        if group is not None and context.shape[1] > 1:
            same = group[:, None, :, None] == group[:, None, None, :]
            group_mask = same & observed.swapaxes(1, 2)[:, :, None, :]
        angles = rotary_angles(h.shape[2], self.config.d_kv, self.config.rope_theta)
        h = dropout(h, self.config.dropout_rate, embed_key)
        h = self.run_blocks(h, observed, group_mask, angles, blocks_key, used)
        return dropout(self.final_norm(h), self.config.dropout_rate, final_key), loc_scale

    def embed_tokens(
        self,
        context: jax.Array,
        future: jax.Array | None,
        patches: jax.Array | None,
        *,
        output_patches: int,
    ) -> tuple[jax.Array, jax.Array, LocScale]:
        """Normalise, patch and embed; arguments of `__call__`.

        Returns:
          Hidden states (P, S, T, D), a mask (P, S, T) of the tokens that may be attended to, and
          (loc, scale).
        """
        config, horizon = self.config, output_patches * self.config.patch_size
        P, S, _ = context.shape
        if future is None:
            future = jnp.full((P, S, 0), jnp.nan)
        if future.shape[-1] > horizon:
            raise InputError(
                f"The future covariates span {future.shape[-1]} steps, but {output_patches} output "
                f"patches of {config.patch_size} steps span {horizon}; ask for more patches."
            )
        context = context[..., -config.context_length :]
        loc_scale = instance_norm.statistics(context)
        context = patchify(self.normalise(context, loc_scale), config.patch_size)
        missing = horizon - future.shape[-1]
        future = jnp.pad(future, ((0, 0), (0, 0), (0, missing)), constant_values=jnp.nan)
        future = self.normalise(future, loc_scale).reshape(P, S, output_patches, -1)

        N = context.shape[2]
        values = jnp.concatenate([context, future], axis=2)
        known = ~jnp.isnan(values)
        time = jnp.arange(-N * config.patch_size, horizon, dtype=jnp.float32)
        time = time / (config.time_encoding_scale or config.context_length)
        features = [
            jnp.broadcast_to(time.reshape(1, 1, -1, config.patch_size), values.shape),
            jnp.where(known, values, 0.0),
            known.astype(jnp.float32),
        ]
        h = self.input_patch_embedding(jnp.concatenate(features, axis=-1))

        used = jnp.ones((P, S, output_patches), bool)
        if patches is not None:
            used &= jnp.arange(output_patches)[None, None, :] < patches[:, None, None]
        observed = [known[:, :, :N].any(axis=-1), used]
        if config.use_reg_token:
            reg = self.shared.embedding[...][1].astype(h.dtype)
            reg = jnp.broadcast_to(reg, (P, S, 1, config.d_model))
            h = jnp.concatenate([h[:, :, :N], reg, h[:, :, N:]], axis=2)
            observed.insert(1, jnp.ones((P, S, 1), bool))
        return h, jnp.concatenate(observed, axis=2), loc_scale

    def run_blocks(
        self,
        h: jax.Array,
        time_mask: jax.Array,
        group_mask: jax.Array | None,
        angles: tuple[jax.Array, jax.Array],
        key: jax.Array | None,
        used: int | None,
    ) -> jax.Array:
        """Run the encoder blocks over `h` (P, S, T, D), the last one for `used` last tokens."""
        config = self.config
        keys = None if key is None else jax.random.split(key, config.num_layers)

        def call(block, h, key, used=None):
            return block(h, time_mask, group_mask, angles, key, used), None

        last = None if used is None else functools.partial(call, used=used)
        return stack.run(self.blocks, call, h, keys, remat=config.remat, last=last)[0]

    def normalise(self, x: jax.Array, loc_scale: LocScale) -> jax.Array:
        """Bring values (P, S, L) into normalised space; missing ones become NaN."""
        return instance_norm.normalise(x, loc_scale, arcsinh=self.config.use_arcsinh)

    def unscale(self, predictions: jax.Array, loc_scale: LocScale) -> jax.Array:
        """Bring predictions (P, S, Q, H) back to the units of the data, in fp32."""
        loc, scale = (x[:, :, None, :] for x in loc_scale)
        return instance_norm.unscale(predictions, (loc, scale), arcsinh=self.config.use_arcsinh)


PRESETS = {
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "small_8l": {
        **{"d_model": 512, "d_ff": 2048, "num_layers": 8, "num_heads": 8},
        "quantiles": QUANTILES_13,
    },
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 2, "num_heads": 4},
}

SHARDING = (
    (r"(q|k|v|wi|hidden)/kernel$", ("fsdp", "tensor")),
    (r"(o|wo|output)/kernel$", ("tensor", "fsdp")),
    (r"residual/kernel$", ("fsdp", None)),
    (r"hidden/bias$", ("tensor",)),
    (r"shared/embedding$", (None, "fsdp")),
    (r"(bias|scale)$", ()),
)

# What chronos-forecasting adapts by default.
LORA = ((r"(time|group)_attention/[qkvo]$", True), (r"output_patch_embedding/output$", True))


@functools.cache  # asked at every step, for a few shapes
def flops(config: Config, rows: int, context: int, horizon: int) -> float:
    """Matmul FLOPs of one forward pass over `rows` series; training costs three times that.

    Counts every projection and the time attention, in the last block what output patches need. The
    attention inside groups adds 4 · slots · heads · d_kv a token and layer, which is left out; a
    batch in which every series is alone also skips the queries and keys of group attention, which
    are counted.

    Args:
      config: the model.
      rows: number of series.
      context: context steps.
      horizon: forecast steps.
    """
    patch, D, F = config.patch_size, config.d_model, config.d_ff
    inner = config.num_heads * config.d_kv
    used = -(-min(context, config.context_length) // patch)
    output = -(-horizon // patch)
    tokens = used + config.use_reg_token + output

    def residual_block(inputs: int, outputs: int) -> int:
        return inputs * F + F * outputs + inputs * outputs

    everything = 8 * D * inner + 2 * D * F + 2 * tokens * inner
    keys_and_values = 2 * D * inner
    blocks = (config.num_layers - 1) * tokens * everything
    blocks += tokens * keys_and_values + output * (everything - keys_and_values)
    embed = (used + output) * residual_block(3 * patch, D)
    head = output * residual_block(D, len(config.quantiles) * patch)
    return 2.0 * rows * (blocks + embed + head)
