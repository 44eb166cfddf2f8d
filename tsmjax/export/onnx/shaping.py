"""Primitives that move entries: shapes, slices, joins, look-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from tsmjax.errors import InputError
from tsmjax.export.onnx.elementwise import Rule, apply, cast
from tsmjax.export.onnx.graph import Graph, Shape, Value, constant, static

Params = Mapping[str, Any]


def _vector(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


def take(graph: Graph, value: Value, index: int) -> Value:
    """Return ``value[index]`` of the first axis."""
    shape = value.shape[1:]
    if value.known:
        array = value.array[index if value.held[0] != 1 else 0]
        return constant(array, shape, value.name and f"{value.name}/{index}")
    if value.held[0] != 1:
        place = np.asarray(index, np.int64)
        return graph.emit("Gather", [value, place], value.held[1:], value.dtype, shape, axis=0)
    return graph.reshape(value, value.held[1:], shape)


def stacked(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Join values of one shape along a new axis."""

    def opened(sizes: Shape) -> Shape:
        return (*sizes[:axis], 1, *sizes[axis:])

    opens = [graph.reshape(x, opened(x.held), opened(x.shape)) for x in values]
    return _joined(graph, opens, axis)


def _joined(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Concatenate along an axis; other axes may go on repeating where all values do."""
    values = [x for x in values if x.shape[axis] != 0] or list(values[:1])
    if len(values) == 1:
        return values[0]
    rank = len(values[0].shape)
    apart = [a for a in range(rank) if a == axis or any(x.held[a] != 1 for x in values)]
    values = [graph.whole(x, apart) for x in values]
    total = sum(x.shape[axis] for x in values)
    shape, held = list(values[0].shape), list(values[0].held)
    shape[axis] = held[axis] = total
    if all(x.known for x in values):
        return constant(np.concatenate([x.array for x in values], axis), tuple(shape))
    dtype = values[0].dtype
    return graph.emit("Concat", values, tuple(held), dtype, tuple(shape), axis=axis)


def sliced(
    graph: Graph, value: Value, shape: Shape, starts: Sequence, ends: Sequence, steps: Sequence
) -> Value:
    """Return ``value[starts:ends:steps]`` of shape `shape`; axes that keep all are left alone."""
    axes = [
        axis
        for axis, size in enumerate(value.held)
        if size != 1 and (shape[axis] != size or steps[axis] != 1)
    ]
    held = tuple(
        1 if size == 1 and shape[axis] != 0 else shape[axis] for axis, size in enumerate(value.held)
    )
    if not axes:
        return Value(tuple(shape), held, value.dtype, value.name, value.array)
    bounds = [_vector(*(each[axis] for axis in axes)) for each in (starts, ends)]
    more = _vector(*axes), _vector(*(steps[axis] for axis in axes))
    return graph.emit("Slice", [value, *bounds, *more], held, value.dtype, tuple(shape))


def _broadcast(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    value, places = given[0], params["broadcast_dimensions"]
    held: list[Any] = [1] * len(aval.shape)
    for place, size in zip(places, value.held, strict=True):
        held[place] = size
    if 0 in aval.shape:
        held = [0 if size == 0 else kept for size, kept in zip(aval.shape, held, strict=True)]
        return constant(np.zeros(tuple(held), aval.dtype), aval.shape)
    return graph.reshape(value, tuple(held), aval.shape)


def _iota(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    axis = params["dimension"]
    if not static(aval.shape[axis : axis + 1]):
        raise InputError("The model counts the rows of a batch, which export does not know.")
    held = tuple(size if a == axis else 1 for a, size in enumerate(aval.shape))
    return constant(np.arange(held[axis]).astype(aval.dtype).reshape(held), aval.shape)


def _reshape(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    value, shape = given[0], tuple(aval.shape)
    if [size for size in value.shape if size != 1] == [size for size in shape if size != 1]:
        kept = iter(h for size, h in zip(value.shape, value.held, strict=True) if size != 1)
        return graph.reshape(value, tuple(1 if s == 1 else next(kept) for s in shape), shape)
    return graph.reshape(graph.whole(value), shape)


def _squeeze(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    kept = [axis for axis in range(len(given[0].shape)) if axis not in params["dimensions"]]
    return graph.reshape(given[0], tuple(given[0].held[axis] for axis in kept), aval.shape)


def _transpose(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    return graph.transpose(given[0], params["permutation"])


def _slice(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    steps = params["strides"] or (1,) * len(aval.shape)
    return sliced(
        graph, given[0], aval.shape, params["start_indices"], params["limit_indices"], steps
    )


def _reverse(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    axes = [axis for axis in params["dimensions"] if given[0].held[axis] != 1]
    if not axes:
        return given[0]
    first, last = [_vector(*[n] * len(axes)) for n in (-1, np.iinfo(np.int64).min)]
    steps = _vector(*[-1] * len(axes))
    value = given[0]
    bounds = (first, last, _vector(*axes), steps)
    return graph.emit("Slice", [value, *bounds], value.held, value.dtype, value.shape)


def _split(graph: Graph, given: list[Value], aval: Any, params: Params) -> list[Value]:
    value, axis, sizes = given[0], params["axis"], [int(size) for size in params["sizes"]]

    def part(shape: Shape, size: int) -> Shape:
        return (*shape[:axis], size, *shape[axis + 1 :])

    shapes = [part(value.shape, size) for size in sizes]
    if value.held[axis] == 1 and value.shape[axis] != 1:
        return [Value(shape, value.held, value.dtype, value.name, value.array) for shape in shapes]
    kinds = [(part(value.held, size), value.dtype) for size in sizes]
    return graph.emit_several("Split", [value, _vector(*sizes)], kinds, shapes, axis=axis)


def _concatenate(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    return _joined(graph, given, params["dimension"])


def _tile(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    repeats = params["reps"]
    value = graph.whole(given[0], [a for a, times in enumerate(repeats) if times != 1])
    held = tuple(h * times for h, times in zip(value.held, repeats, strict=True))
    return graph.emit("Tile", [value, _vector(*repeats)], held, value.dtype, aval.shape)


def _stack(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    return stacked(graph, given, params["axis"])


def _pad(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    value, fill = given
    config = params["padding_config"]
    if any(inner for *_, inner in config):
        raise InputError(
            "The model spreads an array with gaps (lax.pad), which export does not know."
        )
    ends = [(max(low, 0), max(high, 0)) for low, high, _ in config]
    cut = [(max(-low, 0), max(-high, 0)) for low, high, _ in config]
    if any(low or high for low, high in cut):
        starts = [low for low, _ in cut]
        shape = tuple(s - low - high for s, (low, high) in zip(value.shape, cut, strict=True))
        limits = [low + size for low, size in zip(starts, shape, strict=True)]
        value = sliced(graph, value, shape, starts, limits, [1] * len(shape))
    axes = [axis for axis, (low, high) in enumerate(ends) if low or high]
    if not axes:
        return value
    value = graph.whole(value, axes)
    held = tuple(aval.shape[a] if a in axes else h for a, h in enumerate(value.held))
    pads = _vector(*(low for low, _ in ends), *(high for _, high in ends))
    return graph.emit("Pad", [value, pads, fill], held, value.dtype, aval.shape)


def _gather(graph: Graph, given: list[Value], aval: Any, params: Params) -> Value:
    """Look-ups: of fixed places, of rows by one index, and of rows of each row by one index."""
    operand, index = given
    numbers, sizes = params["dimension_numbers"], list(params["slice_sizes"])
    axes, collapsed = list(numbers.start_index_map), list(numbers.collapsed_slice_dims)
    rows = numbers.operand_batching_dims
    if index.known and not rows:
        operand, index, axes, collapsed = _fixed(graph, operand, index, axes, collapsed, sizes)
        if not axes:
            return graph.reshape(operand, _opened(operand.held, numbers, aval), aval.shape)
    elif any(
        sizes[axis] != size for axis, size in enumerate(operand.shape) if axis not in (*axes, *rows)
    ):
        raise InputError("The model looks parts of rows up, which export does not know (gather).")
    if len(axes) != 1 or collapsed != axes:
        raise InputError("The model looks values up in a way that export does not know (gather).")
    axis = axes[0]
    index, seen = _in_range(graph, index, operand.shape[axis], params["mode"])
    index = graph.whole(index)
    if rows:
        if rows != (0,) or axis != 1 or numbers.start_indices_batching_dims != (0,):
            raise InputError("The model looks values up along an axis that export does not know.")
        operand, index = graph.whole(operand), cast(graph, index, np.dtype(np.int64))
        held = shape = (*index.shape[:-1], *operand.shape[2:])
        found = graph.emit("GatherND", [operand, index], held, operand.dtype, batch_dims=1)
        places = range(len(index.shape) - 1)
    else:
        operand = graph.whole(operand, [axis])
        index = graph.reshape(index, index.shape[:-1])
        held = (*operand.held[:axis], *index.shape, *operand.held[axis + 1 :])
        shape = (*operand.shape[:axis], *index.shape, *operand.shape[axis + 1 :])
        found = graph.emit("Gather", [operand, index], held, operand.dtype, shape, axis=axis)
        places = range(axis, axis + len(index.shape))
    # The axes of the index stand where the axis was; the program has them where it says.
    rest = iter(a for a in range(len(shape)) if a not in places)
    own = iter(places)
    order = [next(rest if a in numbers.offset_dims else own) for a in range(len(shape))]
    found = graph.transpose(found, order)
    if seen is None:
        return found
    sizes = iter(graph.whole(seen).held[: len(places)])
    held = tuple(1 if a in numbers.offset_dims else next(sizes) for a in range(len(shape)))
    seen = graph.reshape(graph.whole(seen), held)
    nothing = np.asarray(np.nan if operand.dtype == np.float32 else 0, operand.dtype)
    return apply(graph, "Where", [seen, found, constant(nothing)], operand.dtype, aval.shape)


def _fixed(
    graph: Graph,
    operand: Value,
    index: Value,
    axes: list[int],
    collapsed: list[int],
    sizes: list[Any],
) -> tuple[Value, Value, list[int], list[int]]:
    """Slice along the axes whose place is known and always the same.

    Returns:
      The slice without those of these axes that are collapsed, and index, indexed and collapsed
      axes of what is left to look up.
    """
    table = index.full()
    same = [c for c in range(len(axes)) if np.all(table[..., c] == table[..., c].flat[0])]
    other = [column for column in range(len(axes)) if column not in same]
    starts, kept = [0] * len(sizes), list(sizes)
    for column, axis in enumerate(axes):
        if column in other:
            kept[axis] = operand.shape[axis]
        else:
            most = operand.shape[axis] - sizes[axis]
            starts[axis] = min(max(int(table[..., column].flat[0]), 0), most)
    ends = [start + size for start, size in zip(starts, kept, strict=True)]
    part = sliced(graph, operand, tuple(kept), starts, ends, [1] * len(sizes))
    gone = [axes[column] for column in same if axes[column] in collapsed]
    left = [axis for axis in range(len(sizes)) if axis not in gone]
    held, shape = (tuple(x[axis] for axis in left) for x in (part.held, part.shape))
    return (
        graph.reshape(part, held, shape),
        constant(table[..., other]),
        [left.index(axes[column]) for column in other],
        [left.index(axis) for axis in collapsed if axis in left],
    )


def _opened(held: Shape, numbers: Any, aval: Any) -> Shape:
    """Put ones into a shape where the axes of an index stand."""
    sizes = iter(held)
    return tuple(
        next(sizes) if axis in numbers.offset_dims else 1 for axis in range(len(aval.shape))
    )


def _in_range(
    graph: Graph, index: Value, size: int, mode: GatherScatterMode
) -> tuple[Value, Value | None]:
    """Return an index that is inside, and where it was so, or None when it need not be asked."""
    if mode == GatherScatterMode.PROMISE_IN_BOUNDS:
        return index, None
    if index.known and index.array.min() >= 0 and index.array.max() < size:
        return index, None
    ends = [constant(np.asarray(end, index.dtype)) for end in (0, size - 1)]
    inside = apply(graph, "Max", [index, ends[0]], index.dtype, index.shape)
    inside = apply(graph, "Min", [inside, ends[1]], index.dtype, index.shape)
    if mode == GatherScatterMode.CLIP:
        return inside, None
    return inside, apply(graph, "Equal", [index, inside], bool, index.shape)


# Primitives that need no entries of a known operand written out, nor a known shape.
LAZY = ("broadcast_in_dim", "iota", "reshape", "squeeze", "transpose")

TABLE: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "rev": _reverse,
    "split": _split,
    "concatenate": _concatenate,
    "tile": _tile,
    "stack": _stack,
    "pad": _pad,
    "gather": _gather,
}
