"""Builder of ONNX graphs, whose values know what they would be if they were written out.

A JAX program broadcasts operands to one shape before it combines them; ONNX operators broadcast by
themselves. So a `Value` has the shape of the program and, in `held`, the shape of the tensor in the
graph, which has ones where it would only repeat. Only operators that cannot broadcast ask for a
tensor that is `whole`.

One dimension may be symbolic: the batch, which users choose at run time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tsmjax.errors import InputError

Shape = tuple[Any, ...]  # of ints, and of an expression of the batch size

_SMALL = 4096  # bytes up to which equal constants are stored once


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """What a variable of the program is in the graph.

    Attributes:
      shape: shape in the program.
      held: shape of the tensor or array, of the same rank; 1 where it would only repeat.
      dtype: NumPy dtype.
      name: of the tensor in the graph, or of the parameter that `array` is; may be empty then.
      array: the value itself where it is known during the export.
    """

    shape: Shape
    held: Shape
    dtype: np.dtype
    name: str = ""
    array: np.ndarray | None = None

    @property
    def known(self) -> bool:
        """Whether the value depends on no input of the graph."""
        return self.array is not None

    def full(self) -> np.ndarray:
        """Return a known value with all its repetitions, as a view."""
        return np.broadcast_to(self.array, self.shape)


def constant(array: Any, shape: Shape | None = None, name: str = "") -> Value:
    """Wrap a known array, which repeats to `shape` when that is given."""
    array = np.asarray(array)
    return Value(
        tuple(array.shape if shape is None else shape), array.shape, array.dtype, name, array
    )


def static(shape: Shape) -> bool:
    """Whether a shape does not depend on the batch size."""
    return all(isinstance(size, int | np.integer) for size in shape)


class Graph:
    """An ONNX graph under construction; equal nodes are made once, unused ones are dropped."""

    def __init__(self, opset: int):
        self.opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._stored: dict[str, np.ndarray] = {}
        self._arrays: dict[Any, str] = {}
        self._kept: list[np.ndarray] = []  # an id stays that of one array while the array lives
        self._made: dict[Any, tuple[str, ...]] = {}
        self._transposed: dict[str, tuple[Value, tuple[int, ...]]] = {}
        self._reshaped: dict[str, Value] = {}  # what a tensor of fixed shape was before
        self._convolved: dict[str, tuple[list[Value], dict[str, Any]]] = {}
        self._batch: tuple[Any, str, int] | None = None  # its size; input and axis that have it

    def input(self, name: str, shape: Shape, dtype: np.dtype) -> Value:
        """Declare an input; the first symbolic dimension of any input is the batch."""
        dtype = np.dtype(dtype)
        dims = [str(size) if not isinstance(size, int) else size for size in shape]
        self._inputs.append(helper.make_tensor_value_info(name, onnx_type(dtype), dims))
        for axis, size in enumerate(shape):
            if not isinstance(size, int) and self._batch is None:
                self._batch = size, name, axis
        return Value(tuple(shape), tuple(shape), dtype, name)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | np.ndarray],
        held: Shape,
        dtype: Any,
        shape: Shape | None = None,
        **attributes: Any,
    ) -> Value:
        """Add a node with one output; arrays among its inputs become constants of the graph."""
        return self.emit_several(op, inputs, [(held, dtype)], [shape], **attributes)[0]

    def emit_several(
        self,
        op: str,
        inputs: Sequence[Value | np.ndarray],
        outputs: Sequence[tuple[Shape, Any]],
        shapes: Sequence[Shape | None] | None = None,
        **attributes: Any,
    ) -> list[Value]:
        """Add a node with an output for each (held shape, dtype)."""
        names = tuple(self.name(x) for x in inputs)
        key = op, names, len(outputs), repr(sorted(attributes.items()))
        if key not in self._made:
            number = len(self._nodes)
            made = tuple(f"{op}_{number}_{i}" for i in range(len(outputs)))
            self._nodes.append(helper.make_node(op, names, made, f"{op}_{number}", **attributes))
            self._made[key] = made
        return [
            Value(tuple(shape or held), tuple(held), np.dtype(dtype), name)
            for name, (held, dtype), shape in zip(
                self._made[key], outputs, shapes or [None] * len(outputs), strict=True
            )
        ]

    def name(self, value: Value | np.ndarray) -> str:
        """Return the name of a tensor; a known value is stored in the graph."""
        if isinstance(value, np.ndarray | np.generic):
            value = constant(value)
        if not value.known:
            return value.name
        array = np.ascontiguousarray(value.array).reshape(value.array.shape)
        if array.nbytes <= _SMALL:
            key: Any = array.shape, str(array.dtype), array.tobytes()
        else:
            key = id(value.array)
        if key not in self._arrays:
            name = value.name or f"constant_{len(self._stored)}"
            if name in self._stored:
                name = f"{name}_{len(self._stored)}"
            self._stored[name] = array
            self._arrays[key] = name
            self._kept.append(value.array)
        return self._arrays[key]

    def dims(self, shape: Shape) -> np.ndarray | Value:
        """Return a shape as a vector of int64, computed in the graph when it has the batch."""
        if static(shape):
            return np.asarray(shape, np.int64)
        pieces: list[np.ndarray | Value] = []
        for size in shape:
            if isinstance(size, int | np.integer):
                pieces.append(np.asarray([size], np.int64))
                continue
            batch, name, axis = self._batch
            times = size // batch
            if not isinstance(times, int):
                raise InputError(f"The model computes an array of {size} rows, not of a multiple.")
            source = Value((), (), np.dtype(np.int64), name)
            whole = self.emit("Shape", [source], (axis + 1,), np.int64)
            rows = self.emit(
                *("Slice", [whole, *(np.asarray([x], np.int64) for x in (axis, axis + 1))]),
                *((1,), np.int64),
            )
            if times != 1:
                rows = self.emit("Mul", [rows, np.asarray([times], np.int64)], (1,), np.int64)
            pieces.append(rows)
        return self.emit("Concat", pieces, (len(shape),), np.int64, axis=0)

    def whole(self, value: Value, axes: Sequence[int] | None = None) -> Value:
        """Return a value that is written out, along `axes` or along all."""
        chosen = range(len(value.shape)) if axes is None else axes
        held = tuple(
            size if axis in chosen else value.held[axis] for axis, size in enumerate(value.shape)
        )
        if held == value.held:
            return value
        if value.known and static(held):
            return constant(np.broadcast_to(value.array, held), value.shape)
        return self.emit("Expand", [value, self.dims(held)], held, value.dtype, value.shape)

    def reshape(self, value: Value, held: Shape, shape: Shape | None = None) -> Value:
        """Give the tensor of a value another shape of as many elements."""
        held = tuple(held)
        if held == value.held:
            return dataclasses.replace(value, shape=tuple(shape or held))
        if value.known:
            array = value.array.reshape(held)
            return Value(tuple(shape or held), held, value.dtype, value.name, array)
        sizes = [size if isinstance(size, int | np.integer) else -1 for size in held]
        if sizes.count(-1) > 1:
            raise InputError(
                f"The model needs an array of shape {held}, with the batch in it twice."
            )
        source = self._reshaped.get(value.name, value)
        if source.held == held:
            return dataclasses.replace(source, shape=tuple(shape or held))
        given = [source, np.asarray(sizes, np.int64)]
        made = self.emit("Reshape", given, held, value.dtype, shape)
        if static(held) and static(source.held):
            self._reshaped[made.name] = source
        return made

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Permute axes; one permutation after another becomes one, or none."""
        order = tuple(int(axis) for axis in order)
        shape = tuple(value.shape[axis] for axis in order)
        if order == tuple(range(len(order))):
            return value
        if value.known:
            array = value.array.transpose(order)
            name = value.name and f"{value.name}/transposed"
            return Value(shape, array.shape, value.dtype, name, array)
        if value.name in self._transposed:
            source, first = self._transposed[value.name]
            source = dataclasses.replace(
                source, shape=tuple(value.shape[first.index(a)] for a in range(len(first)))
            )
            return self.transpose(source, [first[axis] for axis in order])
        held = tuple(value.held[axis] for axis in order)
        moved = [axis for axis in order if value.held[axis] != 1]
        if moved == sorted(moved):  # only axes of one entry move: no copy
            made = self.reshape(value, held, shape)
        else:
            made = self.emit("Transpose", [value], held, value.dtype, shape, perm=order)
        if made.name not in (value.name, self._reshaped.get(value.name, value).name):
            self._transposed[made.name] = value, order
        return made

    def convolve(self, given: Sequence[Value], held: Shape, **attributes: Any) -> Value:
        """Add a convolution of x (N, C, …) with a kernel, and maybe a bias (C',)."""
        made = self.emit("Conv", given, held, given[0].dtype, **attributes)
        if len(given) == 2:
            self._convolved[made.name] = list(given), attributes
        return made

    def with_bias(self, value: Value, bias: Value) -> Value | None:
        """Let the convolution that made a value add a known bias; None when none can.

        It can when one row was convolved, and the bias has an entry for each of its channels.
        """
        source = self._reshaped.get(value.name, value)
        if source.name not in self._convolved or len(bias.held) != len(value.held):
            return None
        sizes, channels = source.held, bias.array.size
        moved = [size for size in value.held if size != 1] != [s for s in sizes if s != 1]
        if sizes[:2] != (1, channels) or moved or {bias.held[0], value.held[0]} != {channels}:
            return None
        given, attributes = self._convolved[source.name]
        given = [*given, constant(bias.array.reshape(channels))]
        return self.reshape(self.convolve(given, sizes, **attributes), value.held, value.shape)

    def finish(
        self, outputs: Mapping[str, Value], name: str, metadata: Mapping[str, str], **fields: Any
    ) -> onnx.ModelProto:
        """Return the model with these outputs, without what none of them needs."""
        infos = []
        for label, value in outputs.items():
            value = self.whole(value)
            self._nodes.append(helper.make_node("Identity", [self.name(value)], [label], label))
            dims = [str(size) if not isinstance(size, int) else size for size in value.shape]
            infos.append(helper.make_tensor_value_info(label, onnx_type(value.dtype), dims))
        needed, nodes = set(outputs), []
        for node in reversed(self._nodes):
            if needed & set(node.output):
                nodes.append(node)
                needed |= set(node.input)
        stored = [
            numpy_helper.from_array(array, name)
            for name, array in self._stored.items()
            if name in needed
        ]
        graph = helper.make_graph(nodes[::-1], name, self._inputs, infos, stored)
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version, **fields)
        helper.set_model_props(model, dict(metadata))
        return model


def agreed(*shapes: Sequence[Any]) -> Shape:
    """Shape of what broadcasts from several, which are aligned at their ends."""
    rank = max(map(len, shapes))
    padded = [(*(1,) * (rank - len(sizes)), *sizes) for sizes in shapes]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*padded, strict=True))


def onnx_type(dtype: np.dtype) -> int:
    """Number of an element type in ONNX.

    Raises:
      InputError: for a type that the models here do not compute in.
    """
    try:
        return {
            "float32": TensorProto.FLOAT,
            "float64": TensorProto.DOUBLE,
            "int32": TensorProto.INT32,
            "int64": TensorProto.INT64,
            "bool": TensorProto.BOOL,
        }[np.dtype(dtype).name]
    except KeyError:
        raise InputError(
            f"The model computes in {dtype}; export knows float32, int32 and bool."
        ) from None
