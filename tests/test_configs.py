"""Every shipped config resolves, is covered by sharding rules, and traces on an 8-device mesh."""

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax import optim, sharding, state, step
from tsmjax.config import resolve
from tsmjax.models import chronos2
from tsmjax.nn.functional import abstract, flatten

CONFIGS = sorted(
    path.stem
    for path in (Path(__file__).parent.parent / "configs").glob("*.py")
    if path.stem != "__init__"
)


def load(name, argument=None):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(argument) if argument else module.get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_traces_on_eight_devices(name):
    config = resolve(load(name))
    assert resolve(config.to_dict()) == config
    task = config.build_task()
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=2, tensor=2))
    plan = state.blueprint(task, config.optim)
    _, current, frozen = state.create(task, plan, config.optim, mesh, 0)
    places = jax.tree.map(lambda leaf: leaf.sharding, current["params"])
    schedule = optim.learning_rate(config.optim, 1000, steps_per_epoch=10.0)
    train_step = step.make_train_step(task, plan, config.optim, schedule, mesh, places)
    skeletons = dict.fromkeys(("skeleton", "distill", "masked_contrastive"), clips)
    makers = {"classify": windows, "align": questions, **skeletons}
    batch = makers.get(config.kind, series)(config, task)
    after, metrics = jax.eval_shape(train_step, current, frozen, batch, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (current, after))
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])
    assert {"loss", "grad_norm", *task.coefficients} <= metrics.keys()


def series(config, task):
    """Series or tables, without opening any data."""
    rows, model = config.data.batch_size, config.model
    channels = getattr(model, "num_input_channels", 1)
    ahead = jax.ShapeDtypeStruct((rows, channels, task.horizon), jnp.float32)
    return {
        "context": jax.ShapeDtypeStruct((rows, channels, model.context_length), jnp.float32),
        "target": ahead,
        "future": ahead,
        "group": jax.ShapeDtypeStruct((rows, 1), jnp.int32),
        "patches": jax.ShapeDtypeStruct((rows,), jnp.int32),
    }


def clips(config, task):
    """Skeletons, without opening any data."""
    rows, bodies = config.data.batch_size, config.data.bodies
    frames = config.data.frames or config.model.frames
    joints = (rows, bodies, frames, task.skeleton.size, 3)
    return {
        "joints": jax.ShapeDtypeStruct(joints, jnp.float32),
        "present": jax.ShapeDtypeStruct((rows, bodies), bool),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }


def windows(config, task):
    """Prompts with cached states, without opening a data set."""
    rows, model = config.data.batch_size, config.model
    task.class_weights = np.ones(len(model.labels), np.float32)
    states = (rows, len(model.channels), model.tokens_per_channel, model.encoder.d_model)
    return {
        **{name: jax.ShapeDtypeStruct((rows,), jnp.int32) for name in ("lengths", "label")},
        **{name: jax.ShapeDtypeStruct((rows, 1408), jnp.int32) for name in ("tokens", "ts_index")},
        "features": jax.ShapeDtypeStruct(states, jnp.bfloat16),
    }


def questions(config, task):
    """Packs of four questions with up to 512 tokens of answers."""
    packs, length, model = config.data.batch_size, config.data.pack_length, config.model
    texts = ("tokens", "ts_index", "segments", "positions")
    series = (packs, 4, model.tokens_per_channel)
    return {
        **{name: jax.ShapeDtypeStruct((packs, length), jnp.int32) for name in texts},
        **{name: jax.ShapeDtypeStruct((packs, 512), jnp.int32) for name in ("places", "answers")},
        "series": jax.ShapeDtypeStruct(series, jnp.int32),
        "series_mask": jax.ShapeDtypeStruct(series, jnp.bool_),
    }


def test_the_second_stage_of_sensorllm_is_the_published_one():
    config = resolve(load("sensorllm_stage2"))
    assert (config.data.batch_size, config.optim.accumulate) == (64, 8)
    assert (config.optim.lr, config.optim.length, config.optim.warmup) == (2e-3, "8 epochs", "3%")
    assert (config.model.window, config.model.proj_hidden) == (303, (2048,))
    plan = state.blueprint(config.build_task(), config.optim)
    # Projection, six markers, head; all else is two bytes a weight, and has no optimiser state.
    assert state.count(plan.params) == 6_295_552 + 6 * 2048 + 20_480
    frozen = jax.tree.leaves(plan.frozen)
    assert {leaf.dtype for leaf in frozen} == {jnp.dtype("bfloat16")}
    assert sum(leaf.size for leaf in frozen) == 1_235_814_400 + 306_234_880


def test_sizes_and_batches_of_the_pretraining_configs():
    """Batches are series of one optimiser step on 64 devices."""
    base, small = resolve(load("chronos2_base")), resolve(load("chronos2_small"))
    assert (base.model.num_layers, base.model.d_model, base.data.batch_size) == (12, 768, 12 * 64)
    assert (small.model.num_layers, small.model.d_model, small.data.batch_size) == (6, 512, 16 * 64)
    deeper = resolve(load("chronos2_small", "corpus,8l"))
    assert (deeper.model.num_layers, len(deeper.model.quantiles)) == (8, 13)
    assert [source.path for source in deeper.data.sources] == [
        "corpus/tsmixup",
        "corpus/kernel_synth",
    ]
    stage2 = resolve(load("chronos2_base_stage2"))
    assert (stage2.model.context_length, stage2.task, stage2.optim.lr) == (8192, base.task, 3e-5)
    assert stage2.data.batch_size == 4 * 2 * 64
    # Series of stage 2 are long enough to fill its context and its horizon.
    longest = 8192 + stage2.model.max_output_patches * 16
    assert all(source.path.endswith(f"length={longest}") for source in stage2.data.sources)


def test_each_sharding_rule_is_used_by_a_preset():
    used = set()
    for preset in chronos2.PRESETS.values():
        for scan in (True, False):
            config = chronos2.Config(**preset, scan_layers=scan)
            _, params, _ = abstract(lambda rngs, c=config: chronos2.Model(c, rngs=rngs))
            for path in flatten(params):
                used.add(
                    next(i for i, (p, _) in enumerate(chronos2.SHARDING) if re.search(p, path))
                )
    assert used == set(range(len(chronos2.SHARDING)))
