"""Where activations live: what layers tell the compiler without knowing the mesh.

The leading axis of an activation is rows of the batch, spread over devices; parameters may be split
over the same devices. Left alone, the compiler may keep a split parameter in place and move the
whole batch to it instead. `project` asks for the opposite.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding, PartitionSpec

_rows: contextvars.ContextVar[NamedSharding | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def rows_over(sharding: NamedSharding) -> Iterator[None]:
    """Say, while a model is traced, how the leading axis of its activations is sharded."""
    token = _rows.set(sharding)
    try:
        yield
    finally:
        _rows.reset(token)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return ``x @ kernel`` for `x` (rows, …, inputs), with the rows where they are.

    Devices gather a split kernel for the product and forget it; the backward pass gathers it again,
    so that no device ever holds many whole kernels.

    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models" (2020), section 5.3.
    """
    if not _spread(x):
        return x @ kernel
    return jax.checkpoint(lambda x, kernel: _hold(_hold(x) @ kernel))(x, kernel)


def devices() -> int:
    """Number of devices that rows are spread over."""
    sharding = _rows.get()
    return math.prod(sharding.mesh.shape[axis] for axis in sharding.spec[0]) if sharding else 1


def _spread(x: jax.Array) -> bool:
    """Whether the leading axis of `x` is, and can be, on several devices."""
    return x.ndim >= 2 and devices() > 1 and x.shape[0] % devices() == 0


def _hold(x: jax.Array) -> jax.Array:
    """Keep the rows of `x` where the batch has them; other axes are left to the compiler."""
    sharding = _rows.get()
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    spec = PartitionSpec(sharding.spec[0], *free)
    return jax.lax.with_sharding_constraint(x, NamedSharding(sharding.mesh, spec))
