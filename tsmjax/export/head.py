"""A head: what of a trained model is exported, with what goes in and comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tsmjax import pretrained
from tsmjax.errors import InputError
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of an exported function.

    Attributes:
      shape: sizes of the axes; None for the batch, which comes first and may be fixed.
      dtype: name of the NumPy type.
      meaning: what it holds, for the reader of the file.
    """

    shape: tuple[int | None, ...]
    dtype: str
    meaning: str

    @property
    def axes(self) -> list[str]:
        """The sizes, as users read them."""
        return ["batch" if size is None else str(size) for size in self.shape]


@dataclasses.dataclass(frozen=True)
class Head:
    """A function of weights and inputs.

    Attributes:
      family: of the model.
      part: which part of the model; "model" for all of it.
      function: (weights, {name: array}) → {name: array}.
      weights: nested dict of float32 arrays.
      inputs: by name.
      outputs: what each output holds, by name.
      facts: what users of the file must know: quantiles, labels, preprocessing (JSON values).
      sample: (generator, rows) → random inputs, with missing values where the model allows them.
      labelled: part of the data set, "train" or "test" → (inputs of one row, class) of each example
        that counts, those of "train" shuffled; None where there are no classes.
      form: context in which the function is traced for export, where other runtimes want it in a
        form that is not JAX's fastest.
    """

    family: str
    part: str
    function: Callable[[Tree, Mapping[str, jax.Array]], dict[str, jax.Array]]
    weights: Tree
    inputs: dict[str, Input]
    outputs: dict[str, str]
    facts: dict[str, Any]
    sample: Callable[[np.random.Generator, int], Arrays]
    labelled: Callable[[str], Iterator[tuple[Arrays, int]]] | None = None
    form: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    @property
    def rows(self) -> int | None:
        """Rows of a call, or None when it takes any number."""
        return next(iter(self.inputs.values())).shape[0]


def load(path: str, options: Mapping[str, Any]) -> Head:
    """Load the head of a trained model.

    Args:
      path: run folder, Hugging Face folder or hub id.
      options: options of the family's `head`; None counts as not given.

    Raises:
      InputError: when there is nothing to load, or the family has no such option.
    """
    family = pretrained.model_values(path)["family"]
    given = {name: value for name, value in options.items() if value is not None}
    own = f"tsmjax.export.heads.{family.rpartition('.')[2]}"
    known = importlib.util.find_spec(own) is not None
    module = importlib.import_module(own) if known else _foreign(family)
    takes = list(inspect.signature(module.head).parameters)[1:]
    if "single" in given and "single" not in takes:
        raise InputError(
            f"Models of the family {family} are exported as onnx, for any number of rows: export "
            "without --single."
        )
    if wrong := [name for name in given if name not in takes]:
        rest = ", ".join(f"--{name}" for name in takes)
        raise InputError(
            f"The family {family} takes no --{wrong[0]}; of such options it takes {rest or 'none'}."
        )
    return module.head(path, **given)


def _foreign(family: str) -> Any:
    name = f"{family}_head"
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"Nothing says what of {family} is exported: write a module {name} with a function "
            "head(path), as those in tsmjax/export/heads do."
        )
    return importlib.import_module(name)


def of_model(
    path: str, prepare: Callable[[Any], Any] = lambda model: model
) -> tuple[pretrained.Pretrained, Callable[[Tree], Any], Tree]:
    """Load a whole model, prepared: with its task, how to rebuild the module, and its weights."""
    loaded = pretrained.from_pretrained(path)
    graph, params, stats = functional.split(prepare(loaded.model))

    def rebuild(weights: Tree) -> Any:
        return functional.merge(graph, weights["params"], weights.get("stats", {}))

    return loaded, rebuild, {"params": params, "stats": stats} if stats else {"params": params}


def metadata(head: Head, source: str) -> dict[str, Any]:
    """What users of a file are told: JSON values."""
    inputs = {
        name: {
            "shape": ["batch" if size is None else size for size in given.shape],
            "dtype": given.dtype,
            "meaning": given.meaning,
        }
        for name, given in head.inputs.items()
    }
    parameters = sum(leaf.size for leaf in functional.flatten(head.weights).values())
    facts = {"family": head.family, "part": head.part, "source": source, "parameters": parameters}
    return {**facts, "inputs": inputs, "outputs": head.outputs, **head.facts}


def size(name: str, value: int | None, default: int, least: int, most: int) -> int:
    """Return the value of an option, which must be in a range.

    Raises:
      InputError: when it is not.
    """
    value = default if value is None else value
    if not least <= value <= most:
        raise InputError(f"--{name} is {value}, but must be from {least} to {most}.")
    return value


def walks(rng: np.random.Generator, shape: tuple[int, ...], missing: float = 0.1) -> np.ndarray:
    """Random walks about a level of their own, some steps missing, now and then a broken one.

    One row in eight has no observation at all, and one in eight never changes.
    """
    x = rng.normal(size=shape).cumsum(axis=-1)
    x = x + rng.normal(0, 10, (*shape[:-1], 1))
    kind = rng.random((*shape[:-1], 1))
    x = np.where(kind < 1 / 8, 3.0, x)
    x = np.where(rng.random(shape) < missing, np.nan, x)
    x = np.where(rng.random(shape) < missing / 50, np.inf, x)
    return np.where(kind > 7 / 8, np.nan, x).astype(np.float32)
