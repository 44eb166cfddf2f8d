"""The graph of a skeleton: distances, adjacency subsets, body-region shifts. NumPy, built once."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np

from tsmjax.models.last.skeletons import Skeleton, skeleton

Norm = Literal["subset", "graph", "column", "column_subset", "subset_column"]
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


class Graph(NamedTuple):
    """A partitioned graph, by what defines it.

    Attributes:
      skeleton: name of the skeleton.
      hops: greatest distance of neighbours.
      norm: how the subsets are normalised.
      truncated: joints beyond `hops` of the centre count as equally far from it.
    """

    skeleton: str
    hops: int
    norm: Norm
    truncated: bool = False

    @property
    def count(self) -> int:
        """Number of subsets, K."""
        return 2 * self.hops + 1

    def subsets(self) -> np.ndarray:
        """Adjacency subsets (K, V, V), see `subsets`."""
        return subsets(*self)


@functools.cache
def subsets(name: str, hops: int, norm: Norm, truncated: bool = False) -> np.ndarray:
    """Adjacency of a skeleton, split by hop and by distance to its centre joint.

    Subset 0 holds the joints themselves. For each hop d = 1 … `hops` follow the joints at d hops
    that are as far from the centre joint as the receiver, or farther, and those that are closer.

    Args:
      name: name of the skeleton.
      hops: greatest distance of neighbours; K = 2 · `hops` + 1.
      norm: "subset" scales each subset to D^-1/2 A D^-1/2 by its own degrees, of receivers and of
        senders; "graph" by those of all subsets together. Three more are those of published
        weights: "column" divides by the receiver's degree in the whole graph; "column_subset" does
        so and then scales each subset by the row sums of the senders, at least 1e-6, on both
        sides; "subset_column" scales each subset by the receivers' degrees on both sides.
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
    farther = radius[None, :] >= radius[:, None]  # the sender, seen from the receiver
    parts = [far == 0]
    for hop in range(1, hops + 1):
        parts += [(far == hop) & farther, (far == hop) & ~farther]
    stack = np.stack(parts).astype(np.float64)
    whole = stack.sum(axis=(0, 2))  # degree of each joint; every joint has itself
    if norm == "graph":
        stack = _scaled(stack, whole, whole)
    elif norm == "subset":
        stack = _scaled(stack, stack.sum(axis=2), stack.sum(axis=1))
    elif norm == "subset_column":
        stack = _scaled(stack, stack.sum(axis=2), stack.sum(axis=2))
    else:
        stack = stack / whole[:, None]
        if norm == "column_subset":
            sums = np.maximum(stack.sum(axis=1), 1e-6)
            stack = _scaled(stack, sums, sums)
    return stack.astype(np.float32)


def shift_table(name: str, channels: int, hops: int, kind: Shift) -> np.ndarray:
    """For each channel and joint, the joint whose value it takes, (C, V) int.

    "region": a quarter of the channels moves values around the joints of both arms, a quarter
    around those of both legs, an eighth around the torso, channel i of a group by i + 1 places; in
    the remaining channels a joint takes neighbour i mod degree of its list (itself and joints
    within `hops`, ascending).
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
        joints = np.concatenate([regions[region] for region in group])
        for channel in range(start, end):
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


def _scaled(stack: np.ndarray, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
    """Divide subsets by the roots of the degrees of both ends; no degree, no edge."""
    rows, columns = (np.where(x > 0, x, np.inf) ** -0.5 for x in (receivers, senders))
    return stack * rows[..., :, None] * columns[..., None, :]
