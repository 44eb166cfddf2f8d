"""Baselines of classifying windows: the majority, a linear model of features, a small CNN.

What a large model adds shows beside these. The linear model takes any features, (rows, features):
summaries of the channels, or embeddings of a frozen encoder (a linear probe).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tsmjax.data.counter import permute
from tsmjax.evals.classification import classification_scores, confusion
from tsmjax.nn.dropout import dropout
from tsmjax.nn.linear import Linear
from tsmjax.nn.norms import LayerNorm
from tsmjax.wearables import summaries as wearables

L2 = (1e-4, 1e-3, 1e-2, 1e-1)  # penalties that validation chooses from
Predict = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of one split.

    Attributes:
      x: (rows, …) float32, what a classifier sees.
      y: (rows,) int32 classes.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


def summaries(windows: np.ndarray) -> np.ndarray:
    """Return five numbers of each channel of (rows, channels, steps): (rows, 5 · channels)."""
    return wearables.summaries(windows).swapaxes(1, 2).reshape(len(windows), -1)


def standardised(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring the features of all splits to mean 0 and deviation 1 over the training split."""
    train = features["train"].astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    return {name: ((x - mean) / std).astype(np.float32) for name, x in features.items()}


def majority(train: Part, classes: int) -> Predict:
    """Return the classifier that always tells the most frequent class of the training split."""
    answer = int(np.bincount(train.y, minlength=classes).argmax())
    return lambda x: np.full(len(x), answer)


def class_weights(y: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes,) weights in inverse proportion to frequency, mean 1 over rows.

    Classes without rows weigh nothing.
    """
    counts = np.bincount(y, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(y) / (present.sum() * counts[present])
    return weights.astype(np.float32)


# ------------------------------------------------------------------------------------ linear model


@functools.partial(jax.jit, static_argnames=("classes", "steps"))
def _fit_linear(
    x: jax.Array, y: jax.Array, row_weights: jax.Array, l2: jax.Array, classes: int, steps: int
) -> dict[str, jax.Array]:
    params = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        logits = x @ params["kernel"] + params["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        penalty = 0.5 * l2 * jnp.square(params["kernel"]).sum()
        return (losses * row_weights).sum() / row_weights.sum() + penalty

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, solver.init(params)), None, length=steps)
    return params


def linear(
    train: Part,
    validation: Part | None,
    classes: int,
    l2: tuple[float, ...] = L2,
    steps: int = 100,
    balanced: bool = True,
) -> Predict:
    """Fit multinomial logistic regression by L-BFGS and return the classifier.

    Args:
      train: standardised features, (rows, features).
      validation: what chooses the penalty, by macro-F1; None takes the first.
      classes: number of classes.
      l2: penalties on half the squared kernel, to choose from; the bias has none.
      steps: of L-BFGS.
      balanced: weight rows by `class_weights`.
    """
    weights = class_weights(train.y, classes) if balanced else np.ones(classes, np.float32)
    x, y = jnp.asarray(train.x, jnp.float32), jnp.asarray(train.y)
    best, best_score = None, -1.0
    for penalty in l2:
        found = _fit_linear(x, y, jnp.asarray(weights[train.y]), penalty, classes, steps)
        fitted = jax.tree.map(np.asarray, found)

        def predict(x: np.ndarray, fitted: dict[str, np.ndarray] = fitted) -> np.ndarray:
            return (x @ fitted["kernel"] + fitted["bias"]).argmax(axis=1)

        if validation is None or not len(validation):
            return predict
        score = evaluate(predict, validation, classes)["f1_macro"]
        if score > best_score:
            best, best_score = predict, score
    return best


# --------------------------------------------------------------------------------------- small CNN


class Convolution(nnx.Module):
    """A convolution over time, padded at both ends, as one product: fast on CPUs too."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        std = (2 / (width * inputs)) ** 0.5
        self.projection = Linear(width * inputs, outputs, std=std, bias=True, rngs=rngs)
        self.width, self.stride = width, stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (rows, steps, inputs) to (rows, ceil(steps / stride), outputs)."""
        steps, half = x.shape[1], self.width // 2
        x = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
        shifted = [x[:, first : first + steps : self.stride] for first in range(self.width)]
        return self.projection(jnp.concatenate(shifted, axis=-1))


class SmallCNN(nnx.Module):
    """Three convolutions over time, the mean over time, and a linear head.

    It sees channels that are standardised over the training split, so that levels such as the
    direction of gravity stay.
    """

    def __init__(self, channels: int, classes: int, width: int = 64, *, rngs: nnx.Rngs):
        sizes = ((channels, width, 7), (width, width, 5), (width, 2 * width, 5))
        self.convolutions = nnx.List(
            [Convolution(inputs, outputs, reach, 2, rngs=rngs) for inputs, outputs, reach in sizes]
        )
        self.norms = nnx.List(
            [LayerNorm(outputs, epsilon=1e-5, rngs=rngs) for _, outputs, _ in sizes]
        )
        self.head = Linear(2 * width, classes, std=0.02, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits (rows, classes) of (rows, steps, channels); a key switches dropout on."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x)))
        return self.head(dropout(x.mean(axis=1), 0.3, key))


def cnn(
    train: Part,
    validation: Part | None,
    classes: int,
    epochs: int = 30,
    batch: int = 64,
    learning_rate: float = 2e-3,
    width: int = 64,
    seed: int = 0,
) -> Predict:
    """Train `SmallCNN` with AdamW and return the classifier of the best epoch.

    Args:
      train: windows (rows, channels, steps) that are standardised by channel.
      validation: what chooses the epoch, by macro-F1; None takes the last.
      classes: number of classes.
      epochs: over the training rows.
      batch: rows of a step; fewer rows than that make one batch.
      learning_rate: at the peak of a cosine schedule.
      width: features of the first two convolutions.
      seed: of initial values, order and dropout.
    """
    rows, channels, _ = train.x.shape
    batch = min(batch, rows)
    steps = rows // batch
    # Compiled, as eager initial values take longer than the training of a small set.
    params = jax.jit(
        lambda: nnx.split(SmallCNN(channels, classes, width, rngs=nnx.Rngs(seed)), nnx.Param)[1]
    )()
    graph = nnx.eval_shape(lambda: SmallCNN(channels, classes, width, rngs=nnx.Rngs(0)))
    graph = nnx.split(graph, nnx.Param)[0]
    weights = jnp.asarray(class_weights(train.y, classes))
    schedule = optax.cosine_onecycle_schedule(epochs * steps, learning_rate)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-3)
    )
    series = train.x.transpose(0, 2, 1).astype(np.float32)

    @jax.jit
    def step(params, state, x, y, key):
        def loss(params):
            found = nnx.merge(graph, params)(x, key)
            losses = optax.softmax_cross_entropy_with_integer_labels(found, y)
            return (losses * weights[y]).sum() / weights[y].sum()

        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def logits(params, x):
        return nnx.merge(graph, params)(x)

    def predictor(params) -> Predict:
        def predict(x: np.ndarray) -> np.ndarray:
            found = []
            for first in range(0, len(x), 256):
                part = x[first : first + 256].transpose(0, 2, 1)
                padded = np.zeros((256, *part.shape[1:]), np.float32)
                padded[: len(part)] = part
                found.append(np.asarray(logits(params, padded))[: len(part)].argmax(axis=1))
            return np.concatenate(found)

        return predict

    state = optimiser.init(params)
    best, best_score = None, -1.0
    for number in range(epochs):
        order = permute(np.arange(steps * batch), rows, seed, number).reshape(steps, batch)
        for place, mine in enumerate(order):
            key = jax.random.fold_in(jax.random.key(seed), number * steps + place)
            params, state = step(params, state, series[mine], train.y[mine], key)
        if validation is not None and len(validation):
            score = evaluate(predictor(params), validation, classes)["f1_macro"]
            if score >= best_score:
                best, best_score = params, score
    return predictor(best if best is not None else params)


# ------------------------------------------------------------------------------------------- table


def evaluate(predict: Predict, part: Part, classes: int) -> dict[str, float]:
    """Return the scores of a classifier on one split."""
    return classification_scores(confusion(part.y, predict(part.x), classes))


def table(results: Mapping[str, Mapping[str, float]], columns: tuple[str, ...]) -> str:
    """Return scores as lines of text: a row a classifier, per cent with one decimal."""
    width = max(map(len, [*results, "classifier"]))
    lines = ["  ".join(["classifier".ljust(width), *columns])]
    for name, scores in results.items():
        cells = [f"{100 * scores[column]:.1f}".rjust(len(column)) for column in columns]
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)
