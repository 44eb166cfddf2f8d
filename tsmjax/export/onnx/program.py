"""From a traced JAX program to an ONNX graph.

The program is traced once with a symbolic batch size. Whatever depends on parameters alone (a
BatchNorm's scale and shift, rotary angles, masks) is computed here and stored; scans are unrolled;
functions inside functions are inlined. Every other primitive has an entry in one of the tables
`elementwise`, `shaping` and `products`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from tsmjax.errors import InputError
from tsmjax.export.onnx import elementwise, products, shaping
from tsmjax.export.onnx.graph import Graph, Value, constant, static
from tsmjax.nn.functional import Tree

BATCH = "batch"
_TABLE = {**elementwise.TABLE, **shaping.TABLE, **products.TABLE}
_INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where primitives keep the functions they call


def convert(
    function: Callable[..., Mapping[str, jax.Array]],
    params: Tree,
    inputs: Mapping[str, tuple[tuple[int | None, ...], Any]],
    opset: int,
) -> tuple[Graph, dict[str, Value]]:
    """Turn a function into a graph.

    Args:
      function: (params, {name: array}) → {name: array}.
      params: nested dict of float32 arrays.
      inputs: name → (shape, dtype); None in a shape is the batch size.
      opset: version of the ONNX operators.

    Returns:
      The graph, and its value for each output of the function.

    Raises:
      InputError: when the function does what has no form in ONNX.
    """
    (batch,) = export.symbolic_shape(BATCH)
    graph = Graph(opset)
    specs = {}
    for name in sorted(inputs):  # in the order in which JAX flattens a dict
        shape, dtype = inputs[name]
        shape = tuple(batch if size is None else size for size in shape)
        specs[name] = jax.ShapeDtypeStruct(shape, dtype)
    declared = {name: graph.input(name, specs[name].shape, specs[name].dtype) for name in inputs}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(abstract, specs)
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    values = [constant(leaf, name="/".join(str(part.key) for part in path)) for path, leaf in paths]
    values += [declared[name] for name in specs]
    found = run(graph, traced.jaxpr, [constant(x) for x in traced.consts], values)
    return graph, dict(zip(sorted(shapes), found, strict=True))


def run(
    graph: Graph, program: core.Jaxpr, consts: Sequence[Value], inputs: Sequence[Value]
) -> list[Value]:
    """Add the equations of a program to the graph and return its outputs."""
    known: dict[Any, Value] = {}

    def read(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            return constant(np.asarray(atom.val, atom.aval.dtype))
        return known[atom]

    known.update(zip(program.constvars, consts, strict=True))
    known.update(zip(program.invars, inputs, strict=True))
    for equation in program.eqns:
        given = [read(atom) for atom in equation.invars]
        found = _apply(graph, equation, given)
        known.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in program.outvars]


def _apply(graph: Graph, equation: Any, given: list[Value]) -> list[Value]:
    """Add one equation to the graph."""
    name, params = equation.primitive.name, equation.params
    if name in elementwise.COPIES:
        return given
    if name == "scan":
        return _scan(graph, params, given)
    if params.get("name") in elementwise.NAMED and not given[0].known:
        return [elementwise.NAMED[params["name"]](graph, given, equation.outvars[0].aval, params)]
    for field in _INLINED:
        if field in params:
            inner = params[field]
            closed = isinstance(inner, core.ClosedJaxpr)
            consts = [constant(x) for x in inner.consts] if closed else []
            return run(graph, inner.jaxpr if closed else inner, consts, given)
    avals = [variable.aval for variable in equation.outvars]
    if all(value.known for value in given):
        if name in elementwise.TABLE and given:
            return [_folded_elementwise(equation, given, avals[0])]
        if name not in shaping.LAZY and all(static(aval.shape) for aval in avals):
            return _folded(equation, [value.full() for value in given])
    if name not in _TABLE:
        raise InputError(
            f"The model uses the JAX operation {name!r}, which has no counterpart in ONNX here: "
            "switch off the part of the model that needs it, or export another model."
        )
    found = _TABLE[name](graph, given, avals[0], params)
    return found if isinstance(found, list) else [found]


def _folded(equation: Any, arrays: Sequence[np.ndarray]) -> list[Value]:
    """Compute an equation here."""
    found = equation.primitive.bind(*arrays, **equation.params)
    several = equation.primitive.multiple_results
    return [constant(np.asarray(x)) for x in (found if several else [found])]


def _folded_elementwise(equation: Any, given: list[Value], aval: Any) -> Value:
    """Compute an elementwise equation here, without the repetitions."""
    name = equation.primitive.name
    arrays = [value.array for value in given]
    if name == "convert_element_type":
        return elementwise.cast(None, given[0], aval.dtype)
    if name in elementwise.FOLDED:
        with np.errstate(all="ignore"):
            array = elementwise.FOLDED[name](*arrays).astype(aval.dtype)
    else:
        rank = max(array.ndim for array in arrays)
        arrays = [x if x.ndim else x.reshape((1,) * rank) for x in arrays]
        array = _folded(equation, np.broadcast_arrays(*arrays))[0].array
    return constant(array.reshape((1,) * (len(aval.shape) - array.ndim) + array.shape), aval.shape)


def _scan(graph: Graph, params: Mapping[str, Any], given: list[Value]) -> list[Value]:
    """Unroll a scan: the layers of a stack, one after the other."""
    consts = given[: params["num_consts"]]
    carry = given[params["num_consts"] :][: params["num_carry"]]
    stacked = given[params["num_consts"] + params["num_carry"] :]
    body, steps = params["jaxpr"], range(params["length"])
    inner = [constant(x) for x in body.consts]
    outputs: list[list[Value]] = []
    for step in reversed(steps) if params["reverse"] else steps:
        layer = [shaping.take(graph, x, step) for x in stacked]
        found = run(graph, body.jaxpr, inner, [*consts, *carry, *layer])
        carry = found[: len(carry)]
        outputs.append(found[len(carry) :])
    if params["reverse"]:
        outputs.reverse()
    return [*carry, *(shaping.stacked(graph, list(each), 0) for each in zip(*outputs, strict=True))]
