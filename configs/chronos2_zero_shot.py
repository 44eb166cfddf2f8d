"""Chronos-2 of 3M parameters that forecasts unseen data, trained in 20 minutes on two CPU cores.

    python -m tsmjax.main --config=configs/chronos2_zero_shot.py
    python -m tsmjax.main --config=configs/chronos2_zero_shot.py:40     # 40 minutes, and better
    python -m tsmjax.main --config=configs/chronos2_zero_shot.py:gpu    # 8 minutes of a large GPU

It learns from generated series alone, and from mixtures of the real series inside statsmodels;
nothing is downloaded. On a GPU it is Chronos-2 small, and no generated series comes twice.
`python -m benchmarks.chronos2_zero_shot` trains it and scores it on public data that it never saw.
"""

from ml_collections import ConfigDict

from tsmjax.errors import InputError
from tsmjax.models.chronos2 import PRESETS, QUANTILES_13, QUANTILES_21

# What most series are: with trend and seasons, and on a GPU of all kinds, made as they are needed.
SERIES = {
    "20": "embedded:tsi?series=80000",
    "40": "embedded:tsi?series=160000",
    "gpu": "generated:corpus?max_length=1024",
}
# What differs from the 20 minutes.
CHANGES = {
    "20": {},
    "40": {"optim": {"length": "65_000 steps"}},
    "gpu": {
        "model": {
            **PRESETS["small"],
            **{"context_length": 512, "max_output_patches": 4},
            **{"input_patch_size": 16, "input_patch_stride": 16, "output_patch_size": 16},
            "quantiles": QUANTILES_21,
        },
        "data": {"batch_size": 512, "group_by_length": 16, "prefetch": 8},
        "optim": {"length": "7_000 steps", "average": 0.999, "precision": "bfloat16"},
    },
}


def get_config(length: str = "20") -> ConfigDict:
    """Return the config; contexts reach two weeks of hours, forecasts 60 steps.

    Args:
      length: "20" or "40", minutes on two CPU cores, or "gpu", eight minutes of one.

    Raises:
      InputError: for another length.
    """
    if length not in CHANGES:
        raise InputError(f"The config takes {', '.join(CHANGES)}, not {length!r}.")
    config = _config(f"{SERIES[length]}&min_length=64&missing=10")
    config.update(CHANGES[length])
    return config


def _config(series: str) -> ConfigDict:
    """Return the config of the 20 minutes, on `series` for the most part."""
    return ConfigDict(
        {
            "name": "zero_shot",
            "seed": 0,
            "model": {
                "family": "chronos2",
                "d_model": 192,
                "d_kv": 48,
                "d_ff": 768,
                "num_layers": 4,
                "num_heads": 4,
                "dropout_rate": 0.0,
                "initializer_factor": 0.3,  # learns to copy seasons sooner than with 0.05 or 1
                "context_length": 336,
                "max_output_patches": 5,
                # Most seasons of the calendar are whole patches, or a patch whole seasons.
                "input_patch_size": 12,
                "input_patch_stride": 12,
                "output_patch_size": 12,
                "time_encoding_scale": 512,
                "quantiles": QUANTILES_13,
                "scan_layers": False,
            },
            "task": {
                "kind": "forecast",
                "reduction": "observed",
                "seasons": (1, 4, 5, 7, 12, 24, 48, 168),
                "flip_invariant": True,  # 2 % better on data that training never sees
            },
            "data": {
                "sources": (
                    {"path": series, "weight": 0.85},
                    {"path": "embedded:kernel_synth?series=4096&length=512", "weight": 0.10},
                    {"path": "embedded:tsmixup?series=4096&min_length=64", "weight": 0.05},
                ),
                "batch_size": 16,
                "min_past": 32,
                "random_horizon": True,
                "group_by_length": 32,  # two thirds of the context would be padding
                "workers": 0,
            },
            "optim": {
                "length": "20_000 steps",
                "lr": 1e-3,
                "schedule": "cosine",
                "warmup": "2%",
                "final": 0.01,
                "weight_decay": 0.05,
                "clip": 1.0,
                "average": 0.995,
                "precision": "float32",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "20%",
                "keep_latest": 1,
                "keep_best": 1,
                "init_from": "",
                "resume_from": "",
            },
            "evals": {
                "every": "20%",
                "suites": ("embedded",),
                "metric": "embedded/wql",
                "mode": "min",
                "batch_size": 64,
            },
            "log": {"every": "100 steps", "plots": True},
        }
    )
