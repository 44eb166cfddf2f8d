"""A follower repeats its leader a patch later: only the other variate tells its future."""

import jax
import numpy as np
import pytest

from tsmjax import optim, sharding, state, step
from tsmjax.config import resolve
from tsmjax.data.arrow import Item
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.evals.evaluator import evaluate
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator

LAG, STEPS = 8, 1000


def pairs(count, seed, length=80):
    """(leader, follower) of white noise; the follower is the leader LAG steps ago."""
    noise = np.random.default_rng(seed).normal(size=(count, length + LAG)).astype(np.float32)
    return np.stack([noise[:, LAG:], noise[:, :-LAG]], axis=1)


def wql_of_the_follower(folder, grouped):
    """Train a tiny model and score the followers of unseen pairs."""
    train = pairs(400, seed=0)
    rows = train if grouped else train.reshape(-1, 1, train.shape[-1])
    write_dataset(({"target": one} for one in rows), folder)
    config = resolve(
        {
            "model": {
                "family": "chronos2",
                **{"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
                **{"context_length": 4 * LAG, "max_output_patches": 1, "dropout_rate": 0.0},
                **{"input_patch_size": LAG, "input_patch_stride": LAG, "output_patch_size": LAG},
                **{"quantiles": tuple(round(0.1 * i, 1) for i in range(1, 10))},
                **{"initializer_factor": 0.5, "time_encoding_scale": 4 * LAG},
            },
            "task": {"kind": "forecast"},
            "data": {"sources": ({"path": str(folder)},), "batch_size": 64, "min_past": 4 * LAG},
            "optim": {"lr": 5e-3, "warmup": "5%", "length": STEPS},
            "mesh": {"replica": 1},
        }
    )
    task = config.build_task()
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    plan = state.blueprint(task, config.optim)
    init, abstract, _ = state.create(task, plan, config.optim, mesh, 0)
    current, frozen = init(jax.random.key(0))
    schedule = optim.learning_rate(config.optim, STEPS)
    train_step = step.jit_train_step(task, plan, config.optim, schedule, mesh, abstract)
    batches = task.batches("train", 0, 1)
    for number in range(STEPS):
        current, metrics = train_step(current, frozen, batches[number], jax.random.key(1))
    assert np.isfinite(metrics["loss"])

    none = np.empty((0, 80), np.float32)
    unseen = pairs(100, seed=1)
    series = [
        # The leader as a past covariate: its own future is nobody's to tell.
        Item(follower[None], leader[None] if grouped else none, none)
        for leader, follower in unseen
    ]
    evaluator = ForecastEvaluator(
        "toy",
        [EvalDataset("toy", series, LAG, 1)],
        "test",
        quantiles=config.model.quantiles,
        context_length=config.model.context_length,
        max_horizon=LAG,
        patch=LAG,
        batch_size=64,
    )
    model = plan.assemble(current["params"], current["stats"], frozen).model
    scores = evaluate(evaluator, lambda batch: np.asarray(task.predict(model, batch)))
    return scores["toy/toy/wql"]


@pytest.mark.slow
def test_a_model_learns_to_read_the_future_off_the_other_variate(tmp_path, monkeypatch):
    monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path / "cache"))
    alone = wql_of_the_follower(tmp_path / "alone", grouped=False)
    together = wql_of_the_follower(tmp_path / "pairs", grouped=True)
    # Of white noise, the best forecast is its distribution: the quantile loss of a normal law.
    assert alone == pytest.approx(0.77, abs=0.04)
    assert together < 0.5 * alone
