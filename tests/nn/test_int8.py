"""Frozen kernels in one byte: rounding, products, training beside them, checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tsmjax.nn import int8
from tsmjax.nn.linear import Linear


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_kernel_is_kept_within_half_a_step(dtype):
    kernel = np.random.default_rng(0).normal(size=(3, 40, 7)).astype(np.float32)
    kernel[1, :, 2] = 0.0
    small, scale = int8.quantise(kernel, dtype)
    assert (small.dtype, scale.dtype, scale.shape) == (jnp.int8, dtype, (3, 7))
    steps = np.asarray(scale, np.float32)[:, None]
    found = np.asarray(small, np.float32) * steps
    largest = np.abs(kernel).max(axis=1, keepdims=True)
    # A scale in bfloat16 may be 1/256 too small for the largest weight.
    slack = 0.5 * steps + (largest / 256 if dtype == jnp.bfloat16 else 1e-6)
    assert (np.abs(found - kernel) <= slack).all()
    tree = int8.dequantised({"a": {"kernel": small, "kernel_scale": scale, "bias": kernel}})
    np.testing.assert_array_equal(tree["a"]["kernel"], found)
    assert set(tree["a"]) == {"kernel", "bias"}


def test_a_projection_multiplies_what_is_kept():
    linear = Linear(12, 5, std=1.0, bias=True, rngs=nnx.Rngs(0))
    x = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32)
    plain = linear(x)
    linear.shrink()
    np.testing.assert_array_equal(linear(x), plain)
    small, scale = int8.quantise(linear.kernel[...], jnp.float32)
    expected = x @ (np.asarray(small) * np.asarray(scale))
    linear.kernel, linear.kernel_scale = nnx.Param(small), nnx.Param(scale)
    np.testing.assert_allclose(linear(x), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - plain).max() < 0.1
    gradient = jax.grad(lambda x: (linear(x) ** 2).sum())(x)
    np.testing.assert_allclose(gradient, 2 * expected @ (small * scale).T, rtol=1e-4, atol=1e-4)
