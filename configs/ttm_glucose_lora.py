"""Fine-tune a glucose model by low-rank adapters of rank 8, the head beside them in full.

    python -m tsmjax.main --config=configs/ttm_glucose_lora.py:data/mine,from=experiments/ttm/glucose/best_run

The argument is that of ttm_glucose. Of a model as small as this one adapters save next to nothing;
they are there to compare, and change fewer weights on few recordings. Another rank:
`--config.optim.lora.rank=16`.
"""  # noqa: E501

from ml_collections import ConfigDict

from configs import ttm_glucose


def get_config(argument: str = "embedded:virtual_patients") -> ConfigDict:
    """Return the config; `argument` is that of `ttm_glucose.get_config`."""
    config = ttm_glucose.get_config(argument)
    config.name = "glucose_lora"
    thawed = ["/head/", *config.checkpoint.get("init_skip", ())]
    config.optim.update(
        length="10 epochs",
        lr=2e-3,
        lora={"rank": 8, "alpha": 16.0},
        freeze=tuple((pattern, False) for pattern in thawed),
    )
    return config
