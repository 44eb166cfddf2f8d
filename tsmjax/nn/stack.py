"""A stack of equal blocks: one after the other, or scanned, with or without rematerialisation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.errors import InputError, closest
from tsmjax.nn import functional

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def check_remat(remat: str) -> None:
    """Raise InputError unless `remat`, the config field of that name, is a key of `REMAT`."""
    if remat not in REMAT:
        raise InputError(
            f"model.remat is {remat!r}, but must be one of "
            f"{', '.join(REMAT)}{closest(str(remat), REMAT)}."
        )


def build(
    make: Callable[[nnx.Rngs], nnx.Module], layers: int, *, scan: bool, rngs: nnx.Rngs
) -> nnx.Module:
    """Make `layers` blocks.

    Returns:
      With `scan`, one module whose parameters have a leading layer axis, so that a compiler sees a
      single block; otherwise a list of modules.
    """
    if scan:
        return nnx.split_rngs(splits=layers)(nnx.vmap(make))(rngs)
    return nnx.List([make(rngs) for _ in range(layers)])


def run(
    blocks: nnx.Module,
    call: Callable[[nnx.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    inputs: Any = None,
    *,
    remat: str = "none",
    last: Callable[[nnx.Module, Any, Any], tuple[Any, Any]] | None = None,
) -> tuple[Any, Any]:
    """Thread `carry` through all blocks.

    Args:
      blocks: what `build` made.
      call: (block, carry, input of this layer) → (carry, output of this layer).
      carry: what goes into the first block, and comes out of the last.
      inputs: tree of arrays with a leading layer axis; None for none.
      remat: what the backward pass recomputes: "none", all but the matmuls ("dots"), or "full".
      last: takes the place of `call` in the last block, where the carry may change its shape, and
        has no output; then the outputs lack that layer.

    Returns:
      The last carry, and the outputs with a leading layer axis.
    """

    def checkpointed(function: Callable[..., Any], prevent_cse: bool) -> Callable[..., Any]:
        if remat == "none":
            return function
        return jax.checkpoint(function, policy=REMAT[remat], prevent_cse=prevent_cse)

    if isinstance(blocks, nnx.List):
        outputs = []
        for index, block in enumerate(blocks):
            given = jax.tree.map(lambda x, i=index: x[i], inputs)
            if last is not None and index == len(blocks) - 1:
                carry, _ = checkpointed(functools.partial(last, block), True)(carry, given)
            else:
                carry, output = checkpointed(functools.partial(call, block), True)(carry, given)
                outputs.append(output)
        return carry, jax.tree.map(lambda *x: jnp.stack(x), *outputs) if outputs else None
    graph, params, _ = functional.split(blocks)

    def body(call: Callable[..., Any], carry: Any, layer: Any) -> tuple[Any, Any]:
        params, given = layer
        return call(functional.merge(graph, params, {}), carry, given)

    layers, scanned = (params, inputs), checkpointed(functools.partial(body, call), False)
    if last is None:
        return jax.lax.scan(scanned, carry, layers)
    before, final = (jax.tree.map(lambda x, i=i: x[i], layers) for i in (slice(-1), -1))
    carry, outputs = jax.lax.scan(scanned, carry, before)
    carry, _ = checkpointed(functools.partial(body, last), True)(carry, final)
    return carry, outputs
