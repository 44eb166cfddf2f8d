"""`TTMTrainer` and `finetune_ttm`: the scripts' entry points, each ending in `tsmjax.train`."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from tsmjax import config as config_lib
from tsmjax import trainer
from tsmjax.errors import InputError, closest
from tsmjax.ttm_compat import translate
from tsmjax.ttm_compat.settings import TTMConfig


class TTMTrainer:
    """Fine-tunes TTM as a `TTMConfig` says.

    Attributes:
      config: what it was told.
      metrics: what `train` returned; empty before.
    """

    def __init__(
        self,
        config: TTMConfig,
        *,
        workdir: str | None = None,
        data_root: str | Path = "cache/data",
        announced: bool = False,
    ):
        """Keep the settings; data and weights are looked at when they are needed.

        Args:
          config: see `TTMConfig`.
          workdir: run folder, resumed when it holds a checkpoint; None for a new one.
          data_root: folder of the data sets.
          announced: covariates are known in the future too, see `translate.to_config`.
        """
        self.config, self.metrics = config, {}
        self._workdir = workdir
        self._translate = functools.partial(
            translate.to_config, config, data_root=data_root, announced=announced
        )

    def train(self) -> dict[str, Any]:
        """Train, and score the best checkpoint.

        Returns:
          Of the best checkpoint on the validation part ``eval_mse``, ``eval_rmse``, ``eval_mae``
          and ``eval_loss`` (the absolute error for the losses mae and pinball, else the squared
          one), in standardised units; the same of the test part as ``test_…``; ``run``, ``step``,
          ``best_step``, ``parameters``, ``trained_parameters``, ``train_runtime`` in seconds and
          ``stopped_early``.

        Raises:
          InputError: when a setting, the data or the checkpoint does not fit.
        """
        values = self._values
        if self.config.use_cpu and (backend := jax.default_backend()) != "cpu":
            raise InputError(
                f"use_cpu is true, but JAX runs on {backend} already: set JAX_PLATFORMS=cpu before "
                "the program starts."
            )
        outcome = trainer.train(values, self._workdir)
        self.metrics = {
            **self._scores("eval", outcome["best"]),
            **self._scores("test", outcome["test"]),
            "train_runtime": outcome["seconds"],
            **{
                name: outcome[name]
                for name in ("run", "step", "best_step", "parameters", "trained_parameters")
            },
            "stopped_early": outcome["stopped_early"],
        }
        return self.metrics

    def test_dataset(self) -> Sequence[dict[str, np.ndarray]]:
        """Return the windows of the test part: see `TestWindows`."""
        return TestWindows(config_lib.resolve(self._values))

    @functools.cached_property
    def forecaster(self) -> Any:
        """The best checkpoint as a `tsmjax.Forecaster`.

        Raises:
          InputError: before training.
        """
        from tsmjax import Forecaster

        if not self.metrics:
            raise InputError("There is nothing to forecast with yet: call train() first.")
        return Forecaster.from_pretrained(self.metrics["run"])

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        return self._translate()

    def _scores(self, part: str, scores: dict[str, float]) -> dict[str, float]:
        suite, _, deciding = self._values["evals"]["metric"].rpartition("/")
        found = {name: scores[f"{suite}/{name}"] for name in ("mse", "mae")} if scores else {}
        if not found:
            return {}
        named = {"loss": found[deciding], **found, "rmse": math.sqrt(found["mse"])}
        return {f"{part}_{name}": value for name, value in named.items()}


class TestWindows(Sequence):
    """Test windows by number, as granite-tsfm's data sets hold them.

    An item has ``past_values`` (T, C), ``past_observed_mask`` (T, C), ``future_values`` (F, C) and
    ``future_observed_mask`` (F, C), standardised, zero where nothing was observed.
    """

    __test__ = False  # to pytest

    def __init__(self, config: config_lib.Config):
        """List the windows of the test part of `config`'s data."""
        model = config.model
        self._table = config.build_task().table
        self._lengths = model.context_length, model.horizon
        self._windows = self._table.windows("test", model.horizon, model.context_length, 1)

    def __len__(self) -> int:
        return len(self._windows[0])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return the window `index`."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        items, cuts = (part[index : index + 1 or None] for part in self._windows)
        batch = self._table.read(items, cuts, *self._lengths)
        known = np.isfinite(batch["future"])
        future = np.where(known, batch["future"], batch["target"])
        found = {}
        for name, values in (("past", batch["context"]), ("future", future)):
            seen = np.isfinite(values[0].T)
            found[f"{name}_values"] = np.where(seen, values[0].T, 0.0).astype(np.float32)
            found[f"{name}_observed_mask"] = seen
        return found


def finetune_ttm(
    model_path: str,
    context_length: int,
    forecast_length: int,
    data_source_name: str,
    y_feature: str | Sequence[str],
    x_features: Sequence[str],
    timestamp_column: str,
    resolution_min: int,
    data_split: Sequence[float],
    fewshot_percent: float,
    batch_size: int,
    learning_rate: float,
    num_epochs: int,
    resume_dir: str | None = None,
    loss: str = "mse",
    use_cpu: bool = False,
    dataloader_num_workers: int = 2,
    *,
    returns: Literal["metrics", "trainer"] = "metrics",
    workdir: str | None = None,
    data_root: str | Path = "cache/data",
    **more: Any,
) -> dict[str, Any] | tuple[TTMTrainer, Sequence[dict[str, np.ndarray]]]:
    """Fine-tune TTM. Deprecated: use `TTMTrainer`.

    Args:
      model_path: this and the following as in `TTMConfig`.
      context_length: see there.
      forecast_length: see there.
      data_source_name: see there.
      y_feature: see there.
      x_features: see there.
      timestamp_column: see there.
      resolution_min: see there.
      data_split: see there.
      fewshot_percent: see there.
      batch_size: see there.
      learning_rate: see there.
      num_epochs: see there.
      resume_dir: see there.
      loss: see there.
      use_cpu: see there.
      dataloader_num_workers: see there.
      returns: "metrics": the dict of `TTMTrainer.train`, as later versions of the function did;
        "trainer": (trainer, test data set), as the first one did.
      workdir: see `TTMTrainer`.
      data_root: see `TTMTrainer`.
      **more: other fields of `TTMConfig`.

    Raises:
      InputError: when an argument, the data or the checkpoint does not fit.
    """
    warnings.warn(
        "finetune_ttm is deprecated: use TTMTrainer(TTMConfig(...)).train().",
        DeprecationWarning,
        stacklevel=2,
    )
    if returns not in ("metrics", "trainer"):
        raise InputError(f"returns is {returns!r}, but must be 'metrics' or 'trainer'.")
    known = {field.name for field in dataclasses.fields(TTMConfig)}
    if strange := sorted(set(more) - known):
        raise InputError(
            f"finetune_ttm has no argument {strange[0]!r}{closest(strange[0], known)}."
        )
    settings = TTMConfig(
        data_source_name,
        *(model_path, context_length, forecast_length),
        y_feature=y_feature,
        x_features=x_features,
        timestamp_column=timestamp_column,
        resolution_min=resolution_min,
        data_split=data_split,
        fewshot_percent=fewshot_percent,
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_epochs=num_epochs,
        resume_dir=resume_dir or "",
        loss=loss,
        use_cpu=use_cpu,
        dataloader_num_workers=dataloader_num_workers,
        **more,
    )
    wrapped = TTMTrainer(settings, workdir=workdir, data_root=data_root)
    metrics = wrapped.train()
    return metrics if returns == "metrics" else (wrapped, wrapped.test_dataset())
