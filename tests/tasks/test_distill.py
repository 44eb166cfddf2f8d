"""Distillation: losses beside PyTorch, projections, teachers of several kinds, cached chances."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import drawn
from flax import nnx

import tsmjax
from configs import last_distill, last_test
from tsmjax import checkpoint, pretrained, state
from tsmjax.config import resolve
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.synthetic.skeletons import rows
from tsmjax.errors import InputError
from tsmjax.evals import clip_models
from tsmjax.models import last
from tsmjax.nn.functional import abstract, flatten
from tsmjax.start import fresh_state
from tsmjax.tasks import distill

SMALL = {"channels": (8, 8, 8), "blocks": (1, 1, 1), "frames": 8, "num_classes": 3}
STUDENT = {"net": "shiftfuse", "size": "nano", **SMALL}
TEACHER = {"net": "last_e", "size": "nano", **SMALL, "channels": (16, 16, 16)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "data"
    write_dataset(rows(0, 48, clips=48, actions=3, frames=12, seed=0), path)
    return path


def base(folder, model):
    values = last_test.get_config().to_dict()
    values["model"] = {"family": "last", **model}
    values["data"] |= {"path": str(folder), "frames": 0, "batch_size": 8}
    values["task"]["augment"] = {"rotation": (0.0, 0.1, 0.0)}
    values["optim"] |= {"length": 2, "lr": 0.05, "warmup": 0}
    values["evals"] |= {"every": 2, "batch_size": 16}
    values["log"] |= {"every": 1, "tensorboard": False, "plots": False}
    return values


@pytest.fixture(scope="module")
def taught(folder, tmp_path_factory):
    """A run folder of a teacher, with parameters that nobody trained."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    _, params, stats = abstract(lambda rngs: last.Model(last.Config(**TEACHER), rngs=rngs))
    values = resolve(base(folder, TEACHER)).to_dict()
    checkpoint.save_weights(run, drawn(params, 1), drawn(stats, 2), values, {})
    return str(run)


def config(folder, teachers, **task):
    values = base(folder, STUDENT)
    teachers = tuple({"model": model, "checkpoint": path} for model, path in teachers)
    values["task"] |= {"kind": "distill", "label_smoothing": 0.0, "teachers": teachers, **task}
    return values


# ------------------------------------------------------------------------------------------ losses


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_divergence_and_its_gradient_are_those_of_pytorch(torch, tau):
    rng = np.random.default_rng(0)
    student, *teachers = rng.normal(0, 3, (4, 5, 7)).astype(np.float32)
    weights = [0.6, 0.6, 0.4]

    def ours(student):
        chances = distill.mean_chances(teachers, weights, tau)
        return distill.divergence(student, chances, tau).mean()

    x = torch.tensor(student, requires_grad=True)
    mean = sum(
        w * torch.softmax(torch.tensor(t) / tau, dim=1)
        for w, t in zip(weights, teachers, strict=True)
    )
    log_q = torch.log_softmax(x / tau, dim=1)
    expected = tau**2 * torch.nn.KLDivLoss(reduction="batchmean")(log_q, mean / sum(weights))
    expected.backward()
    value, slope = jax.value_and_grad(ours)(jnp.asarray(student))
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(slope, x.grad.numpy(), atol=1e-6)


def test_mimicry_is_the_error_of_a_1x1_convolution_in_pytorch(torch):
    rng = np.random.default_rng(1)
    widths = [(3, 5), (4, 6)]
    projections = distill.Projections(widths, rngs=nnx.Rngs(0))
    shapes = [(2, 1, 4, 25), (2, 1, 2, 25)]

    def features(side):
        return tuple(
            rng.normal(size=(*shape, pair[side])).astype(np.float32)
            for shape, pair in zip(shapes, widths, strict=True)
        )

    own, wanted = features(0), features(1)
    expected = 0.0
    for f, g, project in zip(own, wanted, projections.stages, strict=True):
        conv = torch.nn.Conv2d(f.shape[-1], g.shape[-1], 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(np.asarray(project.kernel[...]).T[:, :, None, None]))
            image, target = (torch.tensor(x[:, 0]).permute(0, 3, 1, 2) for x in (f, g))
            expected += torch.nn.functional.mse_loss(conv(image), target).item()
    one = jnp.ones((2, 1))
    sides = ({"present": one, "features": own}, {"present": one, "features": wanted})
    found = distill.mimicry(*sides, projections)
    np.testing.assert_allclose(found.mean(), expected, rtol=1e-5)


def test_mimicry_counts_the_bodies_that_both_models_see():
    identity = distill.Projections.__new__(distill.Projections)
    object.__setattr__(identity, "stages", [lambda x: x])
    wanted = jnp.zeros((2, 2, 1, 1, 1)).at[:, 1].set(3.0)
    teacher = {"present": jnp.array([[1.0, 1], [1, 0]]), "features": (wanted,)}
    both = {"present": jnp.ones((2, 2)), "features": (jnp.ones((2, 2, 1, 1, 1)),)}
    first = {"present": jnp.ones((2, 1)), "features": (jnp.ones((2, 1, 1, 1, 1)),)}
    np.testing.assert_allclose(distill.mimicry(both, teacher, identity), [(1 + 4) / 2, 1])
    np.testing.assert_allclose(distill.mimicry(first, teacher, identity), [1, 1])


# ---------------------------------------------------------------------------------------- training


def test_projections_from_small_to_base_have_61440_weights():
    task = resolve(last_distill.get_config("small")).build_task()
    plan = state.blueprint(task, task.config.optim)
    assert state.count(plan.params["aux"]) == 61_440
    assert state.count(plan.params["model"]) == 175_894
    assert state.count(plan.frozen["params"]["frozen"]) == 4_164_477
    assert (task.config.task.alpha, task.config.data.bodies) == (0.5, 2)
    nano = resolve(last_distill.get_config("nano,ucla")).task
    assert (nano.alpha, nano.beta, nano.teachers[0].model.skeleton) == (0.3, 0.7, "ucla20")
    fallback = resolve(last_distill.get_config("nano,fallback"))
    assert (fallback.task.alpha, fallback.task.beta, fallback.data.bodies) == (0.5, 0.5, 1)
    assert fallback.task.teachers[0].model == last.Config(net="last_e_v3", size="base")


def test_the_teachers_are_the_checkpoints_statistics_included(folder, taught):
    task = resolve(config(folder, [(TEACHER, taught)])).build_task()
    plan = state.blueprint(task, task.config.optim)
    params = drawn(plan.params, 0)
    fresh = {"params": params, "stats": drawn(plan.stats, 0), "average": {}}
    _, frozen = fresh_state(task.config, plan, lambda key: (fresh, drawn(plan.frozen, 0)), task)
    teacher = pretrained.load(taught)
    for part, tree in (("params", teacher.params), ("stats", teacher.stats)):
        found = flatten(frozen[part]["frozen"]["nets"]["0"])
        assert found.keys() == flatten(tree).keys()
        for path, leaf in flatten(tree).items():
            np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_a_student_that_starts_from_a_run_finds_its_teachers_again(folder, taught, tmp_path):
    values = config(folder, [(TEACHER, taught)])
    _, params, stats = abstract(lambda rngs: last.Model(last.Config(**STUDENT), rngs=rngs))
    saved = resolve(base(folder, STUDENT)).to_dict()
    checkpoint.save_weights(tmp_path / "first", drawn(params, 3), drawn(stats, 4), saved, {})
    values["checkpoint"] |= {"init_from": str(tmp_path / "first")}
    task = resolve(values).build_task()
    plan = state.blueprint(task, task.config.optim)
    fresh = {"params": drawn(plan.params, 0), "stats": drawn(plan.stats, 0), "average": {}}
    _, frozen = fresh_state(task.config, plan, lambda key: (fresh, drawn(plan.frozen, 0)), task)
    checkpoint.save_frozen(tmp_path / "run", frozen, "")
    again = checkpoint.load_frozen(tmp_path / "run", plan.frozen)
    assert flatten(again).keys() == flatten(frozen).keys()
    for path, leaf in flatten(frozen).items():
        np.testing.assert_array_equal(flatten(again)[path], leaf, err_msg=path)


def test_the_terms_are_those_of_both_models_on_one_augmented_clip(folder, taught):
    task = resolve(config(folder, [(TEACHER, taught)], gamma=0.5)).build_task()
    plan = state.blueprint(task, task.config.optim)
    trees = [drawn(tree, seed) for seed, tree in enumerate((plan.params, plan.stats, plan.frozen))]
    batch = {**task.batches("train", 0, 1)[0], "weight": (np.arange(8) != 1).astype(np.float32)}

    @jax.jit
    def both(batch):
        batch = task.device(batch, jax.random.key(3), True)
        modules = plan.assemble(*trees)
        streams, present = task.streams(batch["joints"]), batch["present"]
        student = modules.model(streams, present, train=True)
        teacher = modules.frozen.nets[0](streams, present)
        terms = task.terms(plan.assemble(*trees), batch, None, True)
        return terms, student, teacher

    terms, student, teacher = both(batch)
    p, q = (jax.nn.softmax(out["logits"] / 4) for out in (teacher, student))
    keep = np.asarray(batch["weight"]) > 0
    expected = 16 * np.asarray((p * jnp.log(p / q)).sum(axis=1))[keep].sum()
    np.testing.assert_allclose(terms["distillation"], expected, rtol=1e-3)
    kernels = [leaf["kernel"] for leaf in trees[0]["aux"]["stages"].values()]
    triples = zip(kernels, student["features"], teacher["features"], strict=True)
    errors = [np.square(f @ kernel - g).mean(axis=(1, 2, 3, 4)) for kernel, f, g in triples]
    np.testing.assert_allclose(terms["mimicry"], np.sum(errors, axis=0)[keep].sum(), rtol=1e-4)
    weighted = {name: weight for name, weight in task.coefficients.items() if weight}
    assert weighted == {"cross_entropy": 0.5, "distillation": 0.5, "mimicry": 0.5}


@pytest.mark.slow
def test_a_trained_student_is_saved_alone(folder, taught, tmp_path):
    run = tmp_path / "run"
    outcome = tsmjax.train(config(folder, [(TEACHER, taught)]), workdir=str(run))
    loaded = pretrained.load(str(run))
    assert sum(leaf.size for leaf in flatten(loaded.params).values()) == outcome["parameters"]
    assert outcome["trained_parameters"] == outcome["parameters"] + 3 * 8 * 16
    shutil.move(taught, tmp_path / "elsewhere")  # the student needs its teacher no more
    found = clip_models.predict(str(run), "student").scores()["top1"]
    shutil.move(tmp_path / "elsewhere", taught)
    assert found == pytest.approx(outcome["test"]["ntu60/top1"])


def test_what_teachers_say_is_cached_when_it_never_changes(folder, monkeypatch):
    values = config(folder, [(TEACHER, "nowhere")], gamma=0.0)
    task = resolve(values).build_task()
    assert not isinstance(task.batches("train", 0, 1), distill._Said)  # rotated each time
    values["task"]["augment"] = {}
    values["data"]["frames"] = 12  # brought to the model's eight on the device
    task = resolve(values).build_task()
    asked = []

    def ask(teachers, batch):
        asked.append(batch)
        return batch["joints"].mean(axis=(1, 2, 3)), None

    monkeypatch.setattr(task, "_ask", ask)
    batches = task.batches("train", 0, 1)
    assert "teachers" not in batches[3]
    plan = state.blueprint(task, task.config.optim)
    task.before(drawn(plan.frozen, 0))
    batch = batches[3]
    seen = task.device(batch, jax.random.key(9), True)["joints"]
    assert seen.shape[2] == 8 and len(asked) == 1  # traced once, for all batches of clips
    np.testing.assert_allclose(batch["teachers"], seen.mean(axis=(1, 2, 3)), atol=1e-6)
    modules = type("Modules", (), {"model": Fixed(np.zeros((8, 3)))})
    found = task.terms(modules, batch, None, True)["distillation"]
    expected = distill.divergence(jnp.zeros((8, 3)), batch["teachers"], 4.0).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(asked) == 1  # the step does not ask again


class Fixed:
    """A model that says what it is told."""

    bottleneck = None

    def __init__(self, logits):
        self.logits = jnp.asarray(logits)

    def __call__(self, streams, present, **options):
        return {"logits": self.logits, "present": present}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": ()}, "names 0 models, but must name one to 4"),
        ({"tau": 0.0}, "task.tau is 0.0"),
        ({"gamma": -1.0}, "must not be negative"),
    ],
)
def test_wrong_settings_are_named(folder, changes, message):
    values = config(folder, [(TEACHER, "nowhere")])
    values["task"] |= changes
    with pytest.raises(InputError, match=message):
        resolve(values)


def test_teacher_and_student_must_see_the_same(folder):
    values = config(folder, [({**TEACHER, "frames": 16}, "nowhere")])
    with pytest.raises(InputError, match=r"teachers\[0\].model.frames is 16, but the student's"):
        resolve(values).build_task()
    task = resolve(config(folder, [(TEACHER, "nowhere/at/all")])).build_task()
    plan = state.blueprint(task, task.config.optim)
    with pytest.raises(InputError, match="nowhere"):
        fresh_state(task.config, plan, lambda key: ({}, {}), task)
