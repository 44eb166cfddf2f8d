"""LAST-E v3, the middle: 720K parameters in its base size, three streams, one body.

    python -m tsmjax.main --config=configs/last_e_v3.py               # base, NTU-60 xsub
    python -m tsmjax.main --config=configs/last_e_v3.py:large,ntu120

`configs/last_e.py` lists the words of a variant; sizes are nano, small, base and large.
"""

from ml_collections import ConfigDict

from configs.last_e import recipe


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    config = recipe("last_e_v3", variant, "base", ("nano", "small", "base", "large"), batch_size=32)
    config.optim.update({"length": "120 epochs", "lr": 0.1, "warmup": "5 epochs"})
    if config.model.size in ("base", "large"):
        config.task.bottleneck = "kl"
    return config
