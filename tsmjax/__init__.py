"""Train time-series models in JAX: Chronos-2, TTM, SensorLLM and LAST on one trainer."""

from __future__ import annotations

from typing import Any

__all__ = ["from_pretrained", "train"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that data workers never import jax."""
    if name == "train":
        from tsmjax.trainer import train

        return train
    if name == "from_pretrained":
        from tsmjax.pretrained import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'tsmjax' has no attribute {name!r}")
