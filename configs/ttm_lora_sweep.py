"""TTM fine-tuned four ways, to compare: the head alone, LoRA of rank 8 and 16, and all weights.

    for variant in head r8 r16 full; do
        python -m tsmjax.main --config=configs/ttm_lora_sweep.py:$variant,data/mine,from=weights/ttm_r2
    done

What follows the variant: an Arrow folder (`python -m tsmjax.prepare`), and `from=CHECKPOINT`, a run
folder of tsmjax, a Hugging Face folder or a hub id; its own sizes are taken. Without them the shape
of r2 512-96 is trained from fresh weights on embedded series, which shows that it runs.

LoRA trains the head beside the adapters, which go to the feature mixers. The runs are
experiments/ttm/lora_sweep_VARIANT; all see the same batches.
"""  # noqa: E501

from ml_collections import ConfigDict

from configs import ttm_test
from tsmjax import pretrained
from tsmjax.errors import InputError, closest
from tsmjax.models.ttm import PRESETS

_HEAD = r"/head/"
VARIANTS = {
    "head": {"freeze": ((_HEAD, False), (r"^model/", True))},
    "r8": {"lora": {"rank": 8, "alpha": 16.0}, "freeze": ((_HEAD, False),)},
    "r16": {"lora": {"rank": 16, "alpha": 32.0}, "freeze": ((_HEAD, False),)},
    "full": {},
}


def get_config(argument: str = "r8") -> ConfigDict:
    """Return the config; `argument` is ``VARIANT[,DATA][,from=CHECKPOINT]``."""
    variant, *rest = argument.split(",")
    if variant not in VARIANTS:
        raise InputError(
            f"ttm_lora_sweep has no variant {variant!r}{closest(variant, VARIANTS)}; there are "
            f"{', '.join(VARIANTS)}."
        )
    start = next((part[5:] for part in rest if part.startswith("from=")), "")
    data = next((part for part in rest if not part.startswith("from=")), "")
    config = ttm_test.get_config(*([data] if data else []))
    config.name = f"lora_sweep_{variant}"
    if start:
        config.model = ConfigDict(pretrained.model_values(start))
        config.checkpoint.init_from = start
    else:
        config.model.update({**PRESETS["r2_512"], "prediction_length": 96})
    config.optim.update(
        {"length": "5 epochs", "lr": 1e-3, "freeze": (), "lora": {"rank": 0, "alpha": 16.0}}
    )
    config.optim.update(VARIANTS[variant])
    config.evals.update({"every": "1 epochs", "patience": "0 steps"})
    return config
