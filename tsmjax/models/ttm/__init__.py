"""TinyTimeMixer: a small forecaster made of perceptrons over patches, features and channels.

Source: Ekambaram et al., "Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced
Zero/Few-Shot Forecasting of Multivariate Time Series" (2024), arXiv 2401.03955; what the paper
leaves open follows granite-tsfm, its authors' implementation.

Channels share all weights. Only a backbone or decoder of mode "mix_channel" and forecast mixing
look across them.
"""

from tsmjax.models.ttm.config import Compat, Config
from tsmjax.models.ttm.model import Model
from tsmjax.models.ttm.presets import FREQUENCIES, LORA, PRESETS, SHARDING, flops
from tsmjax.models.ttm.published import Published, select_ttm

__all__ = [
    "FREQUENCIES",
    "LORA",
    "PRESETS",
    "SHARDING",
    "Compat",
    "Config",
    "Model",
    "Published",
    "flops",
    "select_ttm",
]
