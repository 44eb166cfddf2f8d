"""The engine behind every weight table (`tsmjax.weights.tables`).

The rules of a table expand to a one-to-one plan between the tensors of a file and the (slices of)
parameters of a model (`tsmjax.weights.plan`); whatever does not fit on either side is an error that
lists the names. Files are read and written one tensor at a time (`tsmjax.weights.folder`).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.nn.functional import Tree, flatten, unflatten
from tsmjax.nn.lora import split
from tsmjax.weights import folder as folders
from tsmjax.weights import hub, lora, plan, tables

FORMAT = 1  # of the `tsmjax` key in config.json
_SAID = ("quantiles", "source")  # artefacts that stay out of config.json


@dataclasses.dataclass(frozen=True)
class Imported:
    """Weights read from a Hugging Face folder.

    Attributes:
      family: name of the model family.
      config_values: values of the family's `Config`.
      params: nested dict of NumPy arrays in the layout that the config asks for.
      source: where they came from, with a digest of the weight files when it was asked for.
      artefacts: what the task stored beside the weights; empty for foreign folders.
      stats: nested dict of the statistics that the family's table knows of.
    """

    family: str
    config_values: dict[str, Any]
    params: Tree
    source: str
    artefacts: dict[str, Any] = dataclasses.field(default_factory=dict)
    stats: Tree = dataclasses.field(default_factory=dict)


def read(
    path: str | Path,
    family: str | None = None,
    model_overrides: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
    dtype: Any = np.float32,
    digest: bool = True,
) -> Imported:
    """Read a Hugging Face folder, hub id or LoRA adapter folder.

    Args:
      path: folder with config.json and safetensors (one file, or shards with their index), folder
        with a PEFT LoRA adapter, which is merged into its base model, or the hub id of either.
      family: the expected family; None finds it from config.json.
      model_overrides: `Config` values that replace those of the folder.
      base: base model of an adapter; None takes the one that the adapter names.
      dtype: type of the arrays; None keeps the files' own, or float32 where an adapter is merged.
      digest: whether the source holds a digest of the files.

    Raises:
      InputError: when the path, the config or a tensor does not fit.
    """
    opened = _open(path, family, model_overrides, base, digest)
    types: dict[str, np.dtype] = {}
    for name, slot in opened.plan.items():
        stored = opened.dtype(name)
        types[slot.path] = np.promote_types(types.get(slot.path, stored), stored)
    flat = {
        path: _empty(opened.leaves[path].shape, np.dtype(own if dtype is None else dtype))
        for path, own in types.items()
    }
    for name, slot in opened.plan.items():
        slot.put(flat, opened.tensor(name))
    params, stats = (
        unflatten({path: flat[path] for path in leaves if path in flat})
        for leaves in (opened.parameters, opened.statistics)
    )
    return Imported(opened.family, opened.values, params, opened.source, opened.artefacts, stats)


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Return family and `Config` values of what `read` would read, without reading the weights.

    Raises:
      InputError: when the path or the config does not fit.
    """
    weights, _ = _base(hub.resolve(path))
    hf = folders.read_json(weights / "config.json")
    family = tables.family_of(hf, None, str(weights))
    return family, tables.table(family).to_config(hf)


def write(
    folder: str | Path,
    family: str,
    config_values: Mapping[str, Any],
    params: Tree,
    artefacts: Mapping[str, Any] | None = None,
    stats: Tree | None = None,
) -> None:
    """Write a Hugging Face folder: config.json and safetensors, in the types of the arrays.

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
    slots, leaves = _slots(family, config_values, params, stats or {})

    def entry(slot: plan.Slot) -> folders.Entry:
        dtype = np.dtype(leaves[slot.path].dtype)
        return folders.Entry(dtype, slot.shape, lambda: slot.take(leaves))

    entries = {name: entry(slot) for name, slot in slots.items()}
    _write(Path(folder), family, config_values, artefacts or {}, entries)


def rewrite(
    path: str | Path,
    folder: str | Path,
    family: str | None = None,
    model_overrides: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
) -> tuple[str, str]:
    """Read what `read` reads and write what `write` writes, one tensor in memory at a time.

    Args:
      path: see `read`.
      folder: a folder that does not exist yet, or is empty; it appears when it is complete.
      family: the expected family; None finds it from config.json.
      model_overrides: `Config` values that replace those of the folder.
      base: base model of an adapter; None takes the one that the adapter names.

    Returns:
      The family, and where the weights came from, with a digest.

    Raises:
      InputError: when the path, the config or a tensor does not fit, or the folder is taken.
    """
    opened = _open(path, family, model_overrides, base)

    def entry(name: str) -> folders.Entry:
        dtype = opened.dtype(name)
        return folders.Entry(
            dtype, opened.plan[name].shape, lambda: opened.tensor(name).astype(dtype, copy=False)
        )

    entries = {name: entry(name) for name in opened.plan}
    _write(Path(folder), opened.family, opened.values, opened.artefacts, entries)
    return opened.family, opened.source


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
      InputError: when the folder is taken, or the family has no class that PEFT could wrap.
    """
    folder, table = Path(folder), tables.table(family)
    if not hasattr(table, "PEFT"):
        raise InputError(f"PEFT knows no model of family {family}: export it without --adapter.")
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
    rules = tables.rules_of(tables.table(family), config_values)
    return {
        name.removesuffix(".weight"): (slot.path.removesuffix("/kernel"), slot.layer)
        for name, slot in plan.make(rules, tables.leaves_of(family, config_values)[0]).items()
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
    slots, leaves = _slots(family, config_values, params, stats)
    return {name: slot.take(leaves) for name, slot in slots.items()}


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A model folder whose tensors fit the config, none of them read yet."""

    family: str
    values: dict[str, Any]
    parameters: dict[str, Any]
    statistics: dict[str, Any]
    plan: dict[str, plan.Slot]
    found: dict[str, folders.Tensor]
    adapter: lora.Adapter | None
    source: str
    artefacts: dict[str, Any]

    @property
    def leaves(self) -> dict[str, Any]:
        """Path → abstract leaf of parameters and statistics."""
        return {**self.parameters, **self.statistics}

    def dtype(self, name: str) -> np.dtype:
        """Type of a tensor; what is merged is fp32."""
        return self.found[name].dtype if self.adapter is None else np.dtype(np.float32)

    def tensor(self, name: str) -> np.ndarray:
        """Read a tensor as the file has it, merged with the adapter."""
        stored = self.found[name].read()
        if self.adapter is None:
            return stored
        return self.adapter.merge(name, np.asarray(stored, np.float32))


def _open(
    path: str | Path,
    family: str | None,
    model_overrides: Mapping[str, Any] | None,
    base: str | Path | None,
    digest: bool = True,
) -> _Opened:
    """Open what `read` reads, and compare what the files hold with what the model needs."""
    folder = hub.resolve(path)
    weights, adapter = _base(folder, base)
    hf = folders.read_json(weights / "config.json")
    family = tables.family_of(hf, family, str(weights))
    table = tables.table(family)
    values = {**table.to_config(hf), **(model_overrides or {})}
    parameters, statistics = tables.leaves_of(family, values)
    slots = plan.make(tables.rules_of(table, values), parameters, statistics)
    files = folders.files(weights)
    ignored = tables.ignored_by(table, values)
    found = _ours(folders.tensors(files), slots, table, ignored, weights)
    shapes = {name: slot.shape for name, slot in slots.items()}
    _refuse_difference(shapes, {name: x.shape for name, x in found.items()}, str(weights))
    if adapter is not None:
        adapter.check(shapes)
        files = [*files, folder / lora.WEIGHTS]
    source = f"{path} (sha256 {folders.digest(files)})" if digest else str(path)
    artefacts = hf.get("tsmjax", {}).get("artefacts", {})
    return _Opened(
        *(family, values, parameters, statistics, slots, found, adapter, source, artefacts)
    )


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array that begins where JAX can take its memory over without a copy."""
    size, alignment = math.prod(shape) * dtype.itemsize, 64
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size].view(dtype).reshape(shape)


def _ours(
    stored: dict[str, folders.Tensor],
    slots: Mapping[str, plan.Slot],
    table: ModuleType,
    ignored: Sequence[str],
    where: Path,
) -> dict[str, folders.Tensor]:
    """Tensors of a folder under the names of the plan, without those that the table ignores.

    Raises:
      InputError: when two names of one tensor have different values.
    """
    kept = {
        name: tensor
        for name, tensor in stored.items()
        if not any(re.search(pattern, name) for pattern in ignored)
    }
    for name, same in getattr(table, "SAME", {}).items():
        if name in slots or name not in kept:
            continue
        tensor = kept.pop(name)
        if same in kept and not np.array_equal(tensor.read(), kept[same].read()):
            raise InputError(
                f"{where} stores {name} and {same} with different values, but the config ties them."
            )
        kept.setdefault(same, tensor)
    return kept


def _slots(
    family: str, values: Mapping[str, Any], params: Tree, stats: Tree | None
) -> tuple[dict[str, plan.Slot], dict[str, Any]]:
    """Return the plan of a model and its leaves by path, which must fit each other."""
    parameters, statistics = tables.leaves_of(family, values)
    rules = tables.rules_of(tables.table(family), values)
    slots = plan.make(rules, parameters, {} if stats is None else statistics)
    named = {slot.path for slot in slots.values()}
    given = {path: leaf for path, leaf in flatten(stats or {}).items() if path in named}
    found = flatten(params) | given
    _refuse_difference(
        {path: leaf.shape for path, leaf in {**parameters, **statistics}.items() if path in named},
        {path: tuple(leaf.shape) for path, leaf in found.items()},
        "The parameter tree",
    )
    return slots, found


def _write(
    folder: Path,
    family: str,
    values: Mapping[str, Any],
    artefacts: Mapping[str, Any],
    entries: Mapping[str, folders.Entry],
) -> None:
    """Write a folder that appears when it is complete."""
    _refuse_taken(folder)
    ours = {"family": family, "task": tables.task(family), "format": FORMAT}
    if kept := {name: x for name, x in artefacts.items() if name not in _SAID}:
        ours["artefacts"] = kept
    config = {**tables.table(family).from_config(values), "tsmjax": ours}
    types = {entry.dtype for entry in entries.values()}
    if len(types) == 1 and "torch_dtype" in config:
        config["torch_dtype"] = str(types.pop())
    with beside(folder) as unfinished:
        unfinished.mkdir(parents=True)
        folders.write(unfinished, config, entries)


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
