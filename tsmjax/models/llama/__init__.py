"""Llama: a decoder-only language model, the text side of SensorLLM.

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023), arXiv
2302.13971; Grattafiori et al., "The Llama 3 Herd of Models" (2024), arXiv 2407.21783. Names and
layout of weights are those of Hugging Face (rotary halves, not Meta's interleaved pairs).
"""

from tsmjax.models.llama.config import (
    LORA,
    PRESETS,
    SHARDING,
    Config,
    RopeScaling,
    flops,
)
from tsmjax.models.llama.generate import generate, score
from tsmjax.models.llama.model import Block, Cache, Model
from tsmjax.nn.sampling import Sampling

__all__ = [
    "LORA",
    "PRESETS",
    "SHARDING",
    "Block",
    "Cache",
    "Config",
    "Model",
    "RopeScaling",
    "Sampling",
    "flops",
    "generate",
    "score",
]
