"""From the rules of a weight table to a plan: which tensor of a file is which parameter."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

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
Rules = Sequence[tuple[str, str, str]]  # (source key, target path, transform)


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a tensor of a file belongs in a parameter tree.

    Attributes:
      path: path of the leaf.
      layer: index into the leading axis of a stacked leaf; None for the whole leaf.
      shape: shape of the tensor in the file.
      transform: one of `TRANSFORMS`.
    """

    path: str
    layer: int | None
    shape: tuple[int, ...]
    transform: str

    def take(self, leaves: Mapping[str, Any]) -> np.ndarray:
        """Return the tensor as the file has it, out of our leaves by path."""
        leaf = leaves[self.path] if self.layer is None else leaves[self.path][self.layer]
        return np.asarray(TRANSFORMS[self.transform][0](np.asarray(leaf)), order="C")

    def put(self, leaves: Mapping[str, np.ndarray], tensor: np.ndarray) -> None:
        """Write a tensor of the file into our leaves by path, in their type."""
        leaf = leaves[self.path]
        leaf[... if self.layer is None else self.layer] = TRANSFORMS[self.transform][1](tensor)


def make(
    rules: Rules, parameters: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
) -> dict[str, Slot]:
    """Pair the tensors of a file with the leaves of a model, one to one.

    Args:
      rules: the family's rules.
      parameters: path → leaf with a shape; each must have a rule.
      statistics: the same of statistics, which take part when they have one.

    Returns:
      Source key → slot.
    """
    plan: dict[str, Slot] = {}
    for path, leaf in {**parameters, **(statistics or {})}.items():
        slots = list(_slots(rules, path, tuple(leaf.shape)))
        if not slots and path in parameters:
            raise AssertionError(f"The weight table has no rule for the parameter {path}")
        for source, slot in slots:
            if source in plan:
                raise AssertionError(f"The weight table uses the tensor {source} twice")
            plan[source] = slot
    return plan


def _slots(rules: Rules, path: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Slot]]:
    for source, target, transform in rules:
        if unrolled := _pattern(target).fullmatch(path):
            stored = _stored(transform, shape)
            name = source.format_map(unrolled.groupdict())
            yield name, Slot(path, None, stored, transform)
        elif "{i}" in target and target.replace("/{i}", "") == path:
            stored = _stored(transform, shape[1:])
            for layer in range(shape[0]):
                yield source.replace("{i}", str(layer)), Slot(path, layer, stored, transform)


def _stored(transform: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the file of a parameter of `shape`."""
    return TRANSFORMS[transform][0](np.broadcast_to(np.float32(0), shape)).shape


@functools.cache
def _pattern(target: str) -> re.Pattern[str]:
    """Return what a target path matches: each placeholder is a number, by its name."""
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(target)))
