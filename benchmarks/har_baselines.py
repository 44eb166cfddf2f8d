"""Baselines of activity recognition on public sets and on the embedded one.

    TSMJAX_TEST_DATA=/path python -m benchmarks.har_baselines --json har_baselines.json

BasicMotions (official split), a subset of UCI-HAR (official split, which names no persons) and the
watches of eight persons of WISDM-51 (cross-subject) are prepared as `prepare har` does by default;
docs/test_data.md says where the files come from. `embedded:capture24` needs none. Of each
classifier the mean over --seeds is reported where chance has a part. The last line printed is JSON;
``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax import pretrained
from tsmjax.config import build
from tsmjax.data.sensor import SPLITS, SensorData
from tsmjax.evals import classifiers
from tsmjax.evals.classifiers import Part
from tsmjax.models import chronos_t5
from tsmjax.nn import functional
from tsmjax.prepare.__main__ import run

SETS = {
    "BasicMotions": ("ts", "."),
    "UCI-HAR subset": ("ucihar", "uci_har_subset"),
    "WISDM-51 watch": ("wisdm", "wisdm51_watch"),
}
COLUMNS = ("accuracy", "f1_macro", "balanced_accuracy")


def main() -> None:
    """Fit all baselines and print a table a set, then one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the CNN")
    parser.add_argument("--epochs", type=int, default=30, help="of the CNN")
    parser.add_argument("--sets", nargs="+", choices=(*SETS, "embedded"), help="default: all")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    raw = os.environ.get("TSMJAX_TEST_DATA")
    names = options.sets or [*(SETS if raw else ()), "embedded"]
    result: dict[str, Any] = {"benchmark": "har_baselines", "seeds": options.seeds}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = "embedded:capture24"
            if name != "embedded":
                layout, place = SETS[name]
                path = str(Path(folder) / layout)
                source = str(Path(raw or "") / "data" / "har" / place)
                run("har", ["--format", layout, "--src", source, "--dst", path, "--workers", "1"])
            encoder = str(Path(raw, "weights/dummy-chronos-model")) if raw else ""
            result[name] = measure(SensorData(path), options.seeds, options.epochs, encoder)
            print(f"\n{name}: {result[name]['rows']}")
            print(classifiers.table(result[name]["scores"], COLUMNS), flush=True)
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(data: SensorData, seeds: int, epochs: int, encoder: str = "") -> dict[str, Any]:
    """Return the test scores of each baseline on one set, and how long fitting took.

    Args:
      data: the set.
      seeds: trainings of the CNN.
      epochs: of the CNN.
      encoder: a Chronos-T5 checkpoint, whose states are probed too; empty for none.
    """
    classes = len(data.facts.labels)
    rows = {split: data.rows(split) for split in SPLITS}
    windows = {split: data.windows(numbers) for split, numbers in rows.items() if len(numbers)}
    labels = {split: data.label_ids[rows[split]] for split in windows}
    mean, std = np.float32(data.facts.mean)[:, None], np.float32(data.facts.std)[:, None]

    def parts(x: dict[str, np.ndarray]) -> dict[str, Part]:
        return {split: Part(x[split], labels[split]) for split in windows}

    five = parts(
        classifiers.standardised({s: classifiers.summaries(w) for s, w in windows.items()})
    )
    series = parts({s: (w - mean) / np.where(std > 0, std, 1) for s, w in windows.items()})
    fits = {
        "majority": [lambda: (classifiers.majority(five["train"], classes), five)],
        "logistic regression on summaries": [
            lambda: (
                classifiers.linear(five["train"], five.get("validation"), classes),
                five,
            )
        ],
        "small CNN": [
            lambda seed=seed: (
                classifiers.cnn(
                    series["train"], series.get("validation"), classes, epochs, seed=seed
                ),
                series,
            )
            for seed in range(seeds)
        ],
    }
    if encoder:
        embed = probe(encoder)
        states = parts(classifiers.standardised({s: embed(w) for s, w in windows.items()}))
        fits["Chronos features + linear probe"] = [
            lambda: (classifiers.linear(states["train"], states.get("validation"), classes), states)
        ]
    scores, seconds = {}, {}
    for name, runs in fits.items():
        started, found = time.perf_counter(), []
        for fit in runs:
            predict, seen = fit()
            found.append(classifiers.evaluate(predict, seen["test"], classes))
        seconds[name] = round((time.perf_counter() - started) / len(runs), 2)
        scores[name] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        if len(found) > 1:
            scores[name]["f1_macro_std"] = float(np.std([one["f1_macro"] for one in found]))
    return {
        "rows": {split: len(numbers) for split, numbers in rows.items()},
        "subjects": data.facts.subjects,
        "classes": classes,
        "window": data.facts.window,
        "seconds": seconds,
        "scores": scores,
    }


def probe(encoder: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return what maps windows (rows, C, T) to a Chronos-T5's states, averaged over time.

    The states of all channels of a window stand in a row: (rows, C · width).
    """
    loaded = pretrained.load(encoder)
    values = {name: value for name, value in loaded.config["model"].items() if name != "family"}
    config = build(chronos_t5.Config, values, "model")
    graph, _, _ = functional.abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))

    @jax.jit
    def mean(tokens: np.ndarray) -> jax.Array:
        return functional.merge(graph, loaded.params, {})(tokens).mean(axis=1)

    def embed(windows: np.ndarray) -> np.ndarray:
        steps = windows.shape[2]
        flat = chronos_t5.tokenize(config.tokenizer, windows.reshape(-1, steps)).ids
        padded = np.resize(flat, (-(-len(flat) // 512) * 512, flat.shape[1]))
        found = [np.asarray(mean(padded[at : at + 512])) for at in range(0, len(padded), 512)]
        return np.concatenate(found)[: len(flat)].reshape(len(windows), -1)

    return embed


if __name__ == "__main__":
    main()
