"""A ShiftFuse encoder without labels: masked body regions, and two views of each clip.

    python -m tsmjax.main --config=configs/last_pretrain.py --workdir=runs/pretrained      # small, NTU-60
    python -m tsmjax.main --config=configs/last_distill.py:teacher=runs/joint,init=runs/pretrained

`configs/last_e.py` lists the words of a variant, `configs/shiftfuse.py` the sizes. The score is the share of clips whose
nearest other clip shows the same action; labels serve for nothing else.
"""  # noqa: E501

from ml_collections import ConfigDict

from configs.shiftfuse import get_config as student


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words separated by commas."""
    config = student(variant)
    config.name = f"pretrain_{config.name}"
    config.task.update(
        {
            "kind": "masked_contrastive",
            "label_smoothing": 0.0,
            "mask_ratio": 0.6,
            "mask_strategy": "body_region",
            "temperature": 0.07,
            "contrast": 0.5,
        }
    )
    config.task.augment.update({"shear": 0.0, "scale": 0.1, "rotation": (0.0, 0.26, 0.0)})
    config.data.batch_size = 128
    config.optim.update(
        {
            "optimizer": "adamw",
            "length": "100 epochs",
            "lr": 1e-3,
            "warmup": "10 epochs",
            "start": 1e-2,
            "final": 1e-3,
            "weight_decay": 0.05,
        }
    )
    config.evals.metric = config.evals.metric.replace("/top1", "/nearest")
    return config
