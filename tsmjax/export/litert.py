"""LiteRT files (.tflite), from the program that JAX compiles, without TensorFlow.

`jax.jit(…).lower()` gives StableHLO, whose operators the LiteRT converter turns into its own. The
file takes one row: the sizes of its arrays are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer
from litert_converter import converter_api_ext
from litert_converter.mlir import ir, passmanager

from tsmjax.checkpoint import write_json
from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.export import edge
from tsmjax.export.head import Arrays, Head

KINDS = ("none", "weights", "static")
TOLERANCE = 1e-4  # largest error of a file in float32
_SIGNATURE = "serving_default"
_RANDOM = 10  # random inputs that a file in float32 is compared with JAX on
# Operator → names of its results; the converter numbers them from the second on, and the first
# convolution is the stem, whose inputs have any range.
_STATIC = {"CONV_2D": r"conv_2d\d", "DEPTHWISE_CONV_2D": ".*"}
_KERNELS = (*_STATIC, "FULLY_CONNECTED")


def save(
    head: Head,
    path: Path,
    *,
    quantise: str = "none",
    clips: int = 256,
    allowed: float = 1.0,
    source: str = "",
) -> edge.Report:
    """Write a head of one row as a LiteRT file, and ``<file>.report.json``.

    Args:
      head: what to export.
      path: file to write; an older one is replaced.
      quantise: of `KINDS`: nothing; kernels, which are float32 again when they are used; or
        convolutions in int8, by ranges that training examples show.
      clips: most training examples that ranges are measured on.
      allowed: points of top-1 from which on a loss is too large.
      source: where the weights are from.

    Raises:
      InputError: when the model cannot be converted, has no examples, does not compute what JAX
        does, or loses too much.
    """
    examples = edge.Examples(head)
    content = convert(head)
    _compare(head, content, path)
    before = examples.score("litert fp32", runner(content), len(content))
    variants, given = [examples.jax, before], []
    if quantise != "none":
        given = edge.calibration(head, clips) if quantise == "static" else []
        content = quantised(content, quantise, given)
        name = {"weights": "litert int8 weights", "static": "litert int8"}[quantise]
        variants.append(examples.score(name, runner(content), len(content)))
    report = edge.describe(
        *(head, path, variants),
        form=("litert", quantise),
        calibration={"method": "minmax", "clips": len(given)} if given else {},
        allowed=allowed,
        library=f"ai-edge-litert {version('ai-edge-litert')}",
        source=source,
        examples=len(examples.inputs),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as unfinished:
            unfinished.write_bytes(content)
        write_json(path.with_suffix(".report.json"), report.to_dict())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return report


def convert(head: Head) -> bytes:
    """Return a head of one row as a LiteRT model.

    Raises:
      InputError: when the converter does not know an operation of the model.
    """
    names = list(head.inputs)
    specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in head.inputs.values()]

    def function(*inputs: jax.Array) -> list[jax.Array]:
        found = head.function(head.weights, dict(zip(names, inputs, strict=True)))
        return [found[name] for name in head.outputs]

    with head.form(), jax.default_matmul_precision("highest"):
        program = jax.jit(function, keep_unused=True).lower(*specs).as_text()
    context = ir.Context()
    converter_api_ext.prepare_mlir_context(context)
    with context:
        try:
            module = ir.Module.parse(program)
            converter_api_ext.set_signature(module.operation, _SIGNATURE, names, list(head.outputs))
            converter_api_ext.run_convert_to_tfl_passes(
                module, passmanager.PassManager(), converter_api_ext.ConvertToTFLConfig()
            )
            return converter_api_ext.export_flatbuffer_to_bytes(module.operation)
        except (RuntimeError, ValueError, ir.MLIRError) as error:
            raise InputError(
                f"The model cannot be converted to LiteRT: {_reason(error)}; export it as onnx, or "
                "switch off the part of the model that needs this."
            ) from error


def quantised(content: bytes, kind: str, examples: Sequence[Arrays]) -> bytes:
    """Return a LiteRT model with its kernels in int8, and with "static" its inner convolutions."""
    recipe = quantizer.Quantizer(bytearray(content))
    if kind == "weights":
        for operation in _KERNELS:
            recipe.add_weight_only_config(".*", qtyping.TFLOperationName(operation), 8)
        return bytes(recipe.quantize(enable_progress_report=False).quantized_model)
    for operation, names in _STATIC.items():
        recipe.add_static_config(names, qtyping.TFLOperationName(operation), 8, 8)
    ranges = recipe.calibrate({_SIGNATURE: examples}, num_threads=1)
    return bytes(recipe.quantize(ranges, enable_progress_report=False).quantized_model)


def runner(content: bytes) -> edge.Call:
    """Run a LiteRT model on one thread: inputs of one row → logits."""
    run = Interpreter(model_content=content, num_threads=1).get_signature_runner(_SIGNATURE)
    return lambda inputs: run(**inputs)["logits"]


def _compare(head: Head, content: bytes, path: Path) -> None:
    """Compare with JAX on random inputs.

    Raises:
      InputError: when the model computes something else.
    """
    call, rng = runner(content), np.random.default_rng(0)
    compiled = jax.jit(head.function)
    for _ in range(_RANDOM):
        inputs = head.sample(rng, 1)
        wanted = np.asarray(compiled(head.weights, inputs)["logits"])
        error = (np.abs(call(inputs) - wanted) / np.maximum(1.0, np.abs(wanted))).max()
        if not error <= TOLERANCE:
            raise InputError(
                f"{path} was not written: it differs from JAX by {error:.1e}, more than "
                f"{TOLERANCE:g}."
            )


def _reason(error: Exception) -> str:
    """The first line of an error of the converter that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if "error:" in line] or [line for line in lines if line]
    return told[0].rpartition("error:")[2].strip().rstrip(".:") if told else type(error).__name__
