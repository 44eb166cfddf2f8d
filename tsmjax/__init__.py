"""Train time-series models in JAX: Chronos-2, TTM, SensorLLM and LAST on one trainer."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Classifier": "classifier",
    "Forecaster": "forecaster",
    "from_pretrained": "pretrained",
    "train": "trainer",
}

__all__ = ["Classifier", "Forecaster", "from_pretrained", "train"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that data workers never import jax."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tsmjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tsmjax.{_HOMES[name]}"), name)
