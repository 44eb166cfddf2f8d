"""The forecasting task: what counts in the loss, and what augmentation may touch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.tasks import forecast
from tsmjax.tasks.forecast import easiness

SIZE = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def build(**settings):
    config = {
        "model": {"family": "chronos2", **SIZE, "context_length": 64, "max_output_patches": 3},
        "task": {"kind": "forecast", **settings},
        "data": {"sources": ({"path": "unused"},)},
    }
    return resolve(config).build_task()


@pytest.fixture(scope="module")
def task():
    return build()


@pytest.fixture(scope="module")
def modules(task):
    return task.build(nnx.Rngs(0))


def draw(seed=0, patches=3):
    """Two packs of four slots: a pair and a single task, and one task with two covariates."""
    rng = np.random.default_rng(seed)
    walks = rng.normal(size=(2, 4, 64 + 48)).cumsum(axis=2).astype(np.float32)
    target, future = walks[..., 64:].copy(), np.full((2, 4, 48), np.nan, np.float32)
    target[1, 1:3], future[1, 2] = np.nan, walks[1, 2, 64:]
    target[1, 3] = target[0, 3] = np.nan
    return {
        "context": walks[..., :64],
        "target": target,
        "future": future,
        "group": np.array([[0, 0, 1, -1], [0, 0, 0, -1]], np.int32),
        "patches": np.full(2, patches, np.int32),
    }


def loss_of(task, modules, batch):
    (name,) = (name for name, factor in task.coefficients.items() if factor)
    assert name == "loss_padded"
    sums, weights = task.terms(modules, batch, None, False), task.weights(batch)
    return {name: float(sums[name]) / float(weights[name]) for name in sums}


def test_steps_without_a_truth_have_no_gradient(task, modules):
    batch = draw()
    batch["target"][0, 0, 5:20] = np.nan
    batch["patches"] = np.array([2, 3], np.int32)

    def total(target):
        return task.terms(modules, {**batch, "target": target}, None, False)["loss_padded"]

    slopes = np.abs(jax.grad(total)(jnp.nan_to_num(batch["target"])))
    observed = np.isfinite(batch["target"])
    counts = np.asarray(task._counts(batch))
    expected = observed.copy()
    expected[0, :, 32:] = False  # beyond the drawn horizon of this pack
    np.testing.assert_array_equal(counts, expected)
    assert (slopes[counts] > 0).all()
    # A known covariate has no loss even where its future is given as a target.
    known = {**batch, "target": np.where(np.isfinite(batch["future"]), 1.0, batch["target"])}
    np.testing.assert_array_equal(task._counts(known), expected)
    weights = task.weights(batch)
    assert float(weights["loss_observed"]) == expected.sum()
    assert float(weights["loss_padded"]) == 3 * 32 + 3 * 48


def test_a_drawn_horizon_is_the_loss_of_a_model_asked_for_it(task, modules):
    """The number of output patches is a mask: one compiled shape serves every draw."""
    batch = draw(patches=1)
    masked = loss_of(task, modules, batch)
    short = build()
    short.output_patches, short.horizon = 1, 16
    cut = {name: array[..., :16] if name in ("target", "future") else array
           for name, array in batch.items()}  # fmt: skip
    np.testing.assert_allclose(
        list(masked.values()), list(loss_of(short, modules, cut).values()), rtol=1e-6
    )


def test_contexts_lose_an_even_share_of_steps_at_random():
    task = build(missing=0.4)
    batch = draw()
    batch["context"] = np.ones((64, 8, 64), np.float32)
    batch["target"] = batch["future"] = np.ones((64, 8, 48), np.float32)
    batch["group"] = np.zeros((64, 8), np.int32)
    found = jax.jit(task.device, static_argnums=2)(batch, jax.random.key(0), True)
    lost = np.isnan(found["context"]).mean(axis=2)
    assert 0.19 < lost.mean() < 0.21
    assert lost.min() < 0.02 and 0.38 < lost.max() < 0.6
    assert 0.10 < lost.std() < 0.14  # evenly drawn shares, 0.4 / √12, and the draws of the steps
    for name in ("target", "future"):
        np.testing.assert_array_equal(found[name], batch[name])
    again = task.device(batch, jax.random.key(0), True)
    np.testing.assert_array_equal(found["context"], again["context"])
    assert task.device(batch, jax.random.key(0), False) is batch


def test_a_flipped_task_is_negated_in_all_its_rows():
    task = build(flip=0.5)
    batch = draw()
    signs = []
    for seed in range(200):
        found = task.device(batch, jax.random.key(seed), True)
        for pack, slots in ((0, [0, 1]), (0, [2]), (1, [0, 1, 2])):
            ratios = set()
            for name in ("context", "target", "future"):
                ratio = np.asarray(found[name])[pack, slots] / batch[name][pack, slots]
                ratios |= set(ratio[np.isfinite(ratio)].tolist())
            assert ratios in ({1.0}, {-1.0})
            signs.append(*ratios)
    signs = np.array(signs).reshape(200, 3)
    np.testing.assert_allclose(signs.mean(axis=0), 0.0, atol=0.25)
    assert abs(np.corrcoef(signs.T)[0, 1]) < 0.25  # tasks of one pack are flipped on their own


def test_the_negation_of_a_task_has_the_negated_forecast(modules):
    plain, invariant = build(), build(flip_invariant=True)
    batch = draw()
    negation = batch | {name: -batch[name] for name in ("context", "future")}
    forecast, negated = (
        np.asarray(invariant.predict(modules.model, some)) for some in (batch, negation)
    )
    rows = batch["group"] >= 0
    np.testing.assert_allclose(negated[rows], -forecast[rows][:, ::-1], rtol=1e-5, atol=1e-6)
    one, other = (np.asarray(plain.predict(modules.model, some)) for some in (batch, negation))
    mean = (one - other[:, :, ::-1]) / 2
    np.testing.assert_allclose(forecast[rows], mean[rows], rtol=1e-5, atol=1e-6)
    assert np.abs(one - mean)[rows].max() > 1e-3  # the model alone is not invariant


def test_a_task_and_its_negation_stay_on_one_device(modules):
    task, batch = build(flip_invariant=True), draw()
    packs = {name: np.concatenate([array, array]) for name, array in batch.items()}
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("pack",))
    placed = jax.device_put(packs, jax.NamedSharding(mesh, jax.P("pack")))
    program = jax.jit(lambda batch: task.predict(modules.model, batch)).lower(placed).compile()
    moved = ("all-to-all", "all-gather", "collective-permute")
    assert not any(name in program.as_text() for name in moved)
    expected = np.asarray(task.predict(modules.model, batch))
    rows = packs["group"] >= 0
    found = np.asarray(program(placed))[rows]
    np.testing.assert_allclose(found, np.tile(expected, (2, 1, 1, 1))[rows], rtol=1e-5, atol=1e-6)


def test_flip_invariance_needs_symmetric_quantiles():
    model = {"family": "chronos2", **SIZE, "quantiles": (0.1, 0.5, 0.8)}
    with pytest.raises(InputError, match="symmetrically about the median"):
        resolve(
            {
                "model": model,
                "task": {"kind": "forecast", "flip_invariant": True},
                "data": {"sources": ({"path": "unused"},)},
            }
        ).build_task()


def test_rows_that_are_tasks_of_their_own_are_mixed():
    task = build(mixup=0.9)
    rng = np.random.default_rng(0)
    batch = {
        "context": rng.normal(size=(32, 1, 64)).astype(np.float32),
        "target": rng.normal(size=(32, 1, 48)).astype(np.float32),
        "future": np.full((32, 1, 48), np.nan, np.float32),
        "group": np.zeros((32, 1), np.int32),
        "patches": np.full(32, 3, np.int32),
    }
    found = task.device(batch, jax.random.key(0), True)
    other = ~np.isclose(found["context"], batch["context"], rtol=1e-4).all(axis=(1, 2))
    assert 0.35 < other.mean() < 0.85 and found["context"].shape == batch["context"].shape
    assert task.device(batch, jax.random.key(0), False) is batch
    groups = {
        name: np.repeat(values, 2, axis=1) for name, values in batch.items() if values.ndim > 1
    }
    assert task.device({**batch, **groups}, jax.random.key(0), True)["context"] is groups["context"]


@pytest.mark.parametrize("settings", [{"missing": 1.0}, {"flip": -0.1}, {"mixup": 1.0}])
def test_wrong_shares_are_refused(settings):
    with pytest.raises(InputError, match=r"must be in \[0, 1\)"):
        build(**settings)


def test_rows_count_by_how_well_their_past_repeats_itself():
    rng = np.random.default_rng(0)
    t = np.arange(336)
    rows = np.stack(
        [
            np.sin(2 * np.pi * t / 24),
            np.sin(2 * np.pi * t / 24) + rng.normal(size=336),
            rng.normal(size=336),
            np.where(t < 330, np.nan, t),
            np.zeros(336),
            np.full(336, np.nan),
        ]
    )
    found = np.asarray(easiness(1e6 * rows, (1, 7, 24), 30))[:, 0]
    np.testing.assert_allclose(found[0], 10, rtol=1e-2)
    assert 0.8 < found[2] < found[1] < 2
    np.testing.assert_allclose(found[3], 1 / 1.1)  # too short to tell
    assert np.isfinite(found).all()
    np.testing.assert_allclose(easiness(rows[:3] - 5, (1, 7, 24), 30)[:, 0], found[:3], rtol=1e-3)


def test_the_observed_loss_is_a_mean_over_rows_so_weighted(modules, monkeypatch):
    task, batch = build(reduction="observed", seasons=(4,)), draw()

    def loss(batch, *packs):
        own = jnp.asarray(packs, jnp.float32)[:, None, None]
        monkeypatch.setattr(
            forecast, "easiness", lambda *_: jnp.broadcast_to(own, (len(own), 4, 1))
        )
        sums, weights = task.terms(modules, batch, None, False), task.weights(batch)
        return np.array([sums["loss_observed"], weights["loss_observed"]])

    first, second = ({name: x[[pack]] for name, x in batch.items()} for pack in range(2))
    np.testing.assert_allclose(
        loss(batch, 1.0, 5.0), loss(first, 1.0) + 5 * loss(second, 1.0), rtol=1e-5
    )


def test_seasons_belong_to_the_observed_loss():
    with pytest.raises(InputError, match="needs task"):
        forecast.Config(seasons=(24,))
    with pytest.raises(InputError, match="whole periods"):
        forecast.Config(seasons=(0,), reduction="observed")


def test_tokens_are_the_patches_of_context_and_horizon(task):
    assert task.tokens(draw()) == 2 * 4 * (64 / 16 + 3)
