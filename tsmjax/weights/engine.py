"""The engine behind every weight table.

A family's table is a module of this package, named like the family, and holds data:

- ``RULES``: (source key, target path, transform) triples, for parameters and for statistics such
  as BatchNorm's. ``{i}`` stands for a layer number, and other letters in braces for further
  numbers; the target ``blocks/{i}/x`` also covers the stacked leaf ``blocks/x`` with its leading
  layer axis. When names depend on the config, ``rules(values)`` takes the place of ``RULES``.
- ``IGNORED``: patterns of source keys that hold no weights; optional.
- ``TASK``: the task kind that the weights were made for.
- ``matches(hf)``: whether a config.json is of this family.
- ``to_config(hf)`` and ``from_config(values)``: config.json ↔ values of the family's `Config`.
- ``PEFT``: the reference's class, as PEFT's ``auto_mapping`` names it.

The rules expand to a one-to-one plan between the tensors of a file and the (slices of) parameters
of a model; whatever does not fit on either side is an error that lists the names.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import tsmjax.weights
from tsmjax.config import build, find_module
from tsmjax.data.cache import beside
from tsmjax.errors import InputError, closest
from tsmjax.nn.functional import Tree, abstract, flatten, unflatten
from tsmjax.nn.lora import split
from tsmjax.weights import hub, lora

FORMAT = 1  # of the `tsmjax` key in config.json
_Map = Callable[[np.ndarray], np.ndarray]
TRANSFORMS: dict[str, tuple[_Map, _Map]] = {  # ours to the file's, and back
    "": (lambda x: x, lambda x: x),
    # torch linears are (out, in), our kernels (in, out)
    "T": (np.transpose, np.transpose),
    # 1×1 convolutions: (out, in, 1, 1)
    "conv": (lambda x: x.T[:, :, None, None], lambda x: x[:, :, 0, 0].T),
    # depthwise convolutions along time: (channels, 1, k, 1), ours (k, channels)
    "depthwise": (lambda x: x.T[:, None, :, None], lambda x: x[:, 0, :, 0].T),
    # tables of channels, or channels and frames: (1, C, T, 1)
    "channels": (lambda x: x[None, :, None, None], lambda x: x[0, :, 0, 0]),
    "frames": (lambda x: x[None, :, :, None], lambda x: x[0, :, :, 0]),
}
_Rules = Sequence[tuple[str, str, str]]
_SAID = ("quantiles", "source")  # artefacts that stay out of config.json
_TOOLS = ("engine", "hub", "lora")  # modules of this package that are no tables


@dataclasses.dataclass(frozen=True)
class Imported:
    """Weights read from a Hugging Face folder.

    Attributes:
      family: name of the model family.
      config_values: values of the family's `Config`.
      params: nested dict of fp32 NumPy arrays in the layout that the config asks for.
      source: where they came from, with a digest of the weight files.
      artefacts: what the task stored beside the weights; empty for foreign folders.
      stats: nested dict of the statistics that the family's table knows of.
    """

    family: str
    config_values: dict[str, Any]
    params: Tree
    source: str
    artefacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    stats: Tree = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a tensor of a file belongs in a parameter tree."""

    path: str
    layer: int | None  # index into the leading axis of a stacked leaf
    shape: tuple[int, ...]  # as stored in the file
    transform: str


def read(
    path: str | Path,
    family: str | None = None,
    model_overrides: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
) -> Imported:
    """Read a Hugging Face folder, hub id or LoRA adapter folder.

    Args:
      path: folder with config.json and safetensors (one file, or shards with their index), folder
        with a PEFT LoRA adapter, which is merged into its base model, or the hub id of either.
      family: the expected family; None finds it from config.json.
      model_overrides: `Config` values that replace those of the folder.
      base: base model of an adapter; None takes the one that the adapter names.

    Raises:
      InputError: when the path, the config or a tensor does not fit.
    """
    folder = hub.resolve(path)
    weights, adapter = _base(folder, base)
    hf = _read_json(weights / "config.json")
    family = _family(hf, family, str(weights))
    table = _table(family)
    values = {**table.to_config(hf), **(model_overrides or {})}
    files = _files(weights)
    parameters, statistics = _leaves(family, values)
    plan = _plan(_rules(table, values), parameters, statistics)
    flat = _fill(files, plan, {**parameters, **statistics}, _ignored(table), adapter, str(weights))
    digest = _digest([*files, *([folder / lora.WEIGHTS] if adapter else [])])
    artefacts = hf.get("tsmjax", {}).get("artefacts", {})
    params, stats = (
        unflatten({path: flat[path] for path in leaves if path in flat})
        for leaves in (parameters, statistics)
    )
    return Imported(family, values, params, f"{path} (sha256 {digest})", artefacts, stats)


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Return family and `Config` values of what `read` would read, without reading the weights.

    Raises:
      InputError: when the path or the config does not fit.
    """
    weights, _ = _base(hub.resolve(path))
    hf = _read_json(weights / "config.json")
    family = _family(hf, None, str(weights))
    return family, _table(family).to_config(hf)


def write(
    folder: str | Path,
    family: str,
    config_values: Mapping[str, Any],
    params: Tree,
    artefacts: Mapping[str, Any] | None = None,
    stats: Tree | None = None,
) -> None:
    """Write a Hugging Face folder: config.json and model.safetensors.

    Args:
      folder: a folder that does not exist yet, or is empty; it appears when it is complete.
      family: name of the model family.
      config_values: values of the family's `Config`.
      params: nested dict of the model's parameters, in the layout of the config.
      artefacts: what the task stored beside the weights, such as names and scalers of channels;
        goes into config.json, below our own key, but for quantile levels, which are there already,
        and the source.
      stats: nested dict of the model's statistics; needed by families whose table names them.

    Raises:
      InputError: when the folder is taken or the parameters do not fit the config.
    """
    folder, table = Path(folder), _table(family)
    _refuse_taken(folder)
    stored = tensors(family, config_values, params, stats or {})
    ours = {"family": family, "task": task(family), "format": FORMAT}
    if kept := {name: x for name, x in (artefacts or {}).items() if name not in _SAID}:
        ours["artefacts"] = kept
    config = {**table.from_config(config_values), "tsmjax": ours}
    with beside(folder) as unfinished:
        unfinished.mkdir(parents=True)
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(stored, unfinished / "model.safetensors", metadata={"format": "pt"})


def write_adapter(
    folder: str | Path,
    family: str,
    config_values: Mapping[str, Any],
    params: Tree,
    alpha: float,
    base: str,
) -> None:
    """Write the low-rank adapters among `params` as a folder that PEFT loads.

    Args:
      folder: a folder that does not exist yet, or is empty; it appears when it is complete.
      family: name of the model family.
      config_values: values of the family's `Config`.
      params: nested dict of the model's parameters, with at least one adapter.
      alpha: numerator of the adapters' scale.
      base: Hugging Face folder or hub id of the model that the adapters belong to.

    Raises:
      InputError: when the folder is taken.
    """
    folder, table = Path(folder), _table(family)
    _refuse_taken(folder)
    _, adapters = split(params)
    factors = {}
    for module, (path, layer) in projections(family, config_values).items():
        if path in adapters:
            a, b = (leaf if layer is None else leaf[layer] for leaf in adapters[path])
            factors[f"{module}.weight"] = (np.asarray(a).T, np.asarray(b).T)
    adapter = lora.Adapter(base, factors, alpha, rank_stabilised=False, source=str(folder))
    with beside(folder) as unfinished:
        unfinished.mkdir(parents=True)
        lora.save(unfinished, adapter, table.PEFT)


def projections(family: str, config_values: Mapping[str, Any]) -> dict[str, tuple[str, int | None]]:
    """Map the reference's name of each projection to our path, and layer when it is in a stack."""
    plan = _plan(_rules(_table(family), config_values), _leaves(family, config_values)[0])
    return {
        name.removesuffix(".weight"): (slot.path.removesuffix("/kernel"), slot.layer)
        for name, slot in plan.items()
        if slot.path.endswith("/kernel")
    }


def tensors(
    family: str, config_values: Mapping[str, Any], params: Tree, stats: Tree | None = None
) -> dict[str, np.ndarray]:
    """Name and lay out a parameter tree (or its gradient) like the reference implementation.

    Args:
      family: name of the model family.
      config_values: values of the family's `Config`.
      params: nested dict of the model's parameters, in the layout of the config.
      stats: nested dict of the model's statistics, of which those are named that the family's table
        knows; None for none.

    Raises:
      InputError: when the parameters or statistics do not fit the config.
    """
    parameters, statistics = _leaves(family, config_values)
    rules = _rules(_table(family), config_values)
    plan = _plan(rules, parameters, {} if stats is None else statistics)
    named = {slot.path for slot in plan.values()}
    given = flatten(stats or {})
    found = flatten(params) | {path: leaf for path, leaf in given.items() if path in named}
    _refuse_difference(
        {path: leaf.shape for path, leaf in {**parameters, **statistics}.items() if path in named},
        {path: tuple(leaf.shape) for path, leaf in found.items()},
        "The parameter tree",
    )
    stored = {}
    for name, slot in plan.items():
        leaf = found[slot.path] if slot.layer is None else found[slot.path][slot.layer]
        stored[name] = np.ascontiguousarray(TRANSFORMS[slot.transform][0](np.asarray(leaf)))
    return stored


def task(family: str) -> str:
    """Return the kind of task that a family's published weights were trained for."""
    return _table(family).TASK


def identify(hf: Mapping[str, Any]) -> str:
    """Return the one family whose table recognises a config.json.

    Raises:
      InputError: when none does, or several do.
    """
    found = [family for family in _families() if _table(family).matches(hf)]
    if len(found) == 1:
        return found[0]
    what = f"model_type {hf.get('model_type')!r}, architectures {hf.get('architectures')!r}"
    if found:
        raise InputError(f"A config.json ({what}) fits several families: {', '.join(found)}.")
    raise InputError(
        f"A config.json ({what}) is of no known family; known are {', '.join(_families())}."
    )


def relayout(tree: Tree, target: Tree) -> Tree:
    """Stack or unstack the layers of `tree` so that it has the layout of `target`.

    Args:
      tree: nested dict of parameters, with layers either as ``blocks/0/…`` or stacked in
        ``blocks/…`` with a leading layer axis.
      target: nested dict of the wanted layout; only its paths matter.

    Returns:
      The same parameters. Those that `target` has in neither layout keep their paths, so that a
      comparison with `target` finds them.
    """
    source, wanted = flatten(tree), flatten(target)
    members, depth = _by_layer(source), {x: len(y) for x, y in _by_layer(wanted).items()}
    flat, used = {}, set()
    for path in wanted:
        stacked, layer = _layer(path) or (path, None)
        if path in source:
            flat[path] = source[path]
            used.add(path)
        elif layer is None and path in members:
            names = [members[path][i] for i in sorted(members[path])]
            flat[path] = np.stack([source[name] for name in names])
            used.update(names)
        elif stacked in source and depth[stacked] == len(source[stacked]):
            flat[path] = source[stacked][layer]
            used.add(stacked)
    return unflatten({path: leaf for path, leaf in source.items() if path not in used} | flat)


def _families() -> list[str]:
    modules = pkgutil.iter_modules(tsmjax.weights.__path__)
    return [module.name for module in modules if module.name not in _TOOLS]


def _table(family: str) -> ModuleType:
    if family not in _families():
        raise InputError(
            f"There is no weight table for family {family!r}{closest(family, _families())}; known "
            f"are {', '.join(_families())}."
        )
    return importlib.import_module(f"tsmjax.weights.{family}")


def _family(hf: dict[str, Any], expected: str | None, where: str) -> str:
    if expected is not None:
        _table(expected)
    found = hf.get("tsmjax", {}).get("family") or identify(hf)
    if expected is not None and found != expected:
        raise InputError(f"{where} holds a {found} model, but {expected} was asked for.")
    return found


def _rules(table: ModuleType, values: Mapping[str, Any]) -> _Rules:
    return table.rules(values) if hasattr(table, "rules") else table.RULES


def _ignored(table: ModuleType) -> Sequence[str]:
    return getattr(table, "IGNORED", ())


def _leaves(family: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Path → abstract leaf of the model that `values` describe: parameters, statistics."""
    module = find_module("models", family)
    config = build(module.Config, values, "model")
    _, params, stats = abstract(lambda rngs: module.Model(config, rngs=rngs))
    return flatten(params), flatten(stats)


def _plan(
    rules: _Rules, parameters: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
) -> dict[str, _Slot]:
    """Source key → slot, for the tensors that fill `parameters`, and `statistics` with a rule."""
    plan: dict[str, _Slot] = {}
    for path, leaf in {**parameters, **(statistics or {})}.items():
        slots = list(_slots(rules, path, tuple(leaf.shape)))
        if not slots and path in parameters:
            raise AssertionError(f"The weight table has no rule for the parameter {path}")
        for source, slot in slots:
            if source in plan:
                raise AssertionError(f"The weight table uses the tensor {source} twice")
            plan[source] = slot
    return plan


def _slots(rules: _Rules, path: str, shape: tuple[int, ...]) -> Iterator[tuple[str, _Slot]]:
    for source, target, transform in rules:
        if unrolled := _pattern(target).fullmatch(path):
            stored = _stored(transform, shape)
            name = source.format_map(unrolled.groupdict())
            yield name, _Slot(path, None, stored, transform)
        elif "{i}" in target and target.replace("/{i}", "") == path:
            stored = _stored(transform, shape[1:])
            for layer in range(shape[0]):
                yield source.replace("{i}", str(layer)), _Slot(path, layer, stored, transform)


def _stored(transform: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the file of a parameter of `shape`."""
    return TRANSFORMS[transform][0](np.broadcast_to(np.float32(0), shape)).shape


@functools.cache
def _pattern(target: str) -> re.Pattern[str]:
    """Return what a target path matches: each placeholder is a number, by its name."""
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(target)))


def _fill(
    files: list[Path],
    plan: Mapping[str, _Slot],
    leaves: Mapping[str, Any],
    ignored: Sequence[str],
    adapter: lora.Adapter | None,
    where: str,
) -> dict[str, np.ndarray]:
    """Stream the tensors of `files`, one by one, into arrays by path."""
    try:
        opened = [safe_open(file, framework="numpy") for file in files]
    except SafetensorError as error:
        raise InputError(f"{where} holds a damaged safetensors file ({error}).") from error
    found: dict[str, Any] = {}
    for file in opened:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name in found:
                raise InputError(f"{where} stores the tensor {name} twice.")
            if any(re.search(pattern, name) for pattern in ignored):
                continue
            found[name] = file
    _refuse_difference(
        {name: slot.shape for name, slot in plan.items()},
        {name: tuple(file.get_slice(name).get_shape()) for name, file in found.items()},
        where,
    )
    if adapter is not None:
        adapter.check({name: slot.shape for name, slot in plan.items()})
    paths = {slot.path for slot in plan.values()}
    flat = {path: np.empty(x.shape, np.float32) for path, x in leaves.items() if path in paths}
    for name, slot in plan.items():
        tensor = np.asarray(found[name].get_tensor(name), np.float32)
        if adapter is not None:
            tensor = adapter.merge(name, tensor)
        leaf = flat[slot.path]
        leaf[... if slot.layer is None else slot.layer] = TRANSFORMS[slot.transform][1](tensor)
    return flat


def _base(folder: Path, base: str | Path | None = None) -> tuple[Path, lora.Adapter | None]:
    """Return the folder of the weights, and the adapter when `folder` holds one."""
    if (folder / lora.CONFIG).exists():
        adapter = lora.load(folder)
        return hub.resolve(base or adapter.base), adapter
    if base is not None:
        raise InputError(f"A base model was given, but {folder} holds no {lora.CONFIG}.")
    return folder, None


def _refuse_taken(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another target folder.")


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(_read_json(index)["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}; download the whole folder.")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {path.name}: not a model folder.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None


def _digest(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                sha.update(chunk)
    return sha.hexdigest()


def _layer(path: str) -> tuple[str, int] | None:
    """Split ``blocks/3/x`` into (``blocks/x``, 3); None when no component is a number."""
    match = re.fullmatch(r"(.*?)/(\d+)/(.*)", path)
    return (f"{match[1]}/{match[3]}", int(match[2])) if match else None


def _by_layer(paths: Iterable[str]) -> dict[str, dict[int, str]]:
    """Group ``blocks/3/x`` as {``blocks/x``: {3: ``blocks/3/x``}}."""
    groups: dict[str, dict[int, str]] = {}
    for path in paths:
        if split := _layer(path):
            groups.setdefault(split[0], {})[split[1]] = path
    return groups


def _refuse_difference(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str
) -> None:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if missing or extra or shapes:
        raise InputError(f"{where} does not fit the config: {_names(missing, extra, shapes)}.")


def _names(missing: list[str], extra: list[str], shapes: Sequence[str] = (), limit: int = 8) -> str:
    parts = []
    for what, names in (("missing", missing), ("unexpected", extra), ("shapes", shapes)):
        if names:
            rest = f" and {len(names) - limit} more" if len(names) > limit else ""
            parts.append(f"{what} {', '.join(names[:limit])}{rest}")
    return "; ".join(parts)
