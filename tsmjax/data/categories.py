"""Static categories: facts of an item that never change, as the numbers that a model looks up.

An item of an Arrow data set has them in the column ``feat_static_cat``, a list of whole numbers, or
of texts, which are numbered in the order of the alphabet. The schema's `names` may call them by
names, under the same key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tsmjax.errors import InputError, closest

COLUMN = "feat_static_cat"  # as GluonTS calls it


class Category(NamedTuple):
    """One static category.

    Attributes:
      name: what it is called.
      size: how many values the model tells apart; they are numbered from 0.
      values: the text of each number; empty when the data have numbers.
    """

    name: str
    size: int
    values: tuple[str, ...] = ()

    def code(self, value: Any, where: str) -> int:
        """Return the number of a value.

        Raises:
          InputError: naming `where` and the values that are known.
        """
        value = value.item() if isinstance(value, np.generic) else value
        if self.values:
            if str(value) in self.values:
                return self.values.index(str(value))
            known = ", ".join(self.values[:20])
            hint = closest(str(value), self.values)
        else:
            try:
                if 0 <= int(value) < self.size and int(value) == float(value):
                    return int(value)
            except (TypeError, ValueError):
                pass
            known, hint = f"whole numbers from 0 to {self.size - 1}", ""
        raise InputError(
            f"{where} has {self.name} = {value!r}{hint}, but the model was trained with {known}."
        )


def of_items(
    items: Sequence[Mapping[str, Any]], sizes: Sequence[int], names: Sequence[str], path: str
) -> tuple[np.ndarray, list[Category]]:
    """Number the static categories of all items of a data set.

    Args:
      items: columns of each item.
      sizes: numbers of values that the model tells apart.
      names: what the categories are called; empty when nobody said.
      path: the data set, for messages.

    Returns:
      (items, categories) int32, and the categories.

    Raises:
      InputError: when an item lacks a category, or there are more values than the model expects.
    """
    cells = []
    for number, item in enumerate(items):
        cell = np.atleast_1d(np.asarray(item.get(COLUMN, ()), object)).tolist()
        if len(cell) != len(sizes):
            raise InputError(
                f"Item {number} of {path} has {COLUMN} = {cell}, but model.categories says "
                f"{list(sizes)} values each."
            )
        cells.append(cell)
    names = names if len(names) == len(sizes) else default_names(len(sizes))
    categories, codes = [], np.zeros((len(items), len(sizes)), np.int32)
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        column = [cell[place] for cell in cells]
        texts = tuple(sorted({value for value in column if isinstance(value, str)}))
        if len(texts) > size:
            raise InputError(
                f"{path} has {len(texts)} values of {name}, but model.categories says "
                f"{list(sizes)} values each: set it to what there are."
            )
        categories.append(Category(name, size, texts))
        for number, value in enumerate(column):
            try:
                codes[number, place] = categories[-1].code(value, "")
            except InputError:
                raise InputError(
                    f"Item {number} of {path} has {COLUMN} = {cells[number]}, but "
                    f"model.categories says {list(sizes)} values each."
                ) from None
    return codes, categories


def default_names(count: int) -> list[str]:
    """Names of categories that nobody named: that of the column, numbered if several."""
    return [COLUMN] if count == 1 else [f"{COLUMN}_{number}" for number in range(count)]


def of_artefacts(sizes: Sequence[int], stored: Sequence[Mapping[str, Any]]) -> list[Category]:
    """Return the categories of a trained model: `stored` by its task, or numbers by default."""
    if len(stored) == len(sizes):
        return [
            Category(one["name"], size, tuple(one["values"]))
            for one, size in zip(stored, sizes, strict=True)
        ]
    named = zip(default_names(len(sizes)), sizes, strict=True)
    return [Category(name, size) for name, size in named]
