"""Mesh arithmetic and path rules, on eight virtual devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tsmjax import sharding
from tsmjax.errors import InputError
from tsmjax.nn.functional import flatten

RULES = ((r"kernel$", ("fsdp", "tensor")), (r"bias$", (None,)))


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def specs(tree, mesh, below=0):
    placed = sharding.place(RULES, tree, mesh, below)
    return {path: place.spec for path, place in flatten(placed).items()}


@pytest.fixture
def mesh():
    return sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2))


def test_minus_one_takes_the_devices_that_are_left():
    shape = sharding.make_mesh(sharding.MeshConfig(replica=-1, fsdp=2, tensor=2)).shape
    assert dict(shape) == {"replica": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, -1, 1), (0, 1, 1), (-1, 16, 1)])
def test_impossible_meshes_are_refused(sizes):
    with pytest.raises(InputError, match="mesh"):
        sharding.make_mesh(sharding.MeshConfig(*sizes))


class Device:
    """Stands in for a device of a host; `Mesh` and JAX's mesh utilities ask no more of it."""

    platform = device_kind = "test"

    def __init__(self, number, host):
        self.id, self.slice_index, self.process_index = number, host, host
        self.client = None


def on_hosts(hosts, local, **sizes):
    """(replica, fsdp, tensor) array of the host that each device is on."""
    devices = [Device(n, n // local) for n in range(hosts * local)]
    mesh = sharding.make_mesh(sharding.MeshConfig(**sizes), devices)
    return np.vectorize(lambda device: device.slice_index)(mesh.devices)


def test_tensor_and_fsdp_stay_inside_a_host():
    assert on_hosts(2, 4, fsdp=2, tensor=2).tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]
    grid = on_hosts(4, 8, fsdp=4)
    assert grid.shape == (8, 4, 1)
    assert (grid == np.repeat(np.arange(4), 2)[:, None, None]).all()


def test_fsdp_wider_than_a_host_takes_whole_hosts():
    grid = on_hosts(4, 4, fsdp=8, tensor=1)
    assert grid.shape == (2, 8, 1)
    assert grid[:, :, 0].tolist() == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tensor": 8}, "mesh.tensor is 8, but a host has 4 devices"),
        ({"replica": 2, "fsdp": 6}, "mesh.fsdp is 6, but must divide the 4"),
    ],
)
def test_axes_that_do_not_fit_into_hosts_are_refused(sizes, message):
    hosts = 4 if "tensor" in sizes else 3
    with pytest.raises(InputError, match=message):
        on_hosts(hosts, 4, **sizes)


def test_bytes_per_device_count_the_piece(mesh):
    split = jax.sharding.NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    whole = sharding.replicated(mesh)
    tree = {
        "split": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=split),
        "whole": jax.ShapeDtypeStruct((10,), jnp.bfloat16, sharding=whole),
    }
    assert sharding.bytes_per_device(tree) == 8 * 4 * 4 // 8 + 10 * 2


def test_rules_align_with_trailing_dimensions(mesh):
    tree = {"a": {"kernel": leaf(8, 4)}, "scanned": {"kernel": leaf(6, 8, 4)}}
    assert specs(tree, mesh) == {
        "a/kernel": PartitionSpec("fsdp", "tensor"),
        "scanned/kernel": PartitionSpec(None, "fsdp", "tensor"),
    }


def test_an_axis_that_does_not_divide_is_dropped(mesh):
    assert specs({"kernel": leaf(6, 4)}, mesh) == {"kernel": PartitionSpec(None, "tensor")}


def test_small_arrays_stay_replicated(mesh):
    tree = {"big": {"kernel": leaf(64, 64)}, "small": {"kernel": leaf(8, 8)}}
    found = specs(tree, mesh, below=1000)
    assert found["big/kernel"] == PartitionSpec("fsdp", "tensor")
    assert found["small/kernel"] == PartitionSpec(None, None)


def test_an_uncovered_parameter_is_an_error(mesh):
    with pytest.raises(InputError, match="No sharding rule covers the parameter a/scale"):
        specs({"a": {"scale": leaf(4)}}, mesh)


def test_moments_follow_their_parameter(mesh):
    params = {"a": {"kernel": leaf(8, 4), "bias": leaf(4)}}
    placed = sharding.place(RULES, params, mesh, 0)
    moments = {"opt": [{"mu": params, "count": leaf()}], "step": leaf()}
    found = sharding.place_like(moments, params, placed, mesh)
    assert found["opt"][0]["mu"]["a"]["kernel"].spec == PartitionSpec("fsdp", "tensor")
    assert found["opt"][0]["count"].spec == PartitionSpec()
    assert found["step"].spec == PartitionSpec()


def test_batches_are_split_over_replica_and_fsdp(mesh):
    placed = sharding.put_batch({"x": np.arange(8.0)}, mesh)["x"]
    assert {tuple(s.data.shape) for s in placed.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(placed, np.arange(8.0))


def test_a_batch_that_does_not_divide_is_refused(mesh):
    with pytest.raises(InputError, match=r"6 leading entries \(x\).*4 devices"):
        sharding.put_batch({"x": np.zeros(6)}, mesh)
