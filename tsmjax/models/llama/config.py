"""Hyper-parameters of Llama, published sizes, and what a forward pass costs."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from tsmjax.errors import InputError
from tsmjax.nn.stack import check_remat


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of the first training.

    Attributes:
      kind: "none"; "linear", which divides all frequencies; or "llama3", which divides the low ones
        (Grattafiori et al., "The Llama 3 Herd of Models", 2024, section 3.4.2).
      factor: divisor of the frequencies.
      low_freq_factor: wavelengths above original_max_positions / low_freq_factor are divided
        (llama3).
      high_freq_factor: wavelengths below original_max_positions / high_freq_factor are kept
        (llama3).
      original_max_positions: context of the first training (llama3).
    """

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192

    def __post_init__(self):
        if self.factor <= 0:
            raise InputError(f"model.rope_scaling.factor is {self.factor}, but must be positive.")
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise InputError(
                f"model.rope_scaling has the low_freq_factor {self.low_freq_factor} and the "
                f"high_freq_factor {self.high_freq_factor}: both are positive, the first smaller."
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are those of Llama 3.2 1B.

    Attributes:
      vocab_size: rows of the embedding table.
      d_model: width of the hidden states.
      d_ff: hidden width of the feed-forward layers.
      num_layers: number of blocks.
      num_heads: heads of the queries.
      num_kv_heads: heads of keys and values; divides `num_heads`.
      d_kv: width of one head; even.
      norm_epsilon: added to the mean square in the norms.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how these are stretched.
      max_positions: longest sequence that the weights were made for.
      tie_embeddings: the embedding table also gives the logits.
      initializer_range: deviation of the initial weights.
      bos_token: begins every text; None for models without.
      eos_tokens: tokens that end a text.
      scan_layers: stack the blocks and scan over them, for short compile times.
      remat: what the backward pass recomputes: "none", all but the matmuls ("dots"), or "full".
    """

    vocab_size: int = 128256
    d_model: int = 2048
    d_ff: int = 8192
    num_layers: int = 16
    num_heads: int = 32
    num_kv_heads: int = 8
    d_kv: int = 64
    norm_epsilon: float = 1e-5
    rope_theta: float = 500000.0
    rope_scaling: RopeScaling = RopeScaling("llama3", 32.0)
    max_positions: int = 131072
    tie_embeddings: bool = True
    initializer_range: float = 0.02
    bos_token: int | None = 128000
    eos_tokens: tuple[int, ...] = (128001,)
    scan_layers: bool = True
    remat: str = "none"

    def __post_init__(self):
        for name in (
            *("vocab_size", "d_model", "d_ff", "num_layers", "num_heads", "num_kv_heads", "d_kv"),
            *("norm_epsilon", "rope_theta", "max_positions"),
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"model.{name} is {getattr(self, name)}, but must be positive.")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"model.num_heads is {self.num_heads}, which model.num_kv_heads = "
                f"{self.num_kv_heads} does not divide."
            )
        if self.d_kv % 2:
            raise InputError(f"model.d_kv is {self.d_kv}, but rotary embedding needs an even one.")
        for token in (self.bos_token, *self.eos_tokens):
            if token is not None and not 0 <= token < self.vocab_size:
                raise InputError(
                    f"A token that begins or ends a text is {token}, but model.vocab_size is "
                    f"{self.vocab_size}: set model.bos_token and model.eos_tokens."
                )
        check_remat(self.remat)

    def frequencies(self) -> np.ndarray:
        """Rotary frequencies (d_kv / 2,) fp32, in radians a token, stretched as configured."""
        plain = self.rope_theta ** (-np.arange(0, self.d_kv, 2) / self.d_kv)
        stretch = self.rope_scaling
        if stretch.kind != "llama3":
            return (plain / (stretch.factor if stretch.kind == "linear" else 1.0)).astype(
                np.float32
            )
        turns = stretch.original_max_positions * plain / (2 * math.pi)  # in the first context
        low, high = stretch.low_freq_factor, stretch.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return (kept * plain + (1 - kept) * plain / stretch.factor).astype(np.float32)


PRESETS = {
    "1b": {},  # Llama 3.2 1B
    "3b": {"d_model": 3072, "num_layers": 28, "num_heads": 24, "d_kv": 128},  # Llama 3.2 3B
    "8b": {  # Llama 3.1 8B
        **{"d_model": 4096, "d_ff": 14336, "num_layers": 32, "d_kv": 128},
        **{"tie_embeddings": False, "rope_scaling": RopeScaling("llama3", 8.0)},
    },
    "tiny": {
        **{"vocab_size": 512, "d_model": 64, "d_ff": 172, "num_layers": 5, "num_heads": 8},
        **{"num_kv_heads": 4, "d_kv": 8, "rope_theta": 10000.0, "rope_scaling": RopeScaling()},
        **{"max_positions": 512, "bos_token": 1, "eos_tokens": (2,)},
    },
}

SHARDING = (
    (r"(q|k|v|gate|up)/kernel$", ("fsdp", "tensor")),
    (r"(o|down)/kernel$", ("tensor", "fsdp")),
    (r"embed/embedding$", ("tensor", "fsdp")),
    (r"output/kernel$", ("fsdp", "tensor")),
    (r"scale$", ()),
)

LORA = ((r"attention/[qkvo]$", True),)


def flops(
    config: Config, rows: int, length: int, states: int | None = None, *, logits: bool = True
) -> float:
    """Matmul FLOPs of one forward pass, attention as if it were not causal.

    Args:
      config: the model.
      rows: sequences.
      length: tokens of each.
      states: tokens of each whose states are wanted; None for all.
      logits: whether these states become logits.
    """
    D, inner = config.d_model, config.num_heads * config.d_kv
    shared = config.num_kv_heads * config.d_kv
    keys_and_values = 2 * D * shared
    rest = 2 * D * inner + 3 * D * config.d_ff + 2 * length * inner
    asking = length if states is None else states
    tokens = (config.num_layers - 1) * length + asking
    blocks = config.num_layers * length * keys_and_values + tokens * rest
    return 2.0 * rows * (blocks + logits * asking * D * config.vocab_size)
