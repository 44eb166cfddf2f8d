"""Low-rank adapters of a whole model: where they are added, and how they leave it.

An adapter is two leaves beside the kernel of a `Linear`: ``lora_a`` and ``lora_b``. Training keeps
the kernel frozen and never forms kernel + scale · lora_a @ lora_b; `merge` forms it for inference
and export.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).
"""

from __future__ import annotations

import numpy as np
from flax import nnx

from tsmjax.nn.functional import Tree, flatten, unflatten
from tsmjax.nn.linear import Linear

LEAF = r"/lora_[ab]$"  # matches the path of every leaf of an adapter, and no other


def projections(module: nnx.Module) -> dict[str, Linear]:
    """Return path → projection, for all projections inside `module`."""
    return {
        "/".join(map(str, path)): child
        for path, child in nnx.iter_modules(module)
        if isinstance(child, Linear)
    }


def split(params: Tree) -> tuple[Tree, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Separate adapters from a parameter tree.

    Returns:
      The other parameters, and path of a projection → (lora_a, lora_b).
    """
    flat = flatten(params)
    adapters = {
        (path := name.removesuffix("/lora_a")): (leaf, flat[f"{path}/lora_b"])
        for name, leaf in flat.items()
        if name.endswith("/lora_a")
    }
    rest = {name: leaf for name, leaf in flat.items() if not name.endswith(("/lora_a", "/lora_b"))}
    return unflatten(rest), adapters


def merge(params: Tree, alpha: float) -> Tree:
    """Return host parameters with every adapter added to its kernel, in float32.

    Args:
      params: nested dict of NumPy arrays.
      alpha: numerator of the scale; the denominator is the rank.
    """
    base, adapters = split(params)
    flat = flatten(base)
    for path, (a, b) in adapters.items():
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        kernel = np.asarray(flat[f"{path}/kernel"], np.float32)
        flat[f"{path}/kernel"] = kernel + (alpha / a.shape[-1]) * (a @ b)
    return unflatten(flat)
