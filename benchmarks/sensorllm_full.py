"""One optimiser step of SensorLLM at full size: Llama 3.2 1B and chronos-t5-large, random weights.

    python -m benchmarks.sensorllm_full --json sensorllm_full.json     # 8 parts of 4 windows
    python -m benchmarks.sensorllm_full --parts 1                      # a micro-batch alone

The config is that of configs/sensorllm_stage2.py (three channels of 303 readings, bfloat16, the
backbones frozen, blocks rematerialised); prompts have the vectors of all readings and `--text`
tokens. The encoder's states are computed first, as the trainer's cache does. Told are seconds, the
largest memory of the process, and bytes a weight. The last line printed is JSON; ``--json FILE``
writes it too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.sensorllm_step import Ours, random_batch
from configs import sensorllm_stage2
from tsmjax import allocator, checkpoint, sharding
from tsmjax.config import resolve

WINDOWS = 4  # of a part


def main() -> None:
    """Run the step, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=8, help="micro-batches of four windows")
    parser.add_argument("--text", type=int, default=200, help="tokens behind the channels")
    parser.add_argument("--remat", default="full", help="of the language model's blocks")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    result = {
        "benchmark": "sensorllm_full",
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        **{name: value for name, value in vars(options).items() if name != "json"},
        **measure(options),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds, gigabytes and bytes a weight of one step."""
    values = sensorllm_stage2.get_config().to_dict()
    values["model"]["llm"]["remat"] = options.remat
    rows = WINDOWS * options.parts
    config = resolve(
        {
            "model": values["model"],
            "task": {"kind": "classify"},
            "data": {"batch_size": rows},
            "optim": {**values["optim"], "length": 1000, "accumulate": options.parts},
            "evals": {"suites": ()},
        }
    )
    started = time.perf_counter()
    ours = Ours(config, random_batch(config, rows, options.text))
    jax.block_until_ready(ours.frozen)
    built = time.perf_counter()
    features = jax.block_until_ready(ours.features())
    encoded = time.perf_counter()
    batch = {k: x for k, x in ours.batch.items() if k not in ("series", "series_mask")}
    placed = sharding.put_batch({**batch, "features": np.asarray(features)}, ours.mesh)
    key = jax.random.key(1)
    program = ours.run.lower(ours.state, ours.frozen, placed, key).compile()
    compiled = time.perf_counter()
    _, metrics = program(ours.state, ours.frozen, placed, key)
    loss = float(metrics["loss"])
    stepped = time.perf_counter()
    frozen, trained = (jax.tree.leaves(tree) for tree in (ours.frozen, ours.state["params"]))
    return {
        "windows": rows,
        "tokens_per_prompt": int(ours.batch["tokens"].shape[1]),
        "loss": loss,
        "seconds": {
            "initialisation": round(built - started, 1),
            "encoder": round(encoded - built, 1),
            "compilation": round(compiled - encoded, 1),
            "step": round(stepped - compiled, 1),
        },
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "frozen_weights": sum(leaf.size for leaf in frozen),
        "bytes_per_frozen_weight": sum(leaf.nbytes for leaf in frozen)
        / sum(leaf.size for leaf in frozen),
        "trained_weights": sum(leaf.size for leaf in trained),
        # Two moments of each trained weight, in float32; none of a frozen one.
        "optimiser_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(ours.state["opt"])),
    }


if __name__ == "__main__":
    allocator.keep_freed()
    main()
