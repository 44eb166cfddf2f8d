"""How fast series are generated during training, beside how fast a training step consumes them.

    python -m benchmarks.synthetic
    python -m benchmarks.synthetic --batch 1024 --blocks 50     # on a GPU

Generated are whole batches of `generated:corpus`, as long as the config's context and horizon:
single series, mixed by `task.mixup`, and groups of variates. The step is that of the config's model
on batches of the same kind, at --batch rows on this device. Everything runs on jax's default device,
alone; rates are rows a second, medians over blocks. A table tells what each part of a block takes,
on as many rows as a block gives it.
The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import chronos2_train_step
from tsmjax import checkpoint
from tsmjax.config import resolve
from tsmjax.data.packing import ForecastBatches
from tsmjax.data.synthetic import blocks, calendar, corpus, realism, seasons, tcm


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/chronos2_small.py"))
    parser.add_argument("--variates", type=int, default=8, help="most variates of a group")
    parser.add_argument("--mixup", type=float, default=0.5, help="task.mixup of single series")
    parser.add_argument("--batch", type=int, default=16, help="rows of a step on this device")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--blocks", type=int, default=5, help="timed blocks")
    parser.add_argument("--repeats", type=int, default=3, help="timed training steps")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    settings = runpy.run_path(str(options.config))["get_config"]("").to_dict()
    kinds = {"single": 1, "groups": options.variates}
    result: dict[str, Any] = {
        "benchmark": "synthetic",
        "device": jax.devices()[0].device_kind,
        "load": round(os.getloadavg()[0], 1),
        **{name: value for name, value in vars(options).items() if name not in ("json", "config")},
        "config": options.config.stem,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    for name, variates in kinds.items():
        made = generated(settings, variates, options)
        used = consumed(settings, variates, options)
        result[name] = made | used
        result[name]["ratio"] = round(made["generated_per_second"] / used["used_per_second"], 1)
    result["parts"] = parts(settings, options)
    result["load_after"] = round(os.getloadavg()[0], 1)
    show(result)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def generated(
    settings: dict[str, Any], variates: int, options: argparse.Namespace
) -> dict[str, float]:
    """Time batches of one block each, generated, cut, packed and augmented on the device."""
    model, data = settings["model"], settings["data"]
    length = model["context_length"] + 16 * model["max_output_patches"]
    # Long enough for data.long_share. What a block costs depends on its greatest length alone.
    least = max(model["context_length"] // 2, data["min_past"] + data["min_future"])
    path = f"generated:corpus?min_length={least}&max_length={length}&variates={variates}"
    size = corpus.block_size(variates) * variates
    config = resolve(
        settings
        | {"data": data | {"sources": ({"path": path, "weight": 1.0},), "batch_size": size}}
        | {"task": settings["task"] | {"mixup": options.mixup}}
    )
    task = config.build_task()
    started = time.perf_counter()
    batches: ForecastBatches = task.batches("train", 0, 1)  # makes the first block
    opening = time.perf_counter() - started
    augment = jax.jit(lambda batch, key: task.device(batch, key, True))
    rows = []

    def run() -> None:
        batch = batches[len(rows)]
        rows.append(int((batch["group"] >= 0).sum()))
        jax.block_until_ready(augment(batch, jax.random.key(len(rows))))

    first, seconds = timed(run, options.blocks)
    return {
        "length": length,
        "rows_per_block": round(statistics.mean(rows), 1),
        "seconds_per_block": round(seconds, 4),
        "first_seconds": round(opening + first, 1),
        "generated_per_second": round(statistics.mean(rows) / seconds, 1),
    }


def consumed(
    settings: dict[str, Any], variates: int, options: argparse.Namespace
) -> dict[str, float]:
    """Time the training step of the config's model in packs of `variates` rows."""
    model = resolve(settings).model
    step = argparse.Namespace(
        batch=options.batch,
        group=variates,
        context=model.context_length,
        horizon=16 * model.max_output_patches,
        precision=options.precision,
        repeats=options.repeats,
    )
    seconds = chronos2_train_step.time_ours(model, chronos2_train_step.example(step), step)[0]
    return {
        "seconds_per_step": round(seconds, 4),
        "used_per_second": round(options.batch / seconds, 2),
    }


def parts(settings: dict[str, Any], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time each part of a block alone, on as many rows as the block gives it.

    Returns:
      Rows and milliseconds of every part.
    """
    model = settings["model"]
    length, size = model["context_length"] + 16 * model["max_output_patches"], corpus.BLOCK
    keys = jax.random.split(jax.random.key(0), size)
    clocks = jax.jit(jax.vmap(lambda key: calendar.draw(key, length, 32)))(keys)
    patterns = np.zeros((size, length), np.float32)

    def realistic(keys: jax.Array, values: jax.Array, used: jax.Array) -> Any:
        holes = jax.vmap(lambda key, n: realism.missing(key, length, n, 0.1))(keys, used)
        return jax.vmap(realism.realistic)(keys, values, used), holes

    measured: dict[str, tuple[Callable, tuple, int]] = {
        "seasons": (jax.vmap(seasons.seasonal), (keys, clocks), size),
    }
    for name, share in corpus.SHARES.items():
        rows = max(1, round(size * share / sum(corpus.SHARES.values())))
        measured[name] = blocks.GENERATORS[name], (keys, clocks, patterns), rows
    measured["realism"] = realistic, (keys, patterns, clocks.used), size
    groups = corpus.block_size(options.variates)

    def sequential(keys: jax.Array, patterns: jax.Array) -> jax.Array:
        return tcm.systems(keys, patterns, jnp.arange(len(keys)) % 2 == 0, options.variates)

    some = round(groups * corpus.DEPENDENCES["sequential"] / sum(corpus.DEPENDENCES.values()))
    measured["sequential groups"] = sequential, (keys, patterns), max(1, some)

    found = {}
    for name, (function, inputs, rows) in measured.items():
        compiled = jax.jit(function)
        inputs = jax.tree.map(lambda leaf, rows=rows: leaf[:rows], inputs)
        _, seconds = timed(
            lambda call=compiled, of=inputs: jax.block_until_ready(call(*of)), options.blocks
        )
        series = rows * (options.variates if name == "sequential groups" else 1)
        found[name] = {
            "rows": series,
            "ms": round(1e3 * seconds, 1),
            "per_second": round(series / seconds),
        }
    return found


def timed(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Return the seconds of the first call of `run`, and the median of those after it."""
    times = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times[0], statistics.median(times[1:])


def show(result: dict[str, Any]) -> None:
    """Print the two tables."""
    rates = Table(title=f"rows a second, {result['device']}")
    for heading in ("batches", "generated", "used by a step", "ratio"):
        rates.add_column(heading, justify="left" if heading == "batches" else "right")
    for name in ("single", "groups"):
        row = result[name]
        cells = (row[kind] for kind in ("generated_per_second", "used_per_second", "ratio"))
        rates.add_row(name, *(f"{cell:,}" for cell in cells))
    shares = Table(title="parts of a block")
    for heading in ("part", "rows", "ms", "rows a second"):
        shares.add_column(heading, justify="left" if heading == "part" else "right")
    for name, row in result["parts"].items():
        shares.add_row(name, *(f"{row[kind]:,}" for kind in ("rows", "ms", "per_second")))
    for table in (rates, shares):
        Console().print(table)


if __name__ == "__main__":
    main()
