"""The only place where NNX modules and plain dicts of arrays meet.

NNX declares modules; plain JAX trains them. `split` turns a module into a static graph definition
and two nested dicts with string keys (parameters, statistics such as BatchNorm's running moments);
`merge` is its inverse inside a traced function. Everything outside this file sees dicts only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Tree = dict[str, Any]  # nested dict of arrays (or of their shapes); keys are path components


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Split `module` into (graph definition, parameters, statistics).

    Dropout and other randomness is passed as a key at call time, so a module owns nothing but
    parameters and statistics; any other variable is an error.
    """
    graph, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    return graph, _plain(params), _plain(stats)


def merge(graph: nnx.GraphDef, params: Tree, stats: Tree) -> nnx.Module:
    """Rebuild the module that `split` took apart, around new leaves."""
    return nnx.merge(graph, _nnx_state(params, nnx.Param), _nnx_state(stats, nnx.BatchStat))


def stats_of(module: nnx.Module) -> Tree:
    """Return the current statistics of `module`, after a call in training mode updated them."""
    return _plain(nnx.state(module, nnx.BatchStat))


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[nnx.GraphDef, Tree, Tree]:
    """Like `split(build(rngs))`, with shapes instead of arrays; allocates nothing."""
    return split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to ``{"a/b/c": leaf}``; the path is what every rule matches against."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """Nest ``{"a/b/c": leaf}`` back into dicts: the inverse of `flatten`."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def cast(tree: Any, dtype: jnp.dtype) -> Any:
    """Cast the floating-point leaves of `tree` to `dtype`; integers stay as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _plain(state: nnx.State) -> Tree:
    """Nested dict of raw arrays with string keys (list positions become ``"0"``, ``"1"``, …)."""

    def stringify(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {str(name): stringify(child) for name, child in node.items()}
        return node

    return stringify(nnx.to_pure_dict(state))


def _nnx_state(tree: Tree, kind: type[nnx.Variable]) -> nnx.State:
    return nnx.from_flat_state(
        (tuple(int(part) if part.isdigit() else part for part in path.split("/")), kind(leaf))
        for path, leaf in flatten(tree).items()
    )
