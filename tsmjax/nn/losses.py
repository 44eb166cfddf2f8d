"""Elementwise losses; whoever calls them decides how to reduce."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def quantile_loss(
    predictions: jax.Array, target: jax.Array, mask: jax.Array, quantiles: Sequence[float]
) -> jax.Array:
    """Quantile (pinball) loss with the factor 2 that makes it the absolute error at the median.

    Args:
      predictions: (…, Q, H), one row a quantile level.
      target: (…, H) in the same space; may be NaN where `mask` is 0.
      mask: (…, H), 1 or True where the loss counts.
      quantiles: the Q levels.

    Returns:
      (…, Q, H) fp32, 0 where masked.

    Source: Koenker & Bassett, "Regression Quantiles" (1978), equation 1.1.
    """
    mask = mask.astype(jnp.float32)[..., None, :]
    target = jnp.where(mask > 0, target.astype(jnp.float32)[..., None, :], 0.0)
    levels = jnp.asarray(quantiles, jnp.float32)[:, None]
    levels = levels.reshape((1,) * (predictions.ndim - 2) + levels.shape)
    predictions = predictions.astype(jnp.float32)
    above = (target <= predictions).astype(jnp.float32)
    return 2.0 * jnp.abs((target - predictions) * (above - levels)) * mask


def point_loss(
    error: jax.Array, kind: str, *, quantile: float = 0.5, delta: float = 1.0
) -> jax.Array:
    """Loss of each element of `error`, the target minus the forecast.

    Args:
      error: any shape.
      kind: "mse" (squared), "mae" (absolute), "pinball" (quantile loss without the factor 2), or
        "huber" (squared within ±`delta`, linear beyond; Huber, 1964, equation 2.2).
      quantile: level of "pinball".
      delta: of "huber".
    """
    if kind == "mse":
        return jnp.square(error)
    if kind == "mae":
        return jnp.abs(error)
    if kind == "pinball":
        return jnp.maximum(quantile * error, (quantile - 1.0) * error)
    size = jnp.abs(error)
    return jnp.where(size < delta, 0.5 * jnp.square(error), delta * (size - 0.5 * delta))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of each label under the softmax of its logits.

    Args:
      logits: (…, classes).
      labels: (…) int; a negative one means no label.

    Returns:
      (…) fp32, 0 where there is no label.
    """
    chances = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    index = jnp.maximum(labels, 0)[..., None]
    picked = jnp.take_along_axis(chances, index, axis=-1)[..., 0]
    return jnp.where(labels >= 0, -picked, 0.0)
