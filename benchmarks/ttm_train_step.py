"""Training and prediction with TTM, ours beside granite-tsfm under Hugging Face's Trainer.

    python -m benchmarks.ttm_train_step --json ttm_train_step.json

The r2 model 512-96 with the same weights on both sides, fp32, batches of 64 windows of the same
generated table, all cores. Training is what each side's loop does a step: batch from the data set,
forward and backward pass with dropout, clipping, AdamW, one-cycle. Prediction is a pass over
windows in batches of 64 that ends with all forecasts in host memory: `Trainer.predict` there, and
also its model alone over the same data loader, which keeps nothing but the forecast. Sides take
turns in one process; figures are medians over all rounds, warm. CPU time leaves out what other
programs take of a core. Shares of a step come from each side's profiler. The last line printed is
JSON; ``--json FILE`` writes it too.

Needs granite-tsfm, see docs/ttm.md.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from tsmjax import allocator, checkpoint, compiler, optim, sharding, state, step, weights
from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.pipeline import Pipeline
from tsmjax.evals.evaluator import read_ahead
from tsmjax.in_flight import InFlight, overlapped
from tsmjax.models import ttm

Times = list[tuple[float, float]]  # (wall, CPU) milliseconds of each step
_WARM = 2  # steps at the beginning of each round that are not counted

# What a compiled CPU kernel of ours contains → the operator it counts as; the first match wins.
OURS = (
    ("matrix products", r"(^|\W)dot\("),
    ("dropout, with what is fused to it", r"shift-right-logical\("),
    ("GELU", r"\berf\("),
    ("norms, gates and sums", r"\b(reduce|exponential|rsqrt)\("),
    ("transposes and copies", r"\b(copy|transpose)\("),
    ("other, the optimiser included", r""),
)
# Name of an operator of PyTorch → the operator it counts as.
THEIRS = (
    ("matrix products", r"^aten::(addmm|mm|bmm|matmul)$"),
    ("dropout", r"^aten::(bernoulli_|native_dropout.*|div_)$"),
    ("GELU", r"^aten::gelu.*"),
    ("norms, gates and sums", r"^aten::(native_layer_norm.*|_softmax.*|sum|mean)$"),
    ("transposes and copies", r"^aten::(copy_|clone|contiguous|_to_copy|transpose|cat|stack)$"),
    ("other, the optimiser included", r""),
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 7])
    parser.add_argument("--batch", type=int, default=64, help="windows of a step")
    parser.add_argument("--steps", type=int, default=12, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    result: dict[str, Any] = {
        "benchmark": "ttm_train_step",
        **{name: getattr(options, name) for name in ("batch", "steps", "rounds")},
        "cores": len(os.sched_getaffinity(0)),
        "channels": {},
        "load_average_before": round(os.getloadavg()[0], 1),
    }
    for channels in options.channels:
        config = ttm.Config(**ttm.PRESETS["r2_512"])
        result["channels"][channels] = compare(config, channels, options)
    result["load_average_after"] = round(os.getloadavg()[0], 1)
    result["git_commit"] = checkpoint.versions()["git_commit"]
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def compare(model: ttm.Config, channels: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both sides in turns on a table of `channels` channels."""
    windows = options.batch * options.steps
    table = example(windows + model.context_length + model.horizon - 1, channels)
    with tempfile.TemporaryDirectory() as folder:
        write_dataset([{"target": table}], f"{folder}/table")
        ours = Ours(model, f"{folder}/table", options)
        ours.save(f"{folder}/model")
        theirs = Theirs(model, f"{folder}/model", table, options)
        found, expected = ours.predict(), theirs.predict()
        apart = float(np.abs(found - expected).max())
        if apart > 1e-3:
            raise SystemExit(f"error: forecasts of the two sides differ by {apart}.")
        times: dict[str, Times] = collections.defaultdict(list)
        for number in range(options.rounds):
            times["train", "ours"] += ours.train()
            times["train", "reference"] += theirs.train()
            for side, run in (
                ("ours", ours.predict),
                ("reference", theirs.predict),
                ("reference_forward", theirs.forecast),
            ):
                run()  # finds the caches and the freed memory of the other side
                times["predict", side] += whole(run, options.steps)
            print(f"{channels} channels, round {number + 1}", file=sys.stderr)
        figures: dict[str, Any] = {"forecast_difference": apart}
        for kind in ("train", "predict"):
            sides = {side: median(times[at, side]) for at, side in times if at == kind}
            wall, cpu = ({side: both[at] for side, both in sides.items()} for at in (0, 1))
            figures[kind] = {
                **{f"{side}_ms": round(wall[side], 2) for side in wall},
                **{f"{side}_cpu_ms": round(cpu[side], 2) for side in cpu},
                "ratio": round(wall["reference"] / wall["ours"], 2),
                "cpu_ratio": round(cpu["reference"] / cpu["ours"], 2),
                "fastest_ratio": round(
                    min(times[kind, "reference"])[0] / min(times[kind, "ours"])[0], 2
                ),
            }
        forward = figures["predict"]["reference_forward_ms"] / figures["predict"]["ours_ms"]
        figures["predict"]["ratio_to_forward"] = round(forward, 2)
        figures["shares"] = {"ours": ours.shares(), "reference": theirs.shares()}
    return figures


def example(length: int, channels: int) -> np.ndarray:
    """Daily seasons on random walks, (channels, length)."""
    rng = np.random.default_rng(0)
    season = np.sin(2 * np.pi * np.arange(length) / 24 + rng.uniform(0, 6, (channels, 1)))
    walk = 0.1 * rng.normal(size=(channels, length)).cumsum(axis=1)
    return (season + walk).astype(np.float32)


class Ours:
    """Our side: the parts of `tsmjax.trainer` that run in each step."""

    def __init__(self, model: ttm.Config, table: str, options: argparse.Namespace):
        self._options = options
        config = resolve(
            {
                "model": {"family": "ttm", **dataclasses.asdict(model)},
                "task": {"kind": "multivariate"},
                "data": {
                    "path": table,
                    "split": (1.0, 0.0, 0.0),
                    "batch_size": options.batch,
                    "standardise": False,
                },
                "optim": {"lr": 1e-4, "schedule": "one_cycle", "weight_decay": 0.01},
                "mesh": {"replica": 1},
            }
        )
        self._model = config.model
        self._task = task = config.build_task()
        self._mesh = mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        plan = state.blueprint(task, config.optim)
        init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
        self._key = jax.random.key(0)
        self._state, self._frozen = init(self._key)
        self._batches = task.batches("train", 0, 1)
        schedule = optim.learning_rate(config.optim, 10_000)
        train = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract)
        first = self._put(self._batches[0])
        self._train = train.lower(self._state, self._frozen, first, self._key).compile()
        self._predict = compiler.jit(step.make_predict(task, plan, mesh))
        self._first = self._state  # the weights that prediction is timed with

    def _put(self, batch: dict[str, np.ndarray]) -> Any:
        return sharding.put_batch(batch, self._mesh)

    def save(self, folder: str) -> None:
        """Write the weights for the other side."""
        model = self._first["params"]["model"]
        weights.write(folder, "ttm", dataclasses.asdict(self._model), model)

    def train(self) -> Times:
        """Run one round of training steps."""
        flight = InFlight(
            limit=1,
            max_bad_steps=20,
            logged=lambda at: False,
            report=print,
            watch=lambda at, loss, norm: None,
        )
        feed = Pipeline(self._batches, put=self._put)

        def steps() -> Iterator[None]:
            for at in range(_WARM + self._options.steps):
                batch = next(feed)
                self._state, metrics = self._train(self._state, self._frozen, batch, self._key)
                flight.add(at, metrics, feed.wait_ms)
                yield
            flight.drain()

        try:
            return between(steps())[_WARM:]
        finally:
            feed.close()

    def predict(self) -> np.ndarray:
        """Forecast all windows, (windows, F, C)."""
        params, stats = self._first["params"], self._first["stats"]

        def forward(windows: dict[str, np.ndarray]) -> jax.Array:
            return self._predict(params, stats, self._frozen, self._put(windows))

        found = overlapped(forward, read_ahead(self._windows()))
        return np.concatenate([forecast[:, :, 0].swapaxes(1, 2) for forecast in found])

    def _windows(self) -> Iterator[dict[str, np.ndarray]]:
        """All windows of the table, in batches."""
        context, horizon = self._model.context_length, self._model.horizon
        batch = self._options.batch
        for number in range(self._options.steps):
            cuts = context + number * batch + np.arange(batch)
            yield self._task.table.read(np.zeros(batch, int), cuts, context, horizon)

    def shares(self) -> dict[str, float]:
        """Share of each operator in the time of the step's kernels."""
        text = self._train.as_text()
        bodies = dict(re.findall(r"\n%([\w.\-]+) \([^\n]*\{\n(.*?)\n\}", text, re.DOTALL))
        kernels = dict(re.findall(r"\n +(?:ROOT )?%([\w.\-]+) = ([^\n]*)", text))
        totals: dict[str, float] = collections.Counter()
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                self.train()
            file = next(Path(folder).rglob("*.xplane.pb"))
            planes = jax.profiler.ProfileData.from_file(str(file)).planes
        for event in (event for plane in planes for line in plane.lines for event in line.events):
            if event.name in kernels:
                kernel = kernels[event.name]
                called = re.search(r"calls=%([\w.\-]+)", kernel)
                what = bodies.get(called[1], "") if called else kernel
                totals[operator(what, OURS)] += event.duration_ns
        return in_parts(totals, OURS)


class Theirs:
    """The reference: ForecastDFDataset, Trainer, TinyTimeMixerForPrediction."""

    def __init__(
        self, model: ttm.Config, weights_folder: str, table: np.ndarray, options: argparse.Namespace
    ):
        import transformers
        from tsfm_public import ForecastDFDataset
        from tsfm_public.models.tinytimemixer import TinyTimeMixerForPrediction

        transformers.logging.set_verbosity_error()
        self._options = options
        self._model = TinyTimeMixerForPrediction.from_pretrained(weights_folder)
        self._first = {name: value.clone() for name, value in self._model.state_dict().items()}
        names = [f"channel_{number}" for number in range(len(table))]
        frame = pd.DataFrame(table.T, columns=names)
        frame["time"] = pd.date_range("2024-01-01", periods=len(frame), freq="h")
        self._data = ForecastDFDataset(
            frame,
            timestamp_column="time",
            target_columns=names,
            context_length=model.context_length,
            prediction_length=model.horizon,
        )
        self._folder = f"{weights_folder}_runs"

    def _trainer(self, steps: int, callbacks: Iterable[Any] = ()) -> Any:
        import torch
        from transformers import Trainer, TrainingArguments

        arguments = TrainingArguments(
            output_dir=self._folder,
            per_device_train_batch_size=self._options.batch,
            per_device_eval_batch_size=self._options.batch,
            max_steps=steps,
            use_cpu=True,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-4, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-4, total_steps=steps)
        return Trainer(
            model=self._model,
            args=arguments,
            train_dataset=self._data,
            optimizers=(optimizer, schedule),
            callbacks=list(callbacks),
        )

    def train(self) -> Times:
        """Run one round of training steps."""
        from transformers import TrainerCallback

        ends = []

        class Clock(TrainerCallback):
            def on_step_end(self, *arguments: Any, **named: Any) -> None:
                ends.append(now())

        self._trainer(_WARM + self._options.steps, [Clock()]).train()
        return differences(ends)[_WARM - 1 :]

    def predict(self) -> np.ndarray:
        """Forecast all windows through the Trainer, (windows, F, C)."""
        self._model.load_state_dict(self._first)
        return self._trainer(1).predict(self._data).predictions[0]

    def forecast(self) -> np.ndarray:
        """Forecast all windows with the model alone, (windows, F, C)."""
        import torch

        self._model.load_state_dict(self._first)
        self._model.eval()
        forecasts = []
        with torch.inference_mode():
            for batch in self._trainer(1).get_test_dataloader(self._data):
                inputs = {name: batch[name] for name in ("past_values", "past_observed_mask")}
                forecasts.append(self._model(**inputs, return_loss=False).prediction_outputs)
        return torch.cat(forecasts).numpy()

    def shares(self) -> dict[str, float]:
        """Share of each operator in the time of all operators in training."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            self.train()
        totals: dict[str, float] = collections.Counter()
        for entry in profiler.key_averages():
            totals[operator(entry.key, THEIRS)] += entry.self_cpu_time_total
        return in_parts(totals, THEIRS)


def now() -> tuple[float, float]:
    """Wall and CPU time of this process, in milliseconds."""
    return 1e3 * time.perf_counter(), 1e3 * time.process_time()


def differences(ends: list[tuple[float, float]]) -> Times:
    """Time from each end to the next."""
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)]


def between(steps: Iterable[None]) -> Times:
    """Time of each step."""
    return differences([now(), *(now() for _ in steps)])


def whole(run: Callable[[], Any], steps: int) -> Times:
    """Time of a run of `steps` steps, for one step."""
    started = now()
    run()
    return [tuple(part / steps for part in differences([started, now()])[0])]


def median(times: Times) -> tuple[float, float]:
    """Median (wall, CPU) milliseconds."""
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def operator(what: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Name of the first rule whose pattern `what` contains."""
    return next(name for name, pattern in rules if re.search(pattern, what))


def in_parts(totals: dict[str, float], rules: tuple[tuple[str, str], ...]) -> dict[str, float]:
    """Each operator's share of the total, in the order of the rules."""
    whole_time = sum(totals.values())
    return {name: round(totals[name] / whole_time, 3) for name, _ in rules}


if __name__ == "__main__":
    allocator.keep_freed()  # as `python -m tsmjax.main` does; it serves both sides
    main()
