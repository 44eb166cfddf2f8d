"""The train step on a family with BatchNorm, a teacher and two terms of different weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from tsmjax import optim, sharding, state, step
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.nn.functional import flatten


class Trainer:
    """A step and what it needs, without the loop."""

    def __init__(self, data, devices=None, **sections):
        self.config = resolve(toy.config(data, **sections))
        self.task = self.config.build_task()
        self.mesh = sharding.make_mesh(self.config.mesh, devices)
        self.plan = state.blueprint(self.task, self.config.optim)
        init, abstract, _ = state.create(
            self.task, self.plan, self.config.optim, self.mesh, self.config.mesh.replicate_below
        )
        self.state, self.frozen = init(jax.random.key(0))
        schedule = optim.learning_rate(self.config.optim, 20)
        self.step = step.jit_train_step(
            *(self.task, self.plan, self.config.optim, schedule, self.mesh, abstract),
            averaging=optim.averaging(self.config.optim, 20),
        )
        self.batches = self.task.batches("train", 0, 1)

    def run(self, steps, change=lambda batch: batch):
        history = []
        for at in range(steps):
            batch = sharding.put_batch(change(self.batches[at]), self.mesh)
            self.state, metrics = self.step(self.state, self.frozen, batch, jax.random.key(1))
            pulse = [metrics[name] for name in ("loss", "grad_norm", "bad_in_row")]
            np.testing.assert_array_equal(metrics.pop("pulse"), pulse)
            history.append({name: float(value) for name, value in metrics.items()})
        return history


def values(tree):
    return {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}


def test_loss_falls_and_the_step_compiles_once(rows):
    trainer = Trainer(rows)
    history = trainer.run(20)
    assert history[-1]["cross_entropy"] < 0.6 * history[0]["cross_entropy"]
    assert trainer.step._cache_size() == 1


@pytest.mark.parametrize("mesh", [{"replica": 8}, {"replica": 1, "fsdp": 4, "tensor": 2}])
def test_any_mesh_gives_the_losses_of_one_device(rows, mesh):
    one = Trainer(rows, jax.devices()[:1], mesh={"replica": 1}).run(8)
    many = Trainer(rows, mesh=mesh).run(8)
    for name in ("loss", "cross_entropy", "mimicry", "grad_norm"):
        np.testing.assert_allclose([m[name] for m in many], [m[name] for m in one], rtol=1e-4)


def test_parameters_and_moments_keep_their_shardings_after_a_step(rows):
    trainer = Trainer(rows, mesh={"replica": 1, "fsdp": 4, "tensor": 2})
    trainer.run(1)
    kernel = trainer.state["params"]["model"]["hidden"]["kernel"]
    moment = trainer.state["opt"][0].mu["model"]["hidden"]["kernel"]
    for leaf in (kernel, moment):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(2, 8)}


def test_accumulation_equals_the_undivided_batch(rows):
    """4 × 4 rows against 16 at once, where each quarter has another number of labels."""

    def no_batch_norm(model_only):
        return {path: leaf for path, leaf in model_only.items() if "/norm/" not in path}

    def uneven(batch):
        labels = batch["y"].copy()
        labels[:7] = -1
        return {**batch, "y": labels}

    # One device: BatchNorm sees other rows in a micro-batch, so it is kept out by freezing it
    # and reading its running statistics.
    one, four = (
        Trainer(rows, jax.devices()[:1], mesh={"replica": 1}, optim={"accumulate": parts})
        for parts in (1, 4)
    )
    for trainer in (one, four):
        trainer.task.terms = _with_running_statistics(trainer.task)
    history = one.run(3, uneven), four.run(3, uneven)
    for name in ("loss", "cross_entropy", "mimicry", "grad_norm"):
        np.testing.assert_allclose(
            [m[name] for m in history[1]], [m[name] for m in history[0]], rtol=2e-5
        )
    expected, found = (no_batch_norm(values(t.state["params"])) for t in (one, four))
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, atol=2e-5, err_msg=path)


def _with_running_statistics(task):
    original = type(task).terms
    return lambda modules, batch, key, train: original(task, modules, batch, key, False)


def test_accumulation_is_refused_for_terms_that_couple_rows(rows):
    config = resolve(toy.config(rows, optim={"accumulate": 2}))
    task = config.build_task()
    task.couples_rows = True
    plan = state.blueprint(task, config.optim)
    with pytest.raises(InputError, match=r"optim\.accumulate"):
        step.make_train_step(task, plan, config.optim, lambda t: 0.0, None, None)


def test_a_non_finite_step_keeps_the_old_state(rows):
    trainer = Trainer(rows, optim={"average": 0.9})
    trainer.run(2)
    before = values({k: trainer.state[k] for k in ("params", "stats", "average")})

    def poison(batch):
        return {
            **batch,
            "x": np.where(np.arange(len(batch["x"]))[:, None] == 0, np.inf, batch["x"]),
        }

    history = trainer.run(2, poison)
    after = values({k: trainer.state[k] for k in ("params", "stats", "average")})
    for path, leaf in before.items():
        np.testing.assert_array_equal(after[path], leaf, err_msg=path)
    assert [m["bad_in_row"] for m in history] == [1, 2]
    assert int(trainer.state["step"]) == 4
    assert trainer.run(1)[0]["bad_in_row"] == 0
    assert int(trainer.state["guard"]["bad"]) == 2


def test_batch_norm_statistics_and_the_average_move(rows):
    trainer = Trainer(rows, optim={"average": 0.5})
    start = np.asarray(trainer.state["params"]["model"]["head"]["kernel"])
    trainer.run(1)
    now = np.asarray(trainer.state["params"]["model"]["head"]["kernel"])
    average = np.asarray(trainer.state["average"]["model"]["head"]["kernel"])
    np.testing.assert_allclose(average, (start + now) / 2, rtol=1e-6)
    assert np.abs(trainer.state["stats"]["model"]["norm"]["mean"]).max() > 0


def test_the_teacher_never_moves_and_takes_no_optimiser_memory(rows):
    trainer = Trainer(rows, optim={"precision": "bfloat16"})
    before = values(trainer.frozen["params"])
    statistics = values(trainer.frozen["stats"])
    trainer.run(3)
    assert before["frozen/hidden/kernel"].dtype == jnp.bfloat16
    for path, leaf in before.items():
        np.testing.assert_array_equal(values(trainer.frozen["params"])[path], leaf)
    for path, leaf in statistics.items():
        np.testing.assert_array_equal(values(trainer.frozen["stats"])[path], leaf)
    assert not any("frozen" in path for path in values(trainer.state["params"]))
    assert trainer.state["params"]["model"]["hidden"]["kernel"].dtype == jnp.float32


def test_frozen_leaves_leave_the_gradient_and_stay_put(rows):
    trainer = Trainer(rows, optim={"freeze": ((r"^model/hidden/", True),)})
    assert "hidden" not in trainer.state["params"]["model"]
    before = np.asarray(trainer.frozen["params"]["model"]["hidden"]["kernel"])
    history = trainer.run(10)
    np.testing.assert_array_equal(trainer.frozen["params"]["model"]["hidden"]["kernel"], before)
    assert history[-1]["loss"] < history[0]["loss"]
    moments = trainer.state["opt"][0].mu["model"]
    assert "hidden" not in moments
    assert "head" in moments


def test_bfloat16_follows_float32(rows):
    full = Trainer(rows).run(10)
    half = Trainer(rows, optim={"precision": "bfloat16"}).run(10)
    np.testing.assert_allclose(half[-1]["loss"], full[-1]["loss"], rtol=0.05)
    assert half[-1]["loss"] != full[-1]["loss"]


def test_float16_scales_the_loss_and_halves_the_scale_when_a_step_overflows(rows):
    full = Trainer(rows).run(3)
    trainer = Trainer(rows, optim={"precision": "float16", "loss_scale": 1024.0})
    half = trainer.run(3)
    np.testing.assert_allclose(half[-1]["loss"], full[-1]["loss"], rtol=0.02)
    np.testing.assert_allclose(half[0]["grad_norm"], full[0]["grad_norm"], rtol=0.05)
    assert (half[-1]["loss_scale"], half[-1]["bad"]) == (1024.0, 0.0)
    guard = trainer.state["guard"]
    scale = jax.device_put(jnp.float32(2.0**24), guard["loss_scale"].sharding)
    trainer.state["guard"] = {**guard, "loss_scale": scale}
    before = values(trainer.state["params"])
    history = trainer.run(1)
    assert history[0]["bad"] == 1 and history[0]["loss_scale"] == 2.0**23
    for path, leaf in values(trainer.state["params"]).items():
        np.testing.assert_array_equal(leaf, before[path])
    calm = step._rescaled(jnp.float32(8), jnp.int32(1999), jnp.bool_(True))
    assert (float(calm["loss_scale"]), int(calm["calm_steps"])) == (16.0, 0)


def test_the_average_of_a_run_is_the_mean_of_the_last_parameters(rows):
    trainer = Trainer(rows, optim={"swa": {"start": 2, "every": 1}})
    kept = []
    for at in range(4):
        trainer.run(1)
        if at + 1 >= 2:
            kept.append(values(trainer.state["params"]))
    for path, leaf in values(trainer.state["average"]).items():
        np.testing.assert_allclose(leaf, np.mean([x[path] for x in kept], axis=0), rtol=1e-5)


def test_clipping_bounds_the_update_but_reports_the_norm(rows):
    def first_move(clip):
        options = {"clip": clip, "optimizer": "sgd", "momentum": 0.0, "nesterov": False, "lr": 1.0}
        trainer = Trainer(rows, optim=options)
        before = values(trainer.state["params"])
        norm = trainer.run(1)[0]["grad_norm"]
        after = values(trainer.state["params"])
        return norm, np.sqrt(sum(((after[k] - before[k]) ** 2).sum() for k in before))

    free, moved = first_move(0.0)
    np.testing.assert_allclose(moved, free, rtol=1e-4)
    norm, moved = first_move(0.01)
    np.testing.assert_allclose((norm, moved), (free, 0.01), rtol=1e-4)


@pytest.mark.parametrize("policy", ["keep_old", "reset_bn"])
def test_a_step_that_is_not_finite_keeps_or_resets_the_statistics(rows, policy):
    def poison(batch):
        return {**batch, "x": np.full_like(batch["x"], np.nan)}

    def current():
        return values({name: trainer.state[name] for name in ("params", "stats")})

    trainer = Trainer(rows, optim={"nan_policy": policy})
    trainer.run(2)
    before = current()
    assert trainer.run(1, poison)[0]["bad"] == 1
    after = current()
    for path in before:
        if path.startswith("stats/") and policy == "reset_bn":
            assert (after[path] == path.endswith("/var")).all()
        else:
            np.testing.assert_array_equal(after[path], before[path])
    assert optim.OptimConfig(nan_policy="raise").max_bad_steps == 1
