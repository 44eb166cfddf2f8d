"""Pretraining without labels: masks, what they hide, both terms, devices, the neighbours' score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import last_distill, last_pretrain
from tsmjax import sharding, state, step
from tsmjax.config import resolve
from tsmjax.data.skeleton import SkeletonFacts
from tsmjax.errors import InputError
from tsmjax.evals.clip_neighbours import NeighbourEvaluator
from tsmjax.models import last
from tsmjax.nn.functional import flatten
from tsmjax.tasks import maskclr, masked_contrastive
from tsmjax.tasks.masked_contrastive import Heads, contrast


def task_of(**changes):
    values = last_pretrain.get_config("nano").to_dict()
    values["model"] |= {"channels": (8, 8, 8), "blocks": (1, 1, 1), "frames": 8}
    values["data"] |= {"batch_size": 8}
    values["task"] |= changes
    return resolve(values).build_task()


def clips(rows=8, bodies=1, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "joints": rng.normal(size=(rows, bodies, 8, 25, 3)).astype(np.float32),
        "present": np.ones((rows, bodies), bool),
        "label": np.zeros(rows, np.int32),
        "weight": (np.arange(rows) != 2).astype(np.float32),
    }


def test_masks_take_whole_regions_and_a_part_of_one():
    task = task_of()
    masks = np.asarray(task.mask(task.order(jax.random.key(0), 200)))
    assert (masks.sum(axis=1) == 15).all()  # six tenths of 25
    regions = [list(joints) for joints in task.skeleton.regions.values()]
    shares = np.stack([masks[:, joints].mean(axis=1) for joints in regions], axis=1)
    partly = (shares > 0) & (shares < 1)
    assert (partly.sum(axis=1) <= 1).all() and partly.any()
    assert (shares.mean(axis=0) > 0.4).all()  # no region is spared
    task = task_of(mask_strategy="joint")
    anywhere = np.asarray(task.mask(task.order(jax.random.key(0), 200)))
    assert (anywhere.sum(axis=1) == 15).all()
    np.testing.assert_allclose(anywhere.mean(axis=0), 0.6, atol=0.15)


def test_joints_that_the_net_attends_to_are_masked_oftener():
    task = task_of(mask_strategy="attention", mask_ratio=0.04)  # one joint of 25
    features = np.ones((1, 2, 3, 25, 4), np.float32)
    features[0, 0, :, 7] = 5.0  # 25 times the energy of another joint, in the body that is there
    features[0, 1, :, 9] = 100.0  # in one that is not
    said = {"features": (features,), "present": jnp.array([[1.0, 0.0]])}
    joints = np.zeros((1, 2, 8, 25, 3), np.float32)
    attention = task.attention(lambda streams, present: said, joints, np.ones((1, 2), bool))
    masks = np.asarray(task.mask(task.order(jax.random.key(0), 4000), attention))
    assert (masks.sum(axis=1) == 1).all()
    shares = masks.mean(axis=0)
    np.testing.assert_allclose(shares[7], 25 / 49, atol=0.03)
    np.testing.assert_allclose(np.delete(shares, 7), 1 / 49, atol=0.012)


def test_no_stream_tells_where_a_masked_joint_is():
    task = task_of()
    batch = clips(2)
    masked = np.zeros((2, 25), bool)
    masked[:, [4, 5, 6]] = True  # an arm; its hand, 7 and 22, hangs on it
    token = jnp.arange(9.0).reshape(3, 3)
    hide = jax.jit(task.hidden)
    before = hide(batch["joints"], masked, token)
    moved = batch["joints"] + 5.0 * masked[:, None, None, :, None]
    after = hide(moved, masked, token)
    names = last.input_streams(task.config.model)
    for number, name in enumerate(names):
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
        hidden = np.asarray((before[name] == token[number]).all(axis=-1))[0, 0, 0]
        beside = [7, 22] if name == "bone" else []
        assert np.flatnonzero(hidden).tolist() == sorted([4, 5, 6, *beside]), name
    assert names == ("joint", "joint_velocity", "bone")


def test_the_contrast_is_a_cross_entropy_over_all_other_views():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8, 5))
    weight = np.array([1, 1, 0, 0, 1, 1, 1, 1.0])
    found = contrast(jnp.asarray(z, jnp.float32), jnp.asarray(weight), 0.5)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    similar = unit @ unit.T / 0.5
    for view in range(8):
        others = [o for o in range(8) if o != view and weight[o]]
        expected = np.log(np.exp(similar[view, others]).sum()) - similar[view, view ^ 1]
        np.testing.assert_allclose(found[view], expected if weight[view] else 0.0, rtol=1e-5)


class Fixed:
    """An encoder that says what it is told."""

    def __init__(self, features, pooled):
        self.out = {"features": (features,), "pooled": pooled, "present": jnp.ones((16, 1))}

    def __call__(self, streams, present, **options):
        return self.out


def test_errors_count_masked_joints_of_clips_that_count():
    task = task_of()
    rng = np.random.default_rng(1)
    features = rng.normal(size=(16, 1, 2, 25, 8)).astype(np.float32)
    batch = {
        **clips(),
        "joints": rng.normal(size=(8, 2, 1, 8, 25, 3)).astype(np.float32),
        "order": np.asarray(task.order(jax.random.key(1), 16)).reshape(8, 2, 25),
    }
    masked = np.asarray(task.mask(batch["order"].reshape(16, 25))).reshape(8, 2, 25)
    kernel, bias = rng.normal(size=(8, 75)).astype(np.float32), np.ones(75, np.float32)

    @jax.jit
    def terms_of(batch):
        heads = Heads(3, 8, 25, 4, rngs=nnx.Rngs(0))
        heads.decoder.kernel[...], heads.decoder.bias[...] = kernel, bias
        model = Fixed(features, features.mean(axis=(2, 3)))
        modules = type("Modules", (), {"model": model, "aux": heads})
        return task.terms(modules, batch, None, True)

    terms = terms_of(batch)
    found = (features.mean(axis=3) @ kernel + bias).reshape(8, 2, 1, 2, 25, 3)
    errors = np.square(found - batch["joints"][:, :, :, ::4])  # frames 0 and 4 of eight
    chosen = np.broadcast_to(masked[:, :, None, None, :, None], errors.shape)
    kept = batch["weight"] > 0
    expected = errors[kept][chosen[kept]].mean() * float(task.weights(batch)["reconstruction"])
    np.testing.assert_allclose(terms["reconstruction"], expected, rtol=1e-4)
    assert float(task.weights(batch)["contrast"]) == 14
    assert float(terms["not_finite"]) == 1


def test_eight_devices_have_the_loss_and_gradient_of_one():
    """The contrast reaches over the whole batch, wherever its rows are."""
    weight = clips()["weight"].repeat(2)
    z = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)

    @jax.jit
    def both(z, weight):
        return jax.value_and_grad(lambda z: (weight * contrast(z, weight, 0.07)).sum())(z)

    mesh = sharding.make_mesh(sharding.MeshConfig(replica=8))
    placed = sharding.put_batch({"z": z, "weight": weight}, mesh)
    one, eight = both(z, weight), both(**placed)
    assert len(placed["z"].sharding.device_set) == 8
    np.testing.assert_allclose(eight[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(eight[1], one[1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["body_region", "attention"])
def test_a_step_on_eight_devices_has_the_terms_of_one(strategy):
    task = task_of(mask_strategy=strategy)
    plan = state.blueprint(task, task.config.optim)
    results = []
    for devices in (1, 8):
        mesh = sharding.make_mesh(sharding.MeshConfig(), jax.devices()[:devices])
        init, abstract, _ = state.create(task, plan, task.config.optim, mesh, 0)
        current, frozen = init(jax.random.key(0))
        train = step.jit_train_step(
            task, plan, task.config.optim, lambda at: 1e-3, mesh, abstract, donate=False
        )
        for _ in range(3):
            batch = sharding.put_batch(clips(), mesh)
            current, metrics = train(current, frozen, batch, jax.random.key(1))
        results.append(metrics)
    for name in ("loss", "reconstruction", "contrast", "grad_norm"):
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-3, err_msg=name)


def test_the_classifier_is_not_trained_and_rows_may_not_be_accumulated():
    task = task_of()
    plan = state.blueprint(task, task.config.optim)
    assert all(path.startswith("classifier/") for path in flatten(plan.frozen["params"]["model"]))
    assert not any(path.startswith("classifier/") for path in flatten(plan.params["model"]))
    assert plan.params["aux"]["token"].shape == (3, 3)
    settings = resolve({**task.config.to_dict(), "optim": {"accumulate": 2}}).optim
    with pytest.raises(InputError, match="compares rows with each other"):
        step.make_train_step(task, plan, settings, lambda at: 0.0, None, None)
    student = resolve(last_distill.get_config("nano,init=runs/pretrained"))
    assert student.checkpoint.init_from == "runs/pretrained"
    assert student.checkpoint.init_skip == ("^classifier/",)


def test_names_and_wrong_settings():
    assert maskclr.Task is masked_contrastive.Task
    for changes, message in (
        ({"mask_ratio": 1.0}, "task.mask_ratio is 1.0"),
        ({"temperature": 0.0}, "task.temperature is 0.0"),
        ({"bottleneck": "kl"}, "needs labels"),
    ):
        with pytest.raises(InputError, match=message):
            task_of(**changes)


def test_the_nearest_other_clip():
    facts = SkeletonFacts("set", "ntu25", ("a",), ("x", "y"))
    labels = np.array([0, 0, 1, 1, 0], np.int32)

    class Reader:
        data = type("Data", (), {"facts": facts, "labels": labels})

        def read(self, clips):
            weight = (clips != 4).astype(np.float32)
            return {"angle": np.array([0, 0.1, 1.5, 0.2, 0])[clips], "weight": weight}

    evaluator = NeighbourEvaluator("set", Reader(), np.arange(5), 2)

    def predict(batch):
        return np.stack([np.cos(batch["angle"]), np.sin(batch["angle"])], axis=1)

    sums = [evaluator.sums(predict, batch) for batch in evaluator.batches(0, 1)]
    total = {name: sum(part[name] for part in sums) for name in sums[0]}
    # 0 and 1 are neighbours; those of 2 and 3 are 3 (the same action) and 1 (another).
    assert evaluator.scores(total) == {"set/nearest": 0.75}
