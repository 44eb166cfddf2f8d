"""ONNX files whose convolutions compute in 8 bits, quantised after training.

Kernels become int8 by output channel, their inputs and outputs int8 by ranges that training
examples show (quantise–dequantise form). Kernels use 7 of the 8 bits: x86 processors without VNNI
add pairs of products in 16 bits, which full ones overflow. What is not a convolution stays in
float32: the gates, the cosine transforms, the poolings and the classifier; and so does the stem,
whose inputs are lengths of any range.
"""

from __future__ import annotations

import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from tsmjax.checkpoint import write_json
from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.export import edge
from tsmjax.export.head import Arrays, Head
from tsmjax.export.onnx.file import OPSETS, build

METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "percentile": quantization.CalibrationMethod.Percentile,
    "entropy": quantization.CalibrationMethod.Entropy,
}
_AT_ONCE = 16  # examples whose activations are in memory together
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # else it warns that nothing is folded


def save(
    head: Head,
    path: Path,
    *,
    opset: int = 17,
    method: str = "minmax",
    clips: int = 256,
    allowed: float = 1.0,
    source: str = "",
) -> edge.Report:
    """Write a head of one row as an int8 ONNX file, and ``<file>.report.json``.

    Args:
      head: what to export.
      path: file to write; an older one is replaced.
      opset: version of the ONNX operators.
      method: of `METHODS`: how ranges are chosen.
      clips: most training examples that they are measured on.
      allowed: points of top-1 from which on a loss is too large.
      source: where the weights are from.

    Raises:
      InputError: when the head has no examples or no convolution, or the file loses too much.
    """
    if opset not in OPSETS:
        raise InputError(f"--opset is {opset}, but must be from {OPSETS[0]} to {OPSETS[-1]}.")
    examples = edge.Examples(head)
    given = edge.calibration(head, clips)
    before = build(head, opset, source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as unfinished:
            quantise(before, unfinished, given, method)
            size = unfinished.stat().st_size
            variants = (
                examples.jax,
                examples.score("onnx fp32", runner(before.SerializeToString()), before.ByteSize()),
                examples.score("onnx int8", runner(unfinished.read_bytes()), size),
            )
            report = edge.describe(
                *(head, path, variants),
                form=("int8", "static"),
                calibration={"method": method, "clips": len(given)},
                allowed=allowed,
                library=f"onnxruntime {onnxruntime.__version__}",
                source=source,
                examples=len(examples.inputs),
            )
        write_json(path.with_suffix(".report.json"), report.to_dict())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return report


def quantise(model: onnx.ModelProto, path: Path, examples: list[Arrays], method: str) -> None:
    """Write a model with its convolutions in int8, but for those that no other feeds.

    Raises:
      InputError: when it has none.
    """
    inner = inner_convolutions(model)
    if not inner:
        raise InputError("The model has no convolution behind its stem that could be quantised.")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    onnx.helper.set_model_props(
        prepared, {one.key: one.value for one in model.metadata_props} | _PREPARED
    )
    usable = len(examples) - len(examples) % min(_AT_ONCE, len(examples))
    with tempfile.TemporaryDirectory() as folder:
        onnx.save_model(prepared, Path(folder) / "fp32.onnx")
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # it tells of every tensor without a range
        try:
            quantization.quantize_static(
                *(Path(folder) / "fp32.onnx", path, _Reader(examples[:usable])),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=inner,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=METHODS[method],
                extra_options={"CalibStridedMinMax": min(_AT_ONCE, len(examples))},
            )
        finally:
            logging.getLogger().setLevel(level)
    written = onnx.load(path)
    written.producer_name, written.producer_version = "tsmjax", version("tsmjax")
    onnx.save_model(written, path)


def inner_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that something convolved feeds."""
    behind: set[str] = set()
    found = []
    for node in model.graph.node:
        fed = bool(behind & set(node.input))
        if node.op_type == "Conv" and fed:
            found.append(node.name)
        if fed or node.op_type == "Conv":
            behind |= set(node.output)
    return found


def runner(content: bytes) -> edge.Call:
    """Run an ONNX model on one thread: inputs of one row → logits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], inputs)[0]


class _Reader(quantization.CalibrationDataReader):
    """Examples, in pieces of a range that is set from outside."""

    def __init__(self, examples: list[Arrays]):
        self._examples = examples
        self.set_range(0, len(examples))

    def __len__(self) -> int:
        return len(self._examples)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._examples[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)
