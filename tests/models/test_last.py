"""Skeleton models: graphs, layers beside plain loops, bodies, streams, causality, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import drawn

from tsmjax.errors import InputError
from tsmjax.models import last
from tsmjax.models.last import blocks, graph, partitions
from tsmjax.models.last.temporal import depthwise
from tsmjax.nn.functional import abstract, flatten, merge, stats_of

TINY = {"channels": (8, 8, 8), "blocks": (1, 1, 1), "frames": 8, "num_classes": 3}


def model_of(**values):
    config = last.Config(**{**TINY, **values})
    graphdef, params, stats = abstract(lambda rngs: last.Model(config, rngs=rngs))
    return config, lambda: merge(graphdef, drawn(params), drawn(stats))


def streams_of(config, clips=2, bodies=1, seed=0):
    rng = np.random.default_rng(seed)
    shape = (clips, bodies, config.frames, last.skeleton(config.skeleton).size, 3)
    return {name: rng.normal(size=shape).astype(np.float32) for name in last.input_streams(config)}


# ---------------------------------------------------------------------------- skeletons and graphs


@pytest.mark.parametrize("name", last.SKELETONS)
def test_a_skeleton_is_a_tree_with_regions_and_mirror_pairs(name):
    body = last.skeleton(name)
    assert sorted(joint for region in body.regions.values() for joint in region) == [
        *range(body.size)
    ]
    assert len(body.edges) == body.size - 1
    assert graph.distances(name).max() < body.size  # connected
    for table in body.bones:
        parents = np.array(body.parents(table))
        assert len(parents) == body.size
        assert (parents == np.arange(body.size)).sum() == 1  # the root
        mirror = np.array(body.permutation)
        np.testing.assert_array_equal(mirror[parents], parents[mirror])
    order = np.array(body.permutation)
    np.testing.assert_array_equal(order[order], np.arange(body.size))
    for left, right in body.mirror:
        assert body.joints[left].replace("left", "right") == body.joints[right]
    # A mirrored edge is an edge.
    edges = {frozenset(edge) for edge in body.edges}
    assert {frozenset(order[list(edge)].tolist()) for edge in edges} == edges


def test_tables_of_bones_of_ntu():
    body = last.skeleton("ntu25")
    assert body.parents() == body.parents("anatomical")
    ntu, published = body.parents("anatomical"), body.parents("ctr_gcn")
    assert (ntu[0], ntu[22], ntu[21], ntu[1]) == (0, 6, 7, 0)
    assert (published[20], published[21], published[22], published[1]) == (20, 22, 7, 20)
    with pytest.raises(InputError, match=r"no table of bones 'ctr-gcn' \(did you mean 'ctr_gcn'"):
        body.parents("ctr-gcn")


def test_distances_of_ntu():
    hops = graph.distances("ntu25")
    assert hops.max() == 12
    assert hops[20].max() == 6
    assert (hops <= 1).sum() == 73


@pytest.mark.parametrize(
    ("hops", "truncated", "expected"),
    [
        (1, False, [25, 24, 24]),
        (1, True, [25, 40, 8]),
        (2, True, [25, 36, 12, 42, 12]),
    ],
)
def test_subsets_of_ntu(hops, truncated, expected):
    subsets = graph.subsets("ntu25", hops, "graph", truncated)
    assert [int((subset > 0).sum()) for subset in subsets] == expected


def test_norms_of_subsets():
    whole = graph.subsets("ntu25", 1, "graph").sum(axis=0)
    degree = (graph.distances("ntu25") <= 1).sum(axis=1)
    np.testing.assert_allclose(whole[0, 1], 1 / np.sqrt(degree[0] * degree[1]), rtol=1e-6)
    np.testing.assert_allclose(whole, whole.T)
    np.testing.assert_allclose(graph.subsets("ntu25", 1, "column").sum(axis=(0, 2)), 1, rtol=1e-6)
    own = graph.subsets("ntu25", 1, "subset")
    np.testing.assert_allclose(own[0], np.eye(25))
    assert own.max() <= 1  # no edge is blown up, and none is lost
    # Joint 0 gets from 12 and 16 (farther from the spine shoulder), and from 1 (closer).
    assert np.flatnonzero(own[1][0]).tolist() == [12, 16]
    assert np.flatnonzero(own[2][0]).tolist() == [1]


def test_body_region_shift_moves_joints_inside_their_group():
    table = graph.shift_table("ntu25", 32, 1, "region")
    arms = [4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24]
    assert table[0, arms].tolist() == arms[1:] + arms[:1]  # channel 0: by one place
    assert table[7, 4] == arms[8]
    assert table[0, 12] == 12  # a leg, in a channel of the arms
    assert sorted(table[9].tolist()) == [*range(25)]
    assert table[16, [0, 1, 2, 3, 20]].tolist() == [1, 2, 3, 20, 0]
    near = np.flatnonzero(graph.distances("ntu25")[20] <= 1)  # itself, 1, 2, 4, 8
    assert [int(table[20 + i, 20]) for i in range(6)] == [*near, near[0]]


# ------------------------------------------------------------------------------------------ layers


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "causal"),
    [(5, 2, 1, None), (9, 1, 2, True), (3, 2, 2, False), (5, 1, 1, "traced")],
)
def test_depthwise_convolution_and_its_gradient(size, stride, dilation, causal):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 2, 8, 3)), rng.normal(size=(size, 2))
    half = (size - 1) * dilation // 2
    front = 2 * half if causal is True or causal == "traced" else half
    dy = rng.normal(size=(2, 2, 8 // stride, 3))
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    for t in range(8 // stride):
        for tap in range(size):
            source = t * stride + tap * dilation - front
            if 0 <= source < 8:
                y[:, :, t] += w[tap][:, None, None] * x[:, :, source]
                dx[:, :, source] += w[tap][:, None, None] * dy[:, :, t]
                dw[tap] += (x[:, :, source] * dy[:, :, t]).sum(axis=(1, 2))
    flag = jnp.bool_(True) if causal == "traced" else causal
    found, vjp = jax.vjp(
        lambda x, w: depthwise(x, w, stride, dilation, flag),
        *map(jnp.asarray, (x.astype(np.float32), w.astype(np.float32))),
    )
    np.testing.assert_allclose(found, y, atol=1e-5)
    for ours, expected in zip(vjp(jnp.asarray(dy, jnp.float32)), (dx, dw), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_batch_norm_leaves_absent_rows_out():
    norm = blocks.BatchNorm(2, rngs=None)
    x = np.random.default_rng(0).normal(1, 2, (2, 3, 4, 5)).astype(np.float32)
    rows = jnp.array([1.0, 0, 1, 1, 0])
    y = norm(jnp.asarray(x), blocks.Pass(True, rows))
    kept = x[..., [0, 2, 3]]
    mean, var = kept.mean(axis=(1, 2, 3)), kept.var(axis=(1, 2, 3))
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    expected = (x - mean[:, None, None, None]) / np.sqrt(var + 1e-5)[:, None, None, None]
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_drop_path_drops_whole_rows_and_keeps_the_mean():
    x = jnp.ones((2, 3, 4, 2000))
    y = np.asarray(blocks.drop_path(x, 0.25, jax.random.key(0)))
    assert (y == y[:1, :1, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert abs(y.mean() - 1) < 0.05
    assert blocks.drop_path(x, 0.25, None) is x


def test_dct_is_orthonormal():
    matrix = blocks.dct_matrix(16)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-6)
    np.testing.assert_allclose(matrix[0], 0.25)


def test_kinds_of_pairs_share_out_all_of_them():
    pairs = partitions._pairs("ntu25", 64, 3)
    assert (pairs.sum(axis=0) == 1).all()
    means = pairs.sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(means, [20, 154, 167, 1258], rtol=0.03)


# ------------------------------------------------------------------------------------------ models


def test_absent_bodies_count_for_nothing():
    config, build = model_of(net="shiftfuse", size="nano", bodies="mean_logits")
    given = streams_of(config, bodies=2)
    for x in given.values():
        x[0, 1] = 0

    @jax.jit
    def call(streams, mask):
        return build()(streams, mask)

    alone = call({name: x[:1, :1].repeat(2, 1) for name, x in given.items()}, None)
    both = jax.jit(lambda streams: build()(streams))(given)
    np.testing.assert_array_equal(both["present"], [[1, 0], [1, 1]])
    np.testing.assert_allclose(both["logits"][0], alone["logits"][0], atol=1e-5)
    masked = call(given, jnp.array([[True, False], [False, False]]))
    np.testing.assert_array_equal(masked["present"], [[1, 0], [1, 0]])  # never no body at all
    assert both["features"][2].shape == (2, 2, 2, 25, 8)
    assert both["pooled"].shape == (2, 2, 8)


def test_causal_convolutions_do_not_see_the_future():
    config, build = model_of(net="last_e", size="nano")  # without gates that pool over frames
    given = streams_of(config)
    changed = {name: x.copy() for name, x in given.items()}
    for x in changed.values():
        x[:, :, 5:] += 1.0

    @jax.jit
    def first_stage(streams, causal):
        return build()(streams, causal=causal)["features"][0]

    for causal, same in ((True, True), (False, False)):
        a, b = (first_stage(x, jnp.bool_(causal))[:, :, :5] for x in (given, changed))
        assert bool(jnp.allclose(a, b, atol=1e-6)) is same


def test_training_moves_statistics_and_dropout_needs_a_key():
    config, build = model_of(net="last_e", size="nano")
    given = streams_of(config)

    @jax.jit
    def train(streams, key):
        model = build()
        out = model(streams, train=True, key=key)
        return out["logits"], stats_of(model)

    logits, stats = train(given, jax.random.key(0))
    other, _ = train(given, jax.random.key(1))
    assert not np.allclose(logits, other)
    _, _, fresh = abstract(lambda rngs: last.Model(config, rngs=rngs))
    before = flatten(drawn(fresh))
    assert all(not np.allclose(x, before[path]) for path, x in flatten(stats).items())


def test_mean_of_stream_probabilities():
    config = last.Config(**TINY, net="last_v2", size="base")
    merged = {}
    pooled = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3 * 2 * 2)), jnp.float32)
    present = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    for merge_by in ("mean_prob", "sum_logits"):
        _, build = model_of(net="last_v2", size="base", stream_merge=merge_by)
        run = blocks.Pass(False, present.reshape(-1))
        merged[merge_by] = build()._logits(pooled, present, 3, run, None)
        single = build().classifier(pooled, run, None).reshape(3, 2, 2, 3)
    by_stream = jnp.stack([single[:, 0].mean(axis=1), single[:, 1, 0]], axis=1)
    np.testing.assert_allclose(merged["sum_logits"], by_stream.sum(axis=0), rtol=1e-4, atol=1e-5)
    chances = jax.nn.softmax(by_stream).mean(axis=0)
    np.testing.assert_allclose(jnp.exp(merged["mean_prob"]), chances, rtol=1e-4)
    assert last.bodies(config) == "mean_logits"


def test_both_forms_of_partitioned_attention_see_what_they_should():
    """A change of one joint in one frame reaches exactly the pairs of each head."""
    for form, reached in (("masked", 4 * 2), ("partition", 6 * 4)):
        parts = last.BaseParts(attention_form=form, near_frames=1)
        module = partitions.PartitionedAttention(8, 8, "ntu25", parts, rngs=jax_rngs())
        rng = np.random.default_rng(0)
        head = rng.normal(size=(6, 25, 8, 1)).astype(np.float32)
        moved = head.copy()
        moved[:, 22, 0] += 1.0  # the left thumb in the first frame
        run = blocks.Pass(False)

        def attend(x, module=module, form=form, run=run):
            if form == "masked":
                return module._masked(jnp.stack([jnp.asarray(x)] * 4), run)[:2]
            return module._windows(jnp.asarray(x), 0, run)

        changed = np.abs(np.asarray(attend(moved) - attend(head))).max(axis=(0, 3)) > 1e-6
        assert changed.sum() <= reached, form
        # Joints near the thumb (the masked form), or of its region (the windows); near frames.
        if form == "masked":
            near = np.flatnonzero(graph.distances("ntu25")[22] <= 1)
            frames = [0, 1]
        else:
            near, frames = np.array(sorted(last.skeleton("ntu25").regions["left_arm"])), range(4)
        expected = np.zeros((25, 8), bool)
        expected[np.ix_(near, list(frames))] = True
        np.testing.assert_array_equal(changed, expected)


def jax_rngs():
    from flax import nnx

    return nnx.Rngs(0)


def test_cost_of_a_pass():
    """Multiply-adds beside the products counted by hand."""
    config = last.Config(net="shiftfuse", size="nano_ref")
    assert last.flops(config, 4) == 4 * last.flops(config, 1)
    assert 0.05e9 < last.flops(config, 1) / 2 < 0.10e9


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skeleton": "ntu"}, "no skeleton 'ntu'"),
        ({"streams": ("joints",)}, "model.streams names 'joints' .did you mean 'joint'"),
        ({"streams": ("joint", "joint")}, "names a stream twice"),
        ({"frames": 30}, "model.frames is 30, but must be a multiple of 4"),
        ({"channels": (8, 12, 16)}, "must be multiples of 8"),
        ({"dropout": 1.0}, r"model.dropout is 1.0, but must be in \[0, 1\)"),
    ],
)
def test_impossible_configs_are_named(values, message):
    with pytest.raises(InputError, match=message):
        last.Config(**values)


def test_impossible_sizes_and_inputs_are_named():
    with pytest.raises(InputError, match=r"model\.size is 'tiny', but last_e comes in nano"):
        last.Model(last.Config(size="tiny"), rngs=None)
    parts = last.BaseParts(attention_form="partition", near_frames=2)
    config = last.Config(**TINY, net="last_base", base=parts)
    with pytest.raises(InputError, match="windows of 6 frames, which do not divide the 8 frames"):
        abstract(lambda rngs: last.Model(config, rngs=rngs))
    config, build = model_of(net="shiftfuse", size="nano")
    given = streams_of(config)
    with pytest.raises(InputError, match="wants the stream bone, but was given joint"):
        build()({name: x for name, x in given.items() if name != "bone"})
    given["joint"] = given["joint"][:, :, :4]
    with pytest.raises(
        InputError, match=r"joint has shape \(2, 1, 4, 25, 3\), but the model takes"
    ):
        build()(given)


def test_velocity_is_an_alias():
    config = dataclasses.replace(last.Config(), streams=("joint", "velocity", "bone"))
    assert last.input_streams(config) == last.input_streams(last.Config())


def test_every_table_is_spared_from_decay_and_every_kernel_is_not():
    import re

    for net in last.NETS:
        config = last.Config(**TINY, net=net, size=next(iter(last.NETS[net].SIZES)))
        _, params, _ = abstract(lambda rngs, config=config: last.Model(config, rngs=rngs))
        for path in flatten(params):
            spared = any(re.search(pattern, f"model/{path}") for pattern, _ in last.DECAY)
            assert spared is (not path.endswith("kernel")), path
