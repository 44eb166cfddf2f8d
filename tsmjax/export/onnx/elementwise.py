"""Elementwise primitives of JAX as ONNX operators, which broadcast by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tsmjax.errors import InputError
from tsmjax.export.onnx.graph import Graph, Shape, Value, agreed, constant, onnx_type, static

Rule = Callable[[Graph, list[Value], Any, Mapping[str, Any]], Value | list[Value]]

# Primitive → operator of the same meaning.
_SAME = {
    **{"neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil"},
    **{"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "erf": "Erf", "logistic": "Sigmoid"},
    **{"sin": "Sin", "cos": "Cos", "tanh": "Tanh", "sinh": "Sinh", "cosh": "Cosh"},
    **{"asinh": "Asinh", "atan": "Atan", "not": "Not"},
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "add_any": "Add"},
    **{"min": "Min", "and": "And", "or": "Or", "xor": "Xor"},
    **{"eq": "Equal", "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual"},
}
# How NumPy computes what is known during the export; other primitives are left to JAX, which
# compiles a program for each shape.
FOLDED: dict[str, Callable[..., np.ndarray]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs},
    **{"max": np.maximum, "min": np.minimum, "square": np.square, "sqrt": np.sqrt},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"gt": np.greater, "ge": np.greater_equal, "is_finite": np.isfinite},
    **{"sin": np.sin, "cos": np.cos, "exp": np.exp, "log": np.log},
    "rsqrt": lambda x: np.reciprocal(np.sqrt(x)),
    "select_n": lambda which, no, yes: np.where(which, yes, no),
}
COPIES = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision")


def apply(
    graph: Graph, op: str, given: list[Value], dtype: Any, shape: Shape | None = None
) -> Value:
    """Add an operator that broadcasts; the result repeats where all operands do.

    Behind the last axis that has entries there must be none: onnxruntime 1.32 broadcasts a number
    to (…, 1) one entry at a time, forty times slower than to (…).
    """
    held = agreed(*(value.held for value in given))
    if not static(held) or held[-1:] != (1,):
        return graph.emit(op, given, held, dtype, shape)
    kept = len(held)
    while kept and held[kept - 1] == 1:
        kept -= 1
    ranks = [len(value.held) - len(held) + kept for value in given]
    given = [
        graph.reshape(value, value.held[: max(rank, 0)])
        for value, rank in zip(given, ranks, strict=True)
    ]
    return graph.reshape(graph.emit(op, given, held[:kept], dtype), held, shape)


def _same(op: str) -> Rule:
    def rule(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
        if op in ("And", "Or", "Xor", "Not") and given[0].dtype != bool:
            raise InputError(f"The model combines bits of {given[0].dtype}; ONNX does so for bool.")
        return apply(graph, op, given, aval.dtype, aval.shape)

    return rule


def _composed(compute: Callable[..., Value]) -> Rule:
    """Make a rule of a function of a calculator and the operands."""

    def rule(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
        def step(op: str, *operands: Value | float, dtype: Any = None) -> Value:
            kind = given[-1].dtype
            values = [
                x if isinstance(x, Value) else constant(np.asarray(x, kind)) for x in operands
            ]
            return apply(graph, op, values, dtype or kind, aval.shape)

        return compute(step, *given, **params)

    return rule


def _add(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
    for value, other in (given, given[::-1]):
        if other.known and (found := graph.with_bias(value, other)):
            return found
    return apply(graph, "Add", given, aval.dtype, aval.shape)


def _hard_sigmoid(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
    (x,) = given
    return graph.emit("HardSigmoid", [x], x.held, aval.dtype, x.shape, alpha=1 / 6, beta=0.5)


def _max(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
    zero = [x.known and x.array.size == 1 and not x.array.any() for x in given]
    if any(zero) and aval.dtype == np.float32:
        return apply(graph, "Relu", [given[0] if zero[1] else given[1]], aval.dtype, aval.shape)
    return apply(graph, "Max", given, aval.dtype, aval.shape)


def _clamp(step: Callable[..., Value], low: Value, x: Value, high: Value, **_: Any) -> Value:
    """Clip; what is not a number stays so, which Min and Max do not promise."""
    raised = step("Where", step("Less", x, low, dtype=bool), low, x)
    return step("Where", step("Greater", raised, high, dtype=bool), high, raised)


def _remainder(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
    """``rem``: the sign is that of the dividend."""
    held = agreed(*(value.held for value in given))
    return graph.emit("Mod", given, held, aval.dtype, aval.shape, fmod=1)


def _integer_pow(step: Callable[..., Value], x: Value, *, y: int, **_: Any) -> Value:
    if y == 2:
        return step("Mul", x, x)
    return step("Reciprocal", x) if y == -1 else step("Pow", x, float(y))


def _select(graph: Graph, given: list[Value], aval: Any, params: Mapping[str, Any]) -> Value:
    """``select_n``: the first case where the predicate is false, the second where it is true."""
    which, *cases = given
    if len(cases) != 2 or which.dtype != bool:
        raise InputError("The model selects among several cases by number; export knows two.")
    no, yes = cases
    if aval.dtype != bool:
        return apply(graph, "Where", [which, yes, no], aval.dtype, aval.shape)
    other = apply(graph, "Not", [which], bool)
    both = (apply(graph, "And", pair, bool) for pair in ([which, yes], [other, no]))
    return apply(graph, "Or", list(both), bool, aval.shape)


def cast(graph: Graph, value: Value, dtype: Any) -> Value:
    """Convert the entries of a value."""
    if value.dtype == dtype:
        return value
    if value.known:
        return constant(value.array.astype(dtype), value.shape)
    to = onnx_type(np.dtype(dtype))
    return graph.emit("Cast", [value], value.held, dtype, value.shape, to=to)


# Functions that JAX calls by name → their operators; of others the program is written out.
NAMED: dict[str, Rule] = {"hard_sigmoid": _hard_sigmoid}
TABLE: dict[str, Rule] = {
    **{primitive: _same(op) for primitive, op in _SAME.items()},
    "add": _add,
    "max": _max,
    "rem": _remainder,
    "clamp": _composed(_clamp),
    "integer_pow": _composed(_integer_pow),
    "square": _composed(lambda step, x, **_: step("Mul", x, x)),
    "rsqrt": _composed(lambda step, x, **_: step("Reciprocal", step("Sqrt", x))),
    "erfc": _composed(lambda step, x, **_: step("Sub", 1.0, step("Erf", x))),
    "expm1": _composed(lambda step, x, **_: step("Sub", step("Exp", x), 1.0)),
    "log1p": _composed(lambda step, x, **_: step("Log", step("Add", x, 1.0))),
    "ne": _composed(
        lambda step, a, b, **_: step("Not", step("Equal", a, b, dtype=bool), dtype=bool)
    ),
    "is_finite": _composed(lambda step, x, **_: step("Less", step("Abs", x), np.inf, dtype=bool)),
    "select_n": _select,
    "convert_element_type": lambda graph, given, aval, params: cast(graph, given[0], aval.dtype),
}
