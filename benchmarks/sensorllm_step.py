"""A training step of SensorLLM: with the encoder's states cached, without, and in PyTorch.

    python -m benchmarks.sensorllm_step --json sensorllm_step.json

The language model and the encoder are frozen; projection, markers and head train by AdamW on the
weighted cross-entropy. PyTorch runs the same weights in transformers' Llama and T5 encoder, the
encoder under ``no_grad``, prompts spliced without a loop. Steps are warm and take turns; the figure
is the median, in wall seconds and in CPU seconds of the process (the fairer figure on a busy
machine). The losses of the first step are compared too. The last line printed is JSON; ``--json
FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax import allocator, checkpoint, optim, sharding, state, step, weights
from tsmjax.config import Config, resolve
from tsmjax.nn import functional

Step = Callable[[], float]
LABELS = ("lie", "sit", "walk", "run")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="windows")
    parser.add_argument("--readings", type=int, default=100, help="of each of three channels")
    parser.add_argument("--text", type=int, default=60, help="tokens behind the channels")
    parser.add_argument("--layers", type=int, default=4, help="of both backbones")
    parser.add_argument("--width", type=int, default=256, help="of both backbones")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    result = {
        "benchmark": "sensorllm_step",
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        **{name: value for name, value in vars(options).items() if name != "json"},
        **compare(options),
        "load": round(os.getloadavg()[0], 1),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of a step of each side, their ratios and the losses of the first step."""
    config = _config(options)
    batch = random_batch(config, options.batch, options.text)
    ours = Ours(config, batch)
    steps: dict[str, Step] = {
        "cached": ours.step(cached=True),
        "uncached": ours.step(cached=False),
        "pytorch": _theirs(config, ours, batch),
    }
    losses = {name: one() for name, one in steps.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, one in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            one()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found: dict[str, Any] = {"first_loss": losses}
    for place, kind in enumerate(("wall", "cpu")):
        median = {name: statistics.median(t[place] for t in seen) for name, seen in times.items()}
        found[f"{kind}_ms"] = {name: round(1e3 * value, 1) for name, value in median.items()}
        found[f"{kind}_ratio_to_pytorch"] = {
            name: round(median["pytorch"] / median[name], 2) for name in ("cached", "uncached")
        }
        found[f"{kind}_gain_of_cache"] = round(median["uncached"] / median["cached"], 2)
    found["ratio"] = found["cpu_ratio_to_pytorch"]["cached"]
    return found


def _config(options: argparse.Namespace) -> Config:
    width, heads = options.width, max(options.width // 32, 2)
    return resolve(
        {
            "model": {
                **{"family": "sensorllm", "window": options.readings, "labels": LABELS},
                "proj_hidden": (width,),
                "llm": {
                    **{"vocab_size": 512, "d_model": width, "d_ff": 4 * width, "d_kv": 32},
                    **{"num_layers": options.layers, "num_heads": heads},
                    **{"num_kv_heads": heads // 2, "rope_scaling": {"kind": "none"}},
                    **{"rope_theta": 10000.0, "bos_token": 1, "eos_tokens": (2,)},
                },
                "encoder": {
                    **{"d_model": width, "d_ff": 4 * width, "d_kv": 32, "num_heads": heads},
                    **{"num_layers": options.layers, "initializer_factor": 1.0},
                    "tokenizer": {"kind": "StanNormalizeUniformBins"},
                },
            },
            "task": {"kind": "classify"},
            "data": {"batch_size": options.batch},
            "optim": {"length": 1000, "lr": 1e-3, "schedule": "constant"},
            "evals": {"suites": ()},
        }
    )


def random_batch(config: Config, rows: int, text: int) -> dict[str, np.ndarray]:
    """Random windows: tokens of channels and `text` tokens behind them, all of one length."""
    rng, model = np.random.default_rng(0), config.model
    count, states = len(model.channels), model.tokens_per_channel
    tokens, index = [1], [-1]
    for channel in range(count):
        tokens += [model.marker(channel, False), *[0] * states, model.marker(channel, True)]
        index += [-1, *range(channel * states, (channel + 1) * states), -1]
    words = rng.integers(3, 512, (rows, text))
    return {
        "tokens": np.concatenate([np.tile(tokens, (rows, 1)), words], axis=1).astype(np.int32),
        "ts_index": np.tile([*index, *[-1] * text], (rows, 1)).astype(np.int32),
        "lengths": np.full(rows, len(tokens) + text, np.int32),
        "label": rng.integers(0, len(model.labels), rows).astype(np.int32),
        "series": rng.integers(1500, 2600, (rows, count, states)).astype(np.int32),
        "series_mask": np.ones((rows, count, states), bool),
    }


class Ours:
    """The step of the trainer."""

    def __init__(self, config: Config, batch: dict[str, np.ndarray]):
        self.task, self.batch = config.build_task(), batch
        self.task.class_weights = np.arange(1.0, 1 + len(config.model.labels), dtype=np.float32)
        self.mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        self.plan = state.blueprint(self.task, config.optim)
        init, abstract, _ = state.create(self.task, self.plan, config.optim, self.mesh, 0)
        self.state, self.frozen = init(jax.random.key(0))
        schedule = optim.learning_rate(config.optim, 1000)
        self.run = step.jit_train_step(
            self.task, self.plan, config.optim, schedule, self.mesh, abstract
        )

    def params(self) -> functional.Tree:
        """All parameters of the model before the first step, as NumPy arrays."""
        model = self.plan.assemble(self.state["params"], {"model": {}}, self.frozen).model
        return jax.tree.map(np.asarray, functional.split(model)[1])

    def features(self) -> jax.Array:
        """States of the encoder for all windows of the batch."""

        @jax.jit
        def encode(params: functional.Tree, frozen: functional.Tree, *series: Any) -> jax.Array:
            return self.plan.assemble(params, {"model": {}}, frozen).model.encode(*series)

        given = (self.batch["series"], self.batch["series_mask"])
        return encode(self.state["params"], self.frozen, *given)

    def step(self, cached: bool) -> Step:
        """Return a step that starts where the one before it ended."""
        batch = dict(self.batch)
        if cached:
            del batch["series"], batch["series_mask"]
            batch["features"] = self.features()
        placed = sharding.put_batch(jax.tree.map(np.asarray, batch), self.mesh)
        # Each step has a state of its own: it is given away to the next one.
        key, current = jax.random.key(1), [jax.tree.map(jax.numpy.copy, self.state)]

        def one() -> float:
            current[0], metrics = self.run(current[0], self.frozen, placed, key)
            return float(metrics["loss"])

        return one


def _theirs(config: Config, ours: Ours, batch: dict[str, np.ndarray]) -> Step:
    """Return a step of PyTorch from the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    values, params = config.to_dict()["model"], ours.params()
    parts = {}
    for part, family, kind, owner in (
        ("llm", "llama", LlamaModel, LlamaConfig),
        ("encoder", "chronos_t5", T5EncoderModel, T5Config),
    ):
        table = importlib.import_module(f"tsmjax.weights.{family}")
        module = kind(owner(**table.from_config(values[part])))
        named = weights.tensors(family, values[part], params[part])
        if part == "llm":
            named = {name.removeprefix("model."): x for name, x in named.items()}
        tensors = {name: torch.tensor(np.asarray(x)) for name, x in named.items()}
        missing, unexpected = module.load_state_dict(tensors, strict=False)
        assert not unexpected and set(missing) <= {"encoder.embed_tokens.weight"}, missing
        parts[part] = module.eval().requires_grad_(False)
    layers = params["projection"]["layers"]
    linears = []
    for number in sorted(layers, key=int):
        kernel, bias = (torch.tensor(layers[number][name]) for name in ("kernel", "bias"))
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = kernel.T.contiguous(), bias
        linears += [torch.nn.GELU()] * bool(linears) + [linear]
    projection = torch.nn.Sequential(*linears)
    markers = torch.nn.Parameter(torch.tensor(params["new_tokens"]["embedding"]))
    head = torch.nn.Parameter(torch.tensor(params["head"]["kernel"]))
    optimiser = torch.optim.AdamW(
        [*projection.parameters(), markers, head], lr=1e-3, weight_decay=0.0
    )
    given = {name: torch.tensor(x) for name, x in batch.items()}
    tokens, index = given["tokens"].long(), given["ts_index"].long()
    series, label = given["series"].flatten(0, 1).long(), given["label"].long()
    rows, size = torch.arange(len(tokens)), config.model.llm.vocab_size
    class_weights = torch.tensor(ours.task.class_weights)

    def one() -> float:
        with torch.no_grad():
            states = parts["encoder"](input_ids=series).last_hidden_state
            old = parts["llm"].embed_tokens(tokens.clamp(max=size - 1))
        states = projection(states).reshape(len(tokens), -1, old.shape[-1])
        taken = states[rows[:, None], index.clamp(min=0)]
        text = torch.where((tokens >= size)[..., None], markers[(tokens - size).clamp(min=0)], old)
        x = torch.where((index >= 0)[..., None], taken, text)
        h = parts["llm"](inputs_embeds=x, use_cache=False).last_hidden_state
        logits = h[rows, given["lengths"].long() - 1] @ head
        loss = torch.nn.functional.cross_entropy(logits, label, class_weights)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*projection.parameters(), markers, head], 1.0)
        optimiser.step()
        return float(loss.detach())

    return one


if __name__ == "__main__":
    allocator.keep_freed()  # as `python -m tsmjax.main` does; it serves both sides
    main()
