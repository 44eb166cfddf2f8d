"""Skeleton models: parameters, multiply-adds and seconds of a training step, beside PyTorch.

    python -m benchmarks.last_step                    # LAST-E base beside PyTorch
    python -m benchmarks.last_step --net shiftfuse --size small
    python -m benchmarks.last_step --table --batch 8  # every net and size, without PyTorch

A step is forward, backward and SGD with Nesterov momentum, warm, dropout off, one body. The two
take turns of two steps, the second of which counts; the figure is the median over turns, in wall
seconds and in CPU seconds of the process (the fairer figure on a busy machine). The last line
printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import allocator, checkpoint
from tsmjax.models import last
from tsmjax.nn.functional import abstract, merge, split, stats_of

_TABLE = [(net, size) for net in last.NETS for size in last.NETS[net].SIZES]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--net", default="last_e", choices=sorted(last.NETS))
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=64, help="clips")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="all nets, without PyTorch")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "last_step",
        "device": str(jax.devices()[0].device_kind),
        "batch": options.batch,
        "frames": options.frames,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    if options.table:
        result["rows"] = [row(net, size, options) for net, size in _TABLE]
    else:
        result |= beside_torch(options)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def row(net: str, size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one line of the table, and print it."""
    config = last.Config(net=net, size=size, frames=options.frames)
    _, params, _ = abstract(lambda rngs: last.Model(config, rngs=rngs))
    run, _ = ours(config, *example(config, options.batch))
    run()
    found = {
        "net": net,
        "size": size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "gmac": round(last.flops(config, 1) / 2e9, 3),
        "step_ms": round(
            1e3 * statistics.median(seconds(run)[0] for _ in range(options.repeats)), 1
        ),
    }
    print(*found.values(), flush=True)
    return found


def beside_torch(options: argparse.Namespace) -> dict[str, Any]:
    """Time one step of ours and of the same equations in eager PyTorch, in turns."""
    config = last.Config(net=options.net, size=options.size, frames=options.frames)
    streams, labels = example(config, options.batch)
    mine, compile_seconds = ours(config, streams, labels)
    torch_step = theirs(config, streams, labels)
    times: list[tuple[float, ...]] = []
    for step in (mine, torch_step):
        step()
    for _ in range(options.repeats):
        turn: list[float] = []
        for step in (mine, torch_step):
            step()  # finds the caches and the freed memory of the other side
            turn += seconds(step)
        times.append(tuple(turn))
        print("ours {:.3f} s ({:.3f} CPU), PyTorch {:.3f} s ({:.3f} CPU)".format(*times[-1]))
    columns = (statistics.median(column) for column in zip(*times, strict=True))
    first, first_cpu, second, second_cpu = columns
    return {
        "net": options.net,
        "size": options.size,
        "ours_ms": round(1e3 * first, 1),
        "reference_ms": round(1e3 * second, 1),
        "ratio": round(second / first, 2),
        "ours_cpu_ms": round(1e3 * first_cpu, 1),
        "reference_cpu_ms": round(1e3 * second_cpu, 1),
        "ours_compile_seconds": round(compile_seconds, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def example(config: last.Config, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random streams of one body, and labels."""
    rng = np.random.default_rng(0)
    shape = (batch, 1, config.frames, last.skeleton(config.skeleton).size, 3)
    streams = {
        name: rng.normal(size=shape).astype(np.float32) for name in last.input_streams(config)
    }
    return streams, rng.integers(0, config.num_classes, batch)


def ours(
    config: last.Config, streams: dict[str, np.ndarray], labels: np.ndarray
) -> tuple[Callable[[], None], float]:
    """Return one training step as a function of nothing, and the seconds of compiling it."""
    graph, *trees = split(last.Model(config, rngs=nnx.Rngs(0)))
    state = (*trees, jax.tree.map(jnp.zeros_like, trees[0]))

    def step(state, streams, labels):
        params, stats, momentum = state

        def loss_of(params):
            model = merge(graph, params, stats)
            logits = model(streams, train=True)["logits"]
            rows = jnp.arange(len(labels))
            return -jax.nn.log_softmax(logits)[rows, labels].mean(), stats_of(model)

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        params = jax.tree.map(lambda p, m, g: p - 0.01 * (g + 0.9 * m), params, momentum, grads)
        return (params, stats, momentum), loss

    batch = ({name: jnp.asarray(x) for name, x in streams.items()}, jnp.asarray(labels))
    started = time.perf_counter()
    compiled = jax.jit(step).lower(state, *batch).compile()
    spent = time.perf_counter() - started

    def run() -> None:
        nonlocal state
        state, loss = compiled(state, *batch)
        jax.block_until_ready((state, loss))

    return run, spent


def theirs(
    config: last.Config, streams: dict[str, np.ndarray], labels: np.ndarray
) -> Callable[[], None]:
    """Return the step of the equations in PyTorch as a function of nothing."""
    import torch

    from benchmarks import last_torch

    size = last.NETS[config.net].SIZES[config.size]
    builders = {
        "last_e": last_torch.LastE,
        "last_e_v3": last_torch.LastEV3,
        "shiftfuse": lambda size, classes: last_torch.ShiftFuse(size, classes, config.frames),
    }
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    model = builders[config.net](size, config.num_classes).to(device).train()
    given = [torch.tensor(x[:, 0]).permute(0, 3, 1, 2).contiguous() for x in streams.values()]
    given, target = [x.to(device) for x in given], torch.tensor(labels, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def run() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(given), target)
        loss.backward()
        optimizer.step()
        loss.item()

    return run


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


class _Raw(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    allocator.keep_freed()  # as `python -m tsmjax.main` does; it serves both sides
    main()
