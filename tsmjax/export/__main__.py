r"""Export a trained model.

    python -m tsmjax.export onnx --checkpoint PATH --output FILE.onnx [options]

Examples:
    python -m tsmjax.export onnx --checkpoint experiments/chronos2/test/best_run \
        --output chronos2.onnx --context 256 --horizon 24
    python -m tsmjax.export onnx --checkpoint ibm-granite/granite-timeseries-ttm-r2 \
        --output ttm.onnx --channels 7 --opset 13
    python -m tsmjax.export onnx --checkpoint runs/sensorllm --output head.onnx --part head

The file takes batches of any number of rows; the other sizes are fixed. It is compared with JAX on
random batches, and written only when both agree; a report of errors, size and times is written
beside it, FILE.report.json.

Exit codes: 0 done, 2 wrong input, anything else a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return exit_code(run, _parser().parse_args(arguments))


def run(options: argparse.Namespace) -> None:
    """Export as `options` say.

    Raises:
      InputError: when the checkpoint, an option or a file is wrong, or a package is missing.
    """
    if options.output.suffix != ".onnx":
        raise InputError(f"--output is {options.output}, but must end in .onnx.")
    if options.batches < 1:
        raise InputError(f"--batches is {options.batches}, but must be at least 1.")
    try:
        from tsmjax.export import onnx
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "onnxruntime"):
            raise
        raise InputError(
            f"ONNX export needs the package {error.name}: pip install 'tsmjax[export]'."
        ) from error
    from rich.console import Console

    from tsmjax.export import head

    given = _read(options.inputs) if options.inputs else None
    chosen = {name: getattr(options, name) for name in (*_SIZES, "part")}
    described = head.load(options.checkpoint, chosen)
    report = onnx.save(
        described,
        options.output,
        opset=options.opset,
        batches=options.batches,
        given=given,
        source=options.checkpoint,
    )
    Console().print(onnx.table(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("format", choices=("onnx",), help="what to write")
    add("--checkpoint", required=True, help="run folder, Hugging Face folder or hub id")
    add("--output", type=Path, required=True, help=".onnx file to write")
    add("--opset", type=int, default=17, help="version of the operators, 13 to 17 (default: 17)")
    add("--batches", type=int, default=100, help="random batches of the check (default: 100)")
    add("--inputs", type=Path, help=".npz with an array for each input: a further batch to check")
    add("--part", help="sensorllm: projection, head or encoder")
    for name, text in _SIZES.items():
        add(f"--{name}", type=int, help=text)
    return parser


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"--inputs {path} cannot be read as .npz: {error}.") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
