"""Building blocks against their definitions, and at the edges where they must stay finite."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmjax.nn import attention, instance_norm
from tsmjax.nn.activations import gelu, softmax
from tsmjax.nn.attention import attend
from tsmjax.nn.dropout import dropout
from tsmjax.nn.embedding import Embedding
from tsmjax.nn.linear import Linear
from tsmjax.nn.losses import quantile_loss
from tsmjax.nn.norms import LayerNorm, RMSNorm
from tsmjax.nn.patching import patchify
from tsmjax.nn.residual_mlp import ResidualBlock
from tsmjax.nn.rope import rotary_angles, rotate


def qkv(shape=(2, 6, 3, 8), seed=0, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(key, shape, dtype) for key in keys]


def test_attention_is_softmax_of_scaled_products():
    q, k, v = qkv()
    mask = np.random.default_rng(0).random((2, 1, 6, 6)) < 0.7
    mask |= np.eye(6, dtype=bool)
    found = attend(q, k, v, jnp.asarray(mask), scale=0.5)
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    for b in range(2):
        for n in range(3):
            weights = np.exp(0.5 * q[b, :, n] @ k[b, :, n].T) * mask[b, 0]
            expected = weights / weights.sum(axis=1, keepdims=True) @ v[b, :, n]
            np.testing.assert_allclose(found[b, :, n], expected, atol=1e-5)


def test_attention_over_no_key_is_uniform_and_has_finite_gradients():
    q, k, v = qkv()
    mask = jnp.zeros((2, 1, 1, 6), bool).at[1].set(True)

    def total(q, k, v):
        y = attend(100 * q, k, v, mask, scale=1.0)
        return (y**2).sum(), y

    (_, y), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_allclose(y[0], np.broadcast_to(v[0].mean(0), y[0].shape), atol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)


def test_hidden_keys_cannot_matter():
    q, k, v = qkv()
    mask = jnp.ones((2, 1, 1, 6), bool).at[:, :, :, 2].set(False)
    expected = attend(q, k, v, mask, scale=1.0)
    found = attend(q, k.at[:, 2].set(1e4), v.at[:, 2].set(1e4), mask, scale=1.0)
    np.testing.assert_array_equal(found, expected)


def test_attention_softmax_is_fp32_in_half_precision():
    q, k, v = qkv(shape=(1, 512, 1, 8), dtype=jnp.bfloat16)
    ones = jnp.ones_like(v)
    y = attend(q, k, ones, scale=1.0)
    assert y.dtype == jnp.bfloat16
    # 512 probabilities rounded to bf16 each; sums of a bf16 softmax would be off by percents
    np.testing.assert_allclose(y.astype(jnp.float32), 1.0, atol=8e-3)


def test_attention_dropout_acts_on_probabilities_and_keeps_the_mean():
    q, k, v = qkv(shape=(1, 1, 4000, 8))  # one key: its probability is 1
    y = attend(q, k, jnp.ones_like(v), scale=1.0, dropout_rate=0.25, key=jax.random.key(0))
    heads = np.asarray(y)[0, 0]
    assert set(np.round(np.unique(heads), 4)) == {0.0, np.float32(1.3333)}
    assert heads.mean() == pytest.approx(1.0, abs=0.03)


def test_the_kernel_is_logged_once(caplog):
    attention._log_once.cache_clear()
    with caplog.at_level("INFO"):
        for _ in range(2):
            attend(*qkv(), scale=1.0)
    assert [r.message for r in caplog.records] == [
        "Attention runs on the XLA kernel (cpu, float32)."
    ]


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN attention needs a GPU")
@pytest.mark.parametrize("length", [128, 133])
def test_cudnn_equals_xla(length):
    q, k, v = qkv(shape=(4, length, 2, 64), dtype=jnp.bfloat16)
    mask = jnp.ones((4, 1, 1, length), bool).at[0, :, :, :40].set(False).at[1].set(False)

    def loss(q, k, v):
        y = attend(q, k, v, mask, scale=1.0).astype(jnp.float32)
        return (y**2).sum(), y

    run = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, fused), fused_gradients = run(q, k, v)
    (_, plain), plain_gradients = run(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(fused, plain, atol=3e-2)
    for a, b in zip(fused_gradients, plain_gradients, strict=True):
        error = np.linalg.norm(np.asarray(a, np.float32) - b)
        assert error < 3e-2 * np.linalg.norm(b)


def test_rotation_depends_on_the_distance_only():
    cos, sin = rotary_angles(12, 8, 10000.0)
    q, k = (jax.random.normal(jax.random.key(i), (8,)) for i in range(2))
    spread = lambda x: rotate(jnp.broadcast_to(x, (1, 12, 1, 8)), cos, sin)[0, :, 0]  # noqa: E731
    products = np.asarray(spread(q) @ spread(k).T)
    for distance in (-3, 0, 5):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    assert abs(products[0, 0] - products[0, 5]) > 1e-2
    np.testing.assert_allclose(products[0, 0], q @ k, rtol=1e-5)


def test_rotation_pairs_halves():
    cos, sin = rotary_angles(2, 4, 10000.0)
    x = jnp.array([1.0, 0, 0, 0]).reshape(1, 1, 1, 4)
    y = rotate(jnp.broadcast_to(x, (1, 2, 1, 4)), cos, sin)[0, 1, 0]
    np.testing.assert_allclose(y, [np.cos(1), 0, np.sin(1), 0], atol=1e-6)


def test_rms_norm_is_fp32_whatever_its_parameter_is():
    norm = RMSNorm(4, epsilon=0.0, init=2.0, rngs=nnx.Rngs(0))
    x = jnp.array([[3.0, -3.0, 3.0, 3.0]])
    np.testing.assert_allclose(norm(x), [[2.0, -2.0, 2.0, 2.0]], rtol=1e-6)
    norm.scale = nnx.Param(norm.scale[...].astype(jnp.bfloat16))
    y = norm(x.astype(jnp.bfloat16) * 1e30)  # squares leave the range unless scaled; bf16 has it
    assert y.dtype == jnp.bfloat16


def test_dropout_rate_scale_and_identity():
    x = jnp.ones((200, 200))
    y = np.asarray(dropout(x, 0.1, jax.random.key(0)))
    assert (y == 0).mean() == pytest.approx(0.1, abs=0.006)
    assert y.mean() == pytest.approx(1.0, abs=0.006)
    assert dropout(x, 0.1, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_linear_computes_in_the_dtype_of_its_kernel():
    linear = Linear(3, 2, std=1.0, bias=True, rngs=nnx.Rngs(0))
    linear.bias = nnx.Param(jnp.array([1.0, 2.0]))
    x = jnp.arange(6.0).reshape(2, 3)
    expected = np.asarray(x) @ np.asarray(linear.kernel[...]) + [1.0, 2.0]
    np.testing.assert_allclose(linear(x), expected, rtol=1e-6)
    linear.kernel = nnx.Param(linear.kernel[...].astype(jnp.bfloat16))
    linear.bias = nnx.Param(linear.bias[...].astype(jnp.bfloat16))
    assert linear(x).dtype == jnp.bfloat16


def test_residual_block_is_perceptron_plus_shortcut():
    block = ResidualBlock(3, 5, 2, init=1.0, dropout_rate=1 - 2**-16, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (7, 3))
    np.testing.assert_allclose(
        block(x), block.output(jax.nn.relu(block.hidden(x))) + block.residual(x), rtol=1e-6
    )
    # dropout takes the perceptron away and leaves the shortcut
    np.testing.assert_allclose(block(x, jax.random.key(1)), block.residual(x), rtol=1e-6)


def test_patches_end_with_the_series():
    x = jnp.arange(7.0)[None]
    expected = [[[np.nan, 0, 1, 2], [3, 4, 5, 6]]]
    np.testing.assert_array_equal(patchify(x, 4), expected)
    np.testing.assert_array_equal(patchify(x[:, 3:], 4), [[[3, 4, 5, 6]]])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    loc=st.floats(-1e4, 1e4),
    log_scale=st.floats(-2, 6),
    missing=st.floats(0, 0.9),
    arcsinh=st.booleans(),
)
def test_instance_norm_round_trip(seed, loc, log_scale, missing, arcsinh):
    rng = np.random.default_rng(seed)
    x = (loc + 10**log_scale * rng.normal(size=(3, 50))).astype(np.float32)
    x[rng.random(x.shape) < missing] = np.nan
    loc_scale = instance_norm.statistics(x)
    z = instance_norm.normalise(x, loc_scale, arcsinh=arcsinh)
    back = instance_norm.unscale(z, loc_scale, arcsinh=arcsinh)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4 * 10**log_scale)


def test_instance_statistics_are_mean_and_population_deviation_of_the_observed():
    x = np.array([[1.0, 2.0, np.nan, 6.0], [7.0, 7.0, 7.0, np.nan], [np.nan] * 4])
    x = np.concatenate([x, [[np.inf, 1.0, -np.inf, 3.0], [5.0, np.nan, np.nan, np.nan]]])
    loc, scale = instance_norm.statistics(x.astype(np.float32))
    np.testing.assert_allclose(loc[:, 0], [3.0, 7.0, 0.0, 2.0, 5.0], rtol=1e-6)
    expected = [np.std([1, 2, 6]), 1e-5, 1.0, 1.0, 1e-5]
    np.testing.assert_allclose(scale[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e10, 1e19, 3e38])
def test_huge_values_have_exact_statistics_and_finite_scores(size):
    x = (size * np.array([[1.0, -1.0, 1.0, -1.0], [1.0, 0.5, 1.0, 0.5]])).astype(np.float32)
    loc, scale = (np.asarray(part, np.float64) for part in instance_norm.statistics(x))
    np.testing.assert_allclose(loc[:, 0] / size, [0.0, 0.75], atol=1e-6)
    np.testing.assert_allclose(scale[:, 0] / size, [1.0, 0.25], rtol=1e-6)
    z = instance_norm.normalise(x, (loc, scale), arcsinh=False)
    np.testing.assert_allclose(z[1], [1, -1, 1, -1], atol=1e-5)


def test_standardised_values_stay_finite():
    loc_scale = instance_norm.statistics(np.full((1, 3), -3e38, np.float32))
    x = np.array([[3.4e38, np.inf, np.nan]], np.float32)
    loc_scale = (loc_scale[0], jnp.full((1, 1), 1e-5))
    for arcsinh in (True, False):
        z = np.asarray(instance_norm.normalise(x, loc_scale, arcsinh=arcsinh))
        assert np.isfinite(z[0, 0])
        assert np.isnan(z[0, 1:]).all()  # infinite counts as missing


def test_quantile_loss_is_twice_the_pinball_loss():
    predictions = np.array([[1.0, 4.0], [2.0, 0.0]])  # (Q, H)
    target, mask = np.array([3.0, np.nan]), np.array([1, 0])
    found = quantile_loss(predictions[None], target[None], mask[None], (0.1, 0.9))
    np.testing.assert_allclose(found, [[[2 * 0.1 * 2, 0.0], [2 * 0.9 * 1, 0.0]]], rtol=1e-6)
    over = quantile_loss(predictions[None] + 10, target[None], mask[None], (0.1, 0.9))
    np.testing.assert_allclose(over[0, :, 0], [2 * 0.9 * 8, 2 * 0.1 * 9], rtol=1e-5)


def test_quantile_loss_gradient_is_finite_where_masked():
    def total(predictions):
        target = jnp.array([jnp.nan, 1.0])
        return quantile_loss(predictions, target, jnp.array([0, 1]), (0.5,)).sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.array([[0.0, 3.0]])), [[0.0, 1.0]])


def test_dropout_masks_are_as_good_as_coin_tosses():
    """Rate, neighbours in each direction, and masks of related keys: nothing is correlated."""
    keys = jax.random.split(jax.random.key(3), 4)
    masks = np.stack([np.asarray(dropout(jnp.ones((64, 32, 48)), 0.3, key)) == 0 for key in keys])
    count = masks[0].size
    near = 5 * (0.3 * 0.7 / count) ** 0.5  # five standard errors
    assert (np.abs(masks.mean(axis=(1, 2, 3)) - 0.3) < near).all()
    centred = masks - 0.3
    for axis in (1, 2, 3):
        for shift in (1, 2, 16):
            products = centred * np.roll(centred, shift, axis)
            assert np.abs(products.mean(axis=(1, 2, 3))).max() < near
    for other in range(1, 4):
        assert np.abs((centred[0] * centred[other]).mean()) < near
    rows = masks.mean(axis=3)  # a whole row is never dropped or kept more often than chance says
    assert np.var(rows) == pytest.approx(0.3 * 0.7 / 48, rel=0.1)


def test_layer_norm_standardises_rows_and_is_fp32():
    norm = LayerNorm(5, epsilon=1e-5, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(1e3, 2.0, (4, 3, 5)).astype(np.float32)
    centred = x.astype(np.float64) - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(norm(x), expected, atol=1e-3)
    norm.scale, norm.bias = nnx.Param(jnp.full(5, 2.0)), nnx.Param(jnp.arange(5.0))
    np.testing.assert_allclose(norm(x), 2 * expected + np.arange(5.0), atol=2e-3)
    norm.scale = nnx.Param(norm.scale[...].astype(jnp.bfloat16))
    assert norm(x).dtype == jnp.bfloat16


def test_embedding_has_no_entry_beyond_its_table():
    table = Embedding(3, 4, rngs=nnx.Rngs(0))
    y = np.asarray(table(jnp.array([[2, 0], [3, 1]])))
    np.testing.assert_array_equal(y[0, 0], table.embedding[...][2])
    assert np.isnan(y[1, 0]).all() and np.isfinite(y[1, 1]).all()


@pytest.mark.parametrize("axis", [0, -1])
def test_softmax_sums_to_one_and_has_the_gradient_of_jax(axis):
    x, weights, _ = (100 * a for a in qkv((4, 3, 5)))
    y = softmax(x, axis)
    np.testing.assert_allclose(y.sum(axis), 1.0, atol=1e-6)
    found, expected = (
        jax.grad(lambda x, f=f: (weights * f(x / 50, axis)).sum())(x)
        for f in (softmax, jax.nn.softmax)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert softmax(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_gelu_is_exact_in_value_and_gradient():
    x = jnp.linspace(-9.0, 9.0, 1001)
    expected = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in np.asarray(x, np.float64)]
    np.testing.assert_allclose(gelu(x), expected, atol=1e-6)
    found = jax.vmap(jax.grad(gelu))(x)
    expected = jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
