import time

import jax
import jax.numpy as jnp
import pytest

from tsmjax.monitor import ledger


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told to."""
    now = [100.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_every_second_is_charged_once(clock):
    ours = ledger.Ledger()
    clock(1)
    with ours.spend("input"):
        clock(2)
    with ours.spend("step"):
        clock(4)
        with ours.spend("monitor"):  # an inner block takes its time from the outer
            clock(8)
        clock(16)
    seconds = ours.settle()
    assert {k: s for k, s in seconds.items() if s} == {
        "other": 1,
        "input": 2,
        "step": 20,
        "monitor": 8,
    }


def test_a_block_that_fails_is_charged_too(clock):
    ours = ledger.Ledger()
    with pytest.raises(ValueError), ours.spend("checkpoint"):
        clock(3)
        raise ValueError
    clock(1)
    assert ours.settle()["checkpoint"] == 3 and ours.seconds["other"] == 1


def test_nested_compilations_count_once(clock):
    heard = ledger._Compiled()
    clock(5)
    heard("/jax/core/compile/jaxpr_trace_duration", 2.0)  # the inner function: seconds 3 to 5
    clock(1)
    heard("/jax/core/compile/jaxpr_trace_duration", 4.0)  # the outer: 2 to 6
    heard("/jax/compilation_cache/hits", 9.0)
    clock(4)
    heard("/jax/core/compile/backend_compile_duration", 4.0)  # 6 to 10
    assert heard.seconds == pytest.approx(8.0)


def test_compiling_is_told_from_the_step_it_happens_in():
    ours = ledger.Ledger()
    started = time.monotonic()

    @jax.jit
    def work(x):
        for _ in range(30):
            x = jnp.sin(x) @ x
        return x

    x = jnp.ones((4, 4))
    before = ours.settle()["compile"]
    with ours.spend("step"):
        jax.block_until_ready(work(x))
    first = ours.settle()
    assert first["compile"] > before and first["step"] > 0
    with ours.spend("step"):
        jax.block_until_ready(work(x))
    second = ours.settle()
    assert second["compile"] == first["compile"]
    assert sum(second.values()) == pytest.approx(time.monotonic() - started, abs=0.05)
