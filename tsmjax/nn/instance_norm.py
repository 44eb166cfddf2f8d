"""Instance normalisation: each series is standardised by its own statistics, in fp32.

Missing values are NaN; ±inf counts as missing, so that one broken reading cannot poison a batch.

Source: Kim et al., "Reversible Instance Normalization" (2022), section 2, without the affine
part; the arcsinh is that of Chronos-2 (arXiv 2510.15821), section 3.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

LocScale = tuple[jax.Array, jax.Array]  # location and scale, each (…, 1) fp32

_ZERO_SCALE = 1e-5  # stands in for the scale of a constant series
_HUGE = 1e15  # squares of larger values would leave the range of fp32 sums
_TINY_UNIT = 2.0**-96  # the unit in which huge series are measured: exact, being a power of two
_LIMIT = 1e15  # standardised values are clipped here; everything computed from them stays finite


def drop_infinite(x: jax.Array) -> jax.Array:
    """Return `x` in fp32 with ±inf replaced by NaN."""
    x = x.astype(jnp.float32)
    return jnp.where(jnp.isfinite(x), x, jnp.nan)


def statistics(x: jax.Array) -> LocScale:
    """Mean and population standard deviation over the last axis of `x` (…, L), NaN ignored.

    Returns:
      (loc, scale), finite whatever `x` holds: (0, 1) for a series without observations, and scale
      1e-5 for a constant one.
    """
    x = drop_infinite(x)
    observed = ~jnp.isnan(x)
    count = jnp.maximum(observed.sum(axis=-1, keepdims=True), 1)
    x = jnp.where(observed, x, 0.0)
    peak = jnp.abs(x).max(axis=-1, keepdims=True)
    unit = jnp.where(peak > _HUGE, _TINY_UNIT, 1.0)
    x = x * unit
    loc = x.sum(axis=-1, keepdims=True) / count
    deviation = jnp.where(observed, x - loc, 0.0)
    scale = jnp.sqrt(jnp.square(deviation).sum(axis=-1, keepdims=True) / count)
    scale = jnp.where(observed.any(axis=-1, keepdims=True), scale, 1.0)
    scale = jnp.where(scale == 0.0, _ZERO_SCALE, scale)
    return jnp.clip(loc / unit, -peak, peak), jnp.minimum(scale / unit, jnp.finfo(x.dtype).max)


def normalise(x: jax.Array, loc_scale: LocScale, *, arcsinh: bool) -> jax.Array:
    """Standardise `x` (…, L) by `loc_scale`; missing stays NaN, everything else is finite."""
    loc, scale = loc_scale
    # Halves: the difference of two values near the limit of fp32 would overflow.
    z = (0.5 * drop_infinite(x) - 0.5 * loc) / (0.5 * scale)
    z = jnp.clip(z, -_LIMIT, _LIMIT)
    return jnp.arcsinh(z) if arcsinh else z


def unscale(z: jax.Array, loc_scale: LocScale, *, arcsinh: bool) -> jax.Array:
    """Invert `normalise`; the result is fp32 whatever the dtype of `z` (…, L) is."""
    loc, scale = loc_scale
    z = z.astype(jnp.float32)
    return (jnp.sinh(z) if arcsinh else z) * scale + loc
