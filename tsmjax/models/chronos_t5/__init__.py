"""Chronos (T5): tokens of a scaled series to states, and to the tokens that follow.

Source: Ansari et al., "Chronos: Learning the Language of Time Series" (2024), arXiv 2403.07815;
Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"
(2020), section 2.1 (T5).
"""

from tsmjax.models.chronos_t5.config import PRESETS, SHARDING, Config, flops
from tsmjax.models.chronos_t5.decoder import Decoder, DecoderBlock
from tsmjax.models.chronos_t5.layers import buckets
from tsmjax.models.chronos_t5.model import Block, Model
from tsmjax.models.chronos_t5.sample import PUBLISHED, sample
from tsmjax.models.chronos_t5.tokenizer import Tokenizer, Tokens, decode, tokenize

LORA = ((r"attention/[qkvo]$", True),)

__all__ = [
    "LORA",
    "PRESETS",
    "PUBLISHED",
    "SHARDING",
    "Block",
    "Config",
    "Decoder",
    "DecoderBlock",
    "Model",
    "Tokenizer",
    "Tokens",
    "buckets",
    "decode",
    "flops",
    "sample",
    "tokenize",
]
