"""`Forecaster`: forecasts from Python, call for call like chronos-forecasting's pipeline."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax import pretrained, weights
from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.forecasting import frames, passes, quantiles, tables
from tsmjax.forecasting.inputs import Series, prepare
from tsmjax.forecasting.passes import DECILES, Options
from tsmjax.nn.functional import cast, merge, split

if TYPE_CHECKING:
    import pandas as pd

_PASSES = {"forecast": passes.Passes, "multivariate": tables.Passes}  # task kind → how it runs


class Forecaster:
    """A trained model that forecasts arrays, dicts with covariates, and data frames.

    Inputs, in all methods that take `inputs`:

    * an array (tasks, variates, length);
    * a list of arrays (length,) or (variates, length), of any lengths;
    * a list of dicts with `target`, one such array, and optionally `past_covariates` and
      `future_covariates`, both name → array (numbers, texts or booleans). Covariates that are
      known ahead are in both, with `length` and `prediction_length` values.

    torch tensors do as well as arrays. NaN is missing. Variates and covariates of one task see each
    other; different tasks do not, whatever the batch, unless `cross_learning` asks for it.

    Models of tables (TTM) take covariates by the names they were trained with, as numbers or
    booleans, and bring values to the scale of their training data and back; those that do not mix
    channels take none, and forecast each target by itself.

    Results are float32 NumPy arrays.

    Attributes:
      config: resolved config values that the model was trained with.
    """

    def __init__(self, loaded: pretrained.Pretrained, device: jax.Device | None = None):
        """Wrap a loaded model; `from_pretrained` is the usual way in.

        Raises:
          InputError: when the model does not forecast.
        """
        kind = loaded.config["task"]["kind"]
        if kind not in _PASSES:
            raise InputError(
                f"This checkpoint was trained for the task {kind!r}, and a Forecaster needs one "
                f"of {', '.join(map(repr, _PASSES))}."
            )
        self.config = loaded.config
        self._loaded, self._device = loaded, device
        self._passes = _PASSES[kind](loaded, device)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device_map: str | None = None,
        dtype: Any = "float32",
        torch_dtype: Any = None,
    ) -> Forecaster:
        """Load a model.

        Args:
          path: run folder (``@best``, ``@final``, ``@latest`` or ``@STEP`` may follow), Hugging
            Face folder, LoRA adapter folder, or hub id such as "amazon/chronos-2".
          device_map: "cpu", "cuda" or "gpu", "tpu", with a number behind a colon for one of
            several; "auto" or None for JAX's default device.
          dtype: "float32", or "bfloat16" for half the memory; torch's types do as well.
          torch_dtype: older name of `dtype`.

        Raises:
          InputError: when there is no such checkpoint, device or type.
        """
        device = _device(device_map)
        name = str(dtype if torch_dtype is None else torch_dtype).rpartition(".")[2]
        if name not in ("float32", "bfloat16", "auto"):
            raise InputError(f"dtype is {name!r}, but must be 'float32' or 'bfloat16'.")
        loaded = pretrained.from_pretrained(str(path))
        if name == "bfloat16":
            graph, params, stats = split(loaded.model)
            model = merge(graph, cast(params, jnp.bfloat16), stats)
            loaded = dataclasses.replace(loaded, model=model)
        return cls(loaded, device)

    @property
    def quantiles(self) -> list[float]:
        """Quantile levels that the model predicts, ascending."""
        return list(self._passes.config.quantiles)

    @property
    def model_context_length(self) -> int:
        """Most steps of the past that the model sees."""
        return self._passes.config.context_length

    @property
    def model_output_patch_size(self) -> int:
        """Steps of an output patch."""
        return self._passes.config.output_patch_size

    @property
    def max_output_patches(self) -> int:
        """Most output patches of one pass."""
        return self._passes.config.max_output_patches

    @property
    def model_prediction_length(self) -> int:
        """Longest horizon of one pass, in steps."""
        return self.max_output_patches * self.model_output_patch_size

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        limit_prediction_length: bool = False,
        *,
        max_output_patches: int | None = None,
        unrolled_quantiles: Sequence[float] | None = None,
        targets: Sequence[str] | None = None,
        freq: str | None = None,
        after_batch: Callable[[], None] | None = None,
    ) -> list[np.ndarray]:
        """Forecast the quantiles that the model was trained for.

        Args:
          inputs: see the class.
          prediction_length: steps to forecast; None for the longest of one pass. Longer horizons
            are reached in several passes, and grow worse.
          batch_size: series in one pass, covariates included.
          context_length: steps of the past to look at; None for all that the model takes.
          cross_learning: let all tasks of a batch see each other. Results then depend on
            `batch_size`, for which the Chronos-2 report used 100.
          limit_prediction_length: refuse horizons that need several passes.
          max_output_patches: output patches of one pass; None for the model's.
          unrolled_quantiles: levels whose paths carry a long horizon on; None for the deciles.
          targets: names of the targets, for models that keep a scale for each; None for the
            model's own names when there are as many.
          freq: frequency of the steps, for models that were told in training; None is any.
          after_batch: called after each batch.

        Returns:
          For each task, quantiles (targets, levels, prediction_length).

        Raises:
          InputError: when an argument or an input is wrong.
        """
        horizon = self._horizon(prediction_length, limit_prediction_length)
        _at_least_one("batch_size", batch_size)
        patches = max_output_patches or self.max_output_patches
        _at_least_one("max_output_patches", patches)
        past = self._context(context_length)
        options = Options(
            *(batch_size, past, patches, cross_learning, unrolled_quantiles),
            *(targets, freq, after_batch),
        )
        return self._passes.forecast(inputs, horizon, options)

    def predict_quantiles(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = DECILES,
        **options: Any,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Forecast quantiles at any levels, and the median.

        Args:
          inputs: see the class.
          prediction_length: steps to forecast.
          quantile_levels: levels to report; between those of the model they are interpolated, and
            beyond them they are the nearest, with a warning.
          **options: the other arguments of `predict`.

        Returns:
          For each task, quantiles (targets, prediction_length, levels); and for each task, the
          median (targets, prediction_length), which stands for the mean as in chronos-forecasting.

        Raises:
          InputError: when an argument or an input is wrong.
        """
        quantiles.check(quantile_levels, self.quantiles)
        forecasts = self.predict(inputs, prediction_length, **options)
        return self._at_levels(forecasts, quantile_levels)

    def predict_df(
        self,
        df: pd.DataFrame,
        future_df: pd.DataFrame | None = None,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str | list[str] | None = None,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = DECILES,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        validate_inputs: bool = True,
        freq: str | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Forecast the series of a long data frame.

        Args:
          df: one row for each series and time. Columns that are not named here are covariates.
          future_df: the next `prediction_length` rows of each series, without targets; its columns
            are the covariates known ahead.
          id_column: column that names the series.
          timestamp_column: column with the time, at regular steps.
          target: column or columns to forecast; None for the targets that the model was trained
            with, or "target" when it does not depend on names.
          prediction_length: steps to forecast; None for the longest of one pass.
          quantile_levels: see `predict_quantiles`.
          batch_size: see `predict`.
          context_length: see `predict`.
          cross_learning: see `predict`.
          validate_inputs: check and sort the frames; without it they must be sorted and complete.
          freq: pandas frequency of the steps, taken as it is; None infers it.
          **options: the other arguments of `predict`.

        Returns:
          A frame with the columns id, timestamp, ``target_name``, ``predictions`` (the median) and
          one for each level, sorted by series as they first appear, target and time.

        Raises:
          InputError: when a frame or an argument is wrong.
        """
        targets = self._passes.targets(target)
        columns = frames.Columns(id_column, timestamp_column, targets)
        horizon = self._horizon(prediction_length)
        quantiles.check(quantile_levels, self.quantiles)
        df, future_df = self._passes.select(df, future_df, columns)
        if validate_inputs:
            df, future_df = frames.check(df, future_df, columns, horizon)
        freq = freq or frames.frequency(df, columns)
        index = frames.future_index(df, columns, horizon, freq)
        if validate_inputs and future_df is not None:
            frames.check_times(future_df, index, columns)
        found, median = self.predict_quantiles(
            frames.tasks(df, future_df, columns, horizon),
            horizon,
            quantile_levels,
            batch_size=batch_size,
            context_length=context_length,
            cross_learning=cross_learning,
            targets=targets,
            freq=freq,
            **options,
        )
        return frames.result(index, targets, median, found, quantile_levels)

    def backtest(
        self,
        df: pd.DataFrame,
        prediction_length: int | None = None,
        windows: int = 1,
        stride: int | None = None,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str | list[str] | None = None,
        known_covariates: Sequence[str] = (),
        quantile_levels: Sequence[float] = DECILES,
        season_length: int | None = None,
        freq: str | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Forecast the last windows of each series from what lies before them (rolling origin).

        The model is used as it is; it is not fitted again. A series too short for all windows has
        fewer.

        Args:
          df: see `predict_df`.
          prediction_length: steps to forecast; None for the longest of one pass.
          windows: forecasts of each series; the last one ends with the series.
          stride: steps between two of them; None for `prediction_length`, so that they touch.
          id_column: see `predict_df`.
          timestamp_column: see `predict_df`.
          target: see `predict_df`.
          known_covariates: columns whose values in the window the model may see; models of tables
            know theirs.
          quantile_levels: see `predict_quantiles`.
          season_length: steps of one season, for the scale of MASE; None by the frequency.
          freq: pandas frequency of the steps, taken as it is; None infers it.
          batch_size: see `predict`.
          context_length: see `predict`.
          **options: the other arguments of `predict`; not `cross_learning`, with which windows
            would see what follows them.

        Returns:
          A frame with a row for each series, cutoff, target and step: id, ``cutoff`` (the last time
          that the forecast knows), timestamp, ``step`` (from 1), ``target_name``, ``target`` (what
          happened), ``predictions`` (the median), ``seasonal_error`` (scale of MASE, of the past
          before the cutoff), and one column for each level.
          `tsmjax.forecasting.backtest.scores` scores it.

        Raises:
          InputError: when the frame or an argument is wrong, or all series are too short.
        """
        from tsmjax.forecasting import backtest

        targets = self._passes.targets(target)
        columns = frames.Columns(id_column, timestamp_column, targets)
        horizon = self._horizon(prediction_length)
        stride = horizon if stride is None else stride
        season = 1 if season_length is None else season_length
        for name, value in (("windows", windows), ("stride", stride), ("season_length", season)):
            _at_least_one(name, value)
        if options.pop("cross_learning", False):
            raise InputError(
                "cross_learning in a backtest would show windows what follows them: leave it out."
            )
        quantiles.check(quantile_levels, self.quantiles)
        known = self._passes.known(known_covariates)
        frames.require(df, known, "The data frame")
        df, _ = self._passes.select(df, df, columns)
        df, _ = frames.check(df, None, columns, horizon)
        freq = freq or frames.frequency(df, columns)
        plan = backtest.Plan(
            horizon=horizon,
            windows=windows,
            stride=stride,
            context_length=self._context(context_length),
            known=known,
            levels=quantile_levels,
            season=metrics.season_length(freq) if season_length is None else season_length,
        )
        options = {"batch_size": batch_size, "targets": targets, "freq": freq, **options}

        def forecast(tasks: Sequence[Series]) -> tuple[list[np.ndarray], list[np.ndarray]]:
            found = self.predict(tasks, horizon, context_length=plan.context_length, **options)
            return self._at_levels(found, quantile_levels)

        return backtest.run(df, columns, plan, forecast)

    def predict_fev(
        self,
        task: Any,
        batch_size: int = 256,
        as_univariate: bool = False,
        finetune_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> tuple[list[Any], float]:
        """Forecast all windows of a task of the `fev` benchmark library.

        Args:
          task: a ``fev.Task``.
          batch_size: series in one pass, covariates included.
          as_univariate: forecast each target by itself, without covariates.
          finetune_kwargs: arguments of `fit`; given, a copy of the model is first fitted to the
            past of the first window.
          **options: the other arguments of `predict_df`.

        Returns:
          The predictions of each window, and the seconds spent on forecasting.

        Raises:
          InputError: when fev is not installed.
        """
        from tsmjax.forecasting import fev

        return fev.predict(self, task, batch_size, as_univariate, finetune_kwargs, options)

    def embed(
        self, inputs: Any, batch_size: int = 256, context_length: int | None = None
    ) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
        """Return the encoder's states of each task.

        Args:
          inputs: see the class; covariates only from the past.
          batch_size: series in one pass. As in chronos-forecasting, the states of a batch have as
            many tokens as its longest series has patches; a shorter series has states of padding
            first, which mean nothing.
          context_length: steps of the past to look at; None for all that the model takes.

        Returns:
          For each task, states (targets, N + 2, D): N context patches, oldest first, the REG token
          (N + 1 for models without it) and one masked future patch; and for each task its
          (location, scale), each (targets, 1).

        Raises:
          InputError: when an argument or an input is wrong.
        """
        _at_least_one("batch_size", batch_size)
        return self._passes.embed(inputs, batch_size, self._context(context_length))

    def fit(
        self,
        inputs: Any,
        prediction_length: int,
        validation_inputs: Any = None,
        finetune_mode: Literal["full", "lora"] = "full",
        lora_config: Any = None,
        context_length: int | None = None,
        learning_rate: float = 1e-6,
        num_steps: int = 1000,
        batch_size: int = 256,
        output_dir: str | Path | None = None,
        min_past: int | None = None,
        *,
        seed: int = 0,
    ) -> Forecaster:
        """Fine-tune a copy of the model and return it; this one stays as it is.

        Each step draws tasks uniformly, each with a random cut; AdamW without weight decay, the
        learning rate falls linearly to zero.

        Args:
          inputs: see the class. Covariates named in `future_covariates` are trained as known
            ahead; their future values are not used and may be None.
          prediction_length: horizon to train for, in steps.
          validation_inputs: like `inputs`; the loss on the last window of each is measured every
            100 steps, and the best model is returned.
          finetune_mode: "full" trains all parameters; "lora" trains low-rank adapters, which are
            merged into the result.
          lora_config: options of "lora", a dict or a PEFT ``LoraConfig``: ``r``, ``lora_alpha``,
            ``target_modules``, ``use_rslora``. None for rank 8, alpha 16 and all projections of
            the attentions and the last one of the output; as in chronos-forecasting, options that
            a dict leaves out have PEFT's values (alpha 8, ``q`` and ``v``).
          context_length: most steps of the past to train with; None for all that the model takes.
          learning_rate: the first, highest learning rate.
          num_steps: optimiser steps.
          batch_size: series of a step, covariates included; rounded to whole tasks and devices.
          output_dir: run folder to keep (checkpoints, logs, results); must be new or empty. None
            keeps nothing.
          min_past: least steps before a cut; None for `prediction_length`. Series shorter than
            both together are left out.
          seed: chooses tasks, cuts and dropout.

        Raises:
          InputError: when an argument or an input is wrong, or all series are too short.
        """
        from tsmjax.forecasting import fitting

        _at_least_one("prediction_length", prediction_length)
        _at_least_one("num_steps", num_steps)
        _at_least_one("batch_size", batch_size)
        if self.config["task"]["kind"] != "forecast":
            raise InputError(
                f"fit trains models of the task 'forecast', and this one is of "
                f"{self.config['task']['kind']!r}: train it with python -m tsmjax.main and "
                "checkpoint.init_from."
            )
        if finetune_mode not in ("full", "lora"):
            raise InputError(f"finetune_mode is {finetune_mode!r}, but must be 'full' or 'lora'.")
        if finetune_mode == "full" and lora_config is not None:
            raise InputError("lora_config needs finetune_mode='lora'.")
        adapters = None
        if finetune_mode == "lora":
            options = lora_config or {}
            adapters = options.to_dict() if hasattr(options, "to_dict") else dict(options)
        train = prepare(inputs, prediction_length)
        validation = (
            None if validation_inputs is None else prepare(validation_inputs, prediction_length)
        )
        loaded = fitting.fit(
            self._loaded,
            train,
            validation,
            fitting.Settings(
                horizon=prediction_length,
                context_length=context_length,
                learning_rate=learning_rate,
                steps=num_steps,
                batch_size=batch_size,
                min_past=prediction_length if min_past is None else min_past,
                seed=seed,
                adapters=adapters,
            ),
            output_dir,
        )
        return Forecaster(loaded, self._device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a Hugging Face folder for `from_pretrained`, chronos-forecasting or granite-tsfm.

        Raises:
          InputError: when the folder exists and is not empty.
        """
        if self.config["task"].get("flip_invariant"):
            warnings.warn(
                "task.flip_invariant is on, which a Hugging Face folder cannot tell: what is "
                "loaded from it forecasts without.",
                stacklevel=2,
            )
        family = self.config["model"]["family"]
        values = dataclasses.asdict(self._passes.config)
        params = jax.device_get(cast(self._passes.params, jnp.float32))
        weights.write(folder, family, values, params, self._passes.artefacts)

    def _horizon(self, asked: int | None, limit: bool = False) -> int:
        longest = self.model_prediction_length
        horizon = longest if asked is None else asked
        _at_least_one("prediction_length", horizon)
        if horizon > longest:
            text = f"prediction_length is {horizon}, but one pass reaches {longest} steps"
            if limit:
                raise InputError(f"{text}; set limit_prediction_length=False to go beyond.")
            warnings.warn(f"{text}; quality decreases beyond it.", stacklevel=3)
        return horizon

    def _at_levels(
        self, forecasts: Sequence[np.ndarray], levels: Sequence[float]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Read quantiles and median off what `predict` returned."""
        found = [quantiles.at_levels(one, self.quantiles, levels) for one in forecasts]
        median = [quantiles.at_levels(one, self.quantiles, [0.5])[..., 0] for one in forecasts]
        return found, median

    def _context(self, asked: int | None) -> int:
        longest = self.model_context_length
        if asked is None:
            return longest
        _at_least_one("context_length", asked)
        if asked > longest:
            warnings.warn(
                f"context_length is {asked}, but the model looks at {longest} steps at most; it is "
                f"set to {longest}.",
                stacklevel=3,
            )
        return min(asked, longest)


def _at_least_one(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of at least 1.")


def _device(name: str | None) -> jax.Device | None:
    """Find the device that torch users call "cuda", "cuda:1" or "cpu"."""
    if name in (None, "auto"):
        return None
    platform, _, number = str(name).partition(":")
    try:
        devices = jax.devices({"cuda": "gpu"}.get(platform, platform))
        return devices[int(number or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        there = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise InputError(f"device_map is {name!r}, but there are only {there}.") from error
