"""The TTM forecaster: scaling around one network, or around a trend and a residual network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.errors import InputError
from tsmjax.models.ttm import scaling
from tsmjax.models.ttm.config import Config, residual_config, trend_config
from tsmjax.models.ttm.network import Network
from tsmjax.models.ttm.smoothing import robust_trend
from tsmjax.nn.dropout import split
from tsmjax.nn.instance_norm import LocScale

_VARIANCE_FLOOR = 1e-8  # keeps the root of a sum of squared widths differentiable at zero


class Model(nnx.Module):
    """The TTM forecaster: a scaler around one network, or around a trend and a residual network.

    `__call__` predicts in normalised space; `unscale` brings predictions back to the units of the
    data.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        self.config = config
        apart = config.decomposition.enabled
        self.network = None if apart else Network(config, rngs=rngs)
        self.trend = Network(trend_config(config), rngs=rngs) if apart else None
        self.residual = Network(residual_config(config), rngs=rngs) if apart else None

    def __call__(
        self,
        context: jax.Array,
        future: jax.Array | None = None,
        *,
        static: jax.Array | None = None,
        frequency: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, LocScale]:
        """Forecast the next steps of the predicted channels.

        Args:
          context: (B, C, T) fp32, NaN (or ±inf) = missing. Only the last `context_length` steps
            count; a shorter context counts as missing before its start.
          future: (B, C, ≥ horizon) fp32 values known ahead; only those of `known_channels` are
            looked at, and NaN counts as the mean of the channel. None = nothing is known.
          static: (B, categories) int, values of the static categories.
          frequency: (B,) int, number of the frequency token, see `FREQUENCIES`; None = 0, any.
          key: dropout key; None = no dropout, and BatchNorm by its running statistics.

        Returns:
          Predictions (B, Cp, Q, horizon) fp32 in normalised space, and the (loc, scale), each
          (B, Cp, 1), with which to undo the normalisation.
        """
        parts, loc_scale = self.parts(context, future, static=static, frequency=frequency, key=key)
        return parts["joint"], loc_scale

    def parts(
        self,
        context: jax.Array,
        future: jax.Array | None = None,
        *,
        static: jax.Array | None = None,
        frequency: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], LocScale]:
        """Like `__call__`, with the forecasts of a decomposed model's networks beside their sum.

        Returns:
          ``{"joint": …}``, or ``{"joint", "trend", "residual"}``, and (loc, scale).
        """
        config = self.config
        self._check(context, static)
        context = self._whole(context)
        z, loc_scale = self._normalised(context)
        if config.compat.raw_exogenous:
            past, ahead = _observed_or(0.0, context), _observed_or(0.0, self._known(future, z))
        else:
            past, ahead = self._beside(context, future, z)
        given = (static, frequency)
        if self.network:
            parts = {"joint": self.network(z, past, ahead, *given, key)}
        else:
            trend_key, residual_key = split(key, 2)
            rest = (z - robust_trend(z))[..., -self.residual.config.context_length :]
            parts = {
                "trend": self.trend(z, z, ahead, *given, trend_key),
                "residual": self.residual(rest, rest, ahead, *given, residual_key),
            }
            parts["joint"] = self._sum(parts["trend"], parts["residual"])
        if config.predicted is not None:
            places = np.asarray(config.predicted)
            loc_scale = tuple(part[:, places] for part in loc_scale)
        return parts, loc_scale

    def encode(
        self,
        context: jax.Array,
        *,
        static: jax.Array | None = None,
        frequency: jax.Array | None = None,
    ) -> tuple[jax.Array, LocScale]:
        """Return the states (B, C, N, Dd) that the head sees, and (loc, scale), each (B, C, 1).

        Those of a decomposed model are its trend network's. Arguments as in `__call__`.
        """
        self._check(context, static)
        z, loc_scale = self._normalised(self._whole(context))
        network = self.network or self.trend
        return network.encode(z, static, frequency, None), loc_scale

    def normalise(self, x: jax.Array, loc_scale: LocScale) -> jax.Array:
        """Bring values (B, Cp, L) into normalised space; missing stays NaN."""
        return scaling.normalise(x, loc_scale)

    def unscale(self, predictions: jax.Array, loc_scale: LocScale) -> jax.Array:
        """Bring predictions (B, Cp, Q, F) back to the units of the data, in fp32."""
        loc, scale = (part[:, :, None] for part in loc_scale)
        return predictions.astype(jnp.float32) * scale + loc

    def targets(
        self, context: jax.Array, target: jax.Array, loc_scale: LocScale
    ) -> dict[str, jax.Array]:
        """Return what each forecast of `parts` is trained for, in normalised space.

        The trend of the target is that of context and target together.

        Args:
          context: (B, C, T), as in `__call__`.
          target: (B, Cp, horizon) in the units of the data, NaN = missing.
          loc_scale: what `parts` returned.

        Returns:
          For each part (B, Cp, horizon), NaN where the target is missing.
        """
        joint = self.normalise(target, loc_scale)
        if self.network:
            return {"joint": joint}
        z, _ = self._normalised(self._whole(context))
        if self.config.predicted is not None:
            z = z[:, np.asarray(self.config.predicted)]
        whole = jnp.concatenate([z, _observed_or(0.0, joint)], axis=-1)
        trend = robust_trend(whole)[..., z.shape[-1] :]
        trend = jnp.where(jnp.isnan(joint), jnp.nan, trend)
        return {"joint": joint, "trend": trend, "residual": joint - trend}

    def _whole(self, context: jax.Array) -> jax.Array:
        """Cut or pad a context (B, C, any length) to the model's length."""
        context = context[..., -self.config.context_length :].astype(jnp.float32)
        missing = self.config.context_length - context.shape[-1]
        fill = 0.0 if self.config.compat.zero_padding else jnp.nan
        return jnp.pad(context, ((0, 0), (0, 0), (missing, 0)), constant_values=fill)

    def _normalised(self, context: jax.Array) -> tuple[jax.Array, LocScale]:
        """Normalise a whole context (B, C, T) and fill in what is missing."""
        config = self.config
        loc_scale = scaling.statistics(
            context, config.scaling, config.minimum_scale, config.default_scale
        )
        return self._fill(context, loc_scale), loc_scale

    def _fill(self, x: jax.Array, loc_scale: LocScale) -> jax.Array:
        """Normalise `x` (B, channels, L); missing values become the mean of their channel."""
        if self.config.compat.zero_missing:
            x = _observed_or(0.0, x)
        return _observed_or(0.0, scaling.normalise(x, loc_scale))

    def _beside(
        self, context: jax.Array, future: jax.Array | None, z: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Past (B, C, T) and known future (B, Ce, horizon) for forecast mixing.

        Channels known ahead are normalised by all that is known of them: of one that was silent in
        the past, meals for instance, the past alone has no scale.
        """
        config = self.config
        known = self._known(future, z)
        if not config.known_channels:
            return z, known
        places = np.asarray(config.known_channels)
        whole = jnp.concatenate([context[:, places], known], axis=-1)
        loc_scale = scaling.statistics(
            whole, config.scaling, config.minimum_scale, config.default_scale
        )
        whole, steps = self._fill(whole, loc_scale), context.shape[-1]
        # Rows are picked from both, because a scatter has no counterpart in ONNX exports.
        rows = np.arange(z.shape[1])
        rows[places] = z.shape[1] + np.arange(len(places))
        past = jnp.concatenate([z, whole[..., :steps]], axis=1)[:, rows]
        return past, whole[..., steps:]

    def _known(self, future: jax.Array | None, z: jax.Array) -> jax.Array:
        """Values known ahead (B, Ce, horizon), NaN = unknown, for a context like `z`."""
        channels, horizon = self.config.known_channels, self.config.horizon
        if future is None:
            return jnp.full((z.shape[0], len(channels), horizon), jnp.nan)
        return jnp.asarray(future)[:, np.asarray(channels, int), :horizon]

    def _sum(self, trend: jax.Array, residual: jax.Array) -> jax.Array:
        """Add two forecasts (B, Cp, Q, horizon)."""
        if not self.config.decomposition.combine_variances:
            return trend + residual
        middle = trend.shape[2] // 2
        medians = [part[:, :, middle, None] for part in (trend, residual)]
        apart = [part - median for part, median in zip((trend, residual), medians, strict=True)]
        width = jnp.sqrt(sum(jnp.square(part) for part in apart) + _VARIANCE_FLOOR)
        # The sign is zero at the median, so that it is exactly the sum of the medians.
        return sum(medians) + jnp.sign(sum(apart)) * width

    def _check(self, context: jax.Array, static: jax.Array | None) -> None:
        """Raise when the inputs do not have the channels or categories of the config."""
        config, channels = self.config, context.shape[1]
        if config.mixes_channels and channels != config.num_input_channels:
            raise InputError(
                f"The context has {channels} channels, but this model mixes channels and was built "
                f"for model.num_input_channels = {config.num_input_channels}."
            )
        highest = max((*(config.predicted or ()), *config.known_channels), default=-1)
        if highest >= channels:
            raise InputError(
                f"The context has {channels} channels, but the model looks for channel {highest} "
                "(model.prediction_channels, model.known_channels)."
            )
        found = 0 if static is None else static.shape[1]
        if config.categories and found != len(config.categories):
            raise InputError(
                f"The model has {len(config.categories)} static categories (model.categories), but "
                f"{found} were given."
            )


def _observed_or(value: float, x: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x), x, value)
