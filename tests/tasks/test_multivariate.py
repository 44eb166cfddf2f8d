"""The task on tables: losses over observed labels, roles of channels, categories, frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.nn.functional import abstract, merge
from tsmjax.nn.losses import point_loss
from tsmjax.tasks import Modules

MODEL = {
    **{"family": "ttm", "context_length": 24, "prediction_length": 6, "patch_length": 6},
    **{"d_model": 8, "num_layers": 1, "adaptive_patching_levels": 0},
    **{"decoder_d_model": 8, "decoder_num_layers": 1},
}


class Stub:
    """Forecasts that are given, in normalised space, with a location and a scale."""

    def __init__(self, parts, loc, scale):
        self._parts, self._loc_scale = parts, (loc, scale)

    def parts(self, *arguments, **named):
        return self._parts, self._loc_scale

    def unscale(self, predictions, loc_scale):
        loc, scale = (part[:, :, None] for part in loc_scale)
        return predictions * scale + loc

    def targets(self, context, target, loc_scale):
        joint = (target - loc_scale[0]) / loc_scale[1]
        return {"joint": joint, "trend": 0.5 * joint, "residual": 0.5 * joint}


def task_of(model=None, data=None, **task):
    values = {"model": {**MODEL, **(model or {})}, "task": {"kind": "multivariate", **task}}
    return resolve({**values, "data": data or {}}).build_task()


def batch_of(target):
    return {
        "context": jnp.zeros((*target.shape[:2], 24)),
        "target": jnp.asarray(target),
        "future": jnp.full(target.shape, jnp.nan),
    }


def loss_of(task, stub, batch):
    sums, weights = task.terms(Modules(stub), batch, None, True), task.weights(batch)
    assert sums.keys() == weights.keys() == task.coefficients.keys()
    return {name: float(sums[name] / weights[name]) for name in sums}


@pytest.fixture
def target():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(3, 2, 6)).astype(np.float32)
    target[0, 1, 2:4] = np.nan
    target[2, 0] = np.inf
    return target


@pytest.mark.parametrize("kind", ["mse", "mae", "pinball", "huber"])
def test_the_loss_is_a_mean_over_observed_labels_in_the_units_of_the_data(target, kind):
    rng = np.random.default_rng(1)
    forecast = rng.normal(size=(3, 2, 1, 6)).astype(np.float32)
    loc, scale = rng.normal(size=(3, 2, 1)), np.exp(rng.normal(size=(3, 2, 1)))
    task = task_of(loss=kind, quantile=0.3, delta=0.7)
    found = loss_of(task, Stub({"joint": jnp.asarray(forecast)}, loc, scale), batch_of(target))
    seen = np.isfinite(target)
    error = np.where(seen, target, 0) - (forecast[:, :, 0] * scale + loc)
    losses = {
        "mse": error**2,
        "mae": np.abs(error),
        "pinball": np.where(error > 0, 0.3 * error, -0.7 * error),
        "huber": np.where(np.abs(error) < 0.7, error**2 / 2, 0.7 * (np.abs(error) - 0.35)),
    }[kind]
    assert found["loss"] == pytest.approx(losses[seen].mean(), rel=1e-5)


@pytest.mark.parametrize("quantiles", [False, True])
def test_later_steps_may_count_less(target, quantiles):
    """As if the loss of each step were taken alone, and weighted."""
    model = {"quantile_head": {"levels": (0.1, 0.5, 0.9)}} if quantiles else {}
    forecast = np.random.default_rng(1).normal(size=(3, 2, 1 + 2 * quantiles, 6))
    joint = jnp.asarray(np.sort(forecast, axis=2), jnp.float32)
    stub = Stub({"joint": joint}, jnp.zeros((3, 2, 1)), jnp.ones((3, 2, 1)))
    even, decaying = (task_of(model, step_decay=decay, width=0.2) for decay in (0.0, 1.5))
    alone = []
    for step in range(6):
        only = np.full_like(target, np.nan)
        only[..., step] = target[..., step]
        alone.append(float(even.terms(Modules(stub), batch_of(only), None, True)["loss"]))
    weights = np.arange(1, 7) ** -1.5
    expected = np.dot(weights / weights.mean(), alone) / np.isfinite(target).sum()
    assert loss_of(decaying, stub, batch_of(target))["loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - loss_of(even, stub, batch_of(target))["loss"]) > 1e-3


@pytest.mark.parametrize("width_of", ["outer", "pairs"])
def test_quantiles_take_the_pinball_loss_and_may_be_held_together(target, width_of):
    levels = (0.1, 0.4, 0.5, 0.6, 0.9)
    forecast = np.sort(np.random.default_rng(1).normal(size=(3, 2, 5, 6)), axis=2)
    task = task_of({"quantile_head": {"levels": levels}}, median=0.5, width=0.25, width_of=width_of)
    joint = jnp.asarray(forecast, jnp.float32)
    stub = Stub({"joint": joint}, jnp.zeros((3, 2, 1)), jnp.ones((3, 2, 1)))
    found = loss_of(task, stub, batch_of(target))["loss"]
    seen = np.isfinite(target)
    error = np.where(seen, target, 0)[:, :, None] - forecast
    pinball = np.maximum(np.multiply.outer(levels, np.ones(6)) * error, 0)
    pinball = np.where(error > 0, pinball, (np.array(levels)[:, None] - 1) * error).mean(axis=2)
    outer, inner = forecast[:, :, 4] - forecast[:, :, 0], forecast[:, :, 3] - forecast[:, :, 1]
    width = outer if width_of == "outer" else (outer + inner) / 2
    expected = pinball + 0.5 * np.abs(error[:, :, 2]) + 0.25 * width
    assert found == pytest.approx(expected[seen].mean(), rel=1e-5)


def test_a_decomposed_model_has_terms_of_its_own(target):
    rng = np.random.default_rng(1)
    parts = {
        name: jnp.asarray(rng.normal(size=(3, 2, 1, 6)), jnp.float32)
        for name in ("joint", "trend", "residual")
    }
    task = task_of({"decomposition": {"enabled": True}}, joint=0.1, trend=2.0, slope=0.3)
    assert task.coefficients == {"joint": 0.1, "trend": 2.0, "residual": 1.0, "slope": 0.6}
    found = loss_of(task, Stub(parts, jnp.zeros((3, 2, 1)), jnp.ones((3, 2, 1))), batch_of(target))
    seen = np.isfinite(target)
    error = np.where(seen, target, np.nan)
    trend = np.asarray(parts["trend"])[:, :, 0]
    expected = np.nanmean((0.5 * error - trend) ** 2)
    assert found["trend"] == pytest.approx(expected, rel=1e-5)
    slope = np.diff(0.5 * error, axis=-1) - np.diff(trend, axis=-1)
    assert found["slope"] == pytest.approx(np.nanmean(slope**2), rel=1e-5)


def test_training_windows_are_scaled_and_shifted_at_random():
    model = {"num_input_channels": 3, "prediction_channels": (0, 2)}
    task = task_of(model, random_scale=0.5, random_shift=2.0)
    rng = np.random.default_rng(0)
    batch = {
        "context": rng.normal(size=(500, 3, 24)).astype(np.float32),
        "target": rng.normal(size=(500, 3, 6)).astype(np.float32),
        "future": np.full((500, 3, 6), np.nan, np.float32),
    }
    batch["context"][:, 0, :5] = np.nan
    found = jax.jit(task.device, static_argnums=2)(batch, jax.random.key(0), True)
    factors, shifts = [], []
    for window in range(500):
        for channel in (0, 2):
            x = np.r_[batch["context"][window, channel], batch["target"][window, channel]]
            y = np.r_[found["context"][window, channel], found["target"][window, channel]]
            seen = np.isfinite(x)
            np.testing.assert_array_equal(np.isfinite(y), seen)
            factor, shift = np.polyfit(x[seen], y[seen], 1)
            np.testing.assert_allclose(y[seen], factor * x[seen] + shift, atol=1e-4)
            factors.append(factor)
            shifts.append(shift)
    # Both channels of a window move alike, the third one not at all.
    np.testing.assert_allclose(factors[::2], factors[1::2], rtol=1e-3)
    assert 0.4 < np.log(factors).std() < 0.6 and 1.7 < np.std(shifts) < 2.3
    assert abs(np.corrcoef(np.log(factors), shifts)[0, 1]) < 0.15
    for name in ("context", "target"):
        np.testing.assert_array_equal(found[name][:, 1], batch[name][:, 1])
    assert task.device(batch, jax.random.key(0), False) is batch


def test_no_label_at_all_has_a_finite_gradient():
    task = task_of()
    batch = batch_of(np.full((2, 1, 6), np.nan, np.float32))

    def total(forecast):
        stub = Stub({"joint": forecast}, jnp.zeros((2, 1, 1)), jnp.ones((2, 1, 1)))
        return task.terms(Modules(stub), batch, None, True)["loss"]

    value, gradient = jax.value_and_grad(total)(jnp.ones((2, 1, 1, 6)))
    assert value == 0 and (gradient == 0).all()
    assert task.weights(batch)["loss"] == 0


def test_only_forecast_channels_have_labels(target):
    task = task_of({"num_input_channels": 2, "prediction_channels": (1,)})
    batch = batch_of(target)
    assert float(task.weights(batch)["loss"]) == np.isfinite(target[:, 1]).sum()


def write(folder, rows):
    write_dataset(rows, folder)
    return {"path": str(folder), "batch_size": 4}


def table_row(static=(1, 0), freq="60min", **more):
    rng = np.random.default_rng(0)
    return {
        **{"target": rng.normal(size=(2, 200)), "feat_dynamic_real": rng.normal(size=(1, 200))},
        **{"feat_static_cat": list(static), "freq": freq, **more},
    }


ROLES = {"num_input_channels": 3, "prediction_channels": (0, 1), "known_channels": (2,)}


def test_categories_and_frequencies_come_with_each_item(tmp_path):
    rows = [table_row((1, 0), "h"), table_row((2, 1), "D"), table_row((0, 1), "QS")]
    data = write(tmp_path / "t", rows)
    model = {**ROLES, "decoder_mode": "mix_channel", "categories": (3, 2)}
    task = task_of({**model, "frequency_vocabulary": 8}, data)
    assert task._extra["static"].tolist() == [[1, 0], [2, 1], [0, 1]]
    assert task._extra["frequency"].tolist() == [7, 0, 0]  # eight entries leave no room for D
    batch = task.batches("train", 0, 1)[0]
    assert batch["static"].shape == (4, 2) and batch["frequency"].shape == (4,)
    assert task.artefacts()["mean"] == task.table.mean.tolist()
    graph, params, _ = abstract(lambda rngs: task.build(rngs).model)
    forecast = jax.eval_shape(lambda p: task.predict(merge(graph, p, {}), batch), params)
    assert forecast.shape == (4, 2, 1, 6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, r"model\.num_input_channels=3 and model\.prediction_channels=\(0, 1\)"),
        ({"mode": "mix_channel", "num_input_channels": 2}, r"set model\.num_input_channels=3"),
        ({**ROLES, "prediction_channels": (1,)}, "2 targets among 3 channels"),
        (
            {**ROLES, "decoder_mode": "mix_channel", "categories": (3,)},
            r"feat_static_cat = \[1, 0\], but model\.categories says \[3\]",
        ),
    ],
)
def test_roles_that_do_not_fit_the_table_are_refused(tmp_path, model, words):
    task = task_of(model, write(tmp_path / "t", [table_row()]))
    with pytest.raises(InputError, match=words):
        task.batches("train", 0, 1)


def test_channels_known_ahead_must_be_known_in_the_table(tmp_path):
    row = table_row()
    row["past_feat_dynamic_real"] = row.pop("feat_dynamic_real")
    task = task_of(ROLES, write(tmp_path / "t", [row]))
    with pytest.raises(InputError, match=r"known ahead \(model\.known_channels\), but in .* \[\]"):
        task.batches("train", 0, 1)


def test_suites_belong_to_another_task(tmp_path):
    task = task_of(ROLES, write(tmp_path / "t", [table_row()]))
    with pytest.raises(InputError, match=r"evals\.suites is \['embedded'\]"):
        task.evaluators("validation")


@pytest.mark.parametrize(
    ("field", "value"),
    [("quantile", 1.0), ("delta", 0.0), ("step_decay", -1.0), ("random_scale", -0.1)],
)
def test_wrong_settings_are_refused(field, value):
    with pytest.raises(InputError, match=f"task.{field} is"):
        task_of(**{field: value})


def test_huber_joins_its_pieces_smoothly():
    gradient = jax.vmap(jax.grad(lambda e: point_loss(e, "huber", delta=2.0)))
    np.testing.assert_allclose(gradient(jnp.array([-5.0, -1.9, 1.9, 2.1])), [-2, -1.9, 1.9, 2])


def test_tokens_are_the_patches_of_all_channels(target):
    windows, channels, _ = target.shape
    assert task_of().tokens(batch_of(target)) == windows * channels * 24 / 6
