"""Chronos-2 base (120M), stage 1: context 2048, up to 64 steps ahead, 200K steps.

    python -m tsmjax.main --config=configs/chronos2_base.py:/data/corpus

The corpus folder holds two Arrow data sets, `tsmixup` and `kernel_synth`, drawn 9 : 1. Without one,
both are generated into the cache folder at first use (far smaller than a real corpus).
"""

from ml_collections import ConfigDict, config_dict

from tsmjax.models.chronos2 import PRESETS


def sources(corpus: str, steps: int, kernel_series: int = 512) -> tuple:
    """Mixture of the Chronos recipe: the folder `corpus`, or embedded series of up to `steps`.

    The cost of an embedded KernelSynth series grows with the cube of its length, hence
    `kernel_series`, the number of them.
    """
    if corpus:
        paths = f"{corpus}/tsmixup", f"{corpus}/kernel_synth"
    else:
        kernel_synth = f"embedded:kernel_synth?series={kernel_series}&length={steps}"
        paths = f"embedded:tsmixup?max_length={steps}", kernel_synth
    return ({"path": paths[0], "weight": 0.9}, {"path": paths[1], "weight": 0.1})


def get_config(corpus: str = "") -> ConfigDict:
    """Return the config; `corpus` is the folder of the training data."""
    return ConfigDict(
        {
            "name": "base",
            "seed": 42,
            "model": {
                "family": "chronos2",
                **PRESETS["base"],
                "context_length": 2048,
                "max_output_patches": 4,
                "time_encoding_scale": 8192,
                "dropout_rate": 0.1,
                "scan_layers": True,
                "remat": "dots",
            },
            # The report does not say how Chronos-2 saw missing values; this is Chronos' own way.
            "task": {"kind": "forecast", "reduction": "padded", "missing": 0.2, "flip": 0.0},
            # 12 series on each of 64 GPUs.
            "data": {
                "sources": sources(corpus, 2048 + 64),
                "batch_size": 768,
                "slots": config_dict.placeholder(int),
                "max_series": config_dict.placeholder(int),
                "min_past": 60,
                "min_future": 64,
                "random_horizon": True,
                "holdout": 0,
                "long_share": 0.25,
                "workers": 0,
                "prefetch": 4,
            },
            "optim": {
                "length": "200_000 steps",
                "lr": 1e-4,
                "schedule": "cosine",
                "warmup": "1%",
                "weight_decay": 0.01,
                "clip": 1.0,
                "accumulate": 1,
                "average": 0.0,
                "precision": "bfloat16",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "10_000 steps",
                "keep_latest": 2,
                "keep_best": 3,
                "resume_from": "",
                "init_from": "",
            },
            "evals": {
                "every": "10_000 steps",
                "suites": ("embedded",),
                "horizon": 0,
                "metric": "embedded/wql",
                "mode": "min",
                "batch_size": 64,
                "patience": "0 steps",
            },
            "log": {"every": "100 steps"},
        }
    )
