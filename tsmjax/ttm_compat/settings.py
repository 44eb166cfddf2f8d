"""`TTMConfig`: the keys of the fine-tuning scripts' YAML files, and their defaults."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from tsmjax.config import build
from tsmjax.errors import InputError, closest

_REMARK = None  # a key that says something to people, and nothing to the training
# Section → key → field of `TTMConfig`.
KEYS: dict[str, dict[str, str | None]] = {
    "experiment": {
        **{"name": "name", "description": _REMARK, "tags": _REMARK, "version": _REMARK},
    },
    "model": {
        **{"path": "model_path", "context_length": "context_length"},
        **{"forecast_length": "forecast_length", "freeze_backbone": "freeze_backbone"},
    },
    "data": {
        **{"source_name": "data_source_name", "loader_type": "loader_type"},
        **{"y_feature": "y_feature", "x_features": "x_features"},
        **{"timestamp_column": "timestamp_column", "resolution_min": "resolution_min"},
        **{"data_split": "data_split", "fewshot_percent": "fewshot_percent"},
        **{"dataloader_num_workers": "dataloader_num_workers"},
    },
    "training": {
        **{"batch_size": "batch_size", "learning_rate": "learning_rate"},
        **{"num_epochs": "num_epochs", "use_cpu": "use_cpu", "loss": "loss"},
        **{"dataloader_num_workers": "dataloader_num_workers", "resume_dir": "resume_dir"},
        **{"freeze_backbone": "freeze_backbone", "seed": "seed"},
    },
    "hardware": {
        **{"expected_gpu_type": _REMARK, "expected_memory_gb": _REMARK},
        **{"mixed_precision": "mixed_precision"},
    },
    "logging": {"debug_mode": "debug_mode", "log_level": "log_level"},
    "output": {
        **{"save_metrics": "save_metrics", "metrics_format": "metrics_format"},
        **{"save_checkpoints": "save_checkpoints", "save_best_model": "save_best_model"},
        **{"checkpoint_frequency": "checkpoint_frequency", "log_frequency": "log_frequency"},
    },
    "optimization": {
        **{"scheduler": "scheduler", "scheduler_params": "scheduler_params"},
        **{"optimizer": "optimizer", "optimizer_params": "optimizer_params"},
    },
    "evaluation": {
        **{"eval_frequency": "eval_frequency", "eval_batch_size": "eval_batch_size"},
        **{"metrics": "metrics"},
    },
}
_OPTIONS = {  # of the sections' nested keys
    "scheduler_params": ("gamma", "eta_min", "T_max"),
    "optimizer_params": ("weight_decay", "betas", "eps", "momentum"),
}
_METRICS = ("mse", "mae", "rmse")


@dataclasses.dataclass(frozen=True)
class TTMConfig:
    """What a fine-tuning script was told. Defaults are those of the scripts.

    Attributes:
      data_source_name: the data: a name in the data folder, a path, or ``embedded:NAME``.
      model_path: hub id, folder or run to start from; empty for fresh weights. The hub id of r2
        without a revision stands for the checkpoint that fits the lengths.
      context_length: steps that the model sees.
      forecast_length: steps to forecast.
      freeze_backbone: train decoder and head alone.
      loader_type: "cache": processed CSVs, one a patient; "legacy": the raw files.
      y_feature: target columns, glucose first.
      x_features: covariates.
      timestamp_column: column of the times.
      resolution_min: minutes between two rows; patients with another resolution are left out.
      data_split: shares of training and test part, or of training, validation and test part.
      fewshot_percent: share of the training part that is trained on, in percent.
      batch_size: windows of a step.
      learning_rate: the first, highest learning rate.
      num_epochs: passes over the training windows.
      use_cpu: run on the CPU even where there is an accelerator.
      loss: what is minimised.
      dataloader_num_workers: processes that assemble batches.
      resume_dir: run folder whose training is continued in a new one.
      seed: of everything random.
      mixed_precision: forward and backward pass in bfloat16.
      debug_mode: log every step.
      log_level: how often is logged: "debug" every step, "info" every percent of the run, higher
        ones every epoch.
      save_metrics: write TensorBoard files and plots; results.json is always written.
      metrics_format: "json", the only one.
      save_checkpoints: save between evaluations too.
      checkpoint_frequency: steps between such saves; None for none.
      save_best_model: True, since the best checkpoint is always kept.
      log_frequency: steps between log lines; None as `log_level` says.
      scheduler: course of the learning rate.
      scheduler_params: ``gamma`` of "exponential", a step; ``eta_min`` of "cosine".
      optimizer: "adamw" or "sgd".
      optimizer_params: ``weight_decay``, ``betas``, ``eps``, ``momentum``.
      eval_frequency: steps between evaluations; None for one an epoch.
      eval_batch_size: windows of a forward pass in evaluation.
      metrics: scores that are expected, of mse, mae, rmse; all are always computed.
      name: name of the experiment.
    """

    data_source_name: str
    model_path: str = "ibm-granite/granite-timeseries-ttm-r2"
    context_length: int = 512
    forecast_length: int = 96
    freeze_backbone: bool = True
    loader_type: Literal["cache", "legacy"] = "cache"
    y_feature: tuple[str, ...] = ("bg_mM",)
    x_features: tuple[str, ...] = ()
    timestamp_column: str = "datetime"
    resolution_min: int = 5
    data_split: tuple[float, ...] = (0.9, 0.1)
    fewshot_percent: float = 100.0
    batch_size: int = 128
    learning_rate: float = 1e-3
    num_epochs: int = 10
    use_cpu: bool = False
    loss: Literal["mse", "mae", "pinball", "huber"] = "mse"
    dataloader_num_workers: int = 2
    resume_dir: str = ""
    seed: int = 0
    mixed_precision: bool = False
    debug_mode: bool = False
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    save_metrics: bool = True
    metrics_format: Literal["json"] = "json"
    save_checkpoints: bool = True
    checkpoint_frequency: int | None = None
    save_best_model: bool = True
    log_frequency: int | None = None
    scheduler: Literal["exponential", "cosine", "linear", "constant"] = "exponential"
    scheduler_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    optimizer_params: dict[str, Any] = dataclasses.field(default_factory=dict)
    eval_frequency: int | None = None
    eval_batch_size: int = 256
    metrics: tuple[str, ...] = _METRICS
    name: str = "run"

    def __post_init__(self):
        for name in ("y_feature", "x_features", "metrics"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, (value,))
            elif isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    @classmethod
    def from_yaml(cls, path: str | Path) -> TTMConfig:
        """Read a YAML file; the experiment is called like the file unless it says otherwise.

        Raises:
          InputError: when the file cannot be read, or holds a key or a value that means nothing
            here; the sentence names it.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
        try:
            values = {"name": Path(path).stem, **dict(_fields(content))}
            return build(cls, values, "").checked()
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def checked(self) -> TTMConfig:
        """Return the config with every value of its type and in its range.

        Raises:
          InputError: naming the field that is not.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        checked = build(type(self), values, "")
        for name in ("context_length", "forecast_length", "resolution_min", "batch_size"):
            checked._at_least(name, 1)
        for name in ("num_epochs", "eval_batch_size", "eval_frequency", "log_frequency"):
            checked._at_least(name, 1)
        checked._at_least("checkpoint_frequency", 1)
        checked._at_least("dataloader_num_workers", 0)
        if not 0 < checked.fewshot_percent <= 100:
            raise InputError(
                f"fewshot_percent is {checked.fewshot_percent}, but must be above 0 and at most "
                "100; without training, python -m tsmjax.evaluate scores a checkpoint."
            )
        parts = checked.data_split
        if len(parts) not in (2, 3) or min(parts) <= 0 or sum(parts) > 1 + 1e-9:
            raise InputError(
                f"data_split is {list(parts)}, but must hold the shares of training and test part, "
                "or of training, validation and test part, each above 0 and at most 1 together."
            )
        if not checked.y_feature:
            raise InputError("y_feature is empty: name the column of glucose.")
        if not checked.save_best_model:
            raise InputError("save_best_model is false, but the best checkpoint is always kept.")
        for name, known in _OPTIONS.items():
            _all_known(getattr(checked, name), known, name)
        _all_known(checked.metrics, _METRICS, "metrics")
        return checked

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}.")


def _fields(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield field and value of every key that is set."""
    if not isinstance(content, Mapping):
        raise InputError(f"it must hold the sections {', '.join(KEYS)}.")
    hints, seen = typing.get_type_hints(TTMConfig), {}
    for section, values in content.items():
        if section not in KEYS:
            raise InputError(f"there is no section {section!r}{closest(str(section), KEYS)}.")
        if not isinstance(values, Mapping | None):
            raise InputError(f"the section {section} must hold keys with values.")
        for key, value in (values or {}).items():
            if key not in KEYS[section]:
                home = [name for name, keys in KEYS.items() if key in keys]
                hint = f"; it belongs to {home[0]}" if home else closest(str(key), KEYS[section])
                raise InputError(f"the key {section}.{key} means nothing here{hint}.")
            field = KEYS[section][key]
            if field is _REMARK or value is None:
                continue
            if hints[field] is float and isinstance(value, str):
                value = _number(value)  # YAML 1.1 takes 1e-3 as text
            if seen.setdefault(field, value) != value:
                raise InputError(f"{section}.{key} is {value!r}, and elsewhere {seen[field]!r}.")
            yield (
                field,
                (value,) if isinstance(value, str) and "tuple" in str(hints[field]) else value,
            )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _all_known(names: Any, known: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(
                f"{where} has {name!r}{closest(str(name), known)}; there are {', '.join(known)}."
            )
