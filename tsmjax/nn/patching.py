"""Cutting series into patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def patchify(x: jax.Array, size: int) -> jax.Array:
    """Cut (…, L) into (…, ceil(L / size), size), left-padded with NaN so that the end aligns.

    Source: Nie et al., "A Time Series is Worth 64 Words" (2022), section 3.1.
    """
    missing = -x.shape[-1] % size
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(missing, 0)], constant_values=jnp.nan)
    return x.reshape(*x.shape[:-1], -1, size)
