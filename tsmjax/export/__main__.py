r"""Export a trained model.

    python -m tsmjax.export onnx   --checkpoint PATH --output FILE.onnx [options]
    python -m tsmjax.export int8   --checkpoint RUN --output FILE.onnx [options]
    python -m tsmjax.export litert --checkpoint RUN --output FILE.tflite [options]

Examples:
    python -m tsmjax.export onnx --checkpoint experiments/chronos2/test/best_run \
        --output chronos2.onnx --context 256 --horizon 24
    python -m tsmjax.export onnx --checkpoint ibm-granite/granite-timeseries-ttm-r2 \
        --output ttm.onnx --channels 7 --opset 13
    python -m tsmjax.export onnx --checkpoint runs/sensorllm --output head.onnx --part head
    python -m tsmjax.export int8 --checkpoint runs/joint --output joint.onnx --calibration entropy
    python -m tsmjax.export litert --checkpoint runs/joint --output joint.tflite --quantise weights

An ONNX file takes batches of any number of rows (or one, with --single); the other sizes are fixed.
It is compared with JAX on random batches, and written only when both agree; a report of errors,
size and times is written beside it, FILE.report.json.

int8 and litert are for skeleton models, whose files take one clip: int8 writes an ONNX file whose
convolutions compute in 8 bits, litert a .tflite file. They are scored on the test clips of the
run's data beside JAX; a file that loses --max-drop points of top-1 or more is not kept.

Exit codes: 0 done, 2 wrong input or a file that is not kept, anything else a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError, exit_code

_SIZES = {
    "context": "chronos2: steps of the past (default: the model's longest)",
    "horizon": "chronos2: steps ahead (default: the model's longest)",
    "series": "chronos2: related series that are forecast together (default: 1)",
    "channels": "ttm: channels (default: the model's)",
    "bodies": "last: bodies of a clip (default: the training's)",
    "length": "chronos_t5: tokens of a series (default: the longest)",
}
_SUFFIXES = {"onnx": ".onnx", "int8": ".onnx", "litert": ".tflite"}
# Options of some formats alone → these formats, and what the option is when it is not given.
_OWN: dict[str, tuple[tuple[str, ...], Any]] = {
    "opset": (("onnx", "int8"), 17),
    "batches": (("onnx",), 100),
    "inputs": (("onnx",), None),
    "single": (("onnx",), None),
    "calibration": (("int8",), "minmax"),
    "quantise": (("litert",), "none"),
    "clips": (("int8", "litert"), 256),
    "max_drop": (("int8", "litert"), 1.0),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return exit_code(run, _parser().parse_args(arguments))


def run(options: argparse.Namespace) -> None:
    """Export as `options` say.

    Raises:
      InputError: when the checkpoint, an option or a file is wrong, a package is missing, or the
        file does not compute what it should.
    """
    suffix = _SUFFIXES[options.format]
    if options.output.suffix != suffix:
        raise InputError(f"--output is {options.output}, but must end in {suffix}.")
    _settle(options)
    try:
        shown = _onnx(options) if options.format == "onnx" else _edge(options)
    except ModuleNotFoundError as error:
        extra = _extra(error.name or "")
        if not extra:
            raise
        raise InputError(
            f"The export {options.format} needs the package {error.name}: "
            f"pip install 'tsmjax[{extra}]'."
        ) from error
    from rich.console import Console

    Console().print(shown)


def _onnx(options: argparse.Namespace) -> Any:
    from tsmjax.export import onnx

    given = _read(options.inputs) if options.inputs else None
    report = onnx.save(
        _head(options, options.single),
        options.output,
        opset=options.opset,
        batches=options.batches,
        given=given,
        source=options.checkpoint,
    )
    return onnx.table(report)


def _edge(options: argparse.Namespace) -> Any:
    from tsmjax.export import edge

    if options.format == "int8":
        from tsmjax.export import int8 as kind

        own = {"opset": options.opset, "method": options.calibration}
    else:
        from tsmjax.export import litert as kind

        own = {"quantise": options.quantise}
    report = kind.save(
        *(_head(options, True), options.output),
        **own,
        clips=options.clips,
        allowed=options.max_drop,
        source=options.checkpoint,
    )
    return edge.text(report)


def _head(options: argparse.Namespace, single: bool | None) -> Any:
    from tsmjax.export import head

    chosen = {name: getattr(options, name) for name in (*_SIZES, "part", "front")}
    return head.load(options.checkpoint, {**chosen, "single": single or None})


def _settle(options: argparse.Namespace) -> None:
    """Fill in what was not given.

    Raises:
      InputError: when an option is another format's, or out of range.
    """
    for name, (formats, default) in _OWN.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif options.format not in formats:
            raise InputError(
                f"The export {options.format} takes no --{name.replace('_', '-')}, "
                f"{' and '.join(formats)} {'does' if len(formats) == 1 else 'do'}."
            )
    for name in ("batches", "clips"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}, but must be at least 1.")
    if not options.max_drop > 0:
        raise InputError(f"--max-drop is {options.max_drop}, but must be above 0.")


def _extra(package: str) -> str:
    """The extra of tsmjax that brings a package; empty for others."""
    name = package.partition(".")[0]
    if name in ("onnx", "onnxruntime"):
        return "export"
    return "edge" if name in ("ai_edge_litert", "ai_edge_quantizer", "litert_converter") else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("format", choices=tuple(_SUFFIXES), help="what to write")
    add("--checkpoint", required=True, help="run folder, Hugging Face folder or hub id")
    add("--output", type=Path, required=True, help="file to write, .onnx or .tflite")
    add("--part", help="sensorllm: projection, head or encoder")
    for name, text in _SIZES.items():
        add(f"--{name}", type=int, help=text)
    add("--front", help="last: streams (taken from joints inside, the default), or none")
    add("--opset", type=int, help="onnx, int8: version of the operators, 13 to 17 (default: 17)")
    add("--batches", type=int, help="onnx: random batches of the check (default: 100)")
    add("--inputs", type=Path, help="onnx: .npz with an array for each input: one more batch")
    text = "onnx, last: one clip at a time, which is faster"
    add("--single", action="store_const", const=True, help=text)
    text = "int8: how ranges of activations are chosen (default: minmax)"
    add("--calibration", choices=("minmax", "percentile", "entropy"), help=text)
    text = "litert: kernels alone, or convolutions too, in 8 bits (default: none)"
    add("--quantise", choices=("none", "weights", "static"), help=text)
    add("--clips", type=int, help="training clips that ranges are measured on (default: 256)")
    add("--max-drop", type=float, help="points of top-1 that must not be lost (default: 1)")
    return parser


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"--inputs {path} cannot be read as .npz: {error}.") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
