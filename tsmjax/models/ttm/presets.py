"""Published shapes of TTM, how its parameters shard, and what it costs."""

from __future__ import annotations

from typing import Any

from tsmjax.models.ttm.config import Config
from tsmjax.models.ttm.mixer import level_factor

# Number of the frequency token of each step length; 0 is any other.
FREQUENCIES = {
    **{"min": 1, "2min": 2, "5min": 3, "10min": 4, "15min": 5, "30min": 6},
    **{"h": 7, "D": 8, "W": 9},
}

_SMALL = {"patch_length": 64, "d_model": 192, "decoder_d_model": 128}
_LARGE = {"patch_length": 128, "d_model": 384, "decoder_d_model": 256}
# Release and context length; the horizon, 96 by default, only changes the head.
PRESETS: dict[str, dict[str, Any]] = {
    "r1_512": {**_SMALL, "context_length": 512, "dropout": 0.2, "head_dropout": 0.2},
    "r1_1024": {**_SMALL, "context_length": 1024, "dropout": 0.2, "head_dropout": 0.2},
    "r2_512": {**_SMALL, "context_length": 512},
    "r2_1024": {**_LARGE, "context_length": 1024},
    "r2_1536": {**_LARGE, "context_length": 1536},
    "r2_1_512": {**_SMALL, "context_length": 512, "frequency_vocabulary": 10},
}

SHARDING = (
    (r"(kernel|embedding)$", ("fsdp", "tensor")),
    (r"(bias|scale|registers)$", ()),
)

# The projections that are larger than their adapters; token mixers are 8 × 16.
LORA = ((r"/feature_mixer/mlp/fc[12]$", True),)


def flops(config: Config, rows: int) -> float:
    """Matmul FLOPs of one forward pass over `rows` series; training costs three times that.

    Counts the projections of patches, mixers, adapter and head. Channel and forecast mixing, the
    quantile head, and the prefix tokens themselves are left out.
    """
    gate = {"none": 0, "glu": 2}.get(config.gate, 1)

    def mixer(width: int, layers: int, levels: int) -> int:
        per_entry = 0
        for level in range(max(levels, 1)):
            factor = level_factor(width, level)
            sizes = config.num_tokens * factor + width // factor
            per_entry += layers * sizes * (2 * config.expansion_factor + gate)
        return config.num_tokens * width * per_entry

    D, tokens = config.d_model, config.num_tokens
    total = config.num_patches * config.patch_length * D
    total += mixer(D, config.num_layers, config.adaptive_patching_levels)
    width = D
    if config.use_decoder:
        width = config.decoder_d_model
        total += tokens * D * width if width != D else 0
        levels = config.decoder_adaptive_patching_levels
        total += mixer(width, config.decoder_num_layers, levels)
    return 2.0 * rows * (total + tokens * width * config.prediction_length)
