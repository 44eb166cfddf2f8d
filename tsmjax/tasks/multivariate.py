"""Forecasting of tables: all channels of an item together, each with its role.

A batch holds B windows of C channels (see `tsmjax.data.table`):

    context (B, C, T)   NaN = missing         target (B, C, F)   NaN = no loss
    future  (B, C, F)   NaN = unknown

and, where the model asks for them, ``static`` (B, categories) and ``frequency`` (B,). Forecasts
have the layout of the task "forecast", (B, predicted channels, Q, F), so that evaluation and
inference are shared with it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import config as config_lib
from tsmjax.data import categories
from tsmjax.data.frequency import same_step
from tsmjax.data.table import DataConfig, Table, TableBatches
from tsmjax.errors import InputError
from tsmjax.evals.windows import WindowEvaluator
from tsmjax.nn.losses import point_loss, quantile_loss
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask

__all__ = ["Config", "DataConfig", "Task"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to minimise.

    A loss is the mean over observed labels, in the units of the (standardised) data, not in the
    model's normalised space. A model with quantiles minimises the mean pinball loss over them.

    Attributes:
      loss: of models without quantiles: squared, absolute, pinball or Huber error.
      quantile: level of "pinball".
      delta: error from which "huber" is linear.
      median: weight of the absolute error of the median beside the quantiles.
      width: weight of the distance between quantiles beside them.
      width_of: "outer": the outermost two quantiles; "pairs": the mean over all symmetric pairs.
      joint: weight of the sum of a decomposed model; its losses are in normalised space.
      trend: weight of its trend.
      residual: weight of its residual.
      slope: weight of the step-to-step changes of the trend, relative to `trend`.
      step_decay: step h ahead counts in proportion to h^−step_decay. Errors grow with h, squared
        ones of a random walk like h itself, so that without it the last steps are most of the loss.
        The weights of a horizon have mean 1; `slope` has none.
      random_scale: in training the forecast channels of each window are multiplied by a random
        factor, whose logarithm has this standard deviation: as if others had been measured, who
        vary more or less.
      random_shift: a random number with this standard deviation is then added to them, in the units
        of the (standardised) data. It tells nothing to a model that scales each window.
    """

    loss: Literal["mse", "mae", "pinball", "huber"] = "mse"
    quantile: float = 0.5
    delta: float = 1.0
    median: float = 0.0
    width: float = 0.0
    width_of: Literal["outer", "pairs"] = "outer"
    joint: float = 1.0
    trend: float = 1.0
    residual: float = 1.0
    slope: float = 0.1
    step_decay: float = 0.0
    random_scale: float = 0.0
    random_shift: float = 0.0

    def __post_init__(self):
        if not 0 < self.quantile < 1:
            raise InputError(f"task.quantile is {self.quantile}, but must be between 0 and 1.")
        if self.delta <= 0:
            raise InputError(f"task.delta is {self.delta}, but must be positive.")
        for name in ("step_decay", "random_scale", "random_shift"):
            if getattr(self, name) < 0:
                raise InputError(f"task.{name} is {getattr(self, name)}, but must be at least 0.")


class Task(BaseTask):
    """Forecasting with a model that sees all channels of a window."""

    def __init__(self, config: config_lib.Config):
        self.config = config
        self.family = config_lib.find_module("models", config.family)
        self.sharding, self.lora = self.family.SHARDING, self.family.LORA
        self.horizon = config.model.horizon
        weights = config.task
        self.coefficients = {"loss": 1.0}
        if config.model.decomposition.enabled:
            self.coefficients = {
                "joint": weights.joint,
                "trend": weights.trend,
                "residual": weights.residual,
                "slope": weights.trend * weights.slope,
            }

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters."""
        return Modules(self.family.Model(self.config.model, rngs=rngs))

    def batches(self, split: str, host: int, hosts: int) -> TableBatches:
        """Open the training part; `split` is "train", the only one that is sampled."""
        return TableBatches(
            self.table,
            self.config.data,
            context_length=self.config.model.context_length,
            horizon=self.horizon,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
            extra=self._extra,
        )

    def device(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        """Scale and shift the forecast channels of training windows at random."""
        config = self.config.task
        if not train or not (config.random_scale or config.random_shift):
            return batch
        windows, channels, _ = batch["context"].shape
        draw = jax.random.normal(key, (2, windows, 1, 1))
        moved = np.isin(np.arange(channels), self._predicted(channels))[:, None]
        scale = jnp.where(moved, jnp.exp(config.random_scale * draw[0]), 1.0)
        shift = jnp.where(moved, config.random_shift * draw[1], 0.0)
        return {**batch, **{n: scale * batch[n] + shift for n in ("context", "target")}}

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the observed labels, and the pairs of neighbouring ones."""
        seen = jnp.isfinite(self._target(batch))
        counts = dict.fromkeys(self.coefficients, seen.sum())
        if "slope" in counts:
            counts["slope"] = (seen[..., 1:] & seen[..., :-1]).sum()
        return {name: count.astype(jnp.float32) for name, count in counts.items()}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum the loss over windows, channels and steps."""
        model, target = modules.model, self._target(batch)
        parts, loc_scale = model.parts(
            batch["context"], batch["future"], **_given(batch), key=key if train else None
        )
        if "loss" in self.coefficients:
            forecast = model.unscale(parts["joint"], loc_scale)
            return {"loss": self._losses(forecast, target).sum()}
        targets = model.targets(batch["context"], target, loc_scale)
        terms = {name: self._losses(parts[name], targets[name]).sum() for name in targets}
        trend = parts["trend"][:, :, parts["trend"].shape[2] // 2]
        # With quantiles the trend's changes are compared in absolute value, as their median is.
        kind = "mae" if self.config.model.quantile_head.levels else self.config.task.loss
        error = jnp.diff(targets["trend"], axis=-1) - jnp.diff(trend, axis=-1)
        return {**terms, "slope": self._point(error, kind).sum()}

    def predict(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Forecast (B, predicted channels, Q, F) in the units of the batch, float32."""
        predictions, loc_scale = model(batch["context"], batch["future"], **_given(batch))
        return model.unscale(predictions, loc_scale)

    def flops(self, batch: Batch) -> float:
        """Count the matmuls of one forward pass over all channels of `batch`."""
        windows, channels, _ = batch["context"].shape
        return self.family.flops(self.config.model, windows * channels)

    def tokens(self, batch: Batch) -> float:
        """Count the patches of all channels."""
        windows, channels, _ = batch["context"].shape
        return float(windows * channels * self.config.model.num_patches)

    def evaluators(self, split: str) -> Sequence[Any]:
        """Rolling windows of the validation or test part, named like the data set."""
        data, model, evals = self.config.data, self.config.model, self.config.evals
        if evals.suites:
            raise InputError(
                f"The config field evals.suites is {list(evals.suites)}, but this task evaluates "
                "the later parts of data.path: set it to ()."
            )
        if split == "test" and not (data.split[2] or data.held_out):
            return ()
        return [
            WindowEvaluator(
                Path(data.path.partition("?")[0].rpartition(":")[2]).stem,
                self.table,
                split,
                quantiles=model.quantiles,
                channels=self._predicted(self.table.channels),
                context_length=model.context_length,
                horizon=self.horizon,
                min_past=model.context_length if data.min_past is None else data.min_past,
                stride=data.eval_stride,
                batch_size=evals.batch_size,
                extra=self._extra,
            )
        ]

    def artefacts(self) -> dict[str, Any]:
        """Quantile levels, channels with mean and deviation, static categories with values."""
        found = {
            "quantiles": list(self.config.model.quantiles),
            "names": self.table.names,
            "mean": self.table.mean.tolist(),
            "deviation": self.table.deviation.tolist(),
        }
        if self.config.model.categories:
            _, known = self._categories
            found["categories"] = [{"name": one.name, "values": one.values} for one in known]
        return found

    @functools.cached_property
    def table(self) -> Table:
        """The data set, opened when it is first needed.

        Raises:
          InputError: when it cannot be read, or its channels are not those of the model.
        """
        table, model = Table(self.config.data), self.config.model
        roles = f"{table.path} has {table.targets} targets among {table.channels} channels"
        if model.mixes_channels and model.num_input_channels != table.channels:
            raise InputError(
                f"{roles}, and a model that mixes channels must know their number: set "
                f"model.num_input_channels={table.channels}."
            )
        if self._predicted(table.channels) != list(range(table.targets)):
            raise InputError(
                f"{roles}, which come first, but the model forecasts others: set "
                f"model.num_input_channels={table.channels} and model.prediction_channels="
                f"{tuple(range(table.targets))}."
            )
        ahead = range(table.channels - table.known, table.channels)
        if not set(model.known_channels) <= set(ahead):
            raise InputError(
                f"The model expects the channels {list(model.known_channels)} to be known ahead "
                f"(model.known_channels), but in {table.path} these are {list(ahead)}."
            )
        return table

    @functools.cached_property
    def _extra(self) -> dict[str, np.ndarray]:
        """What a batch holds of each item beside its values, a row an item."""
        model, table, extra = self.config.model, self.table, {}
        if model.categories:
            extra["static"], _ = self._categories
        if model.frequency_vocabulary:
            known = self.family.FREQUENCIES
            steps = [table.metadata(item).get("freq") for item in range(len(table))]
            names = [same_step(freq, known) if freq else None for freq in steps]
            tokens = np.asarray([known.get(name, 0) for name in names], np.int32)
            extra["frequency"] = np.where(tokens < model.frequency_vocabulary, tokens, 0)
        return extra

    @functools.cached_property
    def _categories(self) -> tuple[np.ndarray, list[categories.Category]]:
        """Numbers (items, categories) of the static categories, and what they stand for."""
        table = self.table
        items = [table.metadata(item) for item in range(len(table))]
        return categories.of_items(
            items, self.config.model.categories, table.category_names, table.path
        )

    def _predicted(self, channels: int) -> list[int]:
        """Positions of the channels that the model forecasts, of as many as there are."""
        predicted = self.config.model.predicted
        return list(range(channels) if predicted is None else predicted)

    def _target(self, batch: Batch) -> jax.Array:
        """Labels (B, predicted channels, F), NaN where there is no loss."""
        target = batch["target"]
        target = target[:, np.asarray(self._predicted(target.shape[1])), : self.horizon]
        return jnp.where(jnp.isfinite(target), target, jnp.nan)

    def _losses(self, forecast: jax.Array, target: jax.Array) -> jax.Array:
        """Loss of each label (B, Cp, F), 0 where it is missing; `forecast` is (B, Cp, Q, F)."""
        config, levels = self.config.task, self.config.model.quantile_head.levels
        seen = jnp.isfinite(target)
        middle = forecast.shape[2] // 2
        error = target - forecast[:, :, middle]
        weight = np.arange(1, target.shape[-1] + 1) ** -config.step_decay
        weight = (weight / weight.mean()).astype(np.float32)
        if not levels:
            return weight * self._point(error, config.loss)
        losses = 0.5 * quantile_loss(forecast, target, seen, levels).mean(axis=2)
        pairs = forecast[:, :, :middle:-1] - forecast[:, :, :middle]
        width = pairs[:, :, 0] if config.width_of == "outer" else pairs.mean(axis=2)
        losses = losses + config.median * self._point(error, "mae")
        return weight * (losses + jnp.where(seen, config.width * width, 0.0))

    def _point(self, error: jax.Array, kind: str) -> jax.Array:
        """Loss of each error, 0 where it is NaN."""
        config, seen = self.config.task, jnp.isfinite(error)
        losses = point_loss(
            jnp.where(seen, error, 0.0), kind, quantile=config.quantile, delta=config.delta
        )
        return jnp.where(seen, losses, 0.0)


def _given(batch: Batch) -> dict[str, jax.Array]:
    """What the model is told beside the values."""
    return {name: batch[name] for name in ("static", "frequency") if name in batch}
