"""Low-rank adapters: through the loop, in checkpoints, and out to every consumer of weights."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

import tsmjax
from configs import chronos2_test
from tsmjax import Forecaster, checkpoint, optim, pretrained, state, weights
from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.models import chronos2
from tsmjax.nn import functional, lora
from tsmjax.nn.functional import flatten

SIZE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
STACKED = 8 + 1  # four projections in two attentions, over both layers; and the output
TARGETS = 2 * 8 + 1  # the same, layer by layer
VALUES = {**SIZE, "context_length": 64, "max_output_patches": 1, "time_encoding_scale": 64}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("corpus") / "waves"
    rows = []
    for number in range(40):
        t = np.arange(rng.integers(120, 240)) + rng.integers(24)
        x = np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(1 + number % 2, len(t)))
        rows.append({"item_id": str(number), "target": x.astype(np.float32)})
    write_dataset(rows, folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Hugging Face folder of a random model."""
    folder = tmp_path_factory.mktemp("base") / "model"
    model = chronos2.Model(chronos2.Config(**VALUES), rngs=nnx.Rngs(3))
    weights.write(folder, "chronos2", VALUES, functional.split(model)[1])
    return str(folder)


def config(corpus, base, **changes):
    values = chronos2_test.get_config(corpus).to_dict()
    values["model"] |= VALUES
    values["optim"] |= {
        "length": 6,
        "lr": 1e-2,
        "schedule": "constant",
        "warmup": 0,
        "lora": {"rank": 4},
    }
    values["checkpoint"] |= {"init_from": base}
    values["evals"] |= {"every": 3}
    values["log"] |= {"every": 1, "plots": False, "tensorboard": False}
    for section, new in changes.items():
        values[section] |= new
    return values


@pytest.fixture(scope="module")
def run(corpus, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "lora"
    values = config(corpus, base, optim={"length": 40}, evals={"every": 20})
    tsmjax.train(values, workdir=str(folder))
    return folder


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def build(values):
    resolved = resolve(values)
    return resolved, state.blueprint(resolved.build_task(), resolved.optim)


@pytest.mark.parametrize("scan", [True, False])
def test_an_adapter_adds_its_product_to_the_kernel(scan):
    config = chronos2.Config(**VALUES, scan_layers=scan, initializer_factor=0.5)
    model = chronos2.Model(config, rngs=nnx.Rngs(0))
    for one in lora.projections(model).values():
        one.adapt(4, 2.0, rngs=nnx.Rngs(1))
    graph, params, _ = functional.split(model)
    context = jax.random.normal(jax.random.key(0), (2, 3, 64))
    group = jnp.array([[0, 0, 1], [0, 0, 0]])

    @functools.partial(jax.jit, static_argnums=0)
    def forward(graph, params):
        model = functional.merge(graph, params, {})
        return model(context, group=group, output_patches=1)[0]

    plain_graph, plain, _ = functional.split(chronos2.Model(config, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(forward(graph, params), forward(plain_graph, plain))
    flat = flatten(params)
    grown = functional.unflatten(
        {
            path: jax.random.normal(jax.random.key(len(path)), leaf.shape) * 0.3
            if path.endswith("lora_b")
            else leaf
            for path, leaf in flat.items()
        }
    )
    merged = lora.merge(jax.device_get(grown), alpha=8.0)  # the scale is alpha / rank
    assert flatten(merged).keys() == flatten(plain).keys()
    expected = forward(plain_graph, merged)
    assert np.abs(expected - forward(plain_graph, plain)).max() > 0.1
    np.testing.assert_allclose(forward(graph, grown), expected, atol=1e-5)


def test_only_adapters_have_gradients_and_moments(corpus, base):
    resolved, plan = build(config(corpus, base))
    trained = flatten(plan.params)
    assert len(trained) == 2 * STACKED
    assert all(path.endswith(("lora_a", "lora_b")) for path in trained)
    assert not any("lora" in path for path in flatten(plan.model_params()))
    moments = optim.transformation(resolved.optim, optim.groups(resolved.optim, plan.params))
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(moments.init, plan.params))]
    assert sum(sizes) == 2 * state.count(plan.params) + 1  # two moments and Adam's counter


def test_a_frozen_base_is_kept_in_the_compute_type(corpus, base):
    _, plan = build(config(corpus, base, optim={"precision": "bfloat16"}))
    assert {leaf.dtype for leaf in jax.tree.leaves(plan.frozen)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(plan.params)} == {jnp.dtype("float32")}


def test_rules_choose_targets_and_what_trains_beside_them(corpus, base):
    rules = {
        "lora": {"rank": 2, "targets": ((r"blocks/1/.*/wi$", True),)},
        "freeze": ((r"final_norm", False),),
    }
    unrolled = {"scan_layers": False}
    _, plan = build(config(corpus, base, optim=rules, model=unrolled))
    assert set(flatten(plan.params)) == {
        "model/blocks/1/feed_forward/wi/lora_a",
        "model/blocks/1/feed_forward/wi/lora_b",
        "model/final_norm/scale",
    }


@pytest.mark.parametrize(
    ("lora_values", "words"),
    [
        ({"rank": -1}, "optim.lora.rank is -1"),
        ({"rank": 2, "targets": ((r"nothing", True),)}, "optim.lora.targets has the pattern"),
        ({"rank": 2, "targets": ((r"blocks", False),)}, "chooses no projection"),
        ({"ranks": 2}, "optim.lora.ranks does not exist"),
    ],
)
def test_wrong_rules_are_refused(corpus, base, lora_values, words):
    with pytest.raises(InputError, match=words):
        build(config(corpus, base, optim={"lora": lora_values}))


def test_a_run_learns_and_leaves_the_base_alone(run, base):
    found = losses(run)
    assert np.mean(list(found.values())[-5:]) < 0.9 * found[1]
    raw = flatten(checkpoint.load_weights(str(run), merge=False).params)
    original = flatten(weights.read(base).params)
    assert len(raw) == len(original) + 2 * STACKED
    for path, leaf in original.items():
        np.testing.assert_array_equal(raw[path], leaf, err_msg=path)
    merged = flatten(checkpoint.load_weights(str(run)).params)
    changed = {path for path, leaf in original.items() if not np.array_equal(merged[path], leaf)}
    assert len(changed) == STACKED
    results = json.loads((run / "results.json").read_text())
    assert results["trained_parameters"] == sum(
        leaf.size for path, leaf in raw.items() if "lora" in path
    )
    assert results["parameters"] == sum(leaf.size for leaf in original.values())


def test_a_resumed_run_repeats_the_losses(run, corpus, base, tmp_path):
    for length in (3, 6):
        values = config(corpus, base, optim={"length": length}, evals={"every": 20})
        tsmjax.train(values, workdir=str(tmp_path / "run"))
    whole = losses(run)
    assert losses(tmp_path / "run") == {step: whole[step] for step in range(1, 7)}


def test_merged_weights_score_and_forecast_like_the_run(run, corpus, tmp_path):
    """The scores of the loop come from the unmerged model, the Forecaster's weights are merged."""
    from tsmjax.evaluate import main as evaluate

    expected = json.loads((run / "results.json").read_text())["test"]["waves/waves/wql"]
    command = ["--checkpoint", str(run), "--suite", corpus, "--horizon", "16"]
    assert evaluate([*command, "--output", str(tmp_path / "scores.csv")]) == 0
    found = pd.read_csv(tmp_path / "scores.csv").set_index("model").loc["lora", "WQL"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    series = [np.sin(np.arange(80) / 4)]
    forecaster = Forecaster.from_pretrained(run)
    forecaster.save_pretrained(tmp_path / "saved")
    again = Forecaster.from_pretrained(tmp_path / "saved")
    a, b = forecaster.predict(series, 16), again.predict(series, 16)
    np.testing.assert_allclose(a[0], b[0], atol=1e-6)


def test_other_runs_start_from_the_merged_weights(run, corpus, base):
    _, plan = build(config(corpus, base, optim={"lora": {"rank": 0}}))
    merged = checkpoint.load_weights(f"{run}@final").params
    found, note = pretrained.fit(
        pretrained.load(str(run), default="final").params, plan.model_params(), (), "run"
    )
    assert "27 of 27 tensors" in note
    for path, leaf in flatten(merged).items():
        np.testing.assert_array_equal(flatten(found)[path], leaf, err_msg=path)


def test_fit_with_adapters_changes_only_their_targets(base, tmp_path):
    rng = np.random.default_rng(0)
    waves = [np.sin((np.arange(80) + rng.integers(24, size=(2, 1))) / 4) for _ in range(12)]
    forecaster = Forecaster.from_pretrained(base)
    arguments = dict(prediction_length=16, learning_rate=1e-2, num_steps=2, batch_size=8)

    def changed(**options):
        fitted = forecaster.fit(waves, finetune_mode="lora", **arguments, **options)
        before, after = (
            weights.tensors("chronos2", dataclasses.asdict(one.config), one.params)
            for one in (forecaster._passes, fitted._passes)
        )
        return {name for name in before if not np.array_equal(before[name], after[name])}

    assert len(changed(output_dir=tmp_path / "run")) == TARGETS
    assert Forecaster.from_pretrained(tmp_path / "run/finetuned-ckpt").predict(waves, 16)
    assert changed(
        lora_config={"r": 2, "target_modules": ["block.1.layer.0.self_attention.q"]}
    ) == {"encoder.block.1.layer.0.self_attention.q.weight"}
    for options, words in [
        ({"r": 0}, "r = 0"),
        ({"lora_dropout": 0.1}, "lora_dropout = 0.1"),
        ({"rank": 4}, "rank = 4"),
        ({"target_modules": ["query"]}, "matches no projection"),
    ]:
        with pytest.raises(InputError, match=words):
            changed(lora_config=options)
    with pytest.raises(InputError, match="finetune_mode='lora'"):
        forecaster.fit(waves, lora_config={"r": 2}, **arguments)
