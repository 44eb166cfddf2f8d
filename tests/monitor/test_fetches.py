"""Watching a run reads nothing from the device that would not be read without it."""

import collections

import jax
import numpy as np
import pytest
import toy

import tsmjax
from tsmjax import step as step_lib


class Fetched:
    """A metric on the device; counts under its name when the host reads it or waits for it."""

    def __init__(self, name, array, counts):
        self._name, self._array, self._counts = name, array, counts

    def __array__(self, dtype=None, copy=None):
        self._counts[self._name] += 1
        return np.asarray(self._array, dtype)

    def __float__(self):
        return float(self.__array__())

    def block_until_ready(self):
        self._counts["wait"] += 1
        return self


@pytest.fixture
def fetches(tmp_path, monkeypatch):
    """Train twelve toy steps, logging every fourth, and count what is read of their metrics."""
    toy.install(tmp_path)
    toy.write_rows(tmp_path / "rows")
    jitted = step_lib.jit_train_step

    def run(name, **log):
        counts = collections.Counter()

        def counting(*args, **kwargs):
            train_step = jitted(*args, **kwargs)

            def step(*inputs):
                state, metrics = train_step(*inputs)
                return state, {k: Fetched(k, v, counts) for k, v in metrics.items()}

            return step

        monkeypatch.setattr(step_lib, "jit_train_step", counting)
        values = toy.config(
            tmp_path / "rows",
            optim={"length": 12},
            evals={"every": 0},
            checkpoint={"every": 0},
            log={"every": 4, **log},
        )
        blocked = jax.block_until_ready
        monkeypatch.setattr(
            jax, "block_until_ready", lambda tree: counts.update(wait=1) or blocked(tree)
        )
        tsmjax.train(values, workdir=str(tmp_path / name))
        monkeypatch.setattr(jax, "block_until_ready", blocked)
        return counts

    return run


def test_health_reports_and_writers_read_no_more_than_the_guard_and_the_log_line(fetches):
    silent = fetches("silent")
    watched = fetches("watched", health=3, tensorboard=True)
    assert watched == silent
    assert silent["pulse"] == 12 and silent["wait"] == 0
    assert {n for name, n in silent.items() if name not in ("pulse", "wait")} == {3}
