"""Config files to frozen dataclasses: one sentence for every mistake.

A config file holds values only, in the sections ``model, task, data, optim, mesh, checkpoint,
evals, log`` plus ``name`` and ``seed``. Each section becomes a frozen dataclass that belongs to the
module using it. The family, the task and everything else that is chosen by name is a Python module:
``model.family = "chronos2"`` is `tsmjax.models.chronos2`, and a name that tsmjax does not have is
imported as it stands, so a family of one's own needs no registration.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tsmjax.errors import InputError, closest

SECTIONS = ("model", "task", "data", "optim", "mesh", "checkpoint", "evals", "log")
Duration = int | str  # "500 steps" (or 500), "3 epochs", "1%" of the whole run


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole experiment.

    Attributes:
      family: module of the model family, under `tsmjax.models` or importable as it stands.
      kind: module of the task, under `tsmjax.tasks` or importable as it stands.
      model: the family's `Config`.
      task: the task's `Config`.
      data: the task's `DataConfig`.
      optim: how to optimise, and for how long.
      mesh: how devices are arranged.
      checkpoint: what to save, and where to start from.
      evals: what to score during training.
      log: what to report.
      name: name of the experiment; part of the run folder's path.
      seed: seed of everything random.
      debug: train a few steps of a small model without compiling, and check every step
        (`tsmjax.debug`).
    """

    family: str
    kind: str
    model: Any
    task: Any
    data: Any
    optim: Any
    mesh: Any
    checkpoint: Any
    evals: Any
    log: Any
    name: str = "run"
    seed: int = 0
    debug: bool = False

    def build_task(self) -> Any:
        """Construct the task; what it needs of the outside (data sets, files) is opened here."""
        return find_module("tasks", self.kind).Task(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved config as plain JSON values; `resolve` accepts it again."""
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        sections["model"] = {"family": self.family, **sections["model"]}
        sections["task"] = {"kind": self.kind, **sections["task"]}
        return {"name": self.name, "seed": self.seed, "debug": self.debug, **sections}


def resolve(raw: Mapping[str, Any]) -> Config:
    """Turn nested config values into a `Config`, or raise `InputError` naming the field."""
    from tsmjax.checkpoint import CheckpointConfig
    from tsmjax.evals import EvalsConfig
    from tsmjax.monitor import LogConfig
    from tsmjax.optim import OptimConfig
    from tsmjax.sharding import MeshConfig

    raw = raw.to_dict() if hasattr(raw, "to_dict") else dict(raw)
    known = (*SECTIONS, *_SCALARS, "tsmjax")
    for key in raw:
        if key not in known:
            raise InputError(f"The config has no section {key!r}{closest(key, known)}.")
    sections = {name: dict(raw.get(name) or {}) for name in SECTIONS}
    for section, field in (("model", "family"), ("task", "kind")):
        if field not in sections[section]:
            raise InputError(f"The config must say {section}.{field}.")
    family = sections["model"].pop("family")
    kind = sections["task"].pop("kind")
    family_module = find_module("models", family)
    task_module = find_module("tasks", kind)
    owners = {
        "model": family_module.Config,
        "task": task_module.Config,
        "data": task_module.DataConfig,
        "optim": OptimConfig,
        "mesh": MeshConfig,
        "checkpoint": CheckpointConfig,
        "evals": EvalsConfig,
        "log": LogConfig,
    }
    built = {name: build(owner, sections[name], name) for name, owner in owners.items()}
    scalars = build(_Scalars, {name: raw[name] for name in _SCALARS if name in raw}, "")
    return Config(family=family, kind=kind, **vars(scalars), **built)


class _Loader(yaml.SafeLoader):
    """Takes 1e-4 for a number, as YAML 1.2 does; to PyYAML it is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read(path: str | Path) -> dict[str, Any]:
    """Read config values from a YAML or JSON file.

    Raises:
      InputError: when the file holds no mapping.
      OSError: when it cannot be opened.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold the sections of a config: {', '.join(SECTIONS)}.")
    return values


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return config values with every field that they leave to its default.

    Values that do not resolve are returned as they are: what is overridden may mend them.
    """
    try:
        return resolve(values).to_dict()
    except InputError:
        return dict(values)


@dataclasses.dataclass(frozen=True)
class _Scalars:
    name: str = "run"
    seed: int = 0
    debug: bool = False


_SCALARS = tuple(field.name for field in dataclasses.fields(_Scalars))


def build(owner: type, values: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass `owner` from `values`, checking names and types.

    Args:
      owner: a dataclass type; nested dataclasses and tuples of them are built too.
      values: field values, as plain Python or JSON values.
      where: path of the section in the config, used in messages.

    Raises:
      InputError: for an unknown field, a missing one, or a value of the wrong type.
    """
    hints = typing.get_type_hints(owner)
    fields = {field.name: field for field in dataclasses.fields(owner) if field.init}
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in fields:
            raise InputError(
                f"The config field {prefix}{name} does not exist{closest(name, fields)}."
            )
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise InputError(f"The config field {prefix}{name} has no value and needs one.")
    return owner(
        **{name: _convert(value, hints[name], f"{prefix}{name}") for name, value in values.items()}
    )


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as type `hint`, or raise `InputError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return build(hint, value, where)
    elif origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(value, option, where)
            except InputError:
                continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
        choices = ", ".join(map(repr, arguments))
        hint_text = closest(str(value), map(str, arguments))
        raise InputError(
            f"The config field {where} is {value!r}, but must be one of {choices}{hint_text}."
        )
    elif origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(arguments) == len(value):
            pairs = zip(value, arguments, strict=True)
            return tuple(_convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(pairs))
    elif origin is dict and isinstance(value, Mapping):
        return {str(k): _convert(v, arguments[1], f"{where}.{k}") for k, v in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif isinstance(hint, type) and isinstance(value, hint) and (hint, type(value)) != (int, bool):
        return value
    expected = hint.__name__ if isinstance(hint, type) and not arguments else str(hint)
    raise InputError(f"The config field {where} is {value!r}, but must be of type {expected}.")


def find_module(package: str, name: str) -> types.ModuleType:
    """Import `tsmjax.<package>.<name>`, or `name` itself when tsmjax has no such module."""
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise InputError(f"{name!r} is not a module name (looked for one in tsmjax.{package}).")
    for candidate in (f"tsmjax.{package}.{name}", name):
        try:
            found = importlib.util.find_spec(candidate)
        except ModuleNotFoundError:
            found = None
        if found:
            return importlib.import_module(candidate)
    folder = importlib.import_module(f"tsmjax.{package}").__path__[0]
    known = sorted(path.stem for path in Path(folder).iterdir() if not path.stem.startswith("_"))
    raise InputError(
        f"There is no module {name!r} in tsmjax.{package} nor on the Python path"
        f"{closest(name, known)}; tsmjax has {', '.join(known)}."
    )


def find_object(path: str, where: str) -> Any:
    """Import a class or function that a config names as ``package.module:Name``.

    Args:
      path: the name.
      where: the config field, used in messages.

    Raises:
      InputError: when there is no such module or name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The config field {where} names {path!r}, which cannot be loaded ({error}): "
            "it must read package.module:Name."
        ) from error


def steps_of(
    duration: Duration, where: str, steps_per_epoch: float | None = None, total: int | None = None
) -> int:
    """Convert a duration to optimiser steps.

    Args:
      duration: a number of steps, or a text such as ``"200_000 steps"``, ``"3 epochs"``, ``"1%"``.
      where: the config field, used in messages.
      steps_per_epoch: steps of one pass over the data; None when the data have no end.
      total: steps of the whole run, for percentages.

    Raises:
      InputError: when the text has another form, or epochs are asked of endless data.
    """
    text = str(duration).replace("_", "").replace(",", "").strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?|%|)", text)
    if not match:
        raise InputError(
            f"The config field {where} is {duration!r}, but must read like 500, '500 steps', "
            "'3 epochs' or '1%'."
        )
    number, unit = float(match[1]), match[2]
    if unit.startswith("epoch"):
        if steps_per_epoch is None:
            raise InputError(
                f"The config field {where} is {duration!r}, but these data have no epochs: "
                "give it in steps."
            )
        return round(number * steps_per_epoch)
    if unit == "%":
        if total is None:
            raise InputError(f"The config field {where} is {duration!r}: a share of what?")
        return round(number / 100 * total)
    if not number.is_integer():
        raise InputError(f"The config field {where} is {duration!r}: steps are whole numbers.")
    return int(number)
