"""TTM: golden numbers of the reference, published sizes, and what the architecture promises."""

import dataclasses
import functools
import json

import golden_ttm as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dot_flops import dot_flops
from flax import nnx
from safetensors.numpy import save_file

from tsmjax import state, weights
from tsmjax.config import build, resolve
from tsmjax.errors import InputError
from tsmjax.models import ttm
from tsmjax.models.ttm import mixer, scaling
from tsmjax.models.ttm.config import Decomposition, ForecastMixing, Quantiles, Spectrum
from tsmjax.models.ttm.smoothing import robust_trend
from tsmjax.models.ttm.tokens import SpectrumTokens
from tsmjax.nn import products
from tsmjax.nn.functional import abstract, cast, flatten, merge, stats_of, unflatten
from tsmjax.tasks import Modules
from tsmjax.weights import ttm as table

SMALL = {
    **{"context_length": 48, "prediction_length": 12, "patch_length": 8, "d_model": 16},
    **{"num_layers": 1, "adaptive_patching_levels": 2, "decoder_d_model": 8},
    **{"decoder_num_layers": 1, "dropout": 0.3, "head_dropout": 0.3},
}
EVERYTHING = {
    **SMALL,
    **{"num_input_channels": 3, "decoder_mode": "mix_channel", "categories": (4,)},
    **{"prediction_channels": (0, 1), "known_channels": (2,), "frequency_vocabulary": 10},
    "forecast_mixing": ForecastMixing(enabled=True, layers=1),
    "quantile_head": Quantiles(levels=(0.1, 0.5, 0.9)),
}


@functools.cache
def parts_of(**values):
    """Graph, parameters and statistics, drawn with NumPy: eager JAX would take a minute."""
    graph, shapes, stats = abstract(lambda rngs: ttm.Model(ttm.Config(**values), rngs=rngs))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        scale = 1.0 if path.endswith(("scale", "var")) else 0.0
        spread = (leaf.shape[0] if leaf.ndim > 1 else 10) ** -0.5
        return jnp.asarray(scale + spread * rng.uniform(-1, 1, leaf.shape), jnp.float32)

    return graph, *(
        unflatten({path: draw(path, leaf) for path, leaf in flatten(tree).items()})
        for tree in (shapes, stats)
    )


def model_of(**values):
    return merge(*parts_of(**values))


@functools.cache
def predictor(**values):
    """The model's `__call__`, compiled once for each shape and kind of input."""
    graph, params, stats = parts_of(**values)

    @jax.jit
    def call(*arguments, **named):
        return merge(graph, params, stats)(*arguments, **named)

    return call


def series(windows=3, channels=2, length=48, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(windows, channels, length)).cumsum(axis=-1)
    return (x + rng.normal(0, 5, (windows, channels, 1))).astype(np.float32)


def parameters(values):
    _, params, _ = abstract(lambda rngs: ttm.Model(ttm.Config(**values), rngs=rngs))
    return flatten(params)


# ------------------------------------------------------------------------- beside the reference


@pytest.mark.parametrize("name", golden.CASES)
def test_golden_forecast_loss_and_gradients(name, tmp_path):
    case, expected = golden.CASES[name], np.load(golden.FIXTURE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tinytimemixer", **case}))
    task, found = imported(tmp_path, case)
    given = golden.inputs(case)
    batch = {
        "context": given["past"].swapaxes(1, 2),
        "target": given["future"].swapaxes(1, 2),
        "future": given["future"].swapaxes(1, 2),
        **{name: given[name] for name in ("static", "frequency") if name in given},
    }
    graph, _, _ = abstract(lambda rngs: task.build(rngs).model)

    def loss(params):
        model = merge(graph, params, {})
        sums = task.terms(Modules(model), batch, None, False)
        counts = task.weights(batch)
        total = sum(task.coefficients[term] * sums[term] / counts[term] for term in sums)
        return total, task.predict(model, batch)

    (value, forecast), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
    np.testing.assert_allclose(forecast, expected[f"{name}/forecast"], atol=2e-5)
    np.testing.assert_allclose(value, expected[f"{name}/loss"], rtol=1e-5)
    named = weights.tensors("ttm", found.config_values, gradient)
    assert sorted(named) == expected[f"{name}/tensors"].tolist()
    norms = [np.linalg.norm(named[tensor]) for tensor in sorted(named)]
    np.testing.assert_allclose(norms, expected[f"{name}/gradients"], rtol=1e-4, atol=1e-6)


def imported(folder, case):
    """Read weights made of the golden formula, as the reference computes, and build the task."""
    values = table.to_config({"model_type": "tinytimemixer", **case})
    config = build(ttm.Config, values, "model")
    _, shapes, _ = abstract(lambda rngs: ttm.Model(config, rngs=rngs))
    empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
    names = weights.tensors("ttm", values, empty)
    save_file(
        {name: golden.weight(name, x.shape) for name, x in names.items()},
        folder / "model.safetensors",
    )
    compat = {"zero_missing": True, "raw_exogenous": True}
    found = weights.read(folder, "ttm", model_overrides={"compat": compat})
    model = {"family": "ttm", **found.config_values}
    return resolve({"model": model, "task": {"kind": "multivariate"}}).build_task(), found


@pytest.mark.parametrize(
    ("preset", "changes", "count"),
    [
        ("r1_512", {}, 805_280),
        ("r1_1024", {}, 946_336),
        ("r2_512", {}, 805_280),
        ("r2_512", {"prediction_length": 192}, 903_680),
        ("r2_512", {"prediction_length": 336}, 1_051_280),
        ("r2_512", {"prediction_length": 720}, 1_444_880),
        ("r2_1024", {}, 2_964_960),
        ("r2_1024", {"prediction_length": 720}, 4_243_536),
        ("r2_1536", {}, 3_081_120),
        ("r2_1536", {"prediction_length": 720}, 4_998_672),
        ("r2_1_512", {"frequency_vocabulary": 5}, 854_780),
        (
            "r2_512",
            {
                **{"num_input_channels": 6, "decoder_mode": "mix_channel"},
                **{"prediction_channels": (0,), "known_channels": (1, 2, 3, 4, 5)},
                "forecast_mixing": ForecastMixing(enabled=True, layers=3),
            },
            808_889,
        ),
    ],
)
def test_parameter_counts(preset, changes, count):
    found = parameters({**ttm.PRESETS[preset], **changes})
    assert sum(leaf.size for leaf in found.values()) == count


def test_a_frozen_backbone_leaves_decoder_and_head():
    found = parameters(ttm.PRESETS["r2_512"])
    sizes = {}
    for path, leaf in found.items():
        part = path.split("/")[1]
        sizes[part] = sizes.get(part, 0) + leaf.size
    assert sizes == {"backbone": 515_584, "decoder": 191_296, "head": 98_400}
    assert len(found) == 134


def test_adapters_of_the_default_rules_have_the_expected_size():
    values = {"model": {"family": "ttm"}, "task": {"kind": "multivariate"}}
    config = resolve({**values, "optim": {"lora": {"rank": 8}}})
    plan = state.blueprint(config.build_task(), config.optim)
    assert state.count(plan.params) == 44_544


# ------------------------------------------------------------------------------ what is promised


@pytest.mark.parametrize("scaling_method", ["std", "mean", "none"])
def test_scalers_ignore_what_is_missing(scaling_method):
    x = np.array([[[1.0, np.nan, 3.0, -np.inf, 5.0]], [[np.nan] * 5]], np.float32)
    loc, scale = scaling.statistics(x, scaling_method)
    expected = {
        "std": ((3.0, 0.0), (np.sqrt(8 / 3 + 1e-5), np.sqrt(1e-5))),
        "mean": ((0.0, 0.0), (3.0, 1.0)),
        "none": ((0.0, 0.0), (1.0, 1.0)),
    }[scaling_method]
    np.testing.assert_allclose(loc[:, 0, 0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(scale[:, 0, 0], expected[1], rtol=1e-6)
    batch_mean = scaling.statistics(x, "mean", default_scale=None)[1]
    np.testing.assert_allclose(batch_mean[:, 0, 0], [3.0, 3.0])


def test_padding_counts_as_missing_and_zero_padding_as_observed():
    """The statistics of 30 steps around 7 for a context of 48 must be theirs."""
    x = (7.0 + 0.01 * series(length=30)).astype(np.float32)
    predictions, (loc, _) = predictor(**SMALL)(x)
    np.testing.assert_allclose(loc[..., 0], x.mean(axis=-1), rtol=1e-5)
    padded = np.pad(x, ((0, 0), (0, 0), (18, 0)), constant_values=np.nan)
    found, (same, _) = predictor(**SMALL)(padded)
    np.testing.assert_array_equal(same, loc)
    np.testing.assert_allclose(found, predictions, atol=1e-6)
    _, (loc, _) = predictor(**SMALL, compat=ttm.Compat(zero_padding=True))(x)
    np.testing.assert_allclose(loc[..., 0], x.mean(axis=-1) * 30 / 48, rtol=1e-5)


@pytest.mark.parametrize("zero_missing", [False, True])
def test_a_gap_is_the_mean_of_its_channel_unless_told_otherwise(zero_missing):
    call = predictor(**SMALL, compat=ttm.Compat(zero_missing=zero_missing))
    gap = series()
    gap[..., 10:15] = np.nan
    predictions, (loc, _) = call(gap)
    shifted, (shifted_loc, _) = call(gap + 100.0)
    np.testing.assert_allclose(shifted_loc - loc, 100.0, rtol=1e-5)
    moved = np.abs(shifted - predictions).max()
    assert (moved > 1e-2) if zero_missing else (moved < 1e-3)


def test_infinite_and_missing_rows_leave_the_others_unchanged():
    call, x = predictor(**SMALL), series()
    expected = np.asarray(call(x)[0])
    for bad in (np.nan, np.inf, -np.inf):
        broken = x.copy()
        broken[1, 0] = bad
        found, (loc, scale) = call(broken)
        keep = np.ones(found.shape[:2], bool)
        keep[1, 0] = False
        np.testing.assert_array_equal(np.asarray(found)[keep], expected[keep])
        assert np.isfinite(found).all() and np.isfinite(loc).all() and np.isfinite(scale).all()


def test_nothing_observed_is_finite_in_value_and_gradient():
    graph, params, _ = parts_of(**EVERYTHING)
    x = np.full((2, 3, 48), np.nan, np.float32)

    @jax.jit
    @jax.value_and_grad
    def total(params):
        return merge(graph, params, {})(x, None, static=np.zeros((2, 1), int))[0].sum()

    value, gradient = total(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_only_the_last_context_length_steps_count():
    call, x = predictor(**SMALL), series(length=80)
    np.testing.assert_array_equal(call(x)[0], call(x[..., -48:])[0])


def test_forecasts_move_and_stretch_with_the_series():
    model, call, x = model_of(**SMALL), predictor(**SMALL), series()
    expected = model.unscale(*call(x))
    found = model.unscale(*call(1000.0 * x + 50.0))
    np.testing.assert_allclose(found, 1000.0 * expected + 50.0, rtol=2e-4, atol=1.0)


def test_channels_are_independent_unless_they_are_mixed():
    x = series(channels=3)
    changed = x.copy()
    changed[:, 2] = series(channels=1, seed=5)[:, 0]
    apart = predictor(**SMALL)
    mixed = predictor(**SMALL, num_input_channels=3, mode="mix_channel")
    np.testing.assert_array_equal(apart(x)[0][:, :2], apart(changed)[0][:, :2])
    np.testing.assert_allclose(apart(x[:, 1:2])[0], apart(x)[0][:, 1:2], atol=1e-6)
    assert np.abs(mixed(x)[0] - mixed(changed)[0])[:, :2].max() > 1e-4


def test_known_values_are_looked_at_and_others_are_not():
    x, static = series(channels=3), np.array([[0], [1], [2]])
    future = series(channels=3, length=12, seed=3)
    call = lambda future: np.asarray(  # noqa: E731
        predictor(**EVERYTHING)(x, future, static=static)[0]
    )
    expected = call(future)
    assert expected.shape == (3, 2, 3, 12)
    other = future.copy()
    other[:, :2] += 1.0
    np.testing.assert_array_equal(call(other), expected)
    other[:, 2] += 1.0
    assert np.abs(call(other) - expected).max() > 1e-4
    # None and all NaN both mean that nothing is known.
    np.testing.assert_allclose(call(np.full_like(future, np.nan)), call(None), atol=1e-5)


@pytest.mark.parametrize("raw", [False, True])
def test_exogenous_values_enter_in_the_units_of_the_forecast(raw):
    x, future = series(channels=3), series(channels=3, length=12, seed=3)
    moved, known = x.copy(), future.copy()
    moved[:, 2], known[:, 2] = 1000 * moved[:, 2] + 7, 1000 * known[:, 2] + 7
    call = predictor(**EVERYTHING, compat=ttm.Compat(raw_exogenous=raw))
    given = {"static": np.zeros((3, 1), int)}
    change = np.abs(call(moved, known, **given)[0] - call(x, future, **given)[0]).max()
    assert (change < 1e-3) != raw


def test_what_happens_ahead_only_has_the_scale_of_what_is_known_ahead():
    """A channel that is silent in the past, like announced meals, does not blow the forecast up."""
    call, x = predictor(**EVERYTHING), series(channels=3)
    x[:, 2] = 0.0
    given = {"static": np.ones((3, 1), int), "frequency": np.ones(3, int)}

    def forecast(meal):
        future = np.zeros_like(x[..., :12])
        future[:, 2, 4] = meal
        return call(x, future, **given)[0]

    nothing, small, large = forecast(0.0), forecast(1.0), forecast(60.0)
    assert np.abs(small - nothing).max() > 1e-3
    np.testing.assert_allclose(large, small, atol=2e-3)


def test_static_categories_and_frequencies_change_the_forecast():
    call, x = predictor(**EVERYTHING), series(channels=3)

    def forecast(code, token):
        given = {"static": np.full((3, 1), code), "frequency": np.full(3, token)}
        return np.asarray(call(x, None, **given)[0])

    base = forecast(0, 0)
    assert np.abs(forecast(1, 0) - base).max() > 1e-4
    assert np.abs(forecast(0, 3) - base).max() > 1e-4
    unnamed = call(x, None, static=np.zeros((3, 1), int))[0]
    np.testing.assert_allclose(unnamed, base, atol=1e-5)
    assert np.isnan(forecast(4, 0)).all()  # there are four values of the category, 0 … 3


def test_quantiles_never_cross_and_the_median_may_be_the_point_forecast():
    x = series(channels=3)
    predictions = predictor(**EVERYTHING)(x, None, static=np.zeros((3, 1), int))[0]
    assert (np.diff(predictions, axis=2) > 0).all()
    head = Quantiles(levels=(0.1, 0.5, 0.9), shift_median=False)
    graph, params, _ = parts_of(**SMALL, quantile_head=head)
    point, shapes, _ = parts_of(**SMALL)
    shared = unflatten({path: flatten(params)[path] for path in flatten(shapes)})
    with_quantiles = jax.jit(lambda x: merge(graph, params, {})(x)[0])(x)
    without = jax.jit(lambda x: merge(point, shared, {})(x)[0])(x)
    np.testing.assert_allclose(with_quantiles[:, :, 1], without[:, :, 0], atol=1e-6)


def test_prediction_filter_keeps_the_first_steps():
    x = series()
    cut = predictor(**SMALL, prediction_filter_length=5)
    np.testing.assert_allclose(cut(x)[0], predictor(**SMALL)(x)[0][..., :5], atol=1e-6)
    assert ttm.Config(prediction_filter_length=5).horizon == 5


def test_dropout_changes_with_the_key_only():
    call, x = predictor(**SMALL), series()
    draw = lambda seed: np.asarray(call(x, key=jax.random.key(seed))[0])  # noqa: E731
    np.testing.assert_array_equal(draw(0), draw(0))
    assert np.abs(draw(0) - draw(1)).max() > 1e-3
    assert np.abs(draw(0) - call(x)[0]).max() > 1e-3


def test_batch_norm_learns_its_statistics_in_training_only():
    graph, params, stats = parts_of(**SMALL, norm="batch")

    @jax.jit
    def after(key):
        model = merge(graph, params, stats)
        predictions, _ = model(series(), key=key)
        return predictions, stats_of(model)

    predictions, same = after(None)
    jax.tree.map(np.testing.assert_array_equal, same, stats)
    predictions, changed = after(jax.random.key(0))
    assert np.isfinite(predictions).all()
    before = flatten(stats)
    assert all(np.abs(x - before[path]).max() > 0 for path, x in flatten(changed).items())


def test_encode_gives_the_states_of_the_head():
    model = model_of(**SMALL, frequency_vocabulary=3)
    states, (loc, _) = jax.jit(model.encode)(series())
    assert states.shape == (3, 2, 7, 8)
    assert loc.shape == (3, 2, 1)


def test_bf16_parameters_give_close_fp32_predictions():
    graph, params, _ = parts_of(**EVERYTHING)
    x, static = series(channels=3), np.zeros((3, 1), int)
    run = jax.jit(lambda params: merge(graph, params, {})(x, None, static=static)[0])
    expected, found = np.asarray(run(params)), run(cast(params, jnp.bfloat16))
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found) - expected)
    assert 0 < error.mean() < 0.03 * np.abs(expected).mean()


def test_unscale_inverts_normalise():
    model, x = model_of(**SMALL), 1e3 + series()
    _, loc_scale = predictor(**SMALL)(x)
    z = model.normalise(x, loc_scale)[:, :, None]
    np.testing.assert_allclose(model.unscale(z, loc_scale)[:, :, 0], x, rtol=1e-6)


def test_the_trend_ignores_outliers_and_keeps_the_mean():
    t = np.arange(200)
    noise = np.random.default_rng(0).normal(0, 0.5, 200)
    smooth = (0.05 * t + np.sin(t / 40) + noise).astype(np.float32)
    outliers = smooth.copy()
    outliers[[50, 120]] += 50.0
    trend = jax.jit(robust_trend)
    found, expected = np.asarray(trend(outliers)), np.asarray(trend(smooth))
    np.testing.assert_allclose(found.mean(), outliers.mean(), rtol=1e-5)
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.1)
    np.testing.assert_allclose(expected[20:-20], (smooth - noise)[20:-20], atol=0.3)
    np.testing.assert_array_equal(jax.grad(lambda x: robust_trend(x).sum())(smooth), 0)


def test_a_decomposed_model_adds_trend_and_residual():
    values = {**SMALL, "decomposition": Decomposition(enabled=True, residual_context_length=24)}
    model, x = model_of(**values), series()
    target = series(length=12, seed=9)

    @jax.jit
    def run(x):
        parts, loc_scale = model.parts(x)
        return parts, model.targets(x, target, loc_scale)

    parts, targets = run(x)
    np.testing.assert_allclose(parts["joint"], parts["trend"] + parts["residual"], atol=1e-6)
    np.testing.assert_allclose(targets["trend"] + targets["residual"], targets["joint"], atol=1e-4)
    changed = x.copy()
    changed[..., :4] += 3.0
    assert np.abs(run(changed)[0]["trend"] - parts["trend"]).max() > 1e-4


@pytest.mark.parametrize("gate", mixer.GATES)
@pytest.mark.parametrize("leading", [True, False])
def test_gates_weigh_the_entries_of_their_axis(gate, leading):
    mixing = mixer.Mixing(gate=gate, gate_groups=5)
    block = mixer.Gate(6, mixing, leading=leading, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(6, 4, 3, 6)).astype(np.float32)
    y = np.asarray(block(x))
    kernel, bias = np.asarray(block.projection.kernel[...]), np.asarray(block.projection.bias[...])
    rows = np.moveaxis(x, 0, -1) if leading else x
    logits = rows @ kernel + bias
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    if gate == "glu":
        expected = logits[..., :6] * sigmoid(logits[..., 6:])
    elif gate == "softmax":
        weights_ = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        expected = rows * weights_
    elif gate == "sigmoid":
        expected = rows * sigmoid(logits)
    else:  # the largest number of groups up to five that divides six: three
        means = logits.reshape(*logits.shape[:-1], 3, 2).mean(axis=-1)
        expected = rows * sigmoid(np.repeat(means, 2, axis=-1))
    expected = np.moveaxis(expected, -1, 0) if leading else expected
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_initial_weights_are_uniform_within_the_inverse_root_of_the_inputs():
    layer = mixer.linear(100, 400, rngs=nnx.Rngs(0))
    for leaf in (layer.kernel[...], layer.bias[...]):
        assert np.abs(leaf).max() <= 0.1
        assert float(jnp.std(leaf)) == pytest.approx(0.1 / np.sqrt(3), rel=0.05)


def test_flops_count_the_matmuls():
    config = ttm.Config(**ttm.PRESETS["r2_512"])
    graph, params, _ = abstract(lambda rngs: ttm.Model(config, rngs=rngs))
    x = np.zeros((2, 1, 512), np.float32)
    forward = jax.jit(lambda params: merge(graph, params, {})(x)[0])
    lines = forward.lower(params).as_text().splitlines()
    products = [dot_flops(line) for line in lines if "stablehlo.dot_general" in line]
    assert len(products) == 51
    assert ttm.flops(config, 2) == sum(products)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context_length": 64}, "longer than model.patch_length"),
        ({"d_model": 190}, "multiple of 4"),
        ({"dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"prediction_filter_length": 97}, "prediction_filter_length is 97"),
        ({"prediction_channels": (0, 0), "num_input_channels": 2}, "different positions"),
        ({"prediction_channels": (2,), "num_input_channels": 2}, "below model.num_input_channels"),
        (
            {"prediction_channels": (0,), "known_channels": (0,)},
            "what is known ahead is not forecast",
        ),
        ({"known_channels": (0,)}, "leaves no channel"),
        ({"categories": (3,)}, "needs model.decoder_mode"),
        ({"quantile_head": {"levels": (0.1, 0.5)}}, "an odd number"),
        ({"quantile_head": {"levels": (0.1, 0.4, 0.9)}}, "0.5 in the middle"),
        ({"spectrum": {"count": 300}}, "has 257 frequencies"),
        ({"multi_scale": True, "decoder_raw_residual": True}, "does not go with"),
        ({"forecast_mixing": {"enabled": True, "past_offset": 512}}, "further back"),
        ({"mode": "mixed"}, "'common_channel', 'mix_channel'"),
        ({"quantile_head": {"level": ()}}, "did you mean 'levels'"),
        ({"decomposition": {"enabled": True, "patch_length": 512}}, "longer than"),
    ],
)
def test_wrong_configs_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        build(ttm.Config, changes, "model")


@pytest.mark.parametrize(
    ("values", "channels", "static", "words"),
    [
        ({"num_input_channels": 3, "mode": "mix_channel"}, 2, None, "has 2 channels, but this"),
        ({"num_input_channels": 3, "prediction_channels": (2,)}, 2, None, "channel 2"),
        (
            {"num_input_channels": 2, "decoder_mode": "mix_channel", "categories": (3,)},
            *(2, None, "1 static categories"),
        ),
    ],
)
def test_wrong_inputs_are_refused(values, channels, static, words):
    with pytest.raises(InputError, match=words):
        predictor(**SMALL, **values)(series(channels=channels), static=static)


def test_spectrum_tokens_name_the_strongest_frequencies():
    t = np.arange(48)
    z = (2 * np.sin(2 * np.pi * 5 * t / 48) + np.sin(2 * np.pi * 11 * t / 48) + 1.5).astype("f4")
    for skip, expected in ((False, [0, 5]), (True, [5, 11])):
        tokens = SpectrumTokens(48, 4, Spectrum(count=2, skip_mean=skip), rngs=nnx.Rngs(0))
        found = np.asarray(tokens(z[None, None]))[0, 0]
        np.testing.assert_array_equal(found, np.asarray(tokens.embedding.embedding)[expected])


def test_every_field_of_the_config_has_a_place_in_the_docstring():
    for kind in (ttm.Config, ttm.Compat, ForecastMixing, Quantiles, Spectrum, Decomposition):
        for field in dataclasses.fields(kind):
            assert f"\n      {field.name}: " in kind.__doc__, (kind.__name__, field.name)


@pytest.mark.parametrize(
    ("product", "plain"),
    [
        (products.trailing, lambda x, kernel: jnp.einsum("nbci,io->nbco", x, kernel)),
        (products.leading, lambda x, kernel: jnp.einsum("ibcd,io->obcd", x, kernel)),
    ],
)
def test_products_and_their_gradients(product, plain):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (4, 3, 2, 4)), jax.random.normal(keys[1], (4, 5))
    cotangent = jax.random.normal(keys[2], plain(x, kernel).shape)
    found, expected = (jax.vjp(f, x, kernel) for f in (product, plain))
    leaves = [
        (found[0], expected[0]),
        *zip(found[1](cotangent), expected[1](cotangent), strict=True),
    ]
    for one, other in leaves:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
