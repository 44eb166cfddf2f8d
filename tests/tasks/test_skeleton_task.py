"""Classification of skeleton clips: losses, weights, training, resuming, ensembles."""

import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsmjax
from configs import last_test
from tsmjax import evaluate, optim, sharding, state
from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.synthetic.skeletons import rows
from tsmjax.errors import InputError
from tsmjax.evals import clip_models
from tsmjax.models import last
from tsmjax.nn.functional import abstract, flatten
from tsmjax.optim import OptimConfig, learning_rate
from tsmjax.tasks.skeleton import normal_divergence

TINY = {"net": "last_e", "size": "nano", "channels": (8, 8, 8), "blocks": (1, 1, 1), "frames": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "data"
    write_dataset(rows(0, 48, clips=48, actions=3, frames=12, seed=0), path)
    return path


def config(folder, **optim_values):
    values = last_test.get_config().to_dict()
    values["model"] |= TINY | {"num_classes": 3}
    values["data"] |= {"path": str(folder), "frames": 0, "batch_size": 8}
    values["task"]["augment"] = {"rotation": (0.0, 0.1, 0.0)}
    values["optim"] |= {"length": 8, "lr": 0.05, "warmup": 0, **optim_values}
    values["evals"] |= {"every": 4, "batch_size": 16}
    values["checkpoint"] |= {"every": 4}
    values["log"] |= {"every": 1, "tensorboard": False}
    return values


class Fixed:
    """A model that says what it is told."""

    bottleneck = None

    def __init__(self, logits, **out):
        self.logits, self.out = jnp.asarray(logits), out

    def __call__(self, streams, present, **options):
        return {"logits": self.logits, "present": present.astype(jnp.float32), **self.out}


def test_terms_are_smoothed_sums_over_the_clips_that_count(folder):
    values = config(folder)
    values["task"]["label_smoothing"] = 0.3
    task = resolve(values).build_task()
    batch = task.batches("train", 0, 1)[0]
    batch["weight"][2] = 0.0
    logits = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    modules = type("Modules", (), {"model": Fixed(logits)})
    terms = task.terms(modules, batch, None, True)
    chances = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = 0.7 * np.eye(3)[batch["label"]] + 0.1
    losses = -(target * chances).sum(axis=1)
    keep = np.arange(8) != 2
    assert float(terms["cross_entropy"]) == pytest.approx(losses[keep].sum(), rel=1e-5)
    right = (logits.argmax(axis=1) == batch["label"])[keep].sum()
    assert (float(terms["top1"]), float(terms["not_finite"])) == (right, 1.0)
    weights = task.weights(batch)
    assert (float(weights["cross_entropy"]), float(weights["not_finite"])) == (7.0, 1.0)


def test_the_bottleneck_is_a_divergence_and_its_gradient_is_not_zero():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.4]])
    expected = 0.5 * np.mean([0.25 + np.exp(0.2) - 1 - 0.2, 1 + np.exp(-0.4) - 1 + 0.4])
    assert float(normal_divergence(mean, log_variance)[0]) == pytest.approx(expected, rel=1e-6)
    assert float(normal_divergence(jnp.zeros((1, 4)), jnp.zeros((1, 4)))[0]) == 0
    slopes = jax.grad(lambda m, v: normal_divergence(m, v).sum(), (0, 1))(mean, log_variance)
    assert all((np.abs(slope) > 0.01).all() for slope in slopes)


def test_the_bottleneck_reaches_the_model(folder):
    values = config(folder)
    values["model"] |= {"net": "last_e_v3", "size": "base"}
    values["task"] |= {"bottleneck": "kl", "bottleneck_weight": 0.5}
    task = resolve(values).build_task()
    assert task.coefficients["bottleneck"] == 0.5
    batch = task.batches("train", 0, 1)[0]
    mean = jnp.ones((8, 1, 4))

    def term(scale):
        model = Fixed(np.zeros((8, 3)), ib_mean=scale * mean, ib_log_variance=0 * mean)
        modules = type("Modules", (), {"model": model})
        return task.terms(modules, batch, None, True)["bottleneck"]

    assert float(term(2.0)) == pytest.approx(8 * 0.5 * 4)
    assert float(jax.grad(term)(2.0)) == pytest.approx(8 * 2.0)
    values["model"] |= {"net": "last_e", "size": "nano"}
    with pytest.raises(InputError, match="has no heads for it"):
        abstract(lambda rngs: resolve(values).build_task().build(rngs).model)


def test_the_learning_rate_of_an_epoch():
    """The published warm-up and cosine: 0.001 to 0.01 in 10 epochs, then to 1e-5 in 60."""
    steps = 7
    values = {"lr": 0.01, "warmup": "10 epochs", "start": 0.1, "final": 1e-3}
    curve = learning_rate(OptimConfig(**values, stepping="epoch"), 70 * steps, steps)
    smooth = learning_rate(OptimConfig(**values), 70 * steps, steps)
    for epoch in range(70):
        expected = 0.001 + 0.009 * epoch / 10
        if epoch >= 10:
            expected = 1e-5 + 0.5 * (0.01 - 1e-5) * (1 + np.cos(np.pi * (epoch - 10) / 60))
        for step in (0, steps - 1):
            assert float(curve(epoch * steps + step)) == pytest.approx(expected, rel=1e-4)
        assert float(smooth(epoch * steps)) == pytest.approx(expected, rel=1e-4)
    assert float(smooth(3)) > float(smooth(0))
    with pytest.raises(InputError, match="have no epochs"):
        learning_rate(OptimConfig(stepping="epoch"), 10)


@pytest.mark.parametrize("name", ["last_e", "last_v2", "last_e_v3", "last_base", "shiftfuse"])
def test_kernels_alone_are_decayed(name):
    for size in last.NETS[name].SIZES:
        module = importlib.import_module(f"configs.{name}")
        settings = resolve(module.get_config(size)).optim
        model = last.Config(net=name, size=size)
        _, params, _ = abstract(lambda rngs, model=model: last.Model(model, rngs=rngs))
        decay = flatten(optim.groups(settings, {"model": params}).decay)
        for path, value in decay.items():
            kernel = path.endswith("/kernel")
            assert value == (settings.weight_decay if kernel else 0), path
            assert not kernel or len(flatten({"model": params})[path].shape) == 2


def test_training_resumes_exactly_and_ensembles_are_scored(folder, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    outcome = tsmjax.train(config(folder), workdir=str(whole))
    assert {f"ntu60/{score}" for score in ("top1", "top5", "macro_f1")} <= outcome["test"].keys()
    assert (whole / "plots" / "confusion_ntu60_test.png").exists()
    table = (whole / "plots" / "classes_ntu60_test.csv").read_text().splitlines()
    assert table[0].startswith("class,clips,recall") and len(table) == 4

    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "8")
    (parts / "metrics.jsonl").unlink()
    assert tsmjax.train(config(folder), workdir=str(parts))["test"] == outcome["test"]

    def losses(run):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    assert losses(parts) == {step: loss for step, loss in losses(whole).items() if step > 4}

    capsys.readouterr()
    command = ["--checkpoint", f"{whole}@8", f"{whole}@4", "--ensemble", "--output"]
    scores = tmp_path / "scores.csv"
    assert evaluate.main([*command, str(scores), "--weights", "1", "3"]) == 0
    assert "ensemble gain" in capsys.readouterr().out
    assert len(scores.read_text().splitlines()) == 4
    best = clip_models.predict(str(whole), "best")
    found = best.scores()
    assert found["top1"] == pytest.approx(outcome["test"]["ntu60/top1"])
    assert evaluate.main([*command, str(scores), "--weights", "1"]) == 2


def test_statistics_are_measured_anew_for_averaged_parameters(folder):
    values = config(folder, average=0.9)
    values["task"]["augment"] = {}
    values["data"]["frames"] = 8
    task = resolve(values).build_task()
    plan = state.blueprint(task, task.config.optim)
    mesh = sharding.make_mesh(task.config.mesh, jax.devices()[:1])
    rng = np.random.default_rng(0)
    place = sharding.replicated(mesh)
    trees = [
        jax.tree.map(lambda x: jax.device_put(rng.normal(0, 0.1, x.shape).astype("f4"), place), t)
        for t in (plan.params, plan.stats)
    ]
    batches = task.batches("train", 0, 1)
    task.before(plan.frozen)
    old = {"params": trees[0], "stats": trees[1], "average": trees[0], "step": jnp.int32(4)}
    new = task.after(old)
    steps = range(4, 4 + int(np.ceil(batches.steps_per_epoch)))
    joints = np.stack([batches[step]["joints"][:, 0] for step in steps])
    found = new["stats"]["model"]["stem"]["stream_norms"]["0"]
    np.testing.assert_allclose(found["mean"], joints.mean(axis=(0, 1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(found["var"], joints.var(axis=(1, 2, 3)).mean(axis=0), rtol=1e-3)
    before = flatten(old["stats"])
    assert not any(np.allclose(x, before[path]) for path, x in flatten(new["stats"]).items())
    assert new["params"] is old["params"]
    without = {**old, "average": {}}
    assert task.after(without) is without


def test_the_joints_and_actions_must_be_those_of_the_model(folder):
    for change, message in (
        ({"skeleton": "ucla20"}, "set it to 'ntu25'"),
        ({"num_classes": 7}, "set model.num_classes"),
    ):
        values = config(folder)
        values["model"] |= change
        with pytest.raises(InputError, match=message):
            resolve(values).build_task().batches("train", 0, 1)


def model(chances, name="a", clips=(4, 5)):
    label, weight = np.array([0, 1]), np.ones(2, np.float32)
    chances = np.asarray(chances)
    return clip_models.Model(name, "set", np.array(clips), ("x", "y"), label, weight, chances)


def test_an_ensemble_averages_chances_by_weight():
    one, two = model([[0.6, 0.4], [0.7, 0.3]]), model([[0.2, 0.8], [0.1, 0.9]], "b")
    found = clip_models.ensemble([one, two], [3, 1])
    np.testing.assert_allclose(found.chances, [[0.5, 0.5], [0.55, 0.45]])
    assert clip_models.ensemble([one, two]).scores()["top1"] == 0.5
    with pytest.raises(InputError, match="same clips"):
        clip_models.ensemble([one, model(two.chances, "b", (4, 6))])
    for weights in ([1], [0, 0], [2, -1]):
        with pytest.raises(InputError, match="--weights"):
            clip_models.ensemble([one, two], weights)
    with pytest.raises(InputError, match="at least two"):
        clip_models.ensemble([one])
