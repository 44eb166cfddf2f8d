"""Chronos-2 small: 6 layers, 21 quantiles, 28M parameters, as published; stage 1 of 200K steps.

    python -m tsmjax.main --config=configs/chronos2_small.py:/data/corpus

The variant `8l` behind a comma is the 8-layer model with 13 quantiles:

    python -m tsmjax.main --config=configs/chronos2_small.py:/data/corpus,8l
"""

from ml_collections import ConfigDict

from configs import chronos2_base
from tsmjax.errors import InputError
from tsmjax.models.chronos2 import PRESETS


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; `argument` is ``CORPUS[,8l]``."""
    corpus, _, variant = argument.partition(",")
    if variant not in ("", "8l"):
        raise InputError(f"The variant {variant!r} of chronos2_small does not exist; there is 8l.")
    config = chronos2_base.get_config(corpus)
    config.name = "small"
    config.model.update(PRESETS["small_8l" if variant == "8l" else "small"])
    config.model.update({"scan_layers": False, "remat": "none"})
    config.data.batch_size = 1024  # 16 series on each of 64 GPUs
    return config
