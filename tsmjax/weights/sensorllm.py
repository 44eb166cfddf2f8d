"""Weight table of SensorLLM: our own names around those of its parts.

Its authors published no weights. A folder has the tensors of Llama below ``llm.``, those of the
Chronos-T5 encoder below ``encoder.``, and config.json has the parts' own in objects of these names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tsmjax.errors import InputError
from tsmjax.weights import chronos_t5, llama

TASK = "classify"
PARTS = {"llama": "llm", "chronos_t5": "encoder"}
_TABLES = {"llm": llama, "encoder": chronos_t5}

RULES = (
    *(
        (f"{part}.{source}", f"{part}/{target}", transform)
        for part, table in _TABLES.items()
        for source, target, transform in table.RULES
    ),
    *(
        rule
        for part in ("projection", "statistics")
        for rule in (
            (f"{part}.{{i}}.weight", f"{part}/layers/{{i}}/kernel", "T"),
            (f"{part}.{{i}}.bias", f"{part}/layers/{{i}}/bias", ""),
        )
    ),
    ("new_tokens.weight", "new_tokens/embedding", ""),
    ("head.weight", "head/kernel", "T"),
)
_FIELDS = ("channels", "window", "labels", "proj_hidden", "proj_patch", "statistics")


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is ours; nobody else writes one."""
    return hf.get("model_type") == "sensorllm"


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `tsmjax.models.sensorllm.Config`.

    Raises:
      InputError: when an entry is missing.
    """
    needed = (*_TABLES, *_FIELDS, "head", "compat")
    if missing := [name for name in needed if name not in hf]:
        raise InputError(f"The config.json of a SensorLLM lacks {', '.join(missing)}.")
    values = {name: hf[name] for name in _FIELDS}
    return {
        **{part: table.to_config(hf[part]) for part, table in _TABLES.items()},
        **{name: tuple(x) if isinstance(x, list) else x for name, x in values.items()},
        "model_type": hf["head"],
        "compat": dict(hf["compat"]),
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to config.json."""
    from tsmjax.config import build
    from tsmjax.models.sensorllm import Config

    found = dataclasses.asdict(build(Config, values, "model"))
    return {
        "model_type": "sensorllm",
        **{part: table.from_config(found[part]) for part, table in _TABLES.items()},
        **{name: found[name] for name in _FIELDS},
        "head": found["model_type"],
        "compat": found["compat"],
    }
