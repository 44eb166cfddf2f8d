"""Retention, restoring, and the path grammar of run folders."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax import checkpoint, optim, sharding
from tsmjax.checkpoint import CheckpointConfig, Checkpointer
from tsmjax.errors import InputError


def state_of(value: float, width: int = 2):
    params = {"model": {"dense": {"kernel": jnp.full((4, width), value)}}}
    tx = optim.transformation(optim.OptimConfig(), optim.groups(optim.OptimConfig(), params))
    return {
        "params": params,
        "stats": {"model": {}},
        "average": {},
        "opt": tx.init(params),
        "guard": {"bad": jnp.int32(0), "bad_in_row": jnp.int32(0)},
        "step": jnp.int32(value),
    }


def write(run, scores, mode="min", latest=2, best=2, final=None):
    checkpointer = Checkpointer(run, CheckpointConfig(keep_latest=latest, keep_best=best), mode)
    for step, score in enumerate(scores):
        meta = {"config": {"model": {}}, "step": step, "final": step == final}
        checkpointer.save(step, state_of(step), meta, score)
    checkpointer.wait()
    return checkpointer


def steps(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("scores", "mode", "kept", "best"),
    [
        ([0, 1, 2, 3, 4, 5], "min", [0, 1, 4, 5], 0),  # worsening: the newest must survive
        ([5, 4, 3, 2, 1, 0], "min", [4, 5], 5),  # improving: the best are the newest
        ([0, 1, 2, 3, 4, 5], "max", [4, 5], 5),
        ([5, 4, 3, 2, 1, 0], "max", [0, 1, 4, 5], 0),
        ([9, 8, 1, 2, 7, NAN, INF, 9], "min", [2, 3, 6, 7], 2),  # NaN must not evict the best
        ([3, None, None, 1, None, None], "min", [0, 3, 4, 5], 3),  # unscored ones are not kept
        ([None, None, None], "min", [1, 2], None),
        ([NAN, NAN, NAN], "max", [0, 1, 2], None),
    ],
)
def test_latest_and_best_are_kept_together(tmp_path, scores, mode, kept, best):
    checkpointer = write(tmp_path, scores, mode)
    if best is not None:
        assert steps(tmp_path) == kept
    assert checkpointer.best == best
    assert checkpointer.latest == len(scores) - 1


def test_restore_gives_back_every_leaf_and_the_meta(tmp_path):
    checkpointer = write(tmp_path, [None, None, None])
    state, meta = checkpointer.restore_latest(state_of(0))
    jax.tree.map(np.testing.assert_array_equal, state, state_of(2))
    assert jax.tree.structure(state) == jax.tree.structure(state_of(2))
    assert meta["step"] == 2


def test_restore_to_another_mesh(tmp_path):
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2))
    rules = ((r".*", ("fsdp", "tensor")),)
    write(tmp_path, [1.0]).close()
    fresh = state_of(0)
    placed = sharding.place(rules, fresh["params"], mesh, 0)
    places = sharding.place_like(fresh, fresh["params"], placed, mesh)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), fresh, places
    )
    state, _ = Checkpointer(tmp_path, CheckpointConfig()).restore_latest(abstract)
    kernel = state["params"]["model"]["dense"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(1, 1)}


def test_another_width_is_refused_with_the_difference(tmp_path):
    checkpointer = write(tmp_path, [1.0])
    with pytest.raises(InputError, match=r"shape of params/model/dense/kernel \(4, 2\).*\(4, 3\)"):
        checkpointer.restore_latest(state_of(0, width=3))


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(tmp_path, caplog):
    write(tmp_path, [None, None]).close()
    for path in (tmp_path / "checkpoints" / "1" / "weights").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(b"")
    checkpointer = Checkpointer(tmp_path, CheckpointConfig())
    state, meta = checkpointer.restore_latest(state_of(0))
    assert meta["step"] == 0
    assert float(state["step"]) == 0
    assert "falling back" in caplog.text

    checkpointer.save(1, state_of(1), {"step": 1}, None)  # the damaged one is not in the way
    checkpointer.close()
    assert Checkpointer(tmp_path, CheckpointConfig()).restore_latest(state_of(0))[1]["step"] == 1
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["1"]


def test_a_step_that_was_saved_before_it_was_scored_is_replaced(tmp_path):
    checkpointer = write(tmp_path, [None, None])
    checkpointer.save(1, state_of(3), {"step": 1}, 0.5)
    checkpointer.wait()
    assert checkpointer.best == 1
    assert float(checkpointer.restore_latest(state_of(0))[0]["step"]) == 3


def test_nothing_readable_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="can be read; the last word was: there is none"):
        Checkpointer(tmp_path, CheckpointConfig()).restore_latest(state_of(0))


def test_selectors(tmp_path):
    write(tmp_path, [1.0, 0.5, 2.0, 3.0], latest=2, best=1, final=3).close()
    run = str(tmp_path)
    found = {s: checkpoint.find(run + s)[1] for s in ("", "@best", "@latest", "@final", "@2")}
    assert found == {"": 1, "@best": 1, "@latest": 3, "@final": 3, "@2": 2}
    assert checkpoint.find(run, default="final")[1] == 3
    assert float(checkpoint.load_weights(run + "@2").params["dense"]["kernel"][0, 0]) == 2.0


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("@0", "no checkpoint of step 0; it has 1, 2, 3"),
        ("@bset", "ends in @bset"),
        ("@final", "not finished"),
    ],
)
def test_wrong_selectors_say_what_there_is(tmp_path, selector, message):
    write(tmp_path, [1.0, 0.5, 2.0, 3.0], latest=2, best=1).close()
    with pytest.raises(InputError, match=message):
        checkpoint.find(str(tmp_path) + selector)


def test_no_run_folder(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        checkpoint.find(str(tmp_path / "nothing"))


def test_saved_weights_load_and_are_never_overwritten(tmp_path):
    params = {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    target = tmp_path / "imported"
    config = {"model": {"family": "x"}, "task": {"kind": "y"}}
    checkpoint.save_weights(target, params, {}, config, {"quantiles": [0.5]})
    loaded = checkpoint.load_weights(f"{target}@final")
    np.testing.assert_array_equal(loaded.params["dense"]["kernel"], params["dense"]["kernel"])
    assert (loaded.config, loaded.artefacts) == (config, {"quantiles": [0.5]})
    assert json.loads((target / "config.json").read_text()) == config
    with pytest.raises(InputError, match="not empty"):
        checkpoint.save_weights(target, params, {}, config, {})
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]


def test_the_running_average_represents_the_run(tmp_path):
    state = state_of(1.0)
    state["average"] = jax.tree.map(lambda x: x + 4.0, state["params"])
    checkpointer = Checkpointer(tmp_path, CheckpointConfig())
    checkpointer.save(1, state, {"config": {}, "step": 1}, None)
    checkpointer.close()
    assert float(checkpoint.load_weights(str(tmp_path)).params["dense"]["kernel"][0, 0]) == 5.0
