"""Hyper-parameters of Chronos-T5, published sizes, and what a forward pass costs."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tsmjax.errors import InputError
from tsmjax.models.chronos_t5.tokenizer import Tokenizer
from tsmjax.nn.stack import check_remat


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are those of chronos-t5-large.

    Attributes:
      vocab_size: rows of the embedding table; at least the tokenizer's.
      d_model: width of the hidden states.
      d_kv: width of one attention head.
      d_ff: hidden width of the feed-forward layers.
      num_layers: number of blocks, on each side where there is a decoder.
      num_heads: attention heads; heads · d_kv need not be d_model.
      feed_forward: "relu", or "gated-gelu" with a second input projection (T5 1.1).
      relative_buckets: number of learned biases of a head, half of them for keys ahead.
      relative_max_distance: distance from which all keys share a bias.
      layer_norm_epsilon: added to the mean square in the norms.
      initializer_factor: scale of the initial weights, and the initial value of the norms' scales.
      decoder: whether there is a decoder; without, the model makes features and no forecasts.
      tokenizer: how series become tokens.
      scan_layers: stack the blocks and scan over them, for short compile times.
      remat: what the backward pass recomputes: "none", all but the matmuls ("dots"), or "full".
    """

    vocab_size: int = 4096
    d_model: int = 1024
    d_kv: int = 64
    d_ff: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 0.05
    decoder: bool = False
    tokenizer: Tokenizer = dataclasses.field(default_factory=Tokenizer)
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self):
        for name in (
            *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"),
            *("layer_norm_epsilon", "initializer_factor"),
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"model.{name} is {getattr(self, name)}, but must be positive.")
        if self.relative_buckets < 4 or self.relative_buckets % 4:
            raise InputError(
                f"model.relative_buckets is {self.relative_buckets}, but must be a multiple of 4."
            )
        if self.relative_max_distance <= self.relative_buckets // 4:
            raise InputError(
                f"model.relative_max_distance is {self.relative_max_distance}, but must be above "
                f"a quarter of model.relative_buckets, which is {self.relative_buckets}."
            )
        if self.tokenizer.n_tokens > self.vocab_size:
            raise InputError(
                f"model.tokenizer.n_tokens is {self.tokenizer.n_tokens}, but the model has only "
                f"model.vocab_size = {self.vocab_size}."
            )
        check_remat(self.remat)


PRESETS = {
    "tiny": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
    "mini": {"d_model": 384, "d_ff": 1536, "num_layers": 4, "num_heads": 8},
    "small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "large": {},
}

SHARDING = (
    (r"(q|k|v|wi|gate|up)/kernel$", ("fsdp", "tensor")),
    (r"(o|wo)/kernel$", ("tensor", "fsdp")),
    (r"relative_bias/embedding$", ()),
    (r"embed/embedding$", (None, "fsdp")),
    (r"scale$", ()),
)


def flops(config: Config, rows: int, length: int) -> float:
    """Matmul FLOPs of one forward pass of the encoder over `rows` series of `length` tokens."""
    inner = config.num_heads * config.d_kv
    products = 3 if config.feed_forward == "gated-gelu" else 2
    per_token = (
        4 * config.d_model * inner + products * config.d_model * config.d_ff + 2 * length * inner
    )
    return 2.0 * rows * length * config.num_layers * per_token
