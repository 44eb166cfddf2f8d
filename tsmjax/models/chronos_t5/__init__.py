"""The encoder of Chronos (T5): tokens of a standardised series to states, one for each step.

Source: Ansari et al., "Chronos: Learning the Language of Time Series" (2024), arXiv 2403.07815;
Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"
(2020), section 2.1 (T5). The decoder is not part of it.
"""

from tsmjax.models.chronos_t5.config import PRESETS, SHARDING, Config, flops
from tsmjax.models.chronos_t5.model import Block, Model, buckets
from tsmjax.models.chronos_t5.tokenizer import Tokenizer, Tokens, decode, tokenize

LORA = ((r"attention/[qkvo]$", True),)

__all__ = [
    "LORA",
    "PRESETS",
    "SHARDING",
    "Block",
    "Config",
    "Model",
    "Tokenizer",
    "Tokens",
    "buckets",
    "decode",
    "flops",
    "tokenize",
]
