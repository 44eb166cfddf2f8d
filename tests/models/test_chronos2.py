"""Chronos-2: golden numbers of the reference, and the invariances the architecture promises."""

import dataclasses
import functools
import re

import golden_chronos2 as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dot_flops import dot_flops
from flax import nnx

from tsmjax.errors import InputError
from tsmjax.models import chronos2
from tsmjax.nn import functional
from tsmjax.nn.losses import quantile_loss


@pytest.fixture(scope="module")
def model():
    graph, _, _ = functional.abstract(lambda rngs: chronos2.Model(golden.CONFIG, rngs=rngs))
    return functional.merge(graph, golden.params(), {})


@pytest.fixture(scope="module")
def predict(model):
    """The model's `__call__`, compiled once a shape."""
    graph, params, _ = functional.split(model)

    @functools.partial(jax.jit, static_argnames="output_patches")
    def call(*arguments, output_patches, key=None):
        model = functional.merge(graph, params, {})
        return model(*arguments, output_patches=output_patches, key=key)

    return call


def faithful_loss(model, predictions, loc_scale, target, future):
    """Sum over quantiles, mean over the padded horizon and over rows."""
    missing = predictions.shape[-1] - target.shape[-1]
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, missing)), constant_values=jnp.nan)  # noqa: E731
    target = model.normalise(pad(target), loc_scale)
    mask = ~jnp.isnan(target) & jnp.isnan(pad(future))
    loss = quantile_loss(predictions, target, mask, model.config.quantiles)
    return loss.sum(axis=2).mean()


def packs(context, target, future):
    """One pack of four slots."""
    return context[None], target[None], future[None], np.array([[0, 0, 0, 1]], np.int32)


def test_golden_vector(model, predict):
    context, target, future, group = packs(*golden.rows())
    predictions, loc_scale = predict(context, future, group, output_patches=2)
    np.testing.assert_allclose(loc_scale[0][0, :, 0], golden.LOC, atol=6e-7)
    np.testing.assert_allclose(loc_scale[1][0, :, 0], golden.SCALE, atol=6e-7)
    y = np.asarray(model.unscale(predictions, loc_scale))[0]
    columns = [y[:, 0, 0], y[:, 1, 0], y[:, 2, 0], y[:, 1, 15], y[:, 1, 16], y[:, 1, 31]]
    np.testing.assert_allclose(np.stack(columns, 1), golden.FORECASTS, atol=1.1e-5)
    loss = faithful_loss(model, predictions, loc_scale, target, future)
    np.testing.assert_allclose(loss, golden.LOSS, atol=1.1e-6)


def test_golden_vector_without_groups(model, predict):
    context, target, future, _ = packs(*golden.rows())
    predictions, loc_scale = predict(context, output_patches=2)
    y = np.asarray(model.unscale(predictions, loc_scale))[0]
    np.testing.assert_allclose(y[:, 1, 0], golden.MEDIANS_ALONE, atol=1.1e-5)
    loss = faithful_loss(model, predictions, loc_scale, target, np.full_like(future, np.nan))
    np.testing.assert_allclose(loss, golden.LOSS_ALONE, atol=1.1e-6)


def test_scan_equals_unrolled_and_remat_equals_none(model):
    context, _, future, group = packs(*golden.rows())
    _, params, _ = functional.split(model)
    stacked = dict(params)
    stacked["blocks"] = jax.tree.map(lambda *x: jnp.stack(x), *params["blocks"].values())

    def run(params, **changes):
        config = dataclasses.replace(golden.CONFIG, **changes)
        graph, _, _ = functional.abstract(lambda rngs: chronos2.Model(config, rngs=rngs))

        def loss(params):
            module = functional.merge(graph, params, {})
            predictions, _ = module(context, future, group, output_patches=2, key=jax.random.key(0))
            return (predictions**2).sum(), predictions

        (_, predictions), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return predictions, gradient

    expected, expected_gradient = run(params)
    for scan_layers, remat in ((True, "none"), (True, "dots"), (True, "full"), (False, "full")):
        tree = stacked if scan_layers else params
        found, gradient = run(tree, scan_layers=scan_layers, remat=remat)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(
            gradient["input_patch_embedding"]["hidden"]["kernel"],
            expected_gradient["input_patch_embedding"]["hidden"]["kernel"],
            rtol=1e-3,
            atol=1e-2,
        )


def test_one_infinite_or_huge_row_leaves_the_others_unchanged(predict):
    context, _, future, _ = packs(*golden.rows())
    group = np.array([[0, 0, 1, 2]], np.int32)
    expected, _ = predict(context, future, group, output_patches=2)
    for bad in (np.inf, -np.inf, 1e19, -3.4e38):
        broken, known = context.copy(), future.copy()
        broken[0, 3, 7], known[0, 3, 2] = bad, bad
        found, (loc, scale) = predict(broken, known, group, output_patches=2)
        np.testing.assert_array_equal(found[0, :3], expected[0, :3])
        assert np.isfinite(found).all() and np.isfinite(loc).all() and np.isfinite(scale).all()


def test_missing_everywhere_is_finite_in_value_and_gradient(model):
    graph, params, _ = functional.split(model)
    context = np.full((2, 3, 40), np.nan, np.float32)
    group = np.array([[0, 0, -1], [-1, -1, -1]], np.int32)

    def loss(params):
        predictions, _ = functional.merge(graph, params, {})(context, None, group, output_patches=2)
        return predictions.sum()

    value, gradient = jax.value_and_grad(loss)(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_left_padding_changes_nothing(predict):
    context, _, future, group = packs(*golden.rows())
    expected, _ = predict(context[..., -30:], future, group, output_patches=2)
    padded = np.pad(context[..., -30:], ((0, 0), (0, 0), (34, 0)), constant_values=np.nan)
    found, _ = predict(padded, future, group, output_patches=2)
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_only_the_last_context_length_steps_count(predict):
    rng = np.random.default_rng(0)
    context = rng.normal(size=(1, 1, 100)).astype(np.float32)
    expected, _ = predict(context[..., -64:], output_patches=1)
    found, _ = predict(context, output_patches=1)
    np.testing.assert_array_equal(found, expected)


def test_permuting_a_group_permutes_its_predictions(predict):
    context, _, future, group = packs(*golden.rows())
    order = np.array([2, 0, 3, 1])
    expected, _ = predict(context, future, group, output_patches=2)
    found, _ = predict(context[:, order], future[:, order], group[:, order], output_patches=2)
    np.testing.assert_allclose(found, expected[:, order], atol=5e-6)
    other, _ = predict(context, future, np.array([[0, 0, 1, 1]], np.int32), output_patches=2)
    assert np.abs(other - expected).max() > 1e-2  # the groups do matter


def test_singleton_shortcut_equals_attention_over_one_member(predict):
    context, _, _, _ = packs(*golden.rows())
    expected, _ = predict(context[:, :1], output_patches=2)
    empty = np.full_like(context[:, :1], np.nan)
    with_empty_slot, _ = predict(
        np.concatenate([context[:, :1], empty], axis=1),
        None,
        np.array([[0, -1]], np.int32),
        output_patches=2,
    )
    np.testing.assert_allclose(with_empty_slot[:, 0], expected[:, 0], atol=5e-6)


def test_singleton_shortcut_drops_the_attention_weight():
    config = dataclasses.replace(golden.CONFIG, dropout_rate=0.5)
    attention = chronos2.GroupAttention(config, rngs=nnx.Rngs(0))
    attention.o.kernel = nnx.Param(jnp.eye(32))
    h = jax.random.normal(jax.random.key(1), (2, 1, 50, 32))
    y = np.asarray(attention(h, None, jax.random.key(2)))
    heads = y.reshape(2, 1, 50, 4, 8)
    # whole heads vanish at half of the tokens, on top of the elementwise output dropout
    assert 0.4 < (heads == 0).all(axis=-1).mean() < 0.6


def test_unused_patches_do_not_reach_the_used_ones(predict):
    context, _, future, group = packs(*golden.rows())
    context, group = np.repeat(context, 2, axis=0), np.repeat(group, 2, axis=0)
    wide = np.full((2, 4, 64), np.nan, np.float32)
    wide[:, :, :16] = future[..., :16]
    found, _ = predict(context, wide, group, np.array([1, 3], np.int32), output_patches=4)
    one, _ = predict(context[:1], wide[:1, :, :16], group[:1], output_patches=1)
    three, _ = predict(context[1:], wide[1:, :, :48], group[1:], output_patches=3)
    np.testing.assert_allclose(found[0, ..., :16], one[0], atol=5e-6)
    np.testing.assert_allclose(found[1, ..., :48], three[0], atol=5e-6)


def test_bf16_parameters_give_close_fp32_predictions(model, predict):
    context, _, future, group = packs(*golden.rows())
    graph, params, _ = functional.split(model)
    half = functional.merge(graph, functional.cast(params, jnp.bfloat16), {})
    expected, _ = predict(context, future, group, output_patches=2)
    found, loc_scale = half(context, future, group, output_patches=2)
    assert found.dtype == jnp.float32
    error = np.abs(found - expected)
    assert error.mean() < 0.03 * np.abs(expected).mean()
    assert error.max() > 0  # the half-precision path really ran
    assert half.unscale(found, loc_scale).dtype == jnp.float32


def test_unscale_inverts_normalise(model, predict):
    x = np.random.default_rng(0).normal(1e3, 5.0, (2, 3, 40)).astype(np.float32)
    _, loc_scale = predict(x, output_patches=1)
    z = model.normalise(x, loc_scale)[:, :, None, :]
    np.testing.assert_allclose(model.unscale(z, loc_scale)[:, :, 0], x, rtol=1e-6)


def test_dropout_changes_with_the_key_only(predict):
    context = golden.rows()[0][None]
    draw = lambda seed: np.asarray(  # noqa: E731
        predict(context, output_patches=1, key=jax.random.key(seed))[0]
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    assert np.abs(draw(0) - draw(1)).max() > 1e-3


def test_without_reg_token():
    config = dataclasses.replace(golden.CONFIG, use_reg_token=False)
    model = chronos2.Model(config, rngs=nnx.Rngs(0))
    context = golden.rows()[0][None]
    states, _ = model.encode(context, output_patches=2)
    assert states.shape == (1, 4, 4 + 2, 32)
    predictions, _ = model(context, output_patches=2)
    assert predictions.shape == (1, 4, 3, 32)
    assert np.isfinite(predictions).all()


def test_encode_has_context_reg_and_future_tokens(model):
    states, _ = model.encode(golden.rows()[0][None], output_patches=2)
    assert states.shape == (1, 4, 4 + 1 + 2, 32)


@pytest.mark.parametrize(
    ("preset", "changes", "count"),
    [
        ("base", {}, 119_477_664),
        ("small", {}, 28_262_560),
        ("small", {"quantiles": chronos2.QUANTILES_13}, 27_934_624),
        ("small_8l", {}, 36_326_304),
        ("small_8l", {"quantiles": chronos2.QUANTILES_21}, 36_654_240),
        ("tiny", {}, 3_118_496),
    ],
)
@pytest.mark.parametrize("scan_layers", [True, False])
def test_parameter_counts(preset, changes, count, scan_layers):
    config = chronos2.Config(**{**chronos2.PRESETS[preset], **changes, "scan_layers": scan_layers})
    _, params, _ = functional.abstract(lambda rngs: chronos2.Model(config, rngs=rngs))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_base_has_as_many_tensors_as_the_published_model():
    config = chronos2.Config(**chronos2.PRESETS["base"], scan_layers=False)
    _, params, _ = functional.abstract(lambda rngs: chronos2.Model(config, rngs=rngs))
    assert len(functional.flatten(params)) == 170


@pytest.mark.parametrize("scan_layers", [True, False])
def test_initialisation(scan_layers):
    config = chronos2.Config(**chronos2.PRESETS["tiny"], scan_layers=scan_layers)
    _, params, _ = functional.split(chronos2.Model(config, rngs=nnx.Rngs(0)))
    flat = functional.flatten(params)
    layers = ["0/", "1/"] if not scan_layers else [""]
    attention, feed_forward = "time_attention", "feed_forward"
    std = {
        "shared/embedding": 0.05,
        "input_patch_embedding/hidden/kernel": 0.05 * 48**-0.5,
        "input_patch_embedding/output/kernel": 0.05 * 1024**-0.5,
        "output_patch_embedding/residual/kernel": 0.05 * 256**-0.5,
    }
    for layer in layers:
        std |= {
            f"blocks/{layer}{attention}/q/kernel": 0.05 * (256 * 64) ** -0.5,
            f"blocks/{layer}{attention}/k/kernel": 0.05 * 256**-0.5,
            f"blocks/{layer}group_attention/v/kernel": 0.05 * 256**-0.5,
            f"blocks/{layer}group_attention/o/kernel": 0.05 * (4 * 64) ** -0.5,
            f"blocks/{layer}{feed_forward}/wi/kernel": 0.05 * 256**-0.5,
            f"blocks/{layer}{feed_forward}/wo/kernel": 0.05 * 1024**-0.5,
        }
    for path, expected in std.items():
        assert np.std(flat[path]) == pytest.approx(expected, rel=0.1), path
    for path, leaf in flat.items():
        if path.endswith("scale"):
            np.testing.assert_array_equal(leaf, np.float32(0.05), err_msg=path)
        if path.endswith("bias"):
            np.testing.assert_array_equal(leaf, 0.0, err_msg=path)
    if scan_layers:
        q = flat["blocks/time_attention/q/kernel"]
        assert q.shape == (2, 256, 256)
        assert np.abs(q[0] - q[1]).max() > 0  # every layer has its own draw


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_last_block_spares_what_no_output_patch_reads(scan_layers):
    config = dataclasses.replace(golden.CONFIG, scan_layers=scan_layers)
    model = chronos2.Model(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    context = rng.normal(size=(2, 3, 64)).astype(np.float32)
    group = np.array([[0, 0, 1], [0, 1, 1]])
    whole, _ = model.encode(context, None, group, output_patches=2)
    short, _ = model.encode(context, None, group, output_patches=2, used=2)
    assert short.shape == (2, 3, 2, config.d_model)
    np.testing.assert_allclose(short, whole[:, :, -2:], atol=2e-6)


def test_flops_count_the_matmuls():
    config = dataclasses.replace(golden.CONFIG, num_layers=3, scan_layers=False)
    graph, params, _ = functional.abstract(lambda rngs: chronos2.Model(config, rngs=rngs))
    packs, slots, patches = 2, 2, 4
    context = np.zeros((packs, slots, 4 * config.patch_size), np.float32)
    group = np.zeros((packs, slots), int)

    def forward(params):
        model = functional.merge(graph, params, {})
        return model(context, None, group, output_patches=patches)[0]

    lines = jax.jit(forward).lower(params).as_text().splitlines()
    products = sum(dot_flops(line) for line in lines if "stablehlo.dot_general" in line)
    tokens = 2 * (4 + 1 + patches) + patches  # of two whole blocks and of the last
    inside_groups = 4 * packs * slots * slots * config.num_heads * config.d_kv * tokens
    horizon = patches * config.patch_size
    assert chronos2.flops(config, 4, 4 * config.patch_size, horizon) == products - inside_groups


def test_every_sharding_rule_matches_and_every_parameter_is_covered():
    config = chronos2.Config(**chronos2.PRESETS["tiny"])
    _, params, _ = functional.abstract(lambda rngs: chronos2.Model(config, rngs=rngs))
    used = set()
    for path, leaf in functional.flatten(params).items():
        rule = next(r for r in chronos2.SHARDING if re.search(r[0], path))
        assert len(rule[1]) <= leaf.ndim, path
        used.add(rule)
    assert used == set(chronos2.SHARDING)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_kv": 7}, "d_kv is 7"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
        ({"output_patch_size": 8}, "output_patch_size is 8"),
        ({"quantiles": (0.5, 0.1)}, "quantiles"),
        ({"quantiles": ()}, "quantiles"),
        ({"quantiles": (0.0, 0.5)}, "quantiles"),
        ({"remat": "ful"}, "did you mean 'full'"),
    ],
)
def test_wrong_config_is_refused_with_a_sentence(changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        chronos2.Config(**changes)


def test_too_long_future_is_refused(predict):
    context, _, future, group = packs(*golden.rows())
    with pytest.raises(InputError, match="span 20 steps"):
        predict(context, future, group, output_patches=1)
