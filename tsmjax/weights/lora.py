"""LoRA adapter folders of PEFT: merged into their base weights on import, and written.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), equation 3.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tsmjax.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # PEFT's wrapper around the base model
# Options that change what the adapter means, and the value of each that is plain LoRA.
_PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "layer_replication": None,
    "alpha_pattern": {},
}
# Options of PEFT's LoraConfig that say nothing about the training.
_INERT = (
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "megatron_core"),
    *("peft_version", "qalora_group_size", "revision", "task_type"),
)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Low-rank updates of a base model.

    Attributes:
      base: folder or hub id of the base model, as the adapter names it.
      factors: base tensor name → (A (rank, in), B (out, rank)).
      alpha: scale numerator.
      rank_stabilised: divide alpha by √rank instead of rank.
      source: the adapter's folder.
    """

    base: str
    factors: dict[str, tuple[np.ndarray, np.ndarray]]
    alpha: float
    rank_stabilised: bool
    source: str

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise InputError unless every update fits a base tensor of these `shapes`."""
        for name, (A, B) in self.factors.items():
            if name not in shapes:
                raise InputError(f"{self.source} updates {name}, which the base does not have.")
            if (B.shape[0], A.shape[1]) != shapes[name] or A.shape[0] != B.shape[1]:
                raise InputError(
                    f"{self.source} updates {name} with factors {B.shape} and {A.shape}, but the "
                    f"base tensor is {shapes[name]}; was it made for another base model?"
                )

    def merge(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Return W + (alpha / rank) · B A for the base tensor `name` (out, in)."""
        if name not in self.factors:
            return tensor
        A, B = self.factors[name]
        rank = A.shape[0]
        return tensor + (B @ A) * (self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank))


def options(
    values: Mapping[str, Any], modules: Iterable[str], default: Sequence[str]
) -> tuple[int, float, list[str]]:
    """Read options of PEFT's ``LoraConfig``, with PEFT's values for those that are missing.

    Args:
      values: the options.
      modules: names of the reference's projections.
      default: ``target_modules`` when there are none.

    Returns:
      The rank, the alpha whose ratio to the rank is the scale, and the modules to adapt.

    Raises:
      InputError: for an option that asks for more than plain LoRA, or targets that match nothing.
    """
    plain = {**_PLAIN, "init_lora_weights": True}
    used = ("r", "lora_alpha", "target_modules", "use_rslora")
    for name, value in values.items():
        if name not in (*used, *_INERT) and value and value != plain.get(name):
            raise InputError(
                f"lora_config has {name} = {value!r}, but only {', '.join(used)} may differ from "
                "PEFT's defaults."
            )
    rank, alpha = values.get("r", 8), float(values.get("lora_alpha", 8))
    if not isinstance(rank, int) or rank < 1:
        raise InputError(f"lora_config has r = {rank!r}, but it must be a positive whole number.")
    targets, modules = values.get("target_modules") or default, list(modules)
    if targets == "all-linear":
        chosen = modules
    elif isinstance(targets, str):
        chosen = [name for name in modules if re.fullmatch(targets, name)]
    else:
        chosen = [name for name in modules if any(f".{name}".endswith(f".{t}") for t in targets)]
    if not chosen:
        raise InputError(
            f"lora_config has target_modules = {targets!r}, which matches no projection; they are "
            f"named like {modules[0]}."
        )
    return rank, alpha * (math.sqrt(rank) if values.get("use_rslora") else 1.0), chosen


def load(folder: Path) -> Adapter:
    """Read a PEFT adapter folder.

    Raises:
      InputError: when it is not plain LoRA, or a factor is missing.
    """
    config = json.loads((folder / CONFIG).read_text())
    for option, plain in _PLAIN.items():
        if (config.get(option) or plain) != plain:
            raise InputError(
                f"{folder / CONFIG} has {option} = {config[option]!r}, but only plain LoRA "
                f"({plain!r}) can be merged; merge it with PEFT and convert the result."
            )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no file {WEIGHTS}; download the whole folder.")
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        name, _, half = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".lora_")
        if half not in ("A", "B") or not key.startswith(_PREFIX):
            raise InputError(f"{folder / WEIGHTS} holds {key}, which is no LoRA factor.")
        halves.setdefault(f"{name}.weight", {})[half] = np.asarray(tensor, np.float32)
    for name, pair in halves.items():
        if len(pair) != 2:
            raise InputError(f"{folder / WEIGHTS} has only factor {next(iter(pair))} of {name}.")
    return Adapter(
        base=config["base_model_name_or_path"],
        factors={name: (pair["A"], pair["B"]) for name, pair in halves.items()},
        alpha=config["lora_alpha"],
        rank_stabilised=bool(config.get("use_rslora")),
        source=str(folder),
    )


def save(folder: Path, adapter: Adapter, auto_mapping: Mapping[str, str]) -> None:
    """Write `adapter` into an existing folder.

    Args:
      folder: where.
      adapter: factors of one rank, with base tensor names that end in ``.weight``.
      auto_mapping: class of the base model and the module it is in.
    """
    modules = {name.removesuffix(".weight"): pair for name, pair in adapter.factors.items()}
    first, _ = next(iter(modules.values()))
    config = {
        **{name: value for name, value in _PLAIN.items() if value is not None},
        "auto_mapping": dict(auto_mapping),
        "base_model_name_or_path": adapter.base,
        "inference_mode": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "r": first.shape[0],
        "target_modules": sorted(modules),
        "use_rslora": adapter.rank_stabilised,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        f"{_PREFIX}{module}.lora_{half}.weight": np.ascontiguousarray(factor, np.float32)
        for module, pair in modules.items()
        for half, factor in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
