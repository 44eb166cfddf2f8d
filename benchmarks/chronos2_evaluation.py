"""The six public sets scored with one Chronos-2 model, by our evaluator and by chronos-forecasting.

    python -m benchmarks.chronos2_evaluation --size tiny --series 4
    python -m benchmarks.chronos2_evaluation --size base --json evaluation.json
    python -m benchmarks.chronos2_evaluation --checkpoint path/to/hugging_face_folder

Both sides load the same folder and forecast the deciles of every series; the scores are computed by
the same code. Weights are random unless --checkpoint names a folder, and large enough that forecasts
follow the series. Times are those of warm passes over all six sets, scoring included; the seconds
of the first pass of each shape (compilation) stand beside. TSMJAX_TEST_DATA names the data folder.
The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks import public_sets
from tsmjax import checkpoint, weights
from tsmjax import evaluate as command
from tsmjax.evals import metrics
from tsmjax.evals.evaluator import evaluate
from tsmjax.evals.forecast import EvalDataset
from tsmjax.models import chronos2
from tsmjax.nn.functional import flatten, split, unflatten

_GAIN = 20.0  # initial matrices are so small that every forecast would be the mean of its past


def main() -> None:
    """Score and time both sides."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base", choices=sorted(chronos2.PRESETS))
    parser.add_argument("--checkpoint", help="Hugging Face folder with trained weights")
    parser.add_argument("--series", type=int, default=0, help="series of each set; 0 for all")
    parser.add_argument("--batch_size", type=int, default=256, help="series in one pass")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    datasets = public_sets.six()
    if options.series:
        datasets = [
            dataclasses.replace(dataset, series=dataset.series[: options.series])
            for dataset in datasets
        ]
    with tempfile.TemporaryDirectory() as folder:
        path = options.checkpoint or random_weights(options.size, Path(folder) / options.size)
        ours, seconds, first = run_ours(str(path), datasets, options.batch_size)
        theirs, reference_seconds = run_reference(str(path), datasets, options.batch_size)
    scores = {
        dataset.name: {
            f"{side}_{metric}": scores[f"six/{dataset.name}/{metric}"]
            for metric in ("wql", "mase")
            for side, scores in (("ours", ours), ("reference", theirs))
        }
        for dataset in datasets
    }
    difference = max(
        abs(one[f"ours_{metric}"] / one[f"reference_{metric}"] - 1)
        for one in scores.values()
        for metric in ("wql", "mase")
    )
    result: dict[str, Any] = {
        "benchmark": "chronos2_evaluation",
        "device": str(jax.devices()[0].device_kind),
        **{name: value for name, value in vars(options).items() if name != "json"},
        "scores": scores,
        "largest_relative_difference": difference,
        "agree_to_4_digits": bool(difference < 1e-4),
        "ours_relative_wql": ours["six/wql"],
        "reference_relative_wql": theirs["six/wql"],
        "ours_seconds": round(seconds, 2),
        "ours_first_pass_seconds": round(first, 2),
        "reference_seconds": round(reference_seconds, 2),
        "ratio": round(reference_seconds / seconds, 2),
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def random_weights(size: str, folder: Path) -> Path:
    """Write a Hugging Face folder with weights whose forecasts vary."""
    config = chronos2.Config(**chronos2.PRESETS[size])
    _, params, _ = split(chronos2.Model(config, rngs=nnx.Rngs(0)))
    scaled = {
        name: np.ones_like(leaf) if name.endswith("scale") else _GAIN * np.asarray(leaf)
        for name, leaf in flatten(params).items()
    }
    weights.write(folder, "chronos2", dataclasses.asdict(config), unflatten(scaled))
    return folder


def run_ours(
    path: str, datasets: Sequence[EvalDataset], batch_size: int
) -> tuple[dict[str, float], float, float]:
    """Return (scores, seconds of a warm pass, seconds of the first pass of each shape)."""
    (model,) = command.load_models([path])
    started = time.perf_counter()
    ((evaluator, predict),) = command.evaluators(model, "six", datasets, batch_size)
    seen = set()
    for batch in evaluator.batches(0, 1):
        if (shape := batch["context"].shape) not in seen:
            seen.add(shape)
            evaluator.sums(predict, batch)
    first = time.perf_counter() - started
    started = time.perf_counter()
    scores = evaluate(evaluator, predict)
    return scores, time.perf_counter() - started, first


def run_reference(
    path: str, datasets: Sequence[EvalDataset], batch_size: int
) -> tuple[dict[str, float], float]:
    """Return (scores, seconds) of chronos-forecasting, warmed up by one short forecast."""
    import torch
    from chronos import BaseChronosPipeline

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    pipeline = BaseChronosPipeline.from_pretrained(path, device_map=device)
    evaluator = command.scorer("six", datasets)

    def forecasts() -> Iterator[tuple[int, np.ndarray]]:
        for number, dataset in enumerate(datasets):
            windows = [i for i, w in enumerate(evaluator.windows) if w.dataset == number]
            quantiles, _ = pipeline.predict_quantiles(
                [torch.from_numpy(evaluator.windows[index].past) for index in windows],
                prediction_length=dataset.horizon,
                quantile_levels=list(metrics.LEVELS),
                batch_size=batch_size,
            )
            for index, forecast in zip(windows, quantiles, strict=True):
                yield index, forecast[0].T.cpu().numpy()

    pipeline.predict_quantiles([torch.zeros(64)], prediction_length=1)
    started = time.perf_counter()
    scores = evaluator.scores(evaluator.add_up(forecasts()))
    return scores, time.perf_counter() - started


if __name__ == "__main__":
    main()
