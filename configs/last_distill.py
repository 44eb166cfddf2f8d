"""A ShiftFuse student that learns from labels and from one to four trained teachers.

    python -m tsmjax.main --config=configs/last_distill.py:teacher=runs/joint           # small, NTU-60
    python -m tsmjax.main --config=configs/last_distill.py:nano,ucla,teacher=runs/a,teacher=runs/b
    python -m tsmjax.main --config=configs/last_distill.py:fallback,teacher=weights/last_e_v3

Words are those of `configs/last_e.py` and of `configs/shiftfuse.py`; a stream is the student's only one. ``teacher=PATH``
may come up to four times: run folders, or folders that ``convert import`` wrote. Without any, it is
runs/last_base_joint (or, with ``fallback``, runs/last_e_v3); a teacher that is not there yet is taken for LAST-Base on
joints (LAST-E v3 base).
"""  # noqa: E501

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.shiftfuse import get_config as student

_DEFAULTS: dict[str, dict[str, Any]] = {
    "runs/last_base_joint": {"net": "last_base", "size": "base", "streams": ("joint",)},
    "runs/last_e_v3": {"net": "last_e_v3", "size": "base", "streams": ()},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words as above, separated by commas."""
    words = [word for word in variant.split(",") if word]
    paths = [word.removeprefix("teacher=") for word in words if word.startswith("teacher=")]
    rest = [word for word in words if word != "fallback" and not word.startswith("teacher=")]
    fallback = "fallback" in words
    config = student(",".join(rest))
    assumed = list(_DEFAULTS)[fallback]
    teachers = tuple(
        {"model": model_of(path, _DEFAULTS[assumed], config), "checkpoint": path, "weight": 1.0}
        for path in paths or [assumed]
    )
    config.name = f"distill_{config.name}"
    nano = config.model.size.startswith("nano") and not fallback
    config.task.update(
        {
            "kind": "distill",
            "label_smoothing": 0.0,
            "teachers": teachers,
            "alpha": 0.3 if nano else 0.5,
            "beta": 0.7 if nano else 0.5,
            "tau": 4.0,
            "gamma": 0.1,
        }
    )
    several = any(teacher["model"]["net"] in ("last_base", "last_v2") for teacher in teachers)
    config.data.bodies = 2 if several else 1
    return config


def model_of(path: str, assumed: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Model section of the teacher at `path`: what its folder says, or `assumed`."""
    if Path(path.rsplit("@", 1)[0]).is_dir():
        from tsmjax.pretrained import model_values

        values = model_values(path)
        return {name: value for name, value in values.items() if name != "family"}
    shared = ("skeleton", "num_classes", "frames")
    return {**assumed, **{name: config.model[name] for name in shared}}
