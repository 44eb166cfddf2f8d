import jax
import jax.numpy as jnp
import pytest

from tsmjax.errors import InputError
from tsmjax.monitor import profiler
from tsmjax.monitor.profiler import Profiler


def steps(ours, first, last):
    """What the loop does; returns the steps that were traced."""
    traced = []
    for step in range(first, last + 1):
        ours.before(step)
        if ours._tracing:
            traced.append(step)
        if ours.ends(step):
            ours.stop()
    ours.stop()
    return traced


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr(profiler.jax.profiler, "start_trace", lambda to: found.append("start"))
    monkeypatch.setattr(profiler.jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


@pytest.mark.parametrize(
    ("window", "run", "traced"),
    [
        ("3:5", (1, 8), [3, 4, 5]),
        ("3", (1, 8), [3]),
        ("3:5", (5, 8), [5]),  # resumed within the window
        ("3:5", (6, 8), []),
        ("3:5", (1, 4), [3, 4]),  # the run ends first
        ("", (1, 8), []),
    ],
)
def test_a_window_is_traced_once(tmp_path, calls, window, run, traced):
    assert steps(Profiler(tmp_path, window), *run) == traced
    assert calls == (["start", "stop"] if traced else [])


@pytest.mark.parametrize("window", ["5:3", "0:3", "a", "3-5", "3:5:7"])
def test_another_form_is_told(tmp_path, window):
    with pytest.raises(InputError, match=r"log\.profile_steps"):
        Profiler(tmp_path, window)


def test_a_profiler_that_fails_warns_once(tmp_path, calls, monkeypatch, caplog):
    def busy(_):
        raise RuntimeError("another profile is being taken")

    monkeypatch.setattr(profiler.jax.profiler, "start_trace", busy)
    assert steps(Profiler(tmp_path, "3:5"), 1, 8) == []
    assert caplog.text.count("There will be no profile") == 1


def test_a_real_trace_lies_where_tensorboard_looks(tmp_path):
    ours = Profiler(tmp_path, "2:3")
    for step in range(1, 4):
        ours.before(step)
        jax.block_until_ready(jnp.ones(8) * step)
        if ours.ends(step):
            ours.stop()
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
