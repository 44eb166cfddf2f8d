"""Debug mode: what it shrinks, what it computes, and what it says of a step that is not finite."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

import tsmjax
from tsmjax import debug, optim, sharding, state, step
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.models import chronos2, sensorllm


@pytest.fixture(scope="module")
def stepper(rows):
    """One device: (task, state, frozen leaves, a batch, the compiled step, the debugged one)."""
    config = resolve(toy.config(rows, mesh={"replica": 1}))
    task = config.build_task()
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
    schedule = optim.learning_rate(config.optim, 20)
    arguments = (task, plan, config.optim, schedule, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract["params"])
    jitted = step.jit_train_step(*arguments, abstract, donate=False)
    checked = debug.checked(step.make_train_step(*arguments, places), task, plan)
    batch = sharding.put_batch(task.batches("train", 0, 1)[0], mesh)
    return task, *init(jax.random.key(0)), batch, jitted, checked


@pytest.mark.slow
def test_a_step_has_the_numbers_of_the_compiled_one_and_can_be_looked_into(stepper, monkeypatch):
    task, begin, frozen, batch, jitted, checked = stepper
    _, expected = jitted(begin, frozen, batch, jax.random.key(1))
    seen, terms = [], type(task).terms

    def look(self, modules, batch, key, train):
        seen.append(np.asarray(batch["y"]))  # of a traced array there are no numbers
        return terms(self, modules, batch, key, train)

    monkeypatch.setattr(type(task), "terms", look)
    after, metrics = checked(begin, frozen, batch, jax.random.key(1))
    np.testing.assert_array_equal(seen[0], batch["y"])
    assert int(after["step"]) == 1
    for name in ("loss", "grad_norm", "mimicry"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4)


def test_it_is_said_where_a_step_stops_being_finite(stepper, monkeypatch):
    task, begin, frozen, batch, _, checked = stepper

    def said(state, batch):
        with pytest.raises(InputError, match=r"^Step 1 is not finite: loss") as error:
            checked(state, frozen, batch, jax.random.key(1))
        return str(error.value)

    huge = {**batch, "x": jnp.full_like(batch["x"], 3e38)}
    assert "turns finite numbers into others: model/hidden (Linear)" in said(begin, huge)
    infinite = {**batch, "x": batch["x"].at[:2, 3].set(jnp.inf)}
    assert "infinite values in the batch: x (2)" in said(begin, infinite)
    params = jax.tree.map(lambda leaf: leaf, begin["params"])
    params["model"]["head"]["bias"] = jnp.full_like(params["model"]["head"]["bias"], jnp.nan)
    broken = said({**begin, "params": params}, batch)
    assert "parameters that were not finite before it: model/head/bias" in broken
    assert "terms: cross_entropy." in broken

    terms = type(task).terms

    def root(self, modules, batch, key, train):
        found = terms(self, modules, batch, key, train)
        return {**found, "mimicry": jnp.sqrt(0.0 * found["mimicry"])}

    monkeypatch.setattr(type(task), "terms", root)
    sentence = said(begin, batch)
    assert "gradient norm nan; gradients: aux/" in sentence and "terms" not in sentence


def test_depth_batch_and_length_shrink_and_nothing_that_weights_need(rows):
    config = resolve(toy.config(rows, evals={"every": 10}, debug=True))
    small = debug.small(config)
    assert small.data.batch_size == jax.device_count() < config.data.batch_size
    assert (small.optim.length, small.evals.every, small.log.every) == (4, 4, 1)
    assert small.name == "toy_debug" and small.data.workers == 0
    base = chronos2.Config(num_layers=12)
    deep = dataclasses.replace(config, model=base)
    assert debug.small(deep).model == dataclasses.replace(base, num_layers=2)
    loaded = dataclasses.replace(config.checkpoint, init_from="weights")
    assert debug.small(dataclasses.replace(deep, checkpoint=loaded)).model == base
    parts = debug.small(dataclasses.replace(config, model=sensorllm.Config())).model
    assert parts.llm.num_layers == parts.encoder.num_layers == 2


@pytest.mark.slow
def test_a_run_in_debug_mode_ends_with_scores(rows, tmp_path):
    outcome = tsmjax.train(toy.config(rows, debug=True), workdir=str(tmp_path / "run"))
    assert outcome["step"] == 4 and 0 <= outcome["test"]["toy/accuracy"] <= 1
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["name"] == "toy_debug" and saved["debug"] is True
