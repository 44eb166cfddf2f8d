"""Primitives that combine entries: matrix products, convolutions, reductions, sorting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tsmjax.errors import InputError
from tsmjax.export.onnx.elementwise import Rule, cast
from tsmjax.export.onnx.graph import Graph, Value, agreed

Params = Mapping[str, Any]


def _dot_general(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    """Matrix products; operands are transposed and flattened only where MatMul wants them to be."""
    (left_sum, right_sum), (left_rows, right_rows) = params["dimension_numbers"]
    left, right = (
        graph.whole(x, axes) for x, axes in zip(given, (left_sum, right_sum), strict=True)
    )
    left_free, right_free = (
        [a for a in range(len(x.shape)) if a not in (*rows, *summed)]
        for x, rows, summed in (
            (left, left_rows, left_sum),
            (right, right_rows, right_sum),
        )
    )
    if not left_rows and len(left_sum) == 1:
        if left_free and len(right.shape) == 2:
            left = graph.transpose(left, [*left_free, *left_sum])
            right = graph.transpose(right, [*right_sum, *right_free])
            return _matmul(graph, left, right, aval.shape)
        if len(left.shape) == 2 and right_sum[0] == len(right.shape) - 2:
            # MatMul puts the new axis where the old one was, the program in front.
            left = graph.transpose(left, [*left_free, *left_sum])
            place = right_sum[0]
            shape = (*aval.shape[1 : place + 1], aval.shape[0], *aval.shape[place + 1 :])
            found = _matmul(graph, left, right, shape)
            rest = [a for a in range(len(shape)) if a != place]
            return graph.transpose(found, [place, *rest])
    left = graph.transpose(left, [*left_rows, *left_free, *left_sum])
    right = graph.transpose(right, [*right_rows, *right_sum, *right_free])
    rows = len(left_rows)
    held = (
        *agreed(left.held[:rows], right.held[:rows]),
        *left.held[rows : rows + len(left_free)],
        *right.held[rows + len(right_sum) :],
    )
    left = _flat(graph, left, rows, len(left_free), len(left_sum))
    right = _flat(graph, right, rows, len(right_sum), len(right_free))
    return graph.reshape(_matmul(graph, left, right), held, aval.shape)


def _flat(graph: Graph, value: Value, rows: int, first: int, second: int) -> Value:
    """Make one axis of the `first` axes behind the rows, and one of the `second` that follow."""
    sizes = value.held
    groups = sizes[rows : rows + first], sizes[rows + first : rows + first + second]
    return graph.reshape(value, (*sizes[:rows], *(_product(group) for group in groups)))


def _product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = size * total
    return total


def _matmul(graph: Graph, left: Value, right: Value, shape: Any = None) -> Value:
    held = (*agreed(left.held[:-2], right.held[:-2]), left.held[-2], right.held[-1])
    return graph.emit("MatMul", [left, right], held, left.dtype, shape)


def _convolution(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    numbers = params["dimension_numbers"]
    if any(d != 1 for d in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise InputError("The model uses a transposed convolution, which export does not know.")
    x = graph.transpose(graph.whole(given[0]), numbers.lhs_spec)
    kernel = graph.transpose(graph.whole(given[1]), numbers.rhs_spec)
    shape = tuple(aval.shape[axis] for axis in numbers.out_spec)
    found = graph.convolve(
        *([x, kernel], shape),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
        pads=[low for low, _ in params["padding"]] + [high for _, high in params["padding"]],
    )
    return graph.transpose(found, np.argsort(numbers.out_spec))


def _reduction(op: str, repeats_count: bool = False) -> Rule:
    def rule(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
        value, axes = given[0], [int(axis) for axis in params["axes"]]
        if repeats_count:
            value = graph.whole(value, axes)
        held = tuple(size for axis, size in enumerate(value.held) if axis not in axes)
        if all(value.held[axis] == 1 for axis in axes):
            return graph.reshape(value, held, aval.shape)
        logical = value.dtype == bool
        if logical:
            value = cast(graph, value, np.dtype(np.int32))
        if op == "ReduceSum":  # the only one whose axes are an input in opsets 13 to 17
            inputs, named = [value, np.asarray(axes, np.int64)], {}
        else:
            inputs, named = [value], {"axes": axes}
        found = graph.emit(op, inputs, held, value.dtype, aval.shape, keepdims=0, **named)
        return cast(graph, found, np.dtype(bool)) if logical else found

    return rule


def _argument(op: str) -> Rule:
    def rule(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
        (axis,) = params["axes"]
        value = graph.whole(given[0])
        found = graph.emit(op, [value], aval.shape, np.int64, axis=int(axis), keepdims=0)
        return cast(graph, found, aval.dtype)

    return rule


def _cumsum(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    value = graph.whole(given[0])
    axis = np.asarray(params["axis"], np.int64)
    reverse = int(params["reverse"])
    return graph.emit("CumSum", [value, axis], value.held, value.dtype, reverse=reverse)


def _sort(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    if len(given) != 1:
        raise InputError("The model sorts one array by another, which export does not know.")
    value, axis = graph.whole(given[0]), params["dimension"]
    size = np.asarray([value.shape[axis]], np.int64)
    kinds = [(value.held, value.dtype), (value.held, np.int64)]
    return graph.emit_several("TopK", [value, size], kinds, axis=axis, largest=0)[0]


def _top_k(graph: Graph, given: list[Value], aval: Any, params: Params) -> list[Value]:
    value, size = graph.whole(given[0]), np.asarray([params["k"]], np.int64)
    kinds = [(aval.shape, value.dtype), (aval.shape, np.int64)]
    found, places = graph.emit_several("TopK", [value, size], kinds, axis=params["axis"])
    return [found, cast(graph, places, np.dtype(np.int32))]


TABLE: dict[str, Rule] = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "reduce_sum": _reduction("ReduceSum", repeats_count=True),
    "reduce_prod": _reduction("ReduceProd", repeats_count=True),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_or": _reduction("ReduceMax"),
    "reduce_and": _reduction("ReduceMin"),
    "argmax": _argument("ArgMax"),
    "argmin": _argument("ArgMin"),
    "cumsum": _cumsum,
    "sort": _sort,
    "top_k": _top_k,
}
