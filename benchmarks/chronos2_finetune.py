"""Fine-tune a Chronos-2 on public data, with LoRA and in full, and score it against zero-shot.

    python -m benchmarks.chronos2_finetune --checkpoint runs/zero_shot --workdir runs/finetune

ETTh1: the seven series one by one; the usual 12 months of training, 4 of validation, 4 of test.
epf_NP: the electricity price of Nord Pool, with and without the forecasts of load and wind power
that are known ahead; 70 % training, 10 % validation, and the last --windows days as test. The
horizon is a day in both. `Forecaster.fit` trains; the step with the best loss on 24 windows of the
validation part is scored. Fits that --workdir holds already are not repeated. The data lie in the
folder that TSMJAX_TEST_DATA names (docs/test_data.md). The last line printed is JSON; ``--json
FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks import public_sets
from tsmjax import Forecaster, checkpoint
from tsmjax.data.arrow import Item
from tsmjax.evals.forecast import EvalDataset
from tsmjax.evaluate import load_models, score_model

HORIZON = 24  # both are hourly
SEASON = 24
_VALIDATION_WINDOWS = 24


@dataclasses.dataclass(frozen=True)
class Data:
    """Series to fit and score, with the places where they are cut.

    Attributes:
      name: name of the data set.
      items: a target (1, length) each, with covariates that are known ahead.
      train: end of the training part.
      validation: end of the validation part.
      rolls: test windows.
    """

    name: str
    items: list[Item]
    train: int
    validation: int
    rolls: int

    def without_covariates(self) -> Data:
        """The same targets alone."""
        items = [Item(item.target, item.past, item.future[:0]) for item in self.items]
        return dataclasses.replace(self, items=items)

    def inputs(self, *ends: int) -> list[dict[str, Any]]:
        """What `Forecaster.fit` takes: every item up to each of the given ends."""
        return [
            {
                "target": item.target[0, :end],
                "past_covariates": {str(i): row[:end] for i, row in enumerate(item.future)},
                "future_covariates": {str(i): None for i in range(len(item.future))},
            }
            for item in self.items
            for end in ends
        ]

    def dataset(self) -> EvalDataset:
        """The test windows."""
        return EvalDataset(self.name, self.items, HORIZON, SEASON, rolls=self.rolls)


def main() -> None:
    """Fit, score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="run folder, HF folder or hub id")
    parser.add_argument("--workdir", type=Path, default=Path("experiments/chronos2/finetune"))
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of a fit")
    parser.add_argument("--batch_size", type=int, default=64, help="series of a step")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="of a full fit")
    parser.add_argument("--lora_learning_rate", type=float, default=1e-3)
    parser.add_argument("--windows", type=int, default=120, help="test windows of a series")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    etth1, epf = read_etth1(options.windows), read_epf_np(options.windows)

    rows = {"ETTh1, zero-shot": score(options.checkpoint, etth1)}
    for mode in ("lora", "full"):
        rows[f"ETTh1, {mode}"] = score(fitted(options, etth1, mode), etth1)
    for data, what in ((epf.without_covariates(), "alone"), (epf, "with covariates known ahead")):
        rows[f"epf_NP, zero-shot, {what}"] = score(options.checkpoint, data)
        rows[f"epf_NP, full, {what}"] = score(fitted(options, data, "full"), data)

    drawn = Table(title=f"{options.checkpoint}: {HORIZON} steps ahead, {options.windows} windows")
    for heading in ("", "WQL", "MASE"):
        drawn.add_column(heading, justify="right" if heading else "left")
    for name, (wql, mase) in rows.items():
        drawn.add_row(name, f"{wql:.4f}", f"{mase:.4f}")
    Console().print(drawn)
    result = {
        "benchmark": "chronos2_finetune",
        "device": f"{jax.devices()[0].device_kind}, {jax.device_count()}",
        **{name: str(value) for name, value in vars(options).items() if name != "json"},
        "scores": {name: {"wql": wql, "mase": mase} for name, (wql, mase) in rows.items()},
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def fitted(options: argparse.Namespace, data: Data, mode: str) -> str:
    """Return the run folder of a fit, after fitting if there is none yet."""
    covariates = "with" if len(data.items[0].future) else "without"
    folder = options.workdir / f"{data.name}_{mode}_{covariates}_covariates"
    if not (folder / "results.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a fit that was interrupted
        ends = np.linspace(data.train + HORIZON, data.validation, _VALIDATION_WINDOWS).astype(int)
        Forecaster.from_pretrained(options.checkpoint).fit(
            data.inputs(data.train),
            HORIZON,
            data.inputs(*ends),
            finetune_mode=mode,
            learning_rate=options.lora_learning_rate if mode == "lora" else options.learning_rate,
            num_steps=options.steps,
            batch_size=options.batch_size,
            output_dir=folder,
        )
    return str(folder)


def score(path: str, data: Data) -> tuple[float, float]:
    """Return (WQL, MASE) of a checkpoint on the test windows."""
    (model,) = load_models([path])
    (found,) = score_model(model, data.name, [data.dataset()], batch_size=64)
    return found.wql, found.mase


def read_etth1(windows: int) -> Data:
    """Electricity transformer temperature: seven hourly series."""
    month = 30 * 24
    values = _table("ETTh1.csv.gz").to_numpy(np.float32).T[:, : 20 * month]
    none = np.empty((0, values.shape[1]), np.float32)
    items = [Item(row[None], none, none) for row in values]
    return Data("ETTh1", items, 12 * month, 16 * month, min(windows, 4 * 30))


def read_epf_np(windows: int) -> Data:
    """Day-ahead price, and the forecasts of grid load and wind power for the same hours."""
    load, wind, price = _table("epf_NP.csv.gz").to_numpy(np.float32).T
    steps = len(price)
    item = Item(price[None], np.empty((0, steps), np.float32), np.stack([load, wind]))
    return Data("epf_NP", [item], int(0.7 * steps), int(0.8 * steps), windows)


def _table(file: str) -> pd.DataFrame:
    """The columns of numbers of a public file."""
    return pd.read_csv(public_sets.folder() / file).select_dtypes("number")


if __name__ == "__main__":
    main()
