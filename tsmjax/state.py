"""The training state: the only owner of its shape.

    state = {params: {model, aux}, stats: {model, aux}, average, opt, guard, step}

is a plain dict, donated to every step (but on CPU) and saved. `frozen`, its companion, is neither:
it holds the frozen modules and those leaves of the trained modules that rules freeze, in the
compute type.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from tsmjax import optim, sharding
from tsmjax.checkpoint import overlay
from tsmjax.errors import InputError
from tsmjax.nn import functional, int8, lora
from tsmjax.nn.functional import Tree, cast, flatten, unflatten
from tsmjax.tasks import Modules, Task

NAMES = Modules._fields  # model, aux, frozen
_REPLICATED = ((lora.LEAF, ()), (int8.LEAF, ()))  # small


@dataclasses.dataclass(frozen=True, eq=False)
class Blueprint:
    """Static description of a task's modules: what splits and reassembles them.

    Attributes:
      graphs: graph definition of each module.
      params: abstract trainable parameters, ``{model, aux}``.
      stats: abstract statistics, ``{model, aux}``.
      frozen: abstract frozen leaves, ``{params: {model, aux, frozen}, stats: {frozen}}``.
      dtype: type of the forward and backward pass.
    """

    graphs: dict[str, nnx.GraphDef]
    params: Tree
    stats: Tree
    frozen: Tree
    dtype: jnp.dtype

    def assemble(self, params: Tree, stats: Tree, frozen: Tree) -> Modules:
        """Rebuild the modules around traced leaves, with parameters in the compute type."""
        everything = overlay(cast(params, self.dtype), cast(frozen["params"], self.dtype))
        statistics = {**stats, **frozen["stats"]}
        return Modules(
            **{
                name: functional.merge(graph, everything.get(name, {}), statistics.get(name, {}))
                for name, graph in self.graphs.items()
            }
        )

    def stats_of(self, modules: dict[str, nnx.Module]) -> Tree:
        """Statistics of the trained modules after a call in training mode updated them."""
        return {name: functional.stats_of(module) for name, module in modules.items()}

    def model_params(self) -> Tree:
        """Abstract parameters of the model in float32: frozen too, no adapters, no int8."""
        model = overlay(self.params["model"], self.frozen["params"].get("model", {}))
        model, _ = lora.split(model)
        model = unflatten({p: x for p, x in flatten(model).items() if not re.search(int8.LEAF, p)})
        return _in_float32(model)

    def frozen_params(self, path: str) -> Tree:
        """Abstract parameters in float32 of the module at `path` inside the frozen one."""
        return _in_float32(_under(self.frozen["params"]["frozen"], path))


def blueprint(task: Task, config: optim.OptimConfig) -> Blueprint:
    """Describe the modules of `task` without allocating them.

    Raises:
      InputError: when a rule of ``optim.freeze`` or ``optim.lora.targets`` matches nothing.
    """
    graphs: dict[str, nnx.GraphDef] = {}

    def shapes() -> tuple[Tree, Tree, Tree]:
        parts = _split(_build(task, config, nnx.Rngs(0)))
        graphs.update({name: part[0] for name, part in parts.items()})
        return _partition(parts, config, task.freeze)

    params, stats, frozen = jax.eval_shape(shapes)
    return Blueprint(graphs, params, stats, frozen, jnp.dtype(config.precision))


def create(
    task: Task, plan: Blueprint, config: optim.OptimConfig, mesh: Mesh, replicate_below: int
) -> tuple[Any, Tree, Tree]:
    """Plan the fresh state: a jitted ``init(key)`` and abstract leaves with shardings.

    Returns:
      ``init(key) -> (state, frozen)``, abstract state, abstract frozen leaves. The state comes out
      of one jitted call, so that every leaf is placed once and the step compiles once.
    """
    tx = optim.transformation(config, optim.groups(config, plan.params))

    def init(key: jax.Array) -> tuple[Tree, Tree]:
        scale = {}
        if config.precision == "float16":
            scale = {"loss_scale": jnp.float32(config.loss_scale), "calm_steps": jnp.int32(0)}
        params, stats, frozen = _partition(
            _split(_build(task, config, nnx.Rngs(key))), config, task.freeze
        )
        state = {
            "params": params,
            "stats": stats,
            "average": jax.tree.map(jnp.copy, params) if config.averages else {},
            "opt": tx.init(params),
            "guard": {"bad": jnp.int32(0), "bad_in_row": jnp.int32(0), **scale},
            "step": jnp.int32(0),
        }
        # An initialiser may leave a weakly typed leaf (jnp.full without a dtype); the step returns
        # strong types, and would compile a second time for them.
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), (state, frozen))

    state, frozen = jax.eval_shape(init, jax.random.key(0))
    rules = (*_REPLICATED, *task.sharding)
    placed = sharding.place(rules, plan.params, mesh, replicate_below)
    state_places = sharding.place_like(state, plan.params, placed, mesh)
    frozen_params = frozen["params"]
    frozen_places = {
        "params": sharding.place(rules, frozen_params, mesh, replicate_below),
        "stats": jax.tree.map(lambda _: sharding.replicated(mesh), frozen["stats"]),
    }
    places = (state_places, frozen_places)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        (state, frozen),
        places,
    )
    return jax.jit(init, out_shardings=places), *abstract


def replace_model(state: Tree, frozen: Tree, model: Tree, stats: Tree) -> tuple[Tree, Tree]:
    """Put host arrays of a loaded model in place of the fresh ones, shardings kept.

    Args:
      state: the fresh state; its running average restarts from the loaded parameters.
      frozen: the fresh frozen leaves.
      model: nested dict with (some of) the model's parameters.
      stats: nested dict with (some of) the model's statistics.
    """
    loaded = flatten(model)
    params = {**state["params"], "model": _put(state["params"]["model"], loaded)}
    new_stats = {**state["stats"], "model": _put(state["stats"]["model"], flatten(stats))}
    average = jax.tree.map(jnp.copy, params) if state["average"] else {}
    state = {**state, "params": params, "stats": new_stats, "average": average}
    if "model" not in frozen["params"]:  # an empty one would not be found in a run's folder again
        return state, frozen
    held = flatten(frozen["params"]["model"])
    for path in [path for path in loaded if path in held and held[path].dtype == jnp.int8]:
        scale = f"{path}_scale"
        loaded[path], loaded[scale] = int8.quantise(loaded[path], held[scale].dtype)
    replaced = {**frozen["params"], "model": _put(unflatten(held), loaded)}
    return state, {**frozen, "params": replaced}


def replace_frozen(frozen: Tree, path: str, params: Tree, stats: Tree) -> Tree:
    """Put host arrays of a loaded module in place of the one at `path` inside the frozen module."""
    loaded = {**flatten(params), **flatten(stats)}
    values = {f"frozen/{path}/{name}": leaf for name, leaf in loaded.items()}
    return {name: _put(frozen[name], values) for name in ("params", "stats")}


class Row(NamedTuple):
    """One line of `table`: the parameters of one path, in all layers that agree.

    Attributes:
      path: path, with ``*`` for the number of the layer.
      tensors: number of parameters of this path.
      shape: shape of each.
      sharding: mesh axes of its dimensions.
      bytes: bytes of all of them on one device.
      trained: "yes" or "frozen".
      decay: weight decay.
      lr_scale: multiplier of the learning rate.
    """

    path: str
    tensors: str
    shape: str
    sharding: str
    bytes: int
    trained: str
    decay: str
    lr_scale: str


def table(plan: Blueprint, config: optim.OptimConfig, state: Tree, frozen: Tree) -> list[Row]:
    """Resolve all path rules on the abstract state and frozen leaves."""
    group = optim.groups(config, plan.params)
    decay, scale = flatten(group.decay), flatten(group.lr_scale)
    rows: collections.Counter[Row] = collections.Counter()
    for trained, tree in (("yes", state["params"]), ("frozen", frozen["params"])):
        for path, leaf in flatten(tree).items():
            axes = [str(axis or "·") for axis in leaf.sharding.spec]
            row = Row(
                path=re.sub(r"/\d+/", "/*/", path),
                tensors="",
                shape=" × ".join(map(str, leaf.shape)) or "scalar",
                sharding=", ".join(axes) if any(leaf.sharding.spec) else "replicated",
                bytes=sharding.bytes_per_device(leaf),
                trained=trained,
                decay=f"{decay[path]:g}" if path in decay else "",
                lr_scale=f"{scale[path]:g}" if path in scale else "",
            )
            rows[row] += 1
    return [
        row._replace(tensors=str(tensors), bytes=tensors * row.bytes)
        for row, tensors in rows.items()
    ]


def count(tree: Tree) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _put(tree: Tree, values: dict[str, Any]) -> Tree:
    """Replace the leaves of `tree` whose paths `values` has, types and shardings kept."""
    return unflatten(
        {
            path: jax.device_put(jnp.asarray(values[path], leaf.dtype), leaf.sharding)
            if path in values
            else leaf
            for path, leaf in flatten(tree).items()
        }
    )


def _in_float32(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), tree)


def _under(tree: Tree, path: str) -> Tree:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def _build(task: Task, config: optim.OptimConfig, rngs: nnx.Rngs) -> Modules:
    """Construct the modules of `task`, with adapters when `config` asks for them."""
    modules = task.build(rngs)
    if config.lora.rank:
        linears = {f"model/{path}": one for path, one in lora.projections(modules.model).items()}
        for path in optim.adapted(config.lora, task.lora, list(linears)):
            linears[path].adapt(config.lora.rank, config.lora.alpha / config.lora.rank, rngs=rngs)
    if config.int8:
        linears = {f"model/{path}": one for path, one in lora.projections(modules.model).items()}
        chosen = optim.first_match(config.int8, list(linears), "optim.int8")
        for path in (path for path, small in chosen.items() if small):
            linears[path].shrink()
    return modules


def _split(modules: Modules) -> dict[str, tuple[nnx.GraphDef, Tree, Tree]]:
    return {
        name: functional.split(module)
        for name, module in modules._asdict().items()
        if module is not None
    }


def _partition(
    parts: dict[str, tuple[nnx.GraphDef, Tree, Tree]],
    config: optim.OptimConfig,
    freeze: optim.Rules,
) -> tuple[Tree, Tree, Tree]:
    """Separate (trainable parameters, statistics, frozen leaves)."""
    params = {name: parts[name][1] for name in parts if name != "frozen"}
    stats = {name: parts[name][2] for name in parts if name != "frozen"}
    flat = flatten(params)
    chosen = optim.frozen(config, list(flat), freeze)
    held = {path: leaf for path, leaf in flat.items() if path in chosen}
    if trains := [path for path in flat if re.search(int8.LEAF, path) and path not in held]:
        name = trains[0].removesuffix("/kernel_scale")
        raise InputError(
            f"optim.int8 chooses {name}, which trains: freeze it (optim.freeze, or a switch of the "
            "task), or choose others."
        )
    held = int8.quantised(held, jnp.dtype(config.precision))
    trained = {name: {} for name in params} | unflatten(
        {path: leaf for path, leaf in flat.items() if path not in held}
    )
    frozen = {"params": unflatten(held), "stats": {}}
    if "frozen" in parts:
        frozen["params"]["frozen"] = parts["frozen"][1]
        frozen["stats"]["frozen"] = parts["frozen"][2]
    frozen["params"] = cast(frozen["params"], jnp.dtype(config.precision))
    return trained, stats, frozen
