"""What a training step of Chronos-2 costs by context, batch, group size and layers; memory by remat.

    python -m benchmarks.scaling --json scaling.json --plot scaling.png
    python -m benchmarks.scaling --context 512 1024 2048 4096 --batch 16 32 64 --layers 4

Around one case, the middle value of each list, one size at a time is changed, but for lists of one.
A straight line through the logarithms of size and milliseconds gives the exponent: 1 is a cost in
proportion. Memory is what XLA plans for the temporaries of a step, which is compiled and not run,
for each choice of model.remat; on a CPU, as its compiler lays them out. The reference has no such
choice, and takes no part. The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import chronos2_train_step as steps
from tsmjax import allocator, checkpoint
from tsmjax.models import chronos2
from tsmjax.monitor import plots
from tsmjax.nn.stack import REMAT

AXES = {
    "context": [256, 512, 1024, 2048, 4096],
    "batch": [8, 16, 32, 64, 128],
    "group": [1, 2, 4, 8, 16],
    "layers": [1, 2, 4, 8, 16],
}
TITLES = {"context": "context, steps", "batch": "series", "group": "series of a group"}


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", choices=sorted(chronos2.PRESETS))
    for name, values in AXES.items():
        parser.add_argument(f"--{name}", type=int, nargs="+", default=values)
    parser.add_argument("--horizon", type=int, default=64, help="steps to forecast")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    parser.add_argument("--plot", type=Path, help="draw a picture to this .png")
    options = parser.parse_args()
    sizes = {name: sorted(getattr(options, name)) for name in AXES}
    middle = {name: values[len(values) // 2] for name, values in sizes.items()}

    axes = {}
    for name, values in sizes.items():
        if len(values) < 2:
            continue
        milliseconds = [measure({**middle, name: value}, options) for value in values]
        axes[name] = {
            "sizes": values,
            "ms": milliseconds,
            "exponent": exponent(values, milliseconds),
        }
        print(json.dumps({name: axes[name]}), flush=True)
    result: dict[str, Any] = {
        "benchmark": "scaling",
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        **{name: getattr(options, name) for name in ("size", "horizon", "precision", "repeats")},
        "middle": middle,
        "axes": axes,
        "temporaries_mb": {remat: temporaries(middle, remat, options) for remat in REMAT},
        "load": round(os.getloadavg()[0], 1),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)
    if options.plot:
        draw(result, options.plot)


def measure(case: dict[str, int], options: argparse.Namespace) -> float:
    """Return the milliseconds of a warm step."""
    model, given = arranged(case, options)
    return round(1e3 * steps.time_ours(model, steps.example(given), given)[0], 2)


def temporaries(case: dict[str, int], remat: str, options: argparse.Namespace) -> float:
    """Return the MB of temporaries that a step of this case is planned to take."""
    model, given = arranged(case, options)
    model = dataclasses.replace(model, remat=remat)
    train, *rest = steps.our_step(model, steps.example(given), options.precision)
    return round(train.lower(*rest).compile().memory_analysis().temp_size_in_bytes / 2**20, 1)


def arranged(
    case: dict[str, int], options: argparse.Namespace
) -> tuple[chronos2.Config, argparse.Namespace]:
    """Return the model of a case, and the case as `chronos2_train_step` takes it.

    Batches are rounded to whole groups; layers are scanned over, as in training.
    """
    group = min(case["group"], case["batch"])
    model = chronos2.Config(
        **{**chronos2.PRESETS[options.size], "num_layers": case["layers"]},
        context_length=case["context"],
        max_output_patches=-(-options.horizon // 16),
        dropout_rate=0.0,
    )
    sizes = {"batch": case["batch"] // group * group, "group": group, "context": case["context"]}
    return model, argparse.Namespace(**{**vars(options), **sizes})


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Slope of the line through the logarithms."""
    return round(float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]), 3)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw one panel a size, on logarithmic axes, and one for memory."""
    figure = plots.new_figure(3.2 * (len(result["axes"]) + 1), 3.2)
    panels = figure.subplots(1, len(result["axes"]) + 1)
    for panel, (name, axis) in zip(panels, result["axes"].items(), strict=False):
        panel.plot(axis["sizes"], axis["ms"], "o-")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks(axis["sizes"], [f"{size:,}" for size in axis["sizes"]])
        panel.set_yticks(axis["ms"], [f"{ms:,.0f}" for ms in axis["ms"]])
        panel.minorticks_off()
        panel.set_title(f"ms by {TITLES.get(name, name)}: exponent {axis['exponent']:.2f}", size=9)
        plots.style(panel)
    memory = result["temporaries_mb"]
    panels[-1].bar(list(memory), list(memory.values()))
    panels[-1].set_title("MB of temporaries by model.remat", size=9)
    plots.style(panels[-1])
    plots.save(figure, path)


if __name__ == "__main__":
    allocator.keep_freed()  # as `python -m tsmjax.main` does
    main()
