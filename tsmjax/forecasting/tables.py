"""Forward passes of models of tables: channels with roles, standardised, at a fixed context.

A model that mixes channels needs all that it was trained with, by name. One that does not
forecasts any channel by itself, and looks at nothing else.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from pandas.api import types

from tsmjax import compiler
from tsmjax.config import find_module
from tsmjax.data.categories import Category, of_artefacts
from tsmjax.data.frequency import same_step
from tsmjax.data.table import default_names
from tsmjax.errors import InputError, closest
from tsmjax.forecasting import frames
from tsmjax.forecasting.inputs import Series, prepare, to_numpy
from tsmjax.forecasting.packing import bucket
from tsmjax.forecasting.passes import Options
from tsmjax.in_flight import overlapped
from tsmjax.nn import functional
from tsmjax.pretrained import Pretrained

if TYPE_CHECKING:
    import pandas as pd

    from tsmjax.forecasting.frames import Columns


@dataclasses.dataclass(frozen=True)
class Schema:
    """The channels that a model was trained with.

    Attributes:
      targets: names of those it forecasts.
      past: names of the covariates known in the past only.
      known: names of the covariates known ahead.
      places: position of each in the model's input, in this order.
      scalers: name → (mean, deviation) over the training data; empty when they were not kept.
      categories: static categories of a series.
    """

    targets: tuple[str, ...]
    past: tuple[str, ...]
    known: tuple[str, ...]
    places: tuple[int, ...]
    scalers: Mapping[str, tuple[float, float]]
    categories: tuple[Category, ...] = ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of all covariates, in the order of their channels."""
        return self.past + self.known

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of a `Series` behind the targets: categories are rows of one value."""
        return (*self.past, *(one.name for one in self.categories), *self.known)


def schema_of(config: Any, artefacts: Mapping[str, Any]) -> Schema:
    """Read the schema off a model's config and what its task stored.

    Args:
      config: the model's, with `predicted` and `known_channels`.
      artefacts: `names`, `mean` and `deviation` of each channel, `categories`; each may be lacking.
    """
    mean, deviation = artefacts.get("mean", ()), artefacts.get("deviation", ())
    channels = len(mean) or config.num_input_channels
    known = tuple(sorted(config.known_channels))
    targets = tuple(range(channels)) if config.predicted is None else config.predicted
    past = tuple(i for i in range(channels) if i not in (*targets, *known))
    places = targets + past + known
    names = default_names(len(targets), len(past), len(known))
    if "names" in artefacts:
        names = [artefacts["names"][place] for place in places]
    scalers = {}
    if mean:
        values = zip(names, places, strict=True)
        scalers = {name: (mean[place], deviation[place]) for name, place in values}
    ends = np.cumsum([len(targets), len(past), len(known)])
    parts = (
        tuple(names[end - size : end])
        for end, size in zip(ends, map(len, (targets, past, known)), strict=True)
    )
    stored = artefacts.get("categories", ())
    categories = tuple(of_artefacts(config.categories, stored))
    return Schema(*parts, places, scalers, categories)


class Passes:
    """The compiled functions of one model of tables, and its parameters on the device.

    Attributes:
      config: the model's.
      params: nested dict of the parameters.
      artefacts: names and scalers of the channels, which must be kept beside the parameters.
    """

    def __init__(self, pretrained: Pretrained, device: jax.Device | None = None):
        """Place the parameters.

        Args:
          pretrained: task, model and what the task stored.
          device: where to run; None for JAX's default.
        """
        model, self.artefacts = pretrained.model, dict(pretrained.artefacts)
        self.config = config = model.config
        self._task, self._device = pretrained.task, device
        self._family = find_module("models", pretrained.config["model"]["family"])
        self._schema = schema_of(config, self.artefacts)
        self._mixes = config.mixes_channels
        self._graph, params, stats = functional.split(model)
        if not self._mixes:
            # Its weights serve any channel: build it for one, whatever it was trained with.
            alone = dataclasses.replace(
                config, num_input_channels=1, prediction_channels=None, known_channels=()
            )
            self._graph, _, _ = functional.abstract(lambda rngs: type(model)(alone, rngs=rngs))
        self.params, self._stats = jax.device_put((params, stats), device)
        self._start = compiler.jit(self._forward)
        self._encode = compiler.jit(self._encoder)

    def targets(self, asked: str | Sequence[str] | None) -> list[str]:
        """Return the columns to forecast, in the order of the model.

        Raises:
          InputError: when a model that mixes channels is asked for others than its own.
        """
        own = list(self._schema.targets)
        if asked is None:
            return own
        names = [asked] if isinstance(asked, str) else list(asked)
        if self._mixes and sorted(map(str, names)) != sorted(own):
            raise InputError(
                f"target is {_listed(names)}, but the model was trained to forecast "
                f"{_listed(own)} together: leave target out, or rename the columns."
            )
        return own if self._mixes else names

    def known(self, asked: Sequence[str]) -> list[str]:
        """Return the columns to treat as known ahead: those the model was trained with."""
        return list(self._schema.known) if self._mixes else []

    def select(
        self, df: pd.DataFrame, future_df: pd.DataFrame | None, columns: Columns
    ) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return the frames with the columns that the model looks at, in its order.

        Static categories become numbers.

        Raises:
          InputError: when a covariate is missing or does not hold numbers, or a category is
            unknown or changes within a series.
        """
        schema = self._schema
        past, known = (schema.past, schema.known) if self._mixes else ((), ())
        others = schema.rows if self._mixes else ()
        required = (columns.id, columns.time, *columns.targets, *others)
        frames.require(df, required, "The data frame")
        if unused := [name for name in df.columns if name not in required]:
            warnings.warn(f"The model does not look at {_listed(unused)}.", stacklevel=3)
        df = _numeric(_coded(df[list(required)], schema.categories, columns.id), (*past, *known))
        if not known:
            return df, None
        if future_df is None:
            raise InputError(
                f"The model was trained with {_listed(known)} known ahead: give future_df with "
                "the next steps of each series."
            )
        required = (columns.id, columns.time, *known)
        frames.require(future_df, required, "The frame of future covariates")
        return df, _numeric(future_df[list(required)], known)

    def forecast(self, inputs: Any, horizon: int, options: Options) -> list[np.ndarray]:
        """Forecast quantiles (targets, Q, horizon) of each task; see `Forecaster.predict`.

        A horizon beyond the model's is rolled forward on the point forecasts.

        Raises:
          InputError: when an input does not have the model's channels, a longer horizon needs
            covariates that are not known, or an option means nothing to such a model.
        """
        if options.cross_learning or options.unrolled_quantiles is not None:
            raise InputError(
                "cross_learning and unrolled_quantiles are options of models that see groups of "
                "series; this one sees the channels of one series: leave them out."
            )
        if options.max_output_patches != 1:
            raise InputError(
                f"max_output_patches is {options.max_output_patches}, but this model forecasts its "
                f"{self.config.horizon} steps as one: leave it out."
            )
        if self._mixes and self._schema.past and horizon > self.config.horizon:
            raise InputError(
                f"prediction_length is {horizon}, but the model forecasts {self.config.horizon} "
                f"steps and looks at {_listed(self._schema.past)}, whose future nobody knows: ask "
                "for a shorter horizon, or train a model for this one."
            )
        series = self._read(inputs, horizon)
        past, future, static, (mean, deviation), rows = self._rows(series, options, horizon)
        forecasts = self._roll(past, future, static, horizon, options)
        scale, shift = (part[:, : forecasts.shape[1], None, None] for part in (deviation, mean))
        return _by_task((forecasts * scale + shift).astype(np.float32), series, rows)

    def embed(
        self, inputs: Any, batch_size: int, past: int
    ) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
        """Return the states (targets, N, Dd) that the head sees of each task.

        And for each task its (location, scale), each (targets, 1), in the units of the series; see
        `Forecaster.embed`.
        """
        series = self._read(inputs, 0)
        options = Options(batch_size, past, 1)
        values, _, static, (mean, deviation), rows = self._rows(series, options, 0)
        found = []
        for part in self._batches(len(values), batch_size):
            arrays = {"context": self._in_place(values[part])} | self._given(static[part])
            batch = self._placed(arrays, len(values[part]))
            states, (loc, scale) = jax.device_get(self._encode(self.params, batch))
            states, loc, scale = (
                part_of[: len(values[part]), list(self._targets)].astype(np.float32)
                for part_of in (states, loc, scale)
            )
            found.append((states, loc, scale))
        states, loc, scale = (np.concatenate(parts) for parts in zip(*found, strict=True))
        targets = slice(len(self._targets))
        loc = loc * deviation[:, targets, None] + mean[:, targets, None]
        scale = scale * deviation[:, targets, None]
        locs, scales = (_by_task(part.astype(np.float32), series, rows) for part in (loc, scale))
        return _by_task(states, series, rows), list(zip(locs, scales, strict=True))

    @property
    def _targets(self) -> tuple[int, ...]:
        """Positions of the forecast channels in the model's input."""
        return self._schema.places[: len(self._schema.targets)] if self._mixes else (0,)

    def _read(self, inputs: Any, horizon: int) -> list[Series]:
        """Read the inputs, with rows in the order of the schema; refuse other channels."""
        schema = self._schema
        if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Mapping):
            inputs = [self._checked(entry, number) for number, entry in enumerate(inputs)]
        series = prepare(inputs, horizon, schema.rows)
        if not self._mixes:
            return series
        rows = len(schema.targets) + len(schema.rows)
        expected = len(schema.targets), rows, len(schema.known)
        for number, one in enumerate(series):
            if (one.targets, len(one.past), one.known) != expected:
                raise InputError(
                    f"Input {number} has {one.targets} targets and {len(one.past) - one.targets} "
                    f"covariates, but the model was trained with the targets "
                    f"{_listed(schema.targets)} and the covariates "
                    f"{_listed(schema.rows) or 'none'}: give a dict with these."
                )
        return series

    def _checked(self, entry: Any, number: int) -> Any:
        """Check the names of a dict's covariates, and turn booleans into numbers."""
        if not isinstance(entry, Mapping) or "context" in entry:
            return entry
        schema, checked = self._schema, dict(entry)
        static = checked.pop("static_categories", None)
        past = schema.covariates if self._mixes else ()
        for kind, names in (("past", past), ("future", schema.known if self._mixes else ())):
            found = entry.get(f"{kind}_covariates")
            found = {} if found is None else found
            if not isinstance(found, Mapping):
                return entry  # `prepare` says what is wrong
            lacking, strange = set(names) - set(found), set(found) - set(names)
            if lacking or strange:
                name = sorted(lacking or strange)[0]
                what = "lacks" if lacking else "has"
                raise InputError(
                    f"Input {number} {what} the {kind} covariate {name!r}"
                    f"{closest(name, strange if lacking else names)}, but the model was trained "
                    f"with {_listed(names) or 'none'}."
                )
            values = {name: None if v is None else to_numpy(v) for name, v in found.items()}
            for name, value in values.items():
                if value is None or not value.size or np.issubdtype(value.dtype, np.number):
                    continue
                if value.dtype != bool:
                    raise InputError(
                        f"The {kind} covariate {name!r} of input {number} holds {value.dtype}, but "
                        "the model was trained with numbers."
                    )
                values[name] = value.astype(np.float32)
            if f"{kind}_covariates" in entry:
                checked[f"{kind}_covariates"] = values
        codes = self._codes(static, f"Input {number}")
        if codes:
            length = np.shape(entry.get("target", ()))[-1:] or (1,)
            rows = {name: np.full(length, code, np.float32) for name, code in codes.items()}
            checked["past_covariates"] = {**checked.get("past_covariates", {}), **rows}
        return checked

    def _codes(self, given: Any, where: str) -> dict[str, int]:
        """Return the numbers of the static categories of a dict, by name."""
        categories, given = self._schema.categories, {} if given is None else given
        names = [one.name for one in categories]
        if not isinstance(given, Mapping):
            raise InputError(f"{where} has static_categories that are no dict of name and value.")
        if strange := [name for name in (*given, *names) if (name in given) != (name in names)]:
            name, what = strange[0], "has" if strange[0] in given else "lacks"
            raise InputError(
                f"{where} {what} the static category {name!r}, but the model was trained with "
                f"{_listed(names) or 'none'}: give them as static_categories."
            )
        return {one.name: one.code(given[one.name], where) for one in categories}

    def _rows(
        self, series: Sequence[Series], options: Options, horizon: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Lay the tasks out as rows of as many channels as the model sees, standardised.

        Returns:
          Past (R, C, T) padded on the left with NaN, future (R, C, horizon), static (R, categories)
          int32, (mean, deviation), each (R, C), and the first row of each task. C follows the
          schema.
        """
        length, parts, static = self.config.context_length, [], []
        count = len(self._schema.categories)
        for one in series:
            end = len(one.past) - one.known  # categories are the rows before those known ahead
            static.append(one.past[end - count : end, -1].astype(np.int32))
            if count:
                keep = np.r_[: end - count, end : len(one.past)]
                one = one._replace(past=one.past[keep], future=one.future[keep])
            seen = one.past[:, -min(options.context_length, length) :]
            past = np.full((len(seen), length), np.nan, np.float32)
            past[:, length - seen.shape[1] :] = seen
            # Without mixing, each target is a row of its own, and nothing else is looked at.
            shape = (1, len(past)) if self._mixes else (one.targets, 1)
            rows = slice(None) if self._mixes else slice(one.targets)
            mean, deviation = self._scalers(past[rows], one.targets, options.targets)
            parts.append(
                (
                    past[rows].reshape(*shape, -1),
                    one.future[rows].reshape(*shape, -1),
                    mean.reshape(shape),
                    deviation.reshape(shape),
                )
            )
        past, future, mean, deviation = map(np.concatenate, zip(*parts, strict=True))
        first = np.cumsum([0] + [len(part[0]) for part in parts[:-1]])
        past, future = (
            ((part - mean[..., None]) / deviation[..., None]).astype(np.float32)
            for part in (past, future)
        )
        past[np.isinf(past)], future[np.isinf(future)] = np.nan, np.nan
        return past, future, np.stack(static), (mean, deviation), first

    def _scalers(
        self, past: np.ndarray, targets: int, names: Sequence[str] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each row: of the training data by name, else its own."""
        schema = self._schema
        if self._mixes or (names is None and targets == len(schema.targets)):
            names = schema.targets
        names = [None] * targets if names is None else names
        if len(names) != targets:
            raise InputError(
                f"targets names {_listed(names)}, but an input has {targets} targets: name each."
            )
        names = [*names, *schema.covariates][: len(past)]
        if all(name in schema.scalers for name in names):
            return tuple(np.array([schema.scalers[name] for name in names], np.float64).T)
        seen = np.isfinite(past)
        count = np.maximum(seen.sum(axis=1), 1)
        values = past.astype(np.float64)
        mean = np.where(seen, values, 0.0).sum(axis=1) / count
        apart = np.where(seen, values - mean[:, None], 0.0)
        deviation = np.sqrt(np.square(apart).sum(axis=1) / count)
        return mean, np.where(deviation > 0, deviation, 1.0)

    def _batches(self, rows: int, batch_size: int) -> list[slice]:
        """Deal the rows into batches of `batch_size` series, covariates included."""
        size = max(1, batch_size // (len(self._schema.places) if self._mixes else 1))
        return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]

    def _roll(
        self,
        past: np.ndarray,
        future: np.ndarray,
        static: np.ndarray,
        horizon: int,
        options: Options,
    ) -> np.ndarray:
        """Forecast (R, predicted channels, Q, horizon), window by window."""
        window, found = self.config.horizon, []
        middle = len(self.config.quantiles) // 2
        for done in range(0, horizon, window):
            ahead = future[..., done : done + window]
            missing = window - ahead.shape[-1]
            ahead = np.pad(ahead, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
            parts = []
            for forecast in self._window(past, ahead, static, options):
                parts.append(forecast)
                if options.after_batch and done + window >= horizon:
                    options.after_batch()
            found.append(np.concatenate(parts))
            steps = ahead.copy()
            steps[:, : found[-1].shape[1]] = found[-1][:, :, middle]
            past = np.concatenate([past, steps], axis=-1)[..., -past.shape[-1] :]
        return np.concatenate(found, axis=-1)[..., :horizon]

    def _window(
        self, past: np.ndarray, ahead: np.ndarray, static: np.ndarray, options: Options
    ) -> Iterator[np.ndarray]:
        """Forecast one window of each batch of rows, (B, predicted channels, Q, window)."""
        token = self._token(options.freq)

        def start(part: slice) -> jax.Array:
            arrays = {"context": self._in_place(past[part]), "future": self._in_place(ahead[part])}
            arrays |= self._given(static[part])
            if self.config.frequency_vocabulary:
                arrays["frequency"] = np.full(len(past[part]), token, np.int32)
            return self._start(self.params, self._placed(arrays, len(past[part])))

        parts = self._batches(len(past), options.batch_size)
        for part, forecast in zip(parts, overlapped(start, parts), strict=True):
            yield forecast[: len(past[part])].astype(np.float32)

    def _given(self, static: np.ndarray) -> dict[str, np.ndarray]:
        """What the model is told of the categories (B, categories) of its rows."""
        return {"static": static} if self._schema.categories else {}

    def _in_place(self, values: np.ndarray) -> np.ndarray:
        """Bring channels from the order of the schema into that of the model."""
        if not self._mixes:
            return values
        found = np.empty_like(values)
        found[:, list(self._schema.places)] = values
        return found

    def _placed(self, arrays: dict[str, np.ndarray], rows: int) -> dict[str, jax.Array]:
        """Pad the rows to one of few sizes, so that few shapes compile, and move them over."""
        more = bucket(rows) - rows
        padded = {
            name: np.concatenate([array, np.repeat(array[-1:], more, axis=0)])
            for name, array in arrays.items()
        }
        return jax.device_put(padded, self._device)

    def _token(self, freq: str | None) -> int:
        """Number of a frequency for models that were told; 0 is any."""
        size, known = self.config.frequency_vocabulary, self._family.FREQUENCIES
        token = known.get(same_step(freq, known), 0) if freq and size else 0
        return token if token < size else 0

    def _forward(self, params: functional.Tree, batch: dict[str, jax.Array]) -> jax.Array:
        model = functional.merge(self._graph, params, self._stats)
        return self._task.predict(model, batch)

    def _encoder(self, params: functional.Tree, batch: dict[str, jax.Array]) -> Any:
        model = functional.merge(self._graph, params, self._stats)
        states, loc_scale = model.encode(batch["context"], static=batch.get("static"))
        return states.astype(jnp.float32), loc_scale


def _by_task(values: np.ndarray, series: Sequence[Series], first: np.ndarray) -> list[np.ndarray]:
    """Split rows (R, channels, …) into (targets, …) of each task; one of both is 1 in a task."""
    ends = np.append(first[1:], len(values))
    return [
        values[begin:end].reshape(-1, *values.shape[2:])[: one.targets].copy()
        for one, begin, end in zip(series, first, ends, strict=True)
    ]


def _numeric(df: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the frame with the named columns as numbers."""
    for name in names:
        if not types.is_numeric_dtype(df[name]):
            raise InputError(
                f"The covariate {name!r} is of type {df[name].dtype}, but the model was trained "
                "with numbers."
            )
    return df.astype({name: np.float32 for name in names if types.is_bool_dtype(df[name])})


def _coded(df: pd.DataFrame, categories: Sequence[Category], item: str) -> pd.DataFrame:
    """Return the frame with the static categories as their numbers."""
    for one in categories:
        codes = {value: one.code(value, "The data frame") for value in df[one.name].unique()}
        df = df.assign(**{one.name: df[one.name].map(codes).astype(np.float32)})
        several = df.groupby(item, sort=False)[one.name].nunique() > 1
        if several.any():
            raise InputError(
                f"The static category {one.name!r} changes within series {several.idxmax()!r}: it "
                "must have one value in each."
            )
    return df


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(repr, names))
