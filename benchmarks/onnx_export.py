"""ONNX exports of every family: error, size and time of a call beside JAX.

    python -m benchmarks.onnx_export                      # every case
    python -m benchmarks.onnx_export --only last ttm --batches 10

Models have random weights of published shapes; real TinyTimeMixer weights come with them when
TSMJAX_TEST_DATA names a folder that has them. Each is exported and compared with JAX on random
batches of 1, 3 and 8 rows, with missing values where the model allows them. The last line printed
is JSON; ``--json FILE`` writes it too, after each case.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tsmjax import checkpoint, config
from tsmjax.export import head
from tsmjax.export import onnx as exported
from tsmjax.models import chronos2, chronos_t5, ttm
from tsmjax.nn.functional import Tree, abstract, flatten, unflatten

_NTU = {"family": "last", "skeleton": "ntu25", "num_classes": 60, "frames": 64}
_KINDS = {"chronos2": "forecast", "ttm": "multivariate", "last": "skeleton"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chronos2 tiny": (
        {"family": "chronos2", **chronos2.PRESETS["tiny"]},
        {"context": 512, "horizon": 64},
    ),
    "chronos2 tiny, 4 series": (
        {"family": "chronos2", **chronos2.PRESETS["tiny"]},
        {"context": 512, "horizon": 64, "series": 4},
    ),
    "ttm r2 512-96, 7 channels": ({"family": "ttm", **ttm.PRESETS["r2_512"]}, {"channels": 7}),
    "last_e base": ({**_NTU, "net": "last_e", "size": "base"}, {}),
    "last_v2 small": ({**_NTU, "net": "last_v2", "size": "small"}, {}),
    "last_e_v3 base": ({**_NTU, "net": "last_e_v3", "size": "base"}, {}),
    "last_base base": ({**_NTU, "net": "last_base", "size": "base"}, {}),
    "shiftfuse nano": ({**_NTU, "net": "shiftfuse", "size": "nano"}, {}),
    "chronos_t5 tiny, encoder": (
        {"family": "chronos_t5", **chronos_t5.PRESETS["tiny"]},
        {"length": 304},
    ),
    "sensorllm 1b, projection": ({"family": "sensorllm"}, {"part": "projection"}),
    "sensorllm 1b, head": ({"family": "sensorllm"}, {"part": "head"}),
}
_REAL = ("ttm-r1-1024-96-finetuned", "ttm-r2-512-96-mixchannel-finetuned")


def main() -> None:
    """Export and compare what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of names of cases")
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    result = {
        **{"benchmark": "onnx_export", "batches": options.batches, "rows": rows},
        "git_commit": checkpoint.versions()["git_commit"],
    }
    for name in [name for name in (*CASES, *_REAL) if name.startswith(tuple(options.only))]:
        with tempfile.TemporaryDirectory() as folder:
            report = export(name, Path(folder), options)
        if report is not None:
            Console().print(exported.table(report))
            rows.append({"case": name, **report.to_dict()})
            if options.json:
                checkpoint.write_json(options.json, result)
    print(json.dumps(result))


def export(name: str, folder: Path, options: argparse.Namespace) -> exported.Report | None:
    """Export one case; None when its weights are not there."""
    if name in _REAL:
        source = Path(os.environ.get("TSMJAX_TEST_DATA", ".")) / "weights" / name
        if not source.exists():
            return None
        described = head.load(str(source), {})
    else:
        values, chosen = CASES[name]
        described = head.load(random_weights(values, folder / "weights"), chosen)
    path = folder / f"{name.replace(' ', '_').replace(',', '')}.onnx"
    return exported.save(described, path, opset=options.opset, batches=options.batches)


def random_weights(values: dict[str, Any], folder: Path) -> str:
    """Write a checkpoint with random weights, of SensorLLM only the parts that are exported."""
    values = dict(values)
    family = values.pop("family")
    module = config.find_module("models", family)
    built = config.build(module.Config, values, "model")
    _, params, stats = abstract(lambda rngs: module.Model(built, rngs=rngs))
    if family == "sensorllm":
        params = {name: params[name] for name in ("projection", "head")}
    settings = {
        "model": {"family": family, **values},
        "task": {"kind": _KINDS.get(family, "classify")},
    }
    checkpoint.save_weights(folder, _drawn(params), _drawn(stats), settings, {})
    return str(folder)


def _drawn(tree: Tree) -> Tree:
    """Weights that keep the size of activations about the same."""
    rng = np.random.default_rng(0)

    def draw(path: str, leaf: Any) -> np.ndarray:
        start = 1.0 if path.endswith(("scale", "var", "edge")) else 0.0
        spread = (leaf.shape[-2] if leaf.ndim > 1 else 10) ** -0.5
        return np.asarray(start + spread * rng.uniform(-1, 1, leaf.shape), np.float32)

    return unflatten({path: draw(path, leaf) for path, leaf in flatten(tree).items()})


if __name__ == "__main__":
    main()
