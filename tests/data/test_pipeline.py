"""The pipeline: the same batches for any number of workers, and errors that say what happened."""

import sys
import time

import numpy as np
import pytest

from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.data.pipeline import Pipeline
from tsmjax.errors import InputError


class Numbered:
    """Batches that hold their step, and facts about the process that made them."""

    def __init__(self, fails_at=None, seconds=0.0):
        self.fails_at, self.seconds = fails_at, seconds

    def __getitem__(self, step):
        if step == self.fails_at:
            raise InputError(f"The series of step {step} are broken.")
        time.sleep(self.seconds)
        bridge = sys.modules.get("jax._src.xla_bridge")
        return {
            "step": np.full(3, step),
            "devices": np.asarray(bool(bridge and bridge._backends)),
            "ours": np.asarray(any(name.startswith("tsmjax.nn") for name in sys.modules)),
            "flax": np.asarray("flax" in sys.modules),
        }


def run(batches, put=lambda batch: batch, **options):
    pipeline = Pipeline(batches, put, **options)
    try:
        yield from zip(range(6), pipeline, strict=False)
    finally:
        pipeline.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_nothing(dataset, workers):
    config = DataConfig(
        sources=(Source(dataset("a", [40] * 9)), Source(dataset("b", [30] * 7, targets=2), 2.0)),
        batch_size=8,
        context_length=12,
        random_horizon=True,
    )
    batches = ForecastBatches(config, prediction_length=8, patch=4, seed=0)
    found = 0
    for offset, batch in run(batches, step=100, workers=workers):
        for name, expected in batches[100 + offset].items():
            np.testing.assert_array_equal(batch[name], expected)
            assert type(batch[name]) is np.ndarray
        found += 1
    assert found == 6


def test_workers_hold_no_device():
    for _, batch in run(Numbered(), workers=1):
        assert not batch["devices"] and not batch["ours"] and not batch["flax"]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_surface_as_themselves(workers):
    seen = []
    with pytest.raises(InputError, match="series of step 4 are broken"):
        for _, batch in run(Numbered(fails_at=4), workers=workers):
            seen.append(int(batch["step"][0]))
    assert seen == [0, 1, 2]  # batch 3 was being put when the next one failed


def test_one_batch_is_put_ahead():
    put = []
    pipeline = Pipeline(Numbered(), lambda batch: put.append(int(batch["step"][0])), step=7)
    next(pipeline)
    assert put == [7, 8] and pipeline.step == 8
    next(pipeline)
    assert put == [7, 8, 9] and pipeline.step == 9
    pipeline.close()


def test_the_wait_is_measured():
    slow = Pipeline(Numbered(seconds=0.05), lambda batch: batch, prefetch=1)
    next(slow)
    next(slow)
    assert slow.wait_ms > 10
    slow.close()

    def busy(batch):
        time.sleep(0.1)

    fast = Pipeline(Numbered(), busy)
    next(fast)
    next(fast)
    assert fast.wait_ms < 50  # the time of `put` is not a wait for data
    fast.close()


def test_reading_ahead_hides_the_time_of_assembly():
    pipeline = Pipeline(Numbered(seconds=0.02), lambda batch: batch, prefetch=4)
    next(pipeline)
    waits = []
    for _ in range(5):
        time.sleep(0.06)  # the step
        next(pipeline)
        waits.append(pipeline.wait_ms)
    assert np.median(waits) < 10
    pipeline.close()
