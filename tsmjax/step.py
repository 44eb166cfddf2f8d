"""The train step and the forward pass: pure functions of (state, frozen, batch, key).

A term is a sum over rows with a weight that depends on the batch alone. Weights are totalled over
the whole global batch first; each micro-batch then adds its share of the gradient, so that
accumulation and data parallelism give exactly the gradient of the undivided batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from tsmjax import compiler, optim, sharding
from tsmjax.errors import InputError
from tsmjax.nn import layout
from tsmjax.nn.functional import Tree, flatten, unflatten
from tsmjax.state import Blueprint
from tsmjax.tasks import Batch, Task

_CALM = 2000  # steps without an overflow after which the loss scale doubles
_LARGEST_SCALE = 2.0**24


def make_train_step(
    task: Task,
    plan: Blueprint,
    config: optim.OptimConfig,
    schedule: optax.Schedule,
    mesh: Mesh,
    param_places: Tree,
    averaging: optax.Schedule | None = None,
) -> Callable[[Tree, Tree, Batch, jax.Array], tuple[Tree, dict[str, jax.Array]]]:
    """Build ``train_step(state, frozen, batch, key) -> (state, metrics)``.

    Args:
      task: supplies terms and weights.
      plan: supplies the modules.
      config: optimiser, clipping, accumulation, averaging, precision.
      schedule: step → learning rate.
      mesh: where rows are spread.
      param_places: shardings of the trainable parameters; gradients are held to them.
      averaging: step → share of the old average of the parameters in the new one; None for
        ``config.average``.

    A step whose loss or gradient norm is not finite leaves everything but the step counter and the
    guard as it was (but statistics under ``nan_policy`` "reset_bn"). Metrics are float32 scalars:
    ``loss``, each term as ``sum / weight``, ``grad_norm`` (before clipping), ``learning_rate``,
    ``bad`` and ``bad_in_row``; ``pulse`` is (loss, grad_norm, bad_in_row) in one array, for a host
    that looks at every step.
    """
    tx = optim.transformation(config, optim.groups(config, plan.params))
    parts = config.accumulate
    if parts > 1 and task.couples_rows:
        raise InputError(
            "optim.accumulate is above 1, but a term of this task compares rows with each other: "
            "use a larger mesh or a smaller batch instead."
        )

    def loss_of(
        params: Tree,
        stats: Tree,
        frozen: Tree,
        batch: Batch,
        weights: Tree,
        key: jax.Array,
        scale: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, Tree, Tree]]:
        modules = plan.assemble(params, stats, frozen)
        with layout.rows_over(sharding.batch_sharding(mesh)):
            sums = task.terms(modules, batch, key, True)
        means = {name: total / weights[name] for name, total in sums.items()}
        loss = sum(task.coefficients[name] * mean for name, mean in means.items())
        trained = {name: getattr(modules, name) for name in stats}
        return loss if scale is None else scale * loss, (loss, means, plan.stats_of(trained))

    def gradients(params, stats, frozen, batch, weights, key, scale):
        grad = jax.value_and_grad(loss_of, has_aux=True)
        if parts == 1:
            given = (params, stats, frozen, batch, weights, key, scale)
            (_, (loss, means, stats)), grads = grad(*given)
            return loss, means, stats, sharding.constrain(grads, param_places)

        def micro(carry, inputs):
            totals, stats = carry
            part, index = inputs
            part_key = jax.random.fold_in(key, index)
            given = (params, stats, frozen, part, weights, part_key, scale)
            (_, (loss, means, stats)), grads = grad(*given)
            totals = jax.tree.map(jnp.add, totals, (loss, means, grads))
            return (_hold(totals, param_places), stats), None

        zeros = (
            jnp.float32(0),
            dict.fromkeys(weights, jnp.float32(0)),
            jax.tree.map(jnp.zeros_like, params),
        )
        micro_batches = _divide(batch, parts, mesh)
        (totals, stats), _ = jax.lax.scan(
            micro, (_hold(zeros, param_places), stats), (micro_batches, jnp.arange(parts))
        )
        loss, means, grads = totals
        return loss, means, stats, grads

    def train_step(
        state: Tree, frozen: Tree, batch: Batch, key: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        device_key, term_key = jax.random.split(jax.random.fold_in(key, state["step"]))
        batch = task.device(batch, device_key, True)
        # A term without any observation has sum 0 and must not divide by 0.
        weights = {k: jnp.where(w > 0, w, 1.0) for k, w in task.weights(batch).items()}
        params, scale = state["params"], state["guard"].get("loss_scale")
        loss, means, stats, grads = gradients(
            params, state["stats"], frozen, batch, weights, term_key, scale
        )
        if scale is not None:
            grads = jax.tree.map(lambda g: g / scale, grads)
        grad_norm = optax.tree.norm(grads)
        if config.clip:
            # The small constant is PyTorch's, so that both clip by the same factor.
            factor = jnp.minimum(1.0, config.clip / (grad_norm + 1e-6))
            grads = jax.tree.map(lambda g: g * factor, grads)
        rate = jnp.asarray(schedule(state["step"]), jnp.float32)
        direction, opt = tx.update(grads, state["opt"], params)
        new = {
            "params": jax.tree.map(lambda p, d: p - rate * d, params, direction),
            "stats": stats,
            "opt": opt,
        }
        share = averaging(state["step"]) if averaging else config.average
        new["average"] = jax.tree.map(
            lambda a, p: share * a + (1 - share) * p,
            state["average"],
            new["params"] if config.averages else {},
        )
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        last = {name: state[name] for name in new}
        if config.nan_policy == "reset_bn":
            last["stats"] = _neutral(last["stats"])
        kept = jax.tree.map(lambda fresh, old: jnp.where(good, fresh, old), new, last)
        bad = state["guard"]
        guard = {
            "bad": bad["bad"] + ~good,
            "bad_in_row": jnp.where(good, 0, bad["bad_in_row"] + 1),
        }
        if scale is not None:
            guard |= _rescaled(scale, bad["calm_steps"], good)
        metrics = {
            "loss": loss,
            **means,
            "grad_norm": grad_norm,
            "learning_rate": rate,
            **{name: value.astype(jnp.float32) for name, value in guard.items()},
            "pulse": jnp.stack([loss, grad_norm, guard["bad_in_row"].astype(jnp.float32)]),
        }
        return {**kept, "guard": guard, "step": state["step"] + 1}, metrics

    return train_step


def jit_train_step(
    task: Task,
    plan: Blueprint,
    config: optim.OptimConfig,
    schedule: optax.Schedule,
    mesh: Mesh,
    state: Tree,
    donate: bool | None = None,
    averaging: optax.Schedule | None = None,
) -> Callable[[Tree, Tree, Batch, jax.Array], tuple[Tree, dict[str, jax.Array]]]:
    """Jit `make_train_step` for states that are placed, before and after it, like `state`.

    With `donate` a step overwrites the state that it is given. None leaves that to the backend:
    XLA:CPU copies each donated leaf first, which is a third of a small model's step.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    if donate is None:
        donate = jax.default_backend() != "cpu"
    return compiler.jit(
        make_train_step(task, plan, config, schedule, mesh, places["params"], averaging),
        training=True,
        donate_argnums=(0,) if donate else (),
        out_shardings=(places, None),
    )


def make_predict(
    task: Task, plan: Blueprint, mesh: Mesh
) -> Callable[[Tree, Tree, Tree, Batch], Any]:
    """Build ``predict(params, stats, frozen, batch)``, the forward pass without randomness."""

    def predict(params: Tree, stats: Tree, frozen: Tree, batch: Batch) -> Any:
        with layout.rows_over(sharding.batch_sharding(mesh)):
            return task.predict(plan.assemble(params, stats, frozen).model, batch)

    return predict


def _rescaled(scale: jax.Array, calm_steps: jax.Array, good: jax.Array) -> Tree:
    """Loss scale and steps since it changed, after a step.

    Source: Micikevicius et al., "Mixed Precision Training" (2018), section 3.2, with the constants
    of PyTorch's scaler.
    """
    calm_steps = jnp.where(good, calm_steps + 1, 0)
    grown = jnp.where(calm_steps >= _CALM, jnp.minimum(2 * scale, _LARGEST_SCALE), scale)
    return {
        "loss_scale": jnp.where(good, grown, jnp.maximum(scale / 2, 1.0)),
        "calm_steps": jnp.where(calm_steps >= _CALM, 0, calm_steps),
    }


def _neutral(stats: Tree) -> Tree:
    """Statistics of BatchNorm before any batch: variances 1, everything else 0."""
    fresh = {
        path: jnp.ones_like(leaf) if path.endswith("/var") else jnp.zeros_like(leaf)
        for path, leaf in flatten(stats).items()
    }
    return {**stats, **unflatten(fresh)}  # a module without statistics keeps its empty entry


def _hold(totals: tuple[Any, Any, Tree], param_places: Tree) -> tuple[Any, Any, Tree]:
    """Keep the gradient sum sharded like the parameters; unconstrained, it is replicated."""
    loss, means, grads = totals
    return loss, means, sharding.constrain(grads, param_places)


def _divide(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """Reshape each leaf (B, …) to (parts, B/parts, …) with rows of every device in every part."""

    def divide(leaf: jax.Array) -> jax.Array:
        if leaf.shape[0] % parts:
            raise InputError(
                f"The batch has {leaf.shape[0]} leading entries, which optim.accumulate = {parts} "
                "does not divide."
            )
        strided = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)
        spec = jax.sharding.PartitionSpec(None, sharding.BATCH_AXES)
        return sharding.constrain(strided, jax.sharding.NamedSharding(mesh, spec))

    return jax.tree.map(divide, batch)
