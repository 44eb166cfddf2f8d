"""LAST-Base, the teacher: attention over joints and frames, one stream a net, four nets together.

    python -m tsmjax.main --config=configs/last_base.py:joint --workdir=runs/joint
    python -m tsmjax.main --config=configs/last_base.py:bone --workdir=runs/bone
    python -m tsmjax.evaluate --checkpoint runs/joint runs/bone --ensemble

The batch of 128 is four micro-batches of 32. `configs/last_e.py` lists the words of a variant.
"""

from ml_collections import ConfigDict

from configs.last_e import recipe


def get_config(variant: str = "joint") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    config = recipe("last_base", variant, "base", ("base",), batch_size=128)
    config.data.bodies = 2
    config.task.bottleneck = "kl"
    config.optim.update(
        {
            "optimizer": "adamw",
            "length": "200 epochs",
            "lr": 1e-3,
            "warmup": "10 epochs",
            "start": 1e-2,
            "weight_decay": 0.05,
            "accumulate": 4,
            "precision": "bfloat16",
        }
    )
    return config
