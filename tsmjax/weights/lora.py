"""LoRA adapter folders of PEFT, merged into their base weights on import.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), equation 3.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

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
