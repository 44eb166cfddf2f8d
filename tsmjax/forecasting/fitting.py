"""Fine-tuning from Python: a config for the one trainer, and data in a temporary folder.

The recipe is that of chronos-forecasting: tasks uniform over the inputs with a random cut, AdamW
without weight decay, clipping at 1, a learning rate that falls linearly to zero.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax import pretrained, weights
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.forecasting.inputs import Series
from tsmjax.nn import functional
from tsmjax.trainer import train
from tsmjax.weights import lora

EXPORT = "finetuned-ckpt"  # the folder in the run folder that holds the result for others
_EVAL_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
      horizon: steps to forecast.
      context_length: steps of the past; None for as many as the model takes.
      learning_rate: the first learning rate.
      steps: optimiser steps.
      batch_size: rows of a step.
      min_past: least steps before a cut.
      seed: chooses tasks, cuts and dropout.
      adapters: options of PEFT's ``LoraConfig`` for low-rank adapters; empty for those of
        chronos-forecasting, None to train all parameters.
    """

    horizon: int
    context_length: int | None
    learning_rate: float
    steps: int
    batch_size: int
    min_past: int
    seed: int
    adapters: Mapping[str, Any] | None = None


def fit(
    start: pretrained.Pretrained,
    inputs: Sequence[Series],
    validation: Sequence[Series] | None,
    settings: Settings,
    output_dir: str | Path | None,
) -> pretrained.Pretrained:
    """Train a copy of `start` on `inputs` and load the result.

    Args:
      start: the model to begin with; stays as it is.
      inputs: tasks to train on.
      validation: tasks whose last window decides which step is best; None takes the last step.
      settings: how to fit.
      output_dir: run folder to keep; None keeps nothing.

    Raises:
      InputError: when `output_dir` is in use, or all series are too short.
    """
    keep = Path(output_dir) if output_dir is not None else None
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InputError(f"output_dir {keep} exists and is not empty: choose another folder.")
    needed = settings.min_past + settings.horizon
    usable = [one for one in inputs if one.past.shape[1] >= needed]
    if not usable:
        longest = max(one.past.shape[1] for one in inputs)
        raise InputError(
            f"All inputs are too short: the longest has {longest} steps and {needed} are needed "
            f"(min_past={settings.min_past} + prediction_length={settings.horizon}); lower one of "
            "these or give longer series."
        )
    with tempfile.TemporaryDirectory(prefix="tsmjax_fit_") as scratch:
        folder = Path(scratch)
        family, model = start.config["model"]["family"], dataclasses.asdict(start.model.config)
        _, params, _ = functional.split(start.model)
        weights.write(
            folder / "start", family, model, functional.cast(jax.device_get(params), np.float32)
        )
        write_dataset(_rows(usable), folder / "train")
        if validation is not None:
            write_dataset(_rows(validation), folder / "validation")
        run = keep or folder / "run"
        values = _config(start, usable, settings, folder, validation is not None, keep is not None)
        if settings.adapters is not None:
            values["optim"]["lora"] = _lora(settings.adapters, family, model)
            # Options may choose single layers, which a stack of them cannot tell apart.
            values["model"]["scan_layers"] = False
        train(values, workdir=str(run))
        which = "best" if validation is not None else "final"
        fitted = pretrained.from_pretrained(f"{run}@{which}")
        if keep is not None:
            _, params, _ = functional.split(fitted.model)
            weights.write(
                keep / EXPORT,
                family,
                dataclasses.asdict(fitted.model.config),
                jax.device_get(params),
            )
        return fitted


def _config(
    start: pretrained.Pretrained,
    inputs: Sequence[Series],
    settings: Settings,
    folder: Path,
    validate: bool,
    keep: bool,
) -> dict[str, Any]:
    """Values of the trainer's config."""
    model = dataclasses.asdict(start.model.config)
    patches = -(-settings.horizon // model["output_patch_size"])
    # Longer than before is allowed; the unit of the time feature stays what the weights know.
    model["time_encoding_scale"] = model["time_encoding_scale"] or model["context_length"]
    model["max_output_patches"] = max(model["max_output_patches"], patches)
    model["context_length"] = max(model["context_length"], settings.context_length or 0)
    slots = max(len(one.past) for one in inputs)
    task = start.config["task"]
    unit = slots * len(jax.devices())
    accelerated = jax.default_backend() != "cpu"
    return {
        "name": "fit",
        "seed": settings.seed,
        "model": {"family": start.config["model"]["family"], **model},
        "task": {"reduction": "padded"}
        | {name: task[name] for name in ("kind", "flip_invariant") if name in task},
        "data": {
            "sources": ({"path": str(folder / "train"), "weight": 1.0},),
            "validation": str(folder / "validation") if validate else "",
            "batch_size": max(1, settings.batch_size // unit) * unit,
            "context_length": _context(inputs, settings, model),
            "prediction_length": settings.horizon,
            "min_past": settings.min_past,
            "min_future": settings.horizon,
        },
        "optim": {
            "length": settings.steps,
            "lr": float(settings.learning_rate),
            "schedule": "linear",
            "weight_decay": 0.0,
            "clip": 1.0,
            "precision": "bfloat16" if accelerated else "float32",
        },
        "checkpoint": {
            "init_from": str(folder / "start"),
            "every": 0,
            "keep_latest": 1,
            "keep_best": 1,
        },
        "evals": {
            "every": _EVAL_EVERY if validate else 0,
            "suites": (),
            "metric": "validation/loss",
            "batch_size": settings.batch_size,
        },
        "log": {
            "every": min(_EVAL_EVERY, settings.steps),
            "tensorboard": keep,
            "plots": keep,
        },
    }


def _lora(options: Mapping[str, Any], family: str, model: dict[str, Any]) -> dict[str, Any]:
    """Values of the config section ``optim.lora``."""
    if not options:
        return {"rank": 8, "alpha": 16.0}  # of the targets that the family names
    paths = weights.projections(family, {**model, "scan_layers": False})
    rank, alpha, chosen = lora.options(options, paths, default=("q", "v"))
    rules = tuple((f"^model/{paths[name][0]}$", True) for name in chosen)
    return {"rank": rank, "alpha": alpha, "targets": rules}


def _context(inputs: Sequence[Series], settings: Settings, model: dict[str, Any]) -> int:
    """Steps of the past in a batch: no more than the longest series can fill."""
    longest = max(one.past.shape[1] for one in inputs) - settings.horizon
    patch = model["input_patch_size"]
    return min(settings.context_length or model["context_length"], -(-longest // patch) * patch)


def _rows(series: Sequence[Series]) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow data set."""
    for number, one in enumerate(series):
        known = len(one.past) - one.known
        yield {
            "item_id": str(number),
            "target": one.past[: one.targets],
            "past_feat_dynamic_real": one.past[one.targets : known],
            "feat_dynamic_real": one.past[known:],
        }
