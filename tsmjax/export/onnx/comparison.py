"""Comparing an ONNX file with JAX: error, size and time."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from rich.console import Group
from rich.table import Table

from tsmjax.errors import InputError
from tsmjax.export.head import Arrays, Head
from tsmjax.nn.functional import flatten

TOLERANCE = 1e-4  # largest error that an export may have
ROWS = (1, 3, 8)  # sizes of the random batches, in turn


@dataclasses.dataclass(frozen=True)
class Report:
    """What a comparison found.

    Attributes:
      file: name of the file.
      family: of the model.
      part: of the model.
      opset: version of the operators.
      bytes: size of the file.
      parameters: numbers in the model's weights.
      nodes: operators in the graph.
      batches: compared batches, random and given.
      error: largest |onnx − jax| / max(1, |jax|) of any entry of any output.
      worst: output that has it.
      milliseconds: rows of a batch → median time of a call of onnxruntime and of compiled JAX.
      machine: what computed.
    """

    file: str
    family: str
    part: str
    opset: int
    bytes: int
    parameters: int
    nodes: int
    batches: int
    error: float
    worst: str
    milliseconds: dict[int, dict[str, float]]
    machine: str

    @property
    def passed(self) -> bool:
        """Whether the error is small enough; that of a value that is not a number is not."""
        return self.error <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**dataclasses.asdict(self), "tolerance": TOLERANCE, "passed": self.passed}


def compare(
    head: Head, path: Path, *, batches: int, given: Arrays | None = None, seed: int = 0
) -> Report:
    """Compare a file with the function it was made of.

    Args:
      head: the function.
      path: the ONNX file.
      batches: random batches, of `ROWS` rows in turn.
      given: inputs of a further batch.
      seed: of the random inputs.

    Raises:
      InputError: when the given inputs are not those of the head.
    """
    options = onnxruntime.SessionOptions()
    # Threads that wait in a loop would steal the time of JAX's, whose turn is next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    weights = jax.tree.map(jax.numpy.asarray, head.weights)
    compiled = jax.jit(head.function)
    rng = np.random.default_rng(seed)
    sizes = ROWS if head.rows is None else (head.rows,)
    error, worst, times = 0.0, names[0], {rows: ([], []) for rows in sizes}
    todo = [(rows, head.sample(rng, rows)) for rows in np.resize(sizes, batches).tolist()]
    if given is not None:
        todo.append((0, _cast(head, given)))
    with jax.default_matmul_precision("highest"):
        for rows, batch in todo:
            found, own = _timed(lambda batch=batch: session.run(names, batch))
            wanted, reference = _timed(lambda batch=batch: _run(compiled, weights, batch))
            for name, value in zip(names, found, strict=True):
                apart = difference(value, wanted[name])
                if apart > error or np.isnan(apart):  # nothing is above what is not a number
                    error, worst = apart, name
            if rows in times:
                times[rows][0].append(own)
                times[rows][1].append(reference)
    model = onnx.load(path, load_external_data=False)
    return Report(
        **{"file": path.name, "family": head.family, "part": head.part},
        opset=model.opset_import[0].version,
        bytes=path.stat().st_size,
        parameters=sum(leaf.size for leaf in flatten(head.weights).values()),
        nodes=len(model.graph.node),
        batches=len(todo),
        error=error,
        worst=worst,
        milliseconds={
            rows: {"onnx": _median(both[0]), "jax": _median(both[1])}
            for rows, both in times.items()
            if both[0]
        },
        machine=f"onnxruntime {onnxruntime.__version__} on {os.cpu_count()} CPU threads, "
        f"jax {jax.__version__} on {jax.default_backend()}",
    )


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest |found − wanted| / max(1, |wanted|); NaN when a value is not finite or none fits."""
    if found.shape != wanted.shape:
        return float("nan")
    apart = np.abs(found.astype(np.float64) - wanted) / np.maximum(1.0, np.abs(wanted))
    return float(apart.max(initial=0.0))


def table(report: Report) -> Group:
    """Return the report for the terminal."""
    rows = Table()
    for column in ("batch", "onnx, ms", "jax, ms"):
        rows.add_column(column, justify="right")
    for size, each in report.milliseconds.items():
        rows.add_row(str(size), f"{each['onnx']:.2f}", f"{each['jax']:.2f}")
    facts = (
        f"{report.file}: {report.family}, {report.part}, {report.bytes / 1e6:.3g} MB, "
        f"{report.parameters:,} parameters, {report.nodes} nodes, opset {report.opset}"
    )
    found = (
        f"largest error {report.error:.1e}, of {report.worst}, over {report.batches} batches; "
        f"{report.machine}"
    )
    return Group(facts, rows, found)


def _run(compiled: Callable[..., Any], weights: Any, batch: Arrays) -> Arrays:
    return {name: np.asarray(value) for name, value in compiled(weights, batch).items()}


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = call()
    return found, 1000 * (time.perf_counter() - start)


def _median(times: list[float]) -> float:
    """Median in ms, without the first call, which compiles, where there are more."""
    return round(float(np.median(times[1:] or times)), 3)


def _cast(head: Head, given: Arrays) -> Arrays:
    """Check given inputs against the head."""
    if set(given) != set(head.inputs):
        raise InputError(
            f"The given inputs are {', '.join(sorted(given))}, but the model takes "
            f"{', '.join(sorted(head.inputs))}."
        )
    cast = {}
    for name, wanted in head.inputs.items():
        array = np.asarray(given[name])
        fits = all(w in (None, s) for w, s in zip(wanted.shape, array.shape, strict=False))
        if array.ndim != len(wanted.shape) or not fits:
            sizes = ", ".join(wanted.axes)
            raise InputError(
                f"The given {name} has the shape {array.shape}, but the model takes ({sizes})."
            )
        cast[name] = array.astype(wanted.dtype)
    if len({len(array) for array in cast.values()}) != 1:
        raise InputError("The given inputs have different numbers of rows.")
    return cast
