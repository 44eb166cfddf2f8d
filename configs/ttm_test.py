"""TTM in a minute on two CPU cores: synthetic series with seasons and trends, no download.

    python -m tsmjax.main --config=configs/ttm_test.py

Train on an Arrow folder of your own instead (`python -m tsmjax.prepare csv` makes one; items need
about 800 steps, or set model.context_length and model.patch_length):

    python -m tsmjax.main --config=configs/ttm_test.py:data/mine
"""

from ml_collections import ConfigDict


def get_config(source: str = "embedded:kernel_synth?series=64&length=1024") -> ConfigDict:
    """Return the config; `source` is an Arrow folder that replaces the embedded series."""
    name = source.partition("?")[0].rpartition(":")[2].rpartition("/")[2]
    return ConfigDict(
        {
            "name": "test",
            "seed": 0,
            "model": {
                "family": "ttm",
                "context_length": 192,
                "prediction_length": 24,
                "patch_length": 12,
                "d_model": 48,
                "decoder_d_model": 32,
                "adaptive_patching_levels": 3,
                "dropout": 0.1,
                "head_dropout": 0.1,
            },
            "task": {"kind": "multivariate", "loss": "mse"},
            "data": {
                "path": source,
                "split": (0.7, 0.1, 0.2),
                "batch_size": 64,
                "stride": 1,
                "eval_stride": 24,
                "standardise": True,
                "workers": 0,
            },
            "optim": {
                "length": "600 steps",
                "lr": 3e-3,
                "schedule": "one_cycle",
                "weight_decay": 0.01,
                "clip": 1.0,
                "precision": "float32",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "300 steps",
                "keep_latest": 2,
                "keep_best": 2,
                "init_from": "",
                "resume_from": "",
            },
            "evals": {
                "every": "100 steps",
                "suites": (),
                "metric": f"{name}/mse",
                "mode": "min",
                "batch_size": 256,
            },
            "log": {"every": "25 steps", "health": "50%", "plots": True},
        }
    )
