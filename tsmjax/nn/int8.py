"""Frozen kernels in one byte a weight: int8, with a scale for each output.

A projection that `Linear.shrink` marked has a leaf ``kernel_scale`` beside its kernel. At first the
scales are 1 and the kernel is as it was; `quantised` turns both into the small form, which the step
multiplies without unpacking all of them at once.

Source: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale" (2022),
section 2 (absmax quantisation of vectors), for weights alone.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from tsmjax.nn.functional import Tree, flatten, unflatten

LEAF = r"/kernel_scale$"  # matches the path of every scale, and no other leaf
_SUFFIX = "_scale"


def quantise(kernel: Any, dtype: Any) -> tuple[Any, Any]:
    """Return an int8 kernel and its scales, which have the type that they are multiplied in.

    Args:
      kernel: (…, inputs, outputs), a NumPy or JAX array.
      dtype: type of the scales.

    Returns:
      (…, inputs, outputs) int8, and (…, outputs): kernel ≈ int8 · scale, within half a scale.
    """
    kernel = kernel.astype(jnp.float32)
    scale = (jnp.abs(kernel).max(axis=-2) / 127).astype(dtype)
    # Rounded scales may be a little too small for the largest weights.
    safe = jnp.where(scale > 0, scale.astype(jnp.float32), 1.0)[..., None, :]
    return jnp.clip(jnp.round(kernel / safe), -127, 127).astype(jnp.int8), scale


def quantised(flat: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Quantise the kernels of a flat dict that have a scale beside them."""
    found = dict(flat)
    for path in flat:
        if path.endswith("/kernel") and f"{path}{_SUFFIX}" in flat:
            found[path], found[f"{path}{_SUFFIX}"] = quantise(flat[path], dtype)
    return found


def dequantised(params: Tree) -> Tree:
    """Return parameters without scales, int8 kernels as float32."""
    flat = flatten(params)
    scales = {path.removesuffix(_SUFFIX): path for path in flat if path.endswith("/kernel_scale")}
    for path, scale in scales.items():
        flat[path] = (
            flat[path].astype(jnp.float32) * flat.pop(scale).astype(jnp.float32)[..., None, :]
        )
    return unflatten(flat)
