"""Chronos-2 base, stage 2: context 8192, up to 256 steps ahead, 50K steps from stage 1's weights.

    python -m tsmjax.main --config=configs/chronos2_base_stage2.py:/data/corpus \
        --config.checkpoint.init_from=experiments/chronos2/base/run_20260101T000000

The time encoding was scaled by 8192 in stage 1 already, so no weight changes its meaning.
"""

from ml_collections import ConfigDict

from configs import chronos2_base


def get_config(corpus: str = "") -> ConfigDict:
    """Return the config; series of `corpus` must reach 512 steps, and many of them 4,096."""
    config = chronos2_base.get_config(corpus)
    config.name = "base_stage2"
    config.model.update({"context_length": 8192, "max_output_patches": 16, "remat": "full"})
    config.data.update(
        {
            "sources": chronos2_base.sources(corpus, 8192 + 256, kernel_series=64),
            "batch_size": 512,  # 4 series on each of 64 GPUs, twice
            "min_past": 256,
            "min_future": 256,
        }
    )
    config.optim.update({"length": "50_000 steps", "lr": 3e-5, "accumulate": 2})
    return config
