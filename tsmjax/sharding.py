"""The device mesh and the path rules that place every array on it.

The mesh has three axes, ``replica × fsdp × tensor``; one device is the 1×1×1 mesh and takes the
same code. Rules are ordered (path pattern, axes of the trailing dimensions) pairs, so that one
table serves scanned and unrolled layers. Batches are split over ``replica`` and ``fsdp``. Across
hosts, ``tensor`` stays inside a host, and so does as much of ``fsdp`` as fits.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tsmjax.errors import InputError
from tsmjax.nn.functional import Tree, flatten, unflatten

AXES = ("replica", "fsdp", "tensor")
BATCH_AXES = ("replica", "fsdp")
Rules = Sequence[tuple[str, tuple[str | None, ...]]]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged.

    Attributes:
      replica: copies of the model (data parallel); −1 takes the devices that are left.
      fsdp: devices that share parameters, gradients and moments, and split the batch.
      tensor: devices of one host that share each matrix product.
      replicate_below: arrays with fewer bytes stay replicated; splitting them costs more than
        it saves.
    """

    replica: int = -1
    fsdp: int = 1
    tensor: int = 1
    replicate_below: int = 4 * 2**20


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange `devices` (all of them by default) as ``replica × fsdp × tensor``.

    Raises:
      InputError: when the sizes do not multiply to the number of devices, or an axis does not fit
        into the hosts.
    """
    devices = list(devices or jax.devices())
    sizes = [config.replica, config.fsdp, config.tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(
            f"mesh is {dict(zip(AXES, sizes, strict=True))}: sizes are positive, and at most one "
            "of them is -1."
        )
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // math.prod(s for s in sizes if s != -1)
    if math.prod(sizes) != len(devices):
        raise InputError(
            f"mesh asks for {' x '.join(map(str, sizes))} devices (replica x fsdp x tensor), but "
            f"there are {len(devices)}."
        )
    # Sharding is inferred from the parameters' (Auto); Explicit axes, JAX's default, would ask
    # every contraction to name its output sharding.
    types = (AxisType.Auto,) * len(AXES)
    hosts = len({_host(device) for device in devices})
    if hosts == 1:
        return jax.make_mesh(tuple(sizes), AXES, types, devices=devices)
    inside, across = _over_hosts(sizes, len(devices) // hosts)
    grid = mesh_utils.create_hybrid_device_mesh(
        inside, across, devices, process_is_granule=not hasattr(devices[0], "slice_index")
    )
    return Mesh(grid, AXES, axis_types=types)


def _host(device: jax.Device) -> int:
    """Number of the group of fast-connected devices: a host of GPUs, a slice of TPUs."""
    return getattr(device, "slice_index", device.process_index)


def _over_hosts(sizes: Sequence[int], local: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Factor the sizes of the axes into (inside a host, across hosts) of `local` devices each."""
    replica, fsdp, tensor = sizes
    if local % tensor:
        raise InputError(
            f"mesh.tensor is {tensor}, but a host has {local} devices: choose a divisor of that, "
            "so that the devices of one matrix product share a host."
        )
    left = local // tensor
    shared = math.gcd(fsdp, left)
    if shared != min(fsdp, left):
        raise InputError(
            f"mesh.fsdp is {fsdp}, but must divide the {left} devices that mesh.tensor leaves of "
            "each host, or be a multiple of them."
        )
    inside = (left // shared, shared, tensor)
    return inside, (replica // inside[0], fsdp // shared, 1)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every batch array: the leading dimension over replica and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


@functools.lru_cache
def batch_parts(mesh: Mesh) -> tuple[int, ...]:
    """Return which part of every batch each process feeds, by process.

    Processes whose devices hold the same rows (tensor parallelism across hosts) feed the same part.
    """
    held: dict[int, list[int]] = {}
    for row, devices in enumerate(mesh.devices.reshape(-1, mesh.shape["tensor"])):
        for process in {device.process_index for device in devices}:
            held.setdefault(process, []).append(row)
    parts = sorted({tuple(rows) for rows in held.values()})
    return tuple(parts.index(tuple(held[process])) for process in sorted(held))


def local_rows(array: jax.Array) -> np.ndarray:
    """Return the rows of a batch array, as `batch_sharding` places it, that this process holds."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Place this host's slice of a batch on its devices.

    Raises:
      InputError: when the leading dimension does not divide over the batch devices.
    """
    sharding = batch_sharding(mesh)
    for name, array in batch.items():
        _check_rows(name, array.shape[0] * len(set(batch_parts(mesh))), mesh)
    if jax.process_count() == 1:  # one call for all arrays takes half of the time
        return jax.device_put(batch, sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def abstract_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Describe a global batch as `put_batch` would place it; raises as it does."""
    sharding = batch_sharding(mesh)
    for name, array in batch.items():
        _check_rows(name, array.shape[0], mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for name, array in batch.items()
    }


def _check_rows(name: str, rows: int, mesh: Mesh) -> None:
    parts = mesh.shape["replica"] * mesh.shape["fsdp"]
    if rows % parts:
        raise InputError(
            f"The batch has {rows} leading entries ({name}), which do not divide over "
            f"{parts} devices; change data.batch_size or the mesh."
        )


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of (abstract) arrays that one device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def constrain(tree: Any, sharding: Any) -> Any:
    """Ask the compiler for `sharding` at this point of a traced function."""
    return jax.lax.with_sharding_constraint(tree, sharding)


def place(rules: Rules, tree: Tree, mesh: Mesh, replicate_below: int) -> Tree:
    """Give every leaf of an abstract parameter tree its `NamedSharding`.

    An axis that does not divide a dimension is dropped for that leaf.

    Raises:
      InputError: when no rule covers a parameter.
    """
    compiled = [(re.compile(pattern), axes) for pattern, axes in rules]

    def sharding(path: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        for pattern, axes in compiled:
            if pattern.search(path):
                if math.prod(leaf.shape) * leaf.dtype.itemsize < replicate_below:
                    axes = ()
                return NamedSharding(mesh, _spec(axes, leaf.shape, mesh))
        raise InputError(
            f"No sharding rule covers the parameter {path} {leaf.shape}; add one to SHARDING of "
            "its family."
        )

    return unflatten({path: sharding(path, leaf) for path, leaf in flatten(tree).items()})


def _spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Align `axes` with the trailing dimensions of `shape`."""
    axes = axes[max(len(axes) - len(shape), 0) :]
    padded = (None,) * (len(shape) - len(axes)) + tuple(axes)
    fits = [
        axis if axis and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(padded, shape, strict=True)
    ]
    return PartitionSpec(*fits)


def place_like(tree: Any, params: Tree, shardings: Tree, mesh: Mesh) -> Any:
    """Shard a tree that embeds copies of `params` (moments, averages) as the parameters are.

    A leaf whose path ends in a parameter's path and has its shape gets that parameter's sharding;
    counters and scalars are replicated.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(params).items()}
    places = flatten(shardings)

    def sharding(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        parts = [str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path]
        for start in range(len(parts)):
            suffix = "/".join(parts[start:])
            if shapes.get(suffix) == leaf.shape:
                return places[suffix]
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding, tree)
