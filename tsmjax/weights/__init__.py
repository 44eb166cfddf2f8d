"""Weights in and out: Hugging Face folders to parameter trees and back, without torch."""

from tsmjax.weights.engine import (
    FORMAT,
    Imported,
    identify,
    read,
    relayout,
    task,
    tensors,
    write,
)

__all__ = ["FORMAT", "Imported", "identify", "read", "relayout", "task", "tensors", "write"]
