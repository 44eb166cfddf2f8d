"""The graph of a skeleton: distances, adjacency subsets, body-region shifts. NumPy, built once."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from tsmjax.models.last.skeletons import Skeleton, skeleton

Norm = Literal["subset", "graph"]
Shift = Literal["region", "random", "none"]


@functools.cache
def distances(name: str) -> np.ndarray:
    """Hops between every two joints of a skeleton, (V, V) int."""
    size = skeleton(name).size
    hops = np.where(np.eye(size, dtype=bool), 0, size)  # no path is longer than V − 1
    for child, parent in skeleton(name).edges:
        hops[child, parent] = hops[parent, child] = 1
    for via in range(size):
        hops = np.minimum(hops, hops[:, via : via + 1] + hops[via : via + 1])
    return hops


def subsets(name: str, hops: int, norm: Norm, truncated: bool = False) -> np.ndarray:
    """Adjacency of a skeleton, split by hop and by distance to its centre joint.

    Subset 0 holds the joints themselves. For each hop d = 1 … `hops` follow the neighbours at d
    hops that are as close to the centre joint as the joint itself, or closer, and those that are
    farther.

    Args:
      name: name of the skeleton.
      hops: greatest distance of neighbours; K = 2 · `hops` + 1.
      norm: "subset" scales each subset to D^-1/2 A D^-1/2 by its own degrees, "graph" by those of
        all subsets together.
      truncated: joints beyond `hops` of the centre count as equally far from it.

    Returns:
      (K, V, V) float32; row v holds the weights of what joint v receives.

    Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (2018), section 3.4 (spatial
    configuration partitioning), and Song et al., "EfficientGCN" (2022), equation 3.
    """
    far = distances(name)
    radius = far[skeleton(name).centre]
    if truncated:
        radius = np.where(radius > hops, hops + 1, radius)
    closer = radius[None, :] <= radius[:, None]
    parts = [far == 0]
    for hop in range(1, hops + 1):
        parts += [(far == hop) & closer, (far == hop) & ~closer]
    stack = np.stack(parts).astype(np.float64)
    if norm == "graph":
        whole = stack.sum(axis=0)
        scale = whole.sum(axis=1) ** -0.5  # every joint has itself
        return (stack * scale[:, None] * scale[None, :]).astype(np.float32)
    return np.stack([_normalised(part) for part in stack]).astype(np.float32)


def shift_table(name: str, channels: int, hops: int, kind: Shift) -> np.ndarray:
    """For each channel and joint, the joint whose value it takes, (C, V) int.

    "region": a quarter of the channels moves values around inside each arm, a quarter inside each
    leg, an eighth inside the torso, channel i of a group by i + 1 places; in the remaining channels
    a joint takes neighbour i mod degree of its list (itself and joints within `hops`, ascending).
    "random": a fixed random permutation of the joints in each channel. "none": no shift.
    """
    size, regions = skeleton(name).size, skeleton(name).regions
    table = np.tile(np.arange(size), (channels, 1))
    if kind == "random":
        rng = np.random.default_rng(0)
        return np.stack([rng.permutation(size) for _ in range(channels)])
    if kind == "none":
        return table
    bounds = [0, channels // 4, channels // 2, 5 * channels // 8, channels]
    groups = (("left_arm", "right_arm"), ("left_leg", "right_leg"), ("torso",))
    for start, end, group in zip(bounds, bounds[1:], groups, strict=False):
        for channel, region in ((c, r) for c in range(start, end) for r in group):
            joints = np.array(regions[region])
            table[channel, joints] = np.roll(joints, -(channel - start + 1))
    near = [np.flatnonzero(row <= hops) for row in distances(name)]
    for channel in range(bounds[3], channels):
        place = channel - bounds[3]
        table[channel] = [neighbours[place % len(neighbours)] for neighbours in near]
    return table


def padded_regions(of: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Joints of each body region, (R, n) int padded with joint 0, and a mask of the same shape."""
    longest = max(len(joints) for joints in of.regions.values())
    table = np.zeros((len(of.regions), longest), int)
    mask = np.zeros(table.shape, bool)
    for row, joints in enumerate(of.regions.values()):
        table[row, : len(joints)] = joints
        mask[row, : len(joints)] = True
    return table, mask


def _normalised(part: np.ndarray) -> np.ndarray:
    """D^-1/2 A D^-1/2 with the degrees of the rows and the columns; an empty row stays empty."""
    rows, columns = (np.where(sums > 0, sums, np.inf) for sums in (part.sum(1), part.sum(0)))
    return part * rows[:, None] ** -0.5 * columns[None, :] ** -0.5
