"""Writing a head as an ONNX file with metadata, and its report beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import jax
import onnx

from tsmjax.checkpoint import write_json
from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.export.head import Arrays, Head, metadata
from tsmjax.export.onnx import comparison, program
from tsmjax.nn.functional import Tree

OPSETS = range(13, 18)
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def save(
    head: Head,
    path: str | Path,
    *,
    opset: int = 17,
    batches: int = 100,
    given: Arrays | None = None,
    source: str = "",
) -> comparison.Report:
    """Write a head as an ONNX file that computes what JAX does, and ``<file>.report.json``.

    Args:
      head: what to export.
      path: file to write; an older one is replaced.
      opset: version of the ONNX operators, of `OPSETS`.
      batches: random batches that the file is compared with JAX on.
      given: further inputs to compare on, by name.
      source: where the weights are from, for the metadata.

    Raises:
      InputError: when the model does what has no form in ONNX, the file would be too large, or it
        does not compute what JAX does.
    """
    path = Path(path)
    if opset not in OPSETS:
        raise InputError(f"--opset is {opset}, but must be from {OPSETS[0]} to {OPSETS[-1]}.")
    model = build(head, opset, source)
    if (total := model.ByteSize()) > _LARGEST:
        raise InputError(f"The model has {total / 1e9:.1f} GB, and an ONNX file holds 2.1 at most.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as unfinished:
            onnx.save_model(model, unfinished)
            report = comparison.compare(head, unfinished, batches=batches, given=given)
            report = dataclasses.replace(report, file=path.name)
            if not report.passed:
                raise InputError(
                    f"{path} was not written: it differs from JAX by {report.error:.1e} at "
                    f"{report.worst}, more than {comparison.TOLERANCE:g}."
                )
        write_json(path.with_suffix(".report.json"), report.to_dict())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return report


def build(head: Head, opset: int, source: str = "") -> onnx.ModelProto:
    """Return a head as an ONNX model."""
    inputs = {name: (given.shape, given.dtype) for name, given in head.inputs.items()}

    def function(weights: Tree, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return head.function(weights, batch)  # JAX keeps traces of head.function, of another form

    with head.form():
        graph, outputs = program.convert(function, head.weights, inputs, opset)
    told = metadata(head, source)
    return graph.finish(
        outputs,
        f"{head.family}_{head.part}",
        {name: x if isinstance(x, str) else json.dumps(x) for name, x in told.items()},
        producer_name="tsmjax",
        producer_version=version("tsmjax"),
        doc_string=_text(head),
    )


def _text(head: Head) -> str:
    lines = [f"tsmjax {head.family}, {head.part}"]
    for name, given in head.inputs.items():
        lines.append(f"in  {name} ({', '.join(given.axes)}) {given.dtype}: {given.meaning}")
    lines += [f"out {name} {holds}" for name, holds in head.outputs.items()]
    return "\n".join(lines)
