"""The weight tables: which families there are, and what each says about itself.

A family's table is a module of this package, named like the family, and holds data:

- ``RULES``: (source key, target path, transform) triples, for parameters and for statistics such
  as BatchNorm's. ``{i}`` stands for a layer number, and other letters in braces for further
  numbers; the target ``blocks/{i}/x`` also covers the stacked leaf ``blocks/x`` with its leading
  layer axis. When names depend on the config, ``rules(values)`` takes the place of ``RULES``.
- ``IGNORED`` (optional): patterns of source keys that are passed over; ``ignored(values)`` where
  they depend on the config.
- ``TASK``: the task kind that the weights were made for.
- ``matches(hf)``: whether a config.json is of this family.
- ``to_config(hf)`` and ``from_config(values)``: config.json ↔ values of the family's `Config`.
- ``PEFT``: the reference's class, as PEFT's ``auto_mapping`` names it; optional.
- ``SAME`` (optional): source key → the key of the same tensor, for parameters with several names.
- ``PARTS`` (optional): family → child of the model that is a model of that family.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import tsmjax.weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError, closest
from tsmjax.nn.functional import abstract, flatten
from tsmjax.weights import plan

_TOOLS = ("engine", "folder", "hub", "layout", "lora", "plan", "tables")  # no tables themselves


def families() -> list[str]:
    """Return the names of all families that have a table."""
    modules = pkgutil.iter_modules(tsmjax.weights.__path__)
    return [module.name for module in modules if module.name not in _TOOLS]


def table(family: str) -> ModuleType:
    """Return the table of a family.

    Raises:
      InputError: when there is none.
    """
    if family not in families():
        raise InputError(
            f"There is no weight table for family {family!r}{closest(family, families())}; known "
            f"are {', '.join(families())}."
        )
    return importlib.import_module(f"tsmjax.weights.{family}")


def identify(hf: Mapping[str, Any]) -> str:
    """Return the one family whose table recognises a config.json.

    Raises:
      InputError: when none does, or several do.
    """
    found = [family for family in families() if table(family).matches(hf)]
    if len(found) == 1:
        return found[0]
    what = f"model_type {hf.get('model_type')!r}, architectures {hf.get('architectures')!r}"
    if found:
        raise InputError(f"A config.json ({what}) fits several families: {', '.join(found)}.")
    raise InputError(
        f"A config.json ({what}) is of no known family; known are {', '.join(families())}."
    )


def family_of(hf: Mapping[str, Any], expected: str | None, where: str) -> str:
    """Return the family of a config.json, from our own key or as `identify` does.

    Raises:
      InputError: when it is none, or not the `expected` one; `where` says which file.
    """
    if expected is not None:
        table(expected)
    found = hf.get("tsmjax", {}).get("family") or identify(hf)
    if expected is not None and found != expected:
        raise InputError(f"{where} holds a {found} model, but {expected} was asked for.")
    return found


def parts(family: str) -> dict[str, str]:
    """Return family → child of the model, for the parts of a family that have a table too."""
    return dict(getattr(table(family), "PARTS", {}))


def task(family: str) -> str:
    """Return the kind of task that a family's published weights were trained for."""
    return table(family).TASK


def rules_of(table: ModuleType, values: Mapping[str, Any]) -> plan.Rules:
    """Return the rules of a table for a model that `values` describe."""
    return table.rules(values) if hasattr(table, "rules") else table.RULES


def ignored_by(table: ModuleType, values: Mapping[str, Any]) -> Sequence[str]:
    """Return the patterns of keys that a table passes over for a model that `values` describe."""
    return table.ignored(values) if hasattr(table, "ignored") else getattr(table, "IGNORED", ())


def leaves_of(family: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Path → abstract leaf of the model that `values` describe: parameters, statistics."""
    module = find_module("models", family)
    config = build(module.Config, values, "model")
    _, params, stats = abstract(lambda rngs: module.Model(config, rngs=rngs))
    return flatten(params), flatten(stats)
