"""Ablations: LAST-Base (B0 … B14), ShiftFuse (L0 … L12), preparation of clips (P0 … P3).

    python -m tsmjax.experiments sweep --config=configs/last_ablations.py variant=L0,L1,L2,L3,L4,L5 --dir runs/lite
    python -m tsmjax.experiments sweep --config=configs/last_ablations.py:nano,ucla,/data/ucla variant=L5,L6,L7
    python -m tsmjax.main --config=configs/last_ablations.py:B4,ntu60,bone

The first word is the ablation, the rest are words of `configs/last_e.py`. The L series is made of the published
ShiftFuse (small_ref; nano for nano_ref), the P series of LAST-E v3 base. B14 is four nets, B14_joint … B14_bone_velocity;
`python -m tsmjax.evaluate --checkpoint RUN … --ensemble` scores them together. L10 to L12 want a teacher=RUN, L12 an
init=RUN of `configs/last_pretrain.py` too.
"""  # noqa: E501

from typing import Any

from ml_collections import ConfigDict

from configs import last_base, last_distill, last_e_v3, shiftfuse
from tsmjax.errors import InputError, closest

_BARE = {
    "spatial": "ctp",
    "prototypes": False,
    "frequency_gate": False,
    "attention": "none",
    "regions": False,
    "bottleneck": False,
}
_PLAIN = {"shift": "random", "joint_embedding": "none", "dct_gate": "none", "frame_gate": "none"}
_EMBEDDED = _PLAIN | {"joint_embedding": "block"}
_GATED = _EMBEDDED | {"frame_gate": "full"}
_CAUSAL = {"task.causal": 0.5}
_SWA = {"optim.swa": {"start": "75%", "every": "1 epochs", "lr": 0.0}}

# Name → (what changes, parts of a block or None for all of them, other fields).
BASE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "B0": ("baseline", _BARE | {"spatial": "gcn"}, {}),
    "B1": ("cross_temporal_gcn", _BARE, {}),
    "B2": ("prototype_graphs", _BARE | {"prototypes": True}, {}),
    "B3": ("frequency_gate", _BARE | {"prototypes": True, "frequency_gate": True}, {}),
    "B4": ("partitioned_attention", {"regions": False, "bottleneck": False}, {}),
    "B5": ("regions", {"bottleneck": False}, {}),
    "B6": ("bottleneck", {}, {}),
    "B7": ("full", {}, {}),
    "B8": ("no_frequency_gate", {"frequency_gate": False}, {}),
    "B9": ("no_prototype_graphs", {"prototypes": False}, {}),
    "B10": ("no_regions", {"regions": False}, {}),
    "B11": ("factorised_attention", {"attention": "joint"}, {}),
    "B12": ("causal", {}, _CAUSAL),
    "B13": ("swa", {}, _SWA),
    **{
        f"B14_{stream}": (stream, {}, {"model.streams": (stream,)})
        for stream in ("joint", "bone", "joint_velocity", "bone_velocity")
    },
}
LITE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "L0": ("baseline", _PLAIN, {}),
    "L1": ("joint_embedding", _EMBEDDED, {}),
    "L2": ("frame_gate", _GATED, {}),
    "L3": ("region_shift", _GATED | {"shift": "region"}, {}),
    "L4": ("dct_gate", {}, {}),
    "L5": ("full", {}, {}),
    "L6": ("no_dct_gate", {"dct_gate": "none"}, {}),
    "L7": ("no_joint_embedding", {"joint_embedding": "none"}, {}),
    "L8": ("no_region_shift", {"shift": "random"}, {}),
    "L9": ("causal", {}, _CAUSAL),
    "L10": ("distilled_from_last_e_v3", {}, {}),
    "L11": ("distilled_from_last_base", {}, {}),
    "L12": ("pretrained_and_distilled", {}, {}),
}
_CROP = (64 / 300, 64 / 300)
CLIPS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "P0": ("64_frames", {}, {}),
    "P1": (
        "crop_64_of_300",
        {},
        {
            "data.frames": 300,
            "task.augment.crop": _CROP,
            "task.augment.eval_crop": _CROP[0],
        },
    ),
    "P2": ("120_frames", {}, {"model.frames": 120}),
    "P3": ("two_bodies", {}, {"data.bodies": 2, "model.bodies": "mean_logits"}),
}
VARIANTS = {**BASE, **LITE, **CLIPS}


def get_config(variant: str = "L5") -> ConfigDict:
    """Return the config; `variant` holds words as above, separated by commas.

    Raises:
      InputError: when the first word is no ablation.
    """
    name, _, rest = variant.partition(",")
    if name not in VARIANTS:
        raise InputError(
            f"There is no ablation {name!r}{closest(name, VARIANTS)}; there are "
            f"{', '.join(VARIANTS)}."
        )
    what, parts, fields = VARIANTS[name]
    if name in BASE:
        config = last_base.get_config(rest or "joint")
        config.model.base = parts
        if not parts.get("bottleneck", True):
            config.task.bottleneck = "none"
    elif name in CLIPS:
        config = last_e_v3.get_config(rest)
    else:
        config = _lite(name, rest)
        config.model.shiftfuse = parts
    for field, value in fields.items():
        section, _, key = field.rpartition(".")
        holder = config
        for step in section.split("."):
            holder = holder[step]
        if key in holder:
            del holder[key]  # the type may differ: a tuple for a number
        holder[key] = value
    config.name = f"{name}_{what}" if not name.startswith("B14") else name
    return config


def _lite(name: str, rest: str) -> ConfigDict:
    words = [f"{word}_ref" if word in ("nano", "small") else word for word in rest.split(",")]
    if not {"nano_ref", "small_ref"} & set(words):
        words.append("small_ref")
    if name in ("L10", "L11", "L12"):
        words += ["fallback"] if name == "L10" else []
        return last_distill.get_config(",".join(filter(None, words)))
    return shiftfuse.get_config(",".join(filter(None, words)))
