"""Trend of a series: a local average that outliers do not move."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_SHARE = 0.15  # window, as a share of the series
_WIDTH = 0.25  # standard deviation of the kernel, as a share of the window
_PASSES = 2
_EPSILON = 1e-8


def robust_trend(x: jax.Array) -> jax.Array:
    """Smooth `x` (…, T) along the last axis; the mean of each series is kept.

    A Gaussian kernel over 15 % of the series, with the ends reflected, then twice again with
    Tukey's bisquare weights of the residuals at six median absolute deviations. No gradient.

    Source: Cleveland, "Robust Locally Weighted Regression and Smoothing Scatterplots" (1979),
    section 2, with local averages in place of local lines.
    """
    x = jax.lax.stop_gradient(x)
    T = x.shape[-1]
    window = max(5, round(_SHARE * T)) | 1
    window = min(window, T if T % 2 else T - 1)
    offset = jnp.arange(window) - window // 2
    kernel = jnp.exp(-0.5 * jnp.square(offset / (_WIDTH * window)))
    kernel = kernel / kernel.sum()

    def smooth(weights: jax.Array) -> jax.Array:
        trend = _convolve(x * weights, kernel) / (_convolve(weights, kernel) + _EPSILON)
        return trend + (x - trend).mean(axis=-1, keepdims=True)

    trend = smooth(jnp.ones_like(x))
    for _ in range(_PASSES):
        residual = x - trend
        residual = residual - _lower_median(residual)
        spread = _lower_median(jnp.abs(residual)) + _EPSILON
        u = jnp.square(residual / (6.0 * spread))
        trend = smooth(jnp.square(1.0 - jnp.minimum(u, 1.0)))
    return trend


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Average with `kernel` (odd length) along the last axis, the ends of `x` reflected."""
    half = kernel.shape[0] // 2
    padded = jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((half, half),), mode="reflect")
    rows = padded.reshape(-1, 1, padded.shape[-1])
    smoothed = jax.lax.conv_general_dilated(rows, kernel[None, None], (1,), "VALID")
    return smoothed.reshape(x.shape)


def _lower_median(x: jax.Array) -> jax.Array:
    """Median over the last axis, kept; of two middle values the lower, as in PyTorch."""
    return jnp.sort(x, axis=-1)[..., (x.shape[-1] - 1) // 2, None]
