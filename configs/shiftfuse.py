"""ShiftFuse, the smallest nets: joints shifted between channels instead of a graph convolution.

    python -m tsmjax.main --config=configs/shiftfuse.py                 # small, NTU-60 xsub
    python -m tsmjax.main --config=configs/shiftfuse.py:nano,ucla,bone  # one stream alone

`configs/last_e.py` lists the words of a variant; sizes are nano, small, nano_ref and small_ref.
"""

from ml_collections import ConfigDict

from configs.last_e import recipe


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    config = recipe(
        "shiftfuse", variant, "small", ("nano", "small", "nano_ref", "small_ref"), batch_size=64
    )
    config.optim.update({"length": "120 epochs", "lr": 0.1, "warmup": "5 epochs", "final": 1e-4})
    return config
