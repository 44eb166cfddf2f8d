"""Debug mode (``--config.debug=True``): nothing compiled, everything small, every step checked.

Functions run operation by operation, so that print() and breakpoint() work anywhere in a model or a
task and show numbers. The first step that is not finite ends the run, and says where it began.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.config import Config
from tsmjax.errors import InputError
from tsmjax.nn.functional import Tree, flatten
from tsmjax.state import Blueprint
from tsmjax.tasks import Batch, Task

_STEPS = 4
_LAYERS = ("num_layers", "decoder_num_layers")  # fields of models that are cut to two
_ROWS = 8  # rows on each device that are tried for the smallest batch


def small(config: Config) -> Config:
    """Return a config of few steps, two layers and the smallest batch that the data allow.

    Layers stay as they are when weights are loaded. Data are read by threads of this process.
    """
    loaded = (
        config.checkpoint.init_from
        or config.checkpoint.resume_from
        or any(getattr(config.task, part, "") for part in ("llm", "encoder"))
    )
    replace = dataclasses.replace
    config = replace(
        config,
        name=f"{config.name}_debug",
        model=config.model if loaded else _shallow(config.model),
        data=replace(config.data, workers=0),
        optim=replace(config.optim, length=_STEPS, warmup=0, phases=()),
        evals=replace(config.evals, every=_STEPS if config.evals.every else 0),
        checkpoint=replace(config.checkpoint, every=0),
        log=replace(config.log, every=1, health=_STEPS),
    )
    devices = jax.device_count()
    for size in range(devices, min(_ROWS * devices, config.data.batch_size), devices):
        fewer = replace(config, data=replace(config.data, batch_size=size))
        with contextlib.suppress(InputError):  # groups of series need more rows
            fewer.build_task().batches("train", 0, jax.process_count())
            return fewer
    return config


def eager(function: Callable) -> Callable:
    """Return a function that runs `function` operation by operation."""

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        with jax.disable_jit():
            return function(*args)

    return called


def checked(train_step: Callable, task: Task, plan: Blueprint) -> Callable:
    """Return a train step that runs operation by operation and must stay finite.

    Raises:
      InputError: from the step whose loss or gradient is not finite; says where that began.
    """

    def step(
        state: Tree, frozen: Tree, batch: Batch, key: jax.Array
    ) -> tuple[Tree, dict[str, jax.Array]]:
        with jax.disable_jit():
            new, metrics = train_step(state, frozen, batch, key)
            if not (jnp.isfinite(metrics["loss"]) and jnp.isfinite(metrics["grad_norm"])):
                raise InputError(_origin(task, plan, state, frozen, batch, key, metrics))
        return new, metrics

    return step


def _origin(
    task: Task,
    plan: Blueprint,
    state: Tree,
    frozen: Tree,
    batch: Batch,
    key: jax.Array,
    metrics: dict[str, jax.Array],
) -> str:
    """Say where a step stopped being finite: parameters, batch, a module, a term or a gradient."""
    step = int(state["step"]) + 1
    said = [
        f"Step {step} is not finite: loss {float(metrics['loss']):g}, "
        f"gradient norm {float(metrics['grad_norm']):g}"
    ]
    if bad := _not_finite(state["params"]):
        said.append(f"parameters that were not finite before it: {_some(bad)}")
    infinite = [
        f"{name} ({int(jnp.isinf(values).sum())})"
        for name, values in batch.items()
        if jnp.issubdtype(values.dtype, jnp.floating) and jnp.isinf(values).any()
    ]
    if infinite:
        said.append(f"infinite values in the batch: {_some(infinite)}")
    # As the step divides its key.
    device_key, term_key = jax.random.split(jax.random.fold_in(key, state["step"]))
    batch = task.device(batch, device_key, True)
    weights = task.weights(batch)

    def loss_of(params: Tree) -> jax.Array:
        modules = plan.assemble(params, state["stats"], frozen)
        sums = task.terms(modules, batch, term_key, True)
        return sum(
            task.coefficients[name] * total / jnp.where(weights[name] > 0, weights[name], 1.0)
            for name, total in sums.items()
        )

    modules = plan.assemble(state["params"], state["stats"], frozen)
    with _listening(modules.model) as broken:
        sums = task.terms(modules, batch, term_key, True)
    if broken:
        said.append(f"the first module that turns finite numbers into others: {broken[0]}")
    terms = [name for name, total in sums.items() if not jnp.isfinite(total)]
    if terms:
        said.append(f"terms: {_some(terms)}")
    elif bad := _not_finite(jax.grad(loss_of)(state["params"])):
        said.append(f"gradients: {_some(bad)}")
    return "; ".join(said) + "."


@contextlib.contextmanager
def _listening(model: nnx.Module) -> Iterator[list[str]]:
    """Note the modules whose arguments are finite and whose results are not, as they are called."""
    names = {id(module): "/".join(map(str, path)) for path, module in nnx.iter_modules(model)}
    kinds = {type(module) for _, module in nnx.iter_modules(model)}
    broken: list[str] = []
    originals = {kind: vars(kind)["__call__"] for kind in kinds if "__call__" in vars(kind)}

    def listen(call: Callable) -> Callable:
        def heard(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            result = call(self, *args, **kwargs)
            if _finite((args, kwargs)) and not _finite(result):
                kind = type(self).__name__
                path = names.get(id(self), "")
                broken.append(f"model/{path} ({kind})" if path else kind)
            return result

        return heard

    for kind, call in originals.items():
        kind.__call__ = listen(call)
    try:
        yield broken
    finally:
        for kind, call in originals.items():
            kind.__call__ = call


def _finite(tree: Any) -> bool:
    """Whether all floating arrays are finite; what is traced counts as finite."""
    for leaf in jax.tree.leaves(tree):
        traced = isinstance(leaf, jax.core.Tracer)
        if traced or not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        if not jnp.isfinite(leaf).all():
            return False
    return True


def _not_finite(tree: Tree) -> list[str]:
    return [path for path, leaf in flatten(tree).items() if not jnp.isfinite(leaf).all()]


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _shallow(model: Any) -> Any:
    """Cut the depth of a model's config, and of those inside it."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _shallow(value)
        elif field.name in _LAYERS and isinstance(value, int):
            changes[field.name] = min(value, 2)
    return dataclasses.replace(model, **changes)
