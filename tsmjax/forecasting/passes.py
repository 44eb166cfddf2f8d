"""Forward passes on the device: forecasts of any horizon, and encoder states.

A horizon beyond what the model predicts in one pass is reached as in chronos-forecasting: quantile
paths of the last window are appended to the past, each path is forecast further on its own, and
the resulting quantiles of quantiles, weighted by the probability they stand for, become quantiles
again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax import compiler
from tsmjax.errors import InputError
from tsmjax.forecasting import packing, quantiles
from tsmjax.forecasting.inputs import Series, prepare
from tsmjax.forecasting.packing import Batch, bucket
from tsmjax.nn import functional
from tsmjax.pretrained import Pretrained

if TYPE_CHECKING:
    import pandas as pd

    from tsmjax.forecasting.frames import Columns

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Options(NamedTuple):
    """How to forecast; see `Forecaster.predict`.

    Attributes:
      batch_size: series in one pass.
      context_length: steps of the past to look at.
      max_output_patches: output patches of one pass.
      cross_learning: whether all tasks of a batch see each other.
      unrolled_quantiles: levels of the paths that carry a long horizon on; None for the deciles.
      targets: names of the targets; None when they have none.
      freq: frequency of the steps; None when nobody knows.
      after_batch: called after each batch.
    """

    batch_size: int
    context_length: int
    max_output_patches: int
    cross_learning: bool = False
    unrolled_quantiles: Sequence[float] | None = None
    targets: Sequence[str] | None = None
    freq: str | None = None
    after_batch: Callable[[], None] | None = None


class Passes:
    """The compiled functions of one model, and its parameters on the device.

    Attributes:
      config: the model's.
      params: nested dict of the parameters.
      artefacts: what must be kept beside them: nothing.
    """

    artefacts: dict[str, Any] | None = None

    def __init__(self, pretrained: Pretrained, device: jax.Device | None = None):
        """Place the parameters.

        Args:
          pretrained: task and model.
          device: where to run; None for JAX's default.
        """
        self.config = pretrained.model.config
        self._task, self._device = pretrained.task, device
        self._graph, params, stats = functional.split(pretrained.model)
        self.params, self._stats = jax.device_put((params, stats), device)
        self._start = compiler.jit(self._forward)
        self._extend = compiler.jit(self._one_window_more, static_argnames=("paths", "length"))
        self._encode = compiler.jit(self._encoder)

    def targets(self, asked: str | Sequence[str] | None) -> list[str]:
        """Return the columns to forecast."""
        return [asked or "target"] if isinstance(asked, str | None) else list(asked)

    def known(self, asked: Sequence[str]) -> list[str]:
        """Return the columns to treat as known ahead."""
        return list(asked)

    def select(
        self, df: pd.DataFrame, future_df: pd.DataFrame | None, columns: Columns
    ) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return the frames with the columns that the model looks at: all."""
        return df, future_df

    def forecast(self, inputs: Any, horizon: int, options: Options) -> list[np.ndarray]:
        """Forecast quantiles (targets, Q, horizon) of each task; see `Forecaster.predict`."""
        past, patches = options.context_length, options.max_output_patches
        paths = self._paths(options.unrolled_quantiles)
        series = prepare(inputs, horizon)
        found: list[np.ndarray] = [np.empty(0)] * len(series)
        if options.cross_learning:
            batches = packing.in_order(series, options.batch_size)
        else:
            batches = packing.deal(series, past, options.batch_size)
        span = max(self.windows(horizon, patches), horizon)
        for tasks in batches:
            batch = self._pack(series, tasks, past, span, options.cross_learning)
            forecast = self.predict(batch, horizon, patches, paths)
            for task, pack, slot in zip(tasks, batch.pack, batch.slot, strict=True):
                found[task] = forecast[pack, slot : slot + series[task].targets].copy()
            if options.after_batch:
                options.after_batch()
        return found

    def embed(
        self, inputs: Any, batch_size: int, past: int
    ) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
        """Return states, and (location, scale), of each task; see `Forecaster.embed`."""
        series = prepare(inputs, 0)
        states, loc_scales = [], []
        for tasks in packing.in_order(series, batch_size):
            batch = self._pack(series, tasks, past, 0, False)
            found, loc, scale = self.encode(batch)
            padding = batch.context.shape[-1] // self.config.output_patch_size - batch.longest
            for task, pack, slot in zip(tasks, batch.pack, batch.slot, strict=True):
                rows = slice(slot, slot + series[task].targets)
                states.append(found[pack, rows, padding:].copy())
                loc_scales.append((loc[pack, rows].copy(), scale[pack, rows].copy()))
        return states, loc_scales

    def predict(
        self, batch: Batch, horizon: int, patches: int, paths: Sequence[float]
    ) -> np.ndarray:
        """Forecast quantiles (P, S, Q, horizon) in the units of the series.

        Args:
          batch: the tasks; its `future` spans `windows(horizon, patches)` at least.
          horizon: steps to forecast.
          patches: most output patches of one pass.
          paths: levels of the quantile paths that carry a long horizon on.
        """
        patch = self.config.output_patch_size
        window = patches * patch
        future, group = (jax.device_put(x, self._device) for x in (batch.future, batch.group))
        context = jax.device_put(batch.context, self._device)
        first = self._ahead(horizon, patches)
        forecast = self._start(
            self.params, context, future[..., : first[0] * patch], group, first[1]
        )
        found = [forecast]
        if horizon > window:
            picks = tuple(quantiles.find(self.config.quantiles, level) for level in paths)
            # Paths lead: each is one more batch of the shape of the first.
            context = jnp.broadcast_to(context, (len(picks), *context.shape))
        for done in range(window, horizon, window):
            output, used = self._ahead(horizon - done, patches)
            longest = batch.longest + done // patch
            length = bucket(longest, math.ceil(self.config.context_length / patch)) * patch
            context, forecast = self._extend(
                self.params,
                context,
                forecast,
                future[..., done - window : done],
                future[..., done : done + output * patch],
                group,
                used,
                paths=picks,
                length=length,
            )
            found.append(forecast)
        return np.concatenate([np.asarray(part) for part in found], axis=-1)[..., :horizon]

    def encode(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return encoder states (P, S, tokens, D) with one future patch, and loc and scale."""
        arrays = (jax.device_put(x, self._device) for x in (batch.context, batch.group))
        states, (loc, scale) = self._encode(self.params, *arrays)
        return np.asarray(states.astype(jnp.float32)), np.asarray(loc), np.asarray(scale)

    def windows(self, horizon: int, patches: int) -> int:
        """Steps that the future covariates of a batch must span for `horizon`."""
        window = patches * self.config.output_patch_size
        done = (math.ceil(horizon / window) - 1) * window
        return done + self._ahead(horizon - done, patches)[0] * self.config.output_patch_size

    def _paths(self, asked: Sequence[float] | None) -> tuple[float, ...]:
        levels = self.config.quantiles
        if asked is None:
            return tuple(q for q in DECILES if quantiles.find(levels, q) is not None)
        for level in asked:
            if quantiles.find(levels, level) is None:
                raise InputError(
                    f"unrolled_quantiles holds {level}, which the model does not predict; it "
                    f"predicts {', '.join(map(str, levels))}."
                )
        return tuple(asked)

    def _pack(
        self, series: Sequence[Series], tasks: Sequence[int], past: int, span: int, together: bool
    ) -> Batch:
        return packing.build(
            series,
            tasks,
            context_length=past,
            patch=self.config.output_patch_size,
            horizon=span,
            together=together,
        )

    def _ahead(self, remaining: int, patches: int) -> tuple[int, int]:
        """Output patches of the next pass: compiled for, and used."""
        used = min(math.ceil(remaining / self.config.output_patch_size), patches)
        return bucket(used, patches), used

    def _model(self, params: functional.Tree) -> Any:
        return functional.merge(self._graph, params, self._stats)

    def _forward(
        self,
        params: functional.Tree,
        context: jax.Array,
        future: jax.Array,
        group: jax.Array,
        used: jax.Array,
    ) -> jax.Array:
        """Forecast (P, S, Q, H) for `used` output patches of the H steps that `future` spans."""
        batch = {
            "context": context,
            "future": future,
            "group": group,
            "patches": jnp.full(context.shape[0], used, jnp.int32),
        }
        return self._task.predict(self._model(params), batch)

    def _one_window_more(
        self,
        params: functional.Tree,
        context: jax.Array,
        forecast: jax.Array,
        known: jax.Array,
        future: jax.Array,
        group: jax.Array,
        used: jax.Array,
        *,
        paths: tuple[int, ...],
        length: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Append the last window to the past and forecast the next one.

        Args:
          params: parameters.
          context: (paths, P, S, C) past of each path.
          forecast: (P, S, Q, W) last window.
          known: (P, S, W) covariates known in the last window; they take the place of forecasts.
          future: (P, S, H) covariates known in the next window.
          group: (P, S) groups.
          used: output patches in use.
          paths: indices of the quantiles that become paths.
          length: steps of the past to keep, or to pad to.

        Returns:
          The past of each path (paths, P, S, length), and the forecast (P, S, Q, H).
        """
        steps = jnp.moveaxis(forecast[:, :, jnp.asarray(paths)], 2, 0)
        steps = jnp.where(jnp.isnan(known), steps, known)
        context = jnp.concatenate([context, steps], axis=-1)[..., -length:]
        missing = length - context.shape[-1]
        context = jnp.pad(context, ((0, 0),) * 3 + ((missing, 0),), constant_values=jnp.nan)
        # One path after the other: all at once would take as many times the memory.
        forward = functools.partial(self._forward, params)
        samples = jax.lax.map(lambda past: forward(past, future, group, used), context)
        levels = self.config.quantiles
        weights = np.outer(
            quantiles.masses([levels[index] for index in paths]), quantiles.masses(levels)
        )
        samples = jnp.moveaxis(samples, 0, 2)  # (P, S, paths, Q, H)
        samples = samples.reshape(*samples.shape[:2], -1, samples.shape[-1]).swapaxes(2, 3)
        merged = quantiles.of_samples(samples, weights.ravel(), levels)
        return context, merged.swapaxes(2, 3)

    def _encoder(
        self, params: functional.Tree, context: jax.Array, group: jax.Array
    ) -> tuple[jax.Array, Any]:
        return self._model(params).encode(context, None, group, output_patches=1)
