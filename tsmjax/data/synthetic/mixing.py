"""TSMixup over the rows of a batch, on the device at the head of the step.

`tsmixup` mixes series of a data set beforehand; here the windows of one batch are mixed with each
other, so that no two steps see the same mixture. Ansari et al., "Chronos: Learning the Language of
Time Series" (2024), section 4.1: convex sums of up to three windows, each divided by its mean
absolute value, with weights from a symmetric Dirichlet distribution (1.5).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.data.synthetic.tsmixup import CONCENTRATION, MAX_SERIES


def mixed(
    key: jax.Array, context: jax.Array, target: jax.Array, share: float
) -> tuple[jax.Array, jax.Array]:
    """Replace some windows by mixtures of windows of the batch.

    A step is missing where one of the windows that are mixed misses it.

    Args:
      key: of this step.
      context: (rows, C), NaN = missing.
      target: (rows, H), what follows it.
      share: of the rows that become mixtures, drawn for each.

    Returns:
      context and target.
    """
    rows, past = context.shape
    share_key, count_key, weight_key, *order_keys = jax.random.split(key, 2 + MAX_SERIES)
    known = jnp.isfinite(context)
    mean = jnp.nansum(jnp.abs(jnp.where(known, context, 0.0)), axis=1) / known.sum(axis=1)
    # A window of zeros, or without a past, is left as it is.
    scale = jnp.where(jnp.isfinite(mean) & (mean > 0), mean, 1.0)
    windows = jnp.concatenate([context, target], axis=1) / scale[:, None]

    gamma = jax.random.gamma(weight_key, CONCENTRATION, (rows, MAX_SERIES))
    count = jax.random.randint(count_key, (rows, 1), 1, MAX_SERIES + 1)
    gamma = jnp.where(jnp.arange(MAX_SERIES) < count, gamma, 0.0)
    weights = gamma / gamma.sum(axis=1, keepdims=True)
    total = weights[:, :1] * windows
    for number, order_key in enumerate(order_keys, start=1):
        weight = weights[:, number, None]
        others = windows[jax.random.permutation(order_key, rows)]
        total += jnp.where(weight > 0, weight * others, 0.0)
    total *= scale[:, None]
    # One window alone stays as it is, and nothing is learned from a mixture without any past.
    chosen = (jax.random.uniform(share_key, rows) < share) & (count[:, 0] > 1)
    fit = chosen & jnp.isfinite(total[:, :past]).any(axis=1)
    return (
        jnp.where(fit[:, None], total[:, :past], context),
        jnp.where(fit[:, None], total[:, past:], target),
    )
