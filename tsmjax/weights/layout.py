"""Layers of a model, stacked or one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from tsmjax.nn.functional import Tree, flatten, unflatten


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
