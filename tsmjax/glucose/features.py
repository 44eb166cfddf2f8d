"""Carbohydrate and insulin at work in the body, from logged meals and doses.

Compartment models of Hovorka et al., "Nonlinear model predictive control of glucose concentration
in subjects with type 1 diabetes" (Physiol. Meas. 2004). Their answers to a single meal or dose have
closed forms; those of many add up, so a feature is a causal convolution over a regular grid. With
zeros appended to the inputs the features go on into the future from past events alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError

CARB_TAU, ABSORBED = 40.0, 0.8  # minutes; share of the carbohydrate that is absorbed
INSULIN_TAU, ELIMINATION = 55.0, 0.138  # minutes; 1/min
LEGACY_MINUTES = 180


def carb_kernels(
    every: float = 5, hours: float = 8, legacy_hovorka_180: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return what follows 1 g of carbohydrate, at lags of 0, `every`, 2 `every` … minutes.

    With q1' = -q1/τ, q2' = (q1 - q2)/τ and q1(0) = A: on board q1 + q2 = A (1 + t/τ) e^(-t/τ),
    available q2 = A (t/τ) e^(-t/τ).

    Args:
      every: minutes between rows.
      hours: length of the kernels; after 8 hours nothing is left.
      legacy_hovorka_180: integrate by Euler's method at the step of the data, with the meal in the
        first step, and drop everything after 180 minutes (in place of `hours`).

    Returns:
      Carbohydrate on board and carbohydrate availability, in g, (lags,) each.
    """
    if legacy_hovorka_180:
        # q1, q2, and what has left them.
        rates = np.array([[-1, 0, 0], [1, -1, 0], [0, 1, 0]]) / CARB_TAU
        states = _euler(rates, ABSORBED, every)
        return ABSORBED - states[:, 2], states[:, 1]
    t = _lags(every, hours) / CARB_TAU
    decay = ABSORBED * np.exp(-t)
    return (1 + t) * decay, t * decay


def insulin_kernels(
    every: float = 5, hours: float = 8, legacy_hovorka_180: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return what follows 1 U of insulin, at lags of 0, `every`, 2 `every` … minutes.

    With s1' = -s1/τ, s2' = (s1 - s2)/τ, I' = s2/τ - k I, s1(0) = 1, a = 1/τ and d = k - a:
    available I = a² (e^(-kt)/d² + e^(-at) (t/d - 1/d²)), on board s1 + s2 + I.

    Args:
      every: minutes between rows.
      hours: length of the kernels; after 8 hours 0.2 percent of the dose is left.
      legacy_hovorka_180: see `carb_kernels`; 18 percent of each dose vanish at once.

    Returns:
      Insulin on board and insulin availability, in U, (lags,) each.
    """
    a, k = 1 / INSULIN_TAU, ELIMINATION
    if legacy_hovorka_180:
        # s1, s2, I, and what was eliminated.
        rates = np.array([[-a, 0, 0, 0], [a, -a, 0, 0], [0, a, -k, 0], [0, 0, k, 0]])
        states = _euler(rates, 1.0, every)
        return np.maximum(1 - states[:, 3], 0), states[:, 2]
    t, d = _lags(every, hours), k - a
    plasma = a**2 * (np.exp(-k * t) / d**2 + np.exp(-a * t) * (t / d - 1 / d**2))
    return (1 + a * t) * np.exp(-a * t) + plasma, plasma


def carb_features(carbs: Any, every: float = 5, **options: Any) -> tuple[Any, Any]:
    """Return carbohydrate on board and availability, in g, of meals.

    Args:
      carbs: (..., T) g at each row, NaN = none logged.
      every: minutes between rows.
      **options: of `carb_kernels`.

    Returns:
      Two arrays (..., T); NumPy for NumPy, JAX for JAX.

    Raises:
      InputError: when a meal is negative or infinite.
    """
    cob, available = carb_kernels(every, **options)
    carbs = _events(carbs, "carbs")
    return superpose(carbs, cob), superpose(carbs, available)


def insulin_features(insulin: Any, every: float = 5, **options: Any) -> tuple[Any, Any]:
    """Return insulin on board and availability, in U, of doses.

    Args:
      insulin: (..., T) U at each row, NaN = none logged.
      every: minutes between rows.
      **options: of `insulin_kernels`.

    Returns:
      Two arrays (..., T); NumPy for NumPy, JAX for JAX.

    Raises:
      InputError: when a dose is negative or infinite.
    """
    iob, available = insulin_kernels(every, **options)
    insulin = _events(insulin, "insulin")
    return superpose(insulin, iob), superpose(insulin, available)


def superpose(events: Any, kernel: np.ndarray) -> Any:
    """Return the sum over past events of event times kernel at its lag: (..., T) -> (..., T)."""
    xp = jnp if isinstance(events, jax.Array) else np
    lags = min(len(kernel), events.shape[-1])
    zeros = xp.zeros((*events.shape[:-1], lags), events.dtype)
    padded = xp.concatenate([zeros, events], axis=-1)
    length = padded.shape[-1]
    # One pass over all rows for each lag: exact, causal, and fused by XLA.
    total = xp.zeros_like(events)
    for lag in range(lags):
        total = total + float(kernel[lag]) * padded[..., lags - lag : length - lag]
    return total


def _events(values: Any, name: str) -> Any:
    """Return events with 0 where none was logged."""
    if isinstance(values, jax.Array):
        return jnp.nan_to_num(values, nan=0.0)
    values = np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise InputError(f"{name} has negative or infinite amounts: remove or correct them first.")
    return values


def _lags(every: float, hours: float) -> np.ndarray:
    return np.arange(0, hours * 60 + every / 2, every)


def _euler(rates: np.ndarray, dose: float, every: float) -> np.ndarray:
    """Return (lags, states) of a linear system; the dose is in the first state from lag 1 on."""
    states = np.zeros((int(LEGACY_MINUTES // every), len(rates)))
    states[1, 0] = dose
    for lag in range(1, len(states) - 1):
        states[lag + 1] = states[lag] + every * rates @ states[lag]
    return states
