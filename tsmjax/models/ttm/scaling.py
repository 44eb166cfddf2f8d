"""Scalers of TinyTimeMixer: each channel of each series is brought to a common scale, in fp32.

Missing values are NaN and enter no statistic; ±inf counts as missing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.nn.instance_norm import LocScale, drop_infinite

METHODS = ("std", "mean", "none")
_STD_FLOOR, _MEAN_FLOOR = 1e-5, 1e-10


def statistics(
    x: jax.Array,
    method: str,
    minimum_scale: float | None = None,
    default_scale: float | None = 1.0,
) -> LocScale:
    """Location and scale over the last axis of `x` (B, C, T).

    Args:
      x: values, NaN = missing.
      method: "std" standardises by mean and root of (population variance + floor), "mean" divides
        by the mean absolute value, "none" leaves values as they are.
      minimum_scale: the floor: added to the variance ("std", 1e-5 when None) or least scale
        ("mean", 1e-10 when None).
      default_scale: "mean" scale of a channel without observations; None takes the channel's mean
        absolute value over the batch, so that a forecast depends on its neighbours.

    Returns:
      (loc, scale), each (B, C, 1) fp32 and finite for finite squares of `x`.
    """
    x = drop_infinite(x)
    observed = ~jnp.isnan(x)
    count = observed.sum(axis=-1, keepdims=True)
    x = jnp.where(observed, x, 0.0)
    zero = jnp.zeros_like(x[..., :1])
    if method == "none":
        return zero, zero + 1.0
    if method == "std":
        loc = x.sum(axis=-1, keepdims=True) / jnp.maximum(count, 1)
        deviation = jnp.where(observed, x - loc, 0.0)
        variance = jnp.square(deviation).sum(axis=-1, keepdims=True) / jnp.maximum(count, 1)
        return loc, jnp.sqrt(variance + (_STD_FLOOR if minimum_scale is None else minimum_scale))
    total = jnp.abs(x).sum(axis=-1, keepdims=True)
    if default_scale is None:
        default = total.sum(axis=0) / jnp.maximum(count.sum(axis=0), 1)
    else:
        default = default_scale
    scale = jnp.where(count > 0, total / jnp.maximum(count, 1), default)
    return zero, jnp.maximum(scale, _MEAN_FLOOR if minimum_scale is None else minimum_scale)


def normalise(x: jax.Array, loc_scale: LocScale) -> jax.Array:
    """Scale `x` (B, C, L); missing stays NaN."""
    loc, scale = loc_scale
    return (drop_infinite(x) - loc) / scale
