"""One Chronos-2 training step, ours beside chronos-forecasting, on the same weights and batch.

    python -m benchmarks.chronos2_train_step --size small --context 512 --batch 32
    python -m benchmarks.chronos2_train_step --size base --context 2048 --batch 256 --precision bfloat16

A step is forward, backward, clipping and AdamW, with dropout off; the figure is the median over
repeats after eight steps that do not count, in which the heap of a process of several GB settles.
The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax import allocator, checkpoint, optim, sharding, state, step, weights
from tsmjax.config import resolve
from tsmjax.models import chronos2
from tsmjax.nn.functional import Tree
from tsmjax.nn.stack import REMAT
from tsmjax.tasks import Batch

_WARM = 8  # steps before those that count


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--size", default="small", choices=sorted(chronos2.PRESETS))
    parser.add_argument("--context", type=int, default=512, help="context steps")
    parser.add_argument("--horizon", type=int, default=64, help="forecast steps")
    parser.add_argument("--batch", type=int, default=32, help="series")
    parser.add_argument("--group", type=int, default=1, help="series in a group")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--reference_precision", choices=("float32", "bfloat16"), help="ours if none"
    )
    parser.add_argument("--remat", default="none", choices=tuple(REMAT))
    parser.add_argument("--scan", action="store_true", help="scan over the layers")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="torch.compile the reference")
    parser.add_argument("--ours_only", action="store_true", help="skip the reference")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    options.reference_precision = options.reference_precision or options.precision

    model = chronos2.Config(
        **chronos2.PRESETS[options.size],
        context_length=options.context,
        max_output_patches=-(-options.horizon // 16),
        dropout_rate=options.dropout,
        remat=options.remat,
        scan_layers=options.scan,
    )
    batch = example(options)
    ours, compile_seconds, memory = time_ours(model, batch, options, _WARM)
    forward = chronos2.flops(model, options.batch, options.context, options.horizon)
    result: dict[str, Any] = {
        "benchmark": "chronos2_train_step",
        "device": str(jax.devices()[0].device_kind),
        **{name: value for name, value in vars(options).items() if name != "json"},
        "ours_ms": round(1e3 * ours, 2),
        "ours_series_per_second": round(options.batch / ours, 1),
        "ours_tflops": round(3 * forward / ours / 1e12, 2),
        "ours_compile_seconds": round(compile_seconds, 1),
        "ours_memory_gb": memory,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    if not options.ours_only:
        theirs = time_reference(model, batch, options, _WARM)
        result |= {"reference_ms": round(1e3 * theirs, 2), "ratio": round(theirs / ours, 2)}
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def example(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Random walks in packs of one group each, in the layout of the forecasting task."""
    rng = np.random.default_rng(0)
    packs, slots = options.batch // options.group, options.group
    steps = 16 * -(-options.horizon // 16)
    x = rng.normal(size=(packs, slots, options.context + steps)).cumsum(axis=-1).astype(np.float32)
    return {
        "context": x[..., : options.context],
        "target": x[..., options.context :],
        "future": np.full((packs, slots, steps), np.nan, np.float32),
        "group": np.zeros((packs, slots), np.int32),
        "patches": np.full(packs, steps // 16, np.int32),
    }


def time_ours(
    model: chronos2.Config,
    batch: dict[str, np.ndarray],
    options: argparse.Namespace,
    warm: int = 1,
    accumulate: int = 1,
) -> tuple[float, float, float | None]:
    """Return (seconds a step, seconds of the first call, peak device memory in GB)."""
    train, current, frozen, placed, key = our_step(model, batch, options.precision, accumulate)

    def run() -> None:
        nonlocal current
        current, metrics = train(current, frozen, placed, key)
        jax.block_until_ready(metrics)

    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    seconds = median(run, options.repeats, warm)
    statistics_ = jax.devices()[0].memory_stats() or {}
    peak = statistics_.get("peak_bytes_in_use")
    return seconds, first, round(peak / 2**30, 2) if peak else None


def our_step(
    model: chronos2.Config, batch: dict[str, np.ndarray], precision: str, accumulate: int = 1
) -> tuple[Any, Tree, Tree, Batch, jax.Array]:
    """Return the trainer's step, jitted, and what it takes: state, frozen leaves, batch, key."""
    config = resolve(
        {
            "model": {"family": "chronos2", **dataclasses.asdict(model)},
            "task": {"kind": "forecast"},
            "optim": {"schedule": "constant", "precision": precision, "accumulate": accumulate},
            "mesh": {"replica": 1},
        }
    )
    task = config.build_task()
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
    schedule = optim.learning_rate(config.optim, 1000)
    train = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract)
    return train, *init(jax.random.key(0)), sharding.put_batch(batch, mesh), jax.random.key(0)


def time_reference(
    model: chronos2.Config,
    batch: dict[str, np.ndarray],
    options: argparse.Namespace,
    warm: int = 4,
) -> float:
    """Return the seconds a step of chronos-forecasting's model takes."""
    import torch
    from chronos.chronos2.model import Chronos2Model
    from flax import nnx

    from tsmjax.nn.functional import split

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    _, params, _ = split(chronos2.Model(model, rngs=nnx.Rngs(0)))
    with tempfile.TemporaryDirectory() as folder:
        weights.write(f"{folder}/model", "chronos2", dataclasses.asdict(model), params)
        reference = Chronos2Model.from_pretrained(f"{folder}/model").to(device).train()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-4, fused=True)
    flat = {
        name: torch.tensor(batch[name].reshape(options.batch, -1), device=device)
        for name in ("context", "target")
    }
    group_ids = torch.arange(options.batch, device=device) // options.group
    call = torch.compile(reference) if options.compile else reference
    half = options.reference_precision == "bfloat16"

    def run() -> None:
        cast = torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()
        with cast:
            loss = call(
                context=flat["context"],
                group_ids=group_ids,
                future_target=flat["target"],
                num_output_patches=flat["target"].shape[1] // 16,
            ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return median(run, options.repeats, warm)


def median(run: Callable[[], None], repeats: int, warm: int) -> float:
    """Median wall time of `run` in seconds, after `warm` calls."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class _Raw(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    allocator.keep_freed()  # as `python -m tsmjax.main` does; it serves both sides
    main()
