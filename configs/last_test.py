"""LAST-E nano in a minute on two CPU cores: skeletons that nobody moved, no download.

    python -m tsmjax.main --config=configs/last_test.py

Train on a data set of your own instead (`python -m tsmjax.prepare ntu` makes one); words are those
of `configs/last_e.py`:

    python -m tsmjax.main --config=configs/last_test.py:ucla,data/ucla
"""

from ml_collections import ConfigDict

from configs.last_e import recipe


def get_config(variant: str = "embedded:skeletons?clips=480&actions=6&frames=40") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    config = recipe("last_e", variant, "nano", ("nano", "small", "base", "large"))
    config.name = "test"
    config.model.frames = 16
    config.data.frames = 32
    config.data.batch_size = 32
    if "embedded:skeletons" in variant:
        config.model.num_classes = 6
    config.optim.update({"length": "12 epochs", "lr": 0.1, "warmup": "2 epochs"})
    config.evals.every = "6 epochs"
    config.checkpoint.every = "6 epochs"
    return config
