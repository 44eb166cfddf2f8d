"""LAST-v2, the large nets: each stream through one backbone, both bodies, adaptive graphs.

    python -m tsmjax.main --config=configs/last_v2.py             # base, 9.2M, NTU-60 xsub
    python -m tsmjax.main --config=configs/last_v2.py:small,xview

`configs/last_e.py` lists the words of a variant; sizes are small, base, large and *_ref.
"""

from ml_collections import ConfigDict

from configs.last_e import recipe


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    sizes = ("small", "base", "large", "small_ref", "large_ref")
    config = recipe("last_v2", variant, "base", sizes, batch_size=32)
    config.data.bodies = 2
    config.optim.precision = "bfloat16"
    return config
