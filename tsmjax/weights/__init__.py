"""Weights in and out: Hugging Face folders to parameter trees and back, without torch."""

from tsmjax.weights.engine import (
    FORMAT,
    Imported,
    describe,
    projections,
    read,
    rewrite,
    tensors,
    write,
    write_adapter,
)
from tsmjax.weights.layout import relayout
from tsmjax.weights.tables import identify, parts, task

__all__ = [
    "FORMAT",
    "Imported",
    "describe",
    "identify",
    "parts",
    "projections",
    "read",
    "relayout",
    "rewrite",
    "task",
    "tensors",
    "write",
    "write_adapter",
]
