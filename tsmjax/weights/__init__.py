"""Weights in and out: Hugging Face folders to parameter trees and back, without torch."""

from tsmjax.weights.engine import (
    FORMAT,
    Imported,
    describe,
    identify,
    projections,
    read,
    relayout,
    task,
    tensors,
    write,
    write_adapter,
)

__all__ = [
    "FORMAT",
    "Imported",
    "describe",
    "identify",
    "projections",
    "read",
    "relayout",
    "task",
    "tensors",
    "write",
    "write_adapter",
]
