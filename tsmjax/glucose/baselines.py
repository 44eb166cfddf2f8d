"""Forecasts of glucose that a model has to beat: from the last reading to a small LSTM.

Contexts are (N, T) and forecasts (N, H) arrays of NumPy in mg/dL; contexts end at the origin of the
forecast. What is fitted is fitted on the windows of training patients.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tsmjax.errors import InputError


def persistence(context: np.ndarray, horizon: int) -> np.ndarray:
    """Repeat the last reading."""
    return np.repeat(context[:, -1:], horizon, axis=1)


def seasonal_naive(context: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Repeat what was `season` steps before, the last reading where that is missing.

    Raises:
      InputError: when the season is longer than the context, or shorter than the horizon.
    """
    if not horizon <= season <= context.shape[1]:
        raise InputError(
            f"The season is {season} steps, but must be between the horizon, {horizon}, and the "
            f"context, {context.shape[1]}."
        )
    first = context.shape[1] - season
    before = context[:, first : first + horizon]
    return np.where(np.isnan(before), context[:, -1:], before)


def fit_linear(context: np.ndarray, target: np.ndarray, order: int) -> np.ndarray:
    """Regress labels on the last `order` readings by least squares.

    Windows with a missing reading or label are left out.

    Args:
      context: (N, T).
      target: (N, H); one column is an autoregression, more are a regression for each step.
      order: number of readings.

    Returns:
      (order + 1, H) coefficients of the readings, oldest first, and the constant.

    Raises:
      InputError: when there are fewer complete windows than coefficients.
    """
    x = np.concatenate([context[:, -order:], np.ones((len(context), 1))], axis=1).astype(np.float64)
    complete = ~(np.isnan(x).any(axis=1) | np.isnan(target).any(axis=1))
    if complete.sum() < x.shape[1]:
        raise InputError(
            f"{complete.sum()} complete windows are too few to fit {x.shape[1]} coefficients."
        )
    return np.linalg.lstsq(x[complete], target[complete].astype(np.float64), rcond=None)[0]


def linear(coefficients: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Forecast all steps at once with the coefficients of `fit_linear`."""
    order = len(coefficients) - 1
    return context[:, -order:] @ coefficients[:-1] + coefficients[-1]


def autoregression(coefficients: np.ndarray, context: np.ndarray, horizon: int) -> np.ndarray:
    """Forecast step by step, each from the forecasts before it; `coefficients` has one column."""
    order = len(coefficients) - 1
    steps = context[:, -order:].astype(np.float64)
    for _ in range(horizon):
        steps = np.concatenate([steps, linear(coefficients, steps)], axis=1)
    return steps[:, order:]


class Lstm(NamedTuple):
    """A fitted LSTM.

    Attributes:
      params: arrays by name.
      history: readings that it sees.
      mean: mg/dL, of the training readings.
      deviation: likewise.
    """

    params: dict[str, jax.Array]
    history: int
    mean: float
    deviation: float


def fit_lstm(
    context: np.ndarray,
    target: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    history: int,
    steps: int,
    hidden: int = 48,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    start: Lstm | None = None,
    seed: int = 0,
) -> Lstm:
    """Train an LSTM (Hochreiter & Schmidhuber 1997) with a linear head for all steps.

    It minimises the squared error of the change since the last reading, by Adam with a cosine
    schedule, and keeps the best of ten states by the error on the validation windows.

    Args:
      context: (N, T).
      target: (N, H), complete.
      validation: contexts and targets of the validation windows.
      history: readings that it sees.
      steps: training steps.
      hidden: width of its state.
      batch_size: windows of a step.
      learning_rate: the highest.
      start: a model to fine-tune, whose scales and width are kept.
      seed: of parameters and batches.
    """
    mean, deviation = float(np.nanmean(context)), float(np.nanstd(context))
    if start:
        _, history, mean, deviation = start

    def scaled(x: np.ndarray, y: np.ndarray) -> tuple[jax.Array, jax.Array]:
        change = (y - x[:, -1:]) / deviation
        x = np.nan_to_num((x[:, -history:] - mean) / deviation)
        return jnp.asarray(x, jnp.float32), jnp.asarray(change, jnp.float32)

    data, held = scaled(context, target), scaled(*validation)
    init_key, key = jax.random.split(jax.random.key(seed))
    params = start.params if start else _lstm_init(init_key, hidden, target.shape[1])
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
    )

    def loss(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((_lstm_changes(params, x) - y) ** 2)

    @jax.jit
    def train(state: tuple, keys: jax.Array, x: jax.Array, y: jax.Array) -> tuple:
        def step(state: tuple, key: jax.Array) -> tuple[tuple, None]:
            params, moments = state
            rows = jax.random.randint(key, (batch_size,), 0, len(x))
            gradient = jax.grad(loss)(params, x[rows], y[rows])
            updates, moments = tx.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, state, keys)[0]

    validate = jax.jit(loss)
    state, best = (params, tx.init(params)), (np.inf, params)
    for part in np.array_split(np.arange(steps), 10):
        state = train(state, jax.vmap(functools.partial(jax.random.fold_in, key))(part), *data)
        error = float(validate(state[0], *held))
        if error < best[0]:
            best = error, state[0]
    return Lstm(best[1], history, mean, deviation)


def lstm(model: Lstm, context: np.ndarray) -> np.ndarray:
    """Forecast with a fitted LSTM."""
    x = np.nan_to_num((context[:, -model.history :] - model.mean) / model.deviation)
    changes = jax.jit(_lstm_changes)(model.params, jnp.asarray(x, jnp.float32))
    return context[:, -1:] + model.deviation * np.asarray(changes, np.float64)


def _lstm_init(key: jax.Array, hidden: int, horizon: int) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    bound = hidden**-0.5

    def uniform(key: jax.Array, *shape: int) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return {
        "input": uniform(keys[0], 1, 4 * hidden),
        "recurrent": uniform(keys[1], hidden, 4 * hidden),
        "bias": jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0),  # remembers at first
        "head": uniform(keys[2], hidden, horizon),
        "offset": jnp.zeros(horizon),
    }


def _lstm_changes(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Changes since the last reading (N, H), in deviations; `x` is (N, history)."""

    def step(carry: tuple, reading: jax.Array) -> tuple[tuple, None]:
        h, cell = carry
        gates = reading[:, None] * params["input"] + h @ params["recurrent"] + params["bias"]
        enter, keep, leave, new = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return (jax.nn.sigmoid(leave) * jnp.tanh(cell), cell), None

    zeros = jnp.zeros((len(x), len(params["recurrent"])))
    (h, _), _ = jax.lax.scan(step, (zeros, zeros), x.T)
    return h @ params["head"] + params["offset"]
