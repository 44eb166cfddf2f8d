"""Probabilistic forecasting by quantile regression on packed groups of series.

A batch holds P packs of S slots. Whole groups (targets and covariates of one task) share a pack and
nothing attends across packs:

    context (P, S, C)   NaN = missing          target (P, S, H)   NaN = no loss
    future  (P, S, H)   NaN = unknown          group  (P, S)      −1 = empty slot
    patches (P,)        output patches in use; later steps are masked
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import config as config_lib
from tsmjax.data.packing import DataConfig, ForecastBatches
from tsmjax.data.synthetic.mixing import mixed
from tsmjax.errors import InputError
from tsmjax.evals import suites
from tsmjax.evals.loss import LossEvaluator
from tsmjax.nn.instance_norm import drop_infinite, statistics
from tsmjax.nn.losses import quantile_loss
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask

__all__ = ["Config", "DataConfig", "Task"]

_LEAST_PAIRS = 8  # of values one lag apart, for an error that means something


@dataclasses.dataclass(frozen=True)
class Config:
    """What to minimise.

    Attributes:
      reduction: "padded" divides by rows × padded horizon, masked steps included, as the Chronos-2
        reference does; "observed" divides by the steps that count. Both are logged.
      seasons: periods in steps; where there are any, each row counts by how well its past repeats
        itself (`easiness`), as scores relative to seasonal naive do: otherwise series with much
        noise make nearly all of the loss. Empty for rows that count alike.
      missing: largest share of its context that a row loses in training: each row draws its share
        evenly from 0 … missing, and loses as many steps at random (Chronos, 2024, does so with
        0.2). Targets and known covariates stay.
      flip: share of the tasks whose values are negated in training.
      flip_invariant: forecast a task and its negation, and return the mean of the one and the
        negated other, at twice the cost and memory: then the negated task has the negated forecast
        (the `force_flip_invariance` of TimesFM 2.5). Run folders and exported programs keep it,
        Hugging Face folders do not.
      mixup: share of the rows that become convex sums of up to three rows of their batch in
        training (TSMixup; Chronos, 2024); only in batches of one slot a pack, where every row is a
        task of its own.
    """

    reduction: Literal["padded", "observed"] = "padded"
    seasons: tuple[int, ...] = ()
    missing: float = 0.0
    flip: float = 0.0
    flip_invariant: bool = False
    mixup: float = 0.0

    def __post_init__(self):
        """Check the ranges that no type can."""
        for name in ("missing", "flip", "mixup"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"task.{name} is {getattr(self, name)}, but must be in [0, 1).")
        if self.seasons and self.reduction != "observed":
            raise InputError('task.seasons needs task.reduction="observed".')
        if min(self.seasons, default=1) < 1:
            raise InputError(f"task.seasons is {list(self.seasons)}, but must be whole periods.")


class Task(BaseTask):
    """Quantile forecasting with a model that predicts in its normalised space."""

    def __init__(self, config: config_lib.Config):
        self.config = config
        self.family = config_lib.find_module("models", config.family)
        self.sharding, self.lora = self.family.SHARDING, self.family.LORA
        padded = config.task.reduction == "padded"
        self.coefficients = {"loss_padded": float(padded), "loss_observed": float(not padded)}
        levels = np.asarray(config.model.quantiles)
        if config.task.flip_invariant and not np.allclose(levels + levels[::-1], 1):
            raise InputError(
                "task.flip_invariant needs quantiles that lie symmetrically about the median, but "
                f"model.quantiles is {list(config.model.quantiles)}."
            )
        self.patch = config.model.output_patch_size
        longest = config.model.max_output_patches * self.patch
        self.prediction_length = config.data.prediction_length or longest
        if self.prediction_length > longest:
            raise InputError(
                f"The config field data.prediction_length is {self.prediction_length}, but the "
                f"model forecasts {longest} steps at most: raise model.max_output_patches."
            )
        self.output_patches = -(-self.prediction_length // self.patch)
        self.horizon = self.output_patches * self.patch

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters."""
        return Modules(self.family.Model(self.config.model, rngs=rngs))

    def batches(self, split: str, host: int, hosts: int) -> ForecastBatches:
        """Open the training sources; `split` is "train", the only one that is sampled."""
        model = self.config.model
        return ForecastBatches(
            self.config.data,
            context_length=model.context_length,
            prediction_length=self.prediction_length,
            patch=self.patch,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
        )

    def device(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        """Augment: mix rows, lose steps of the contexts and negate tasks, as the config says."""
        missing, flip = self.config.task.missing, self.config.task.flip
        if train and self.config.task.mixup and batch["context"].shape[1] == 1:
            mix_key, key = jax.random.split(key)
            rows = batch["context"][:, 0], batch["target"][:, 0]
            context, target = mixed(mix_key, *rows, self.config.task.mixup)
            batch = {**batch, "context": context[:, None], "target": target[:, None]}
        if not train or not (missing or flip):
            return batch
        share_key, step_key, flip_key = jax.random.split(key, 3)
        context, group = batch["context"], batch["group"]
        share = missing * jax.random.uniform(share_key, (*context.shape[:2], 1))
        lost = jax.random.uniform(step_key, context.shape) < share
        # One draw for each task: all rows of a group share the sign of its number.
        signs = 1.0 - 2.0 * jax.random.bernoulli(flip_key, flip, group.shape)
        sign = jnp.take_along_axis(signs, jnp.maximum(group, 0), axis=1)[..., None]
        return {
            **batch,
            "context": jnp.where(lost, jnp.nan, sign * context),
            "target": sign * batch["target"],
            "future": sign * batch["future"],
        }

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Count rows × padded steps, and steps that are observed."""
        rows = (batch["group"] >= 0).sum(axis=1)
        return {
            "loss_padded": (rows * batch["patches"] * self.patch).sum().astype(jnp.float32),
            "loss_observed": (self._counts(batch) * self._row_weights(batch)).sum(),
        }

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum the quantile loss over rows, steps and quantiles (Chronos-2 report, section 3)."""
        model = modules.model
        predictions, loc_scale = model(
            batch["context"],
            batch["future"],
            batch["group"],
            batch["patches"],
            output_patches=self.output_patches,
            key=key if train else None,
        )
        counts = self._counts(batch)
        target = model.normalise(jnp.where(counts, batch["target"], 0.0), loc_scale)
        losses = quantile_loss(predictions, target, counts, self.config.model.quantiles)
        rows = losses.sum(axis=(2, 3), keepdims=True)[..., 0]
        return {
            "loss_padded": rows.sum(),
            "loss_observed": (rows * self._row_weights(batch)).sum(),
        }

    def predict(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Forecast quantiles (P, S, Q, H) in the units of the series, float32."""
        if not self.config.task.flip_invariant:
            return self._quantiles(model, batch)
        signs = {"context": -1, "future": -1, "group": 1, "patches": 1}
        # A pack and its negation are neighbours, so that no row leaves its device.
        both = {
            name: jnp.stack([batch[name], sign * batch[name]], 1).reshape(
                -1, *batch[name].shape[1:]
            )
            for name, sign in signs.items()
        }
        pairs = self._quantiles(model, both)
        pairs = pairs.reshape(-1, 2, *pairs.shape[1:])
        return flip_mean(pairs[:, 0], pairs[:, 1])

    def _quantiles(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Forecast each row as it is."""
        predictions, loc_scale = model(
            batch["context"],
            batch["future"],
            batch["group"],
            batch["patches"],
            output_patches=batch["future"].shape[-1] // self.patch,
        )
        return model.unscale(predictions, loc_scale)

    def flops(self, batch: Batch) -> float:
        """Count the FLOPs of one forward pass over `batch`, empty slots included."""
        packs, slots, context = batch["context"].shape
        return self.family.flops(self.config.model, packs * slots, context, self.horizon)

    def tokens(self, batch: Batch) -> float:
        """Count the patches of context and horizon, empty slots included."""
        packs, slots, context = batch["context"].shape
        context_patches = -(-context // self.config.model.patch_size)
        return float(packs * slots * (context_patches + self.output_patches))

    def evaluators(self, split: str) -> Sequence[Any]:
        """One evaluator for each suite of the config, and the loss on `data.validation`."""
        model, data, evals = self.config.model, self.config.data, self.config.evals
        found: list[Any] = []
        if data.validation and split == "validation":
            found.append(
                LossEvaluator(
                    "validation",
                    data.validation,
                    quantiles=model.quantiles,
                    context_length=data.context_length or model.context_length,
                    horizon=self.prediction_length,
                    patch=self.patch,
                    batch_size=evals.batch_size,
                    arcsinh=model.use_arcsinh,
                )
            )
        found += [
            suites.suite(
                name,
                split,
                quantiles=model.quantiles,
                context_length=model.context_length,
                max_horizon=model.max_output_patches * self.patch,
                patch=self.patch,
                batch_size=evals.batch_size,
                horizon=evals.horizon,
                season_length=evals.season_length,
                data=evals.data,
                grouped=evals.grouped,
            )
            for name in evals.suites
        ]
        return found

    def artefacts(self) -> dict[str, Any]:
        """Quantile levels, in the order of the model's output."""
        return {"quantiles": list(self.config.model.quantiles)}

    def _row_weights(self, batch: Batch) -> jax.Array:
        """(P, S, 1) float32: what each row counts for in the observed loss."""
        seasons = self.config.task.seasons
        if not seasons:
            return jnp.ones((*batch["group"].shape, 1), jnp.float32)
        return easiness(batch["context"], seasons, self.horizon // 2)

    def _counts(self, batch: Batch) -> jax.Array:
        """(P, S, H) bool: steps of the drawn horizon that are observed and not known ahead."""
        drawn = jnp.arange(self.horizon) < batch["patches"][:, None, None] * self.patch
        return drawn & jnp.isfinite(batch["target"]) & ~jnp.isfinite(batch["future"])


def flip_mean(plain: jax.Array, negated: jax.Array) -> jax.Array:
    """Return the mean of the quantiles of series and the negated quantiles of their negation.

    Args:
      plain: (…, Q, H), at levels that lie symmetrically about the median.
      negated: (…, Q, H), forecasts of the negated series.
    """
    return (plain - negated[..., ::-1, :]) / 2


def easiness(context: jax.Array, seasons: Sequence[int], reach: int) -> jax.Array:
    """One over the error of the best seasonal repetition of the past, in deviations, plus a tenth.

    A season repeats with the least multiple of its period that reaches `reach` steps back. A row
    that is too short to tell counts nearly like noise.

    Args:
      context: (…, C), NaN = missing.
      seasons: periods in steps.
      reach: how far ahead the repetition forecasts, in steps.

    Returns:
      (…, 1) float32, from about 0.8 (nothing repeats) to 10 (everything does).
    """
    x = drop_infinite(context)
    errors = []
    for season in seasons:
        lag = -(-reach // season) * season
        if lag >= x.shape[-1]:
            continue
        apart = jnp.abs(x[..., lag:] - x[..., :-lag])
        seen = jnp.isfinite(apart)
        count = seen.sum(axis=-1, keepdims=True)
        mean = jnp.where(seen, apart, 0.0).sum(axis=-1, keepdims=True) / jnp.maximum(count, 1)
        errors.append(jnp.where(count >= _LEAST_PAIRS, mean, jnp.inf))
    _, scale = statistics(x)
    error = jnp.min(jnp.stack([*errors, jnp.full_like(scale, jnp.inf)]), axis=0) / scale
    return 1.0 / (0.1 + jnp.where(jnp.isfinite(error), error, 1.0))
