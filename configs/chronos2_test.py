"""Chronos-2 in three minutes on two CPU cores: two layers, embedded synthetic and real series.

    python -m tsmjax.main --config=configs/chronos2_test.py

Train on an Arrow folder of your own instead (`python -m tsmjax.prepare csv` makes one):

    python -m tsmjax.main --config=configs/chronos2_test.py:data/mine
"""

from pathlib import Path

from ml_collections import ConfigDict

from tsmjax.models.chronos2 import PRESETS


def get_config(source: str = "") -> ConfigDict:
    """Return the config; `source` is an Arrow folder that replaces the embedded series."""
    sources = (
        {"path": "embedded:tsmixup", "weight": 0.9},
        {"path": "embedded:kernel_synth", "weight": 0.1},
    )
    if source:
        sources = ({"path": source, "weight": 1.0},)
    suite = source or "embedded"
    horizon = 16 if source else 64
    return ConfigDict(
        {
            "name": "test",
            "seed": 0,
            "model": {
                "family": "chronos2",
                **PRESETS["tiny"],
                "context_length": 512,
                "max_output_patches": horizon // 16,
                "dropout_rate": 0.0,
            },
            "task": {"kind": "forecast", "reduction": "padded"},
            "data": {
                "sources": sources,
                "batch_size": 16,
                "min_past": 16,
                "random_horizon": True,
                "holdout": 2 * horizon if source else 0,
                "workers": 0,
            },
            "optim": {
                "length": "200 steps",
                "lr": 3e-3,
                "schedule": "cosine",
                "warmup": "5%",
                "weight_decay": 0.01,
                "clip": 1.0,
                "accumulate": 1,
                "average": 0.0,
                "precision": "float32",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "100 steps",
                "keep_latest": 2,
                "keep_best": 2,
                "init_from": "",
                "resume_from": "",
            },
            "evals": {
                "every": "100 steps",
                "suites": (suite,),
                "horizon": horizon if source else 0,
                "metric": f"{Path(suite).name}/wql",
                "mode": "min",
                "batch_size": 64,
            },
            "log": {"every": "10 steps", "health": "50%", "plots": True},
        }
    )
