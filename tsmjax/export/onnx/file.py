"""Writing a head as an ONNX file with metadata, and its report beside it."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from tsmjax.checkpoint import write_json
from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.export.head import Arrays, Head
from tsmjax.export.onnx import comparison, program
from tsmjax.nn.functional import flatten

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
    graph, outputs = program.convert(head.function, head.weights, inputs, opset)
    return graph.finish(
        outputs,
        f"{head.family}_{head.part}",
        {name: x if isinstance(x, str) else json.dumps(x) for name, x in metadata(head, source)},
        producer_name="tsmjax",
        producer_version=version("tsmjax"),
        doc_string=_text(head),
    )


def metadata(head: Head, source: str) -> list[tuple[str, Any]]:
    """What the file says of itself: texts, and values that are stored as JSON."""
    inputs = {
        name: {
            "shape": ["batch" if size is None else size for size in given.shape],
            "dtype": given.dtype,
            "meaning": given.meaning,
        }
        for name, given in head.inputs.items()
    }
    parameters = sum(leaf.size for leaf in flatten(head.weights).values())
    facts = {"family": head.family, "part": head.part, "source": source, "parameters": parameters}
    return list({**facts, "inputs": inputs, "outputs": head.outputs, **head.facts}.items())


def _text(head: Head) -> str:
    lines = [f"tsmjax {head.family}, {head.part}"]
    for name, given in head.inputs.items():
        shape = ", ".join("batch" if size is None else str(size) for size in given.shape)
        lines.append(f"in  {name} ({shape}) {given.dtype}: {given.meaning}")
    lines += [f"out {name} {holds}" for name, holds in head.outputs.items()]
    return "\n".join(lines)
