"""Fine-tune Chronos-2 on an Arrow folder of your own, stopping when validation stops improving.

    python -m tsmjax.prepare csv --src sales.csv --dst data/sales
    python -m tsmjax.main --config=configs/chronos2_finetune.py:data/sales \
        --config.checkpoint.init_from=amazon/chronos-2

`init_from` may also be a run folder of tsmjax. The last 64 steps of every series are the test
window, the 64 before them the validation window; neither is trained on.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import chronos2_base


def get_config(data: str = "embedded:real") -> ConfigDict:
    """Return the config; `data` is the Arrow folder to train and validate on."""
    config = chronos2_base.get_config()
    config.name = "finetune"
    config.model.update({"scan_layers": False, "remat": "dots"})
    config.data.update(
        {
            "sources": ({"path": data, "weight": 1.0},),
            "batch_size": 64,  # 8 series on each of 8 GPUs
            "min_past": 16,
            "min_future": 1,
            "holdout": 128,
        }
    )
    config.optim.update({"length": "50_000 steps", "lr": 1e-5, "warmup": "2%"})
    suite = "embedded" if data == "embedded:real" else data
    config.checkpoint.every = "1_000 steps"
    config.evals.update({"every": "1_000 steps", "suites": (suite,), "patience": "10_000 steps"})
    config.evals.metric = f"{Path(suite).name}/wql"
    return config
