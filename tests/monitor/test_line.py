import math
import resource

import jax
import pytest

from tsmjax.monitor import line

GIB = 2**30
METRICS = {"loss": 9.6887, "learning_rate": 4.99e-5, "grad_norm": 1.2431, "bad": 0.0}


def test_the_line_reads_as_documented():
    text = line.format_line(
        1000,
        200_000,
        METRICS,
        line.LossTracker(9.7102, 9.6432),
        line.Memory(42.1 * GIB, 80 * GIB),
        steps_per_second=9.421,
        rows_per_step=757,
        wait_ms=2.6,
    )
    assert text == (
        "Step 1,000/200,000 | loss=9.6887 | ema=9.7102 | best=9.6432 | lr=4.99e-05 | "
        "mem=42.1/80GB | 9.4 stp/s | 7132 smp/s | eta=5h 52m | gnorm=1.243 | wait=3ms"
    )


def test_bad_steps_show_only_when_there_are_some():
    def text(bad):
        return line.format_line(
            1, 2, {**METRICS, "bad": bad}, line.LossTracker(), line.Memory(1, 1), 1.0, 1, 0.0
        )

    assert "bad" not in text(0.0)
    assert text(2.0).endswith(" | bad=2")


def test_slow_and_tiny_numbers_stay_readable():
    text = line.format_line(
        1, 11, {"loss": 0.00042}, line.LossTracker(0.00042, 0.0), line.Memory(1, GIB), 0.013, 4, 0.0
    )
    assert "loss=4.20e-04" in text and "best=0.0000" in text and "0.013 stp/s" in text
    assert "eta=12m 49s" in text
    stuck = line.format_line(1, 11, {}, line.LossTracker(), line.Memory(1, GIB), 0.0, 4, 0.0)
    assert "loss=nan" in stuck and "eta=?" in stuck


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 0s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (21_150, "5h 52m"),
        (198_000, "2d 7h"),
        (math.inf, "?"),
    ],
)
def test_duration(seconds, text):
    assert line.duration(seconds) == text


def test_losses_continue_from_their_state():
    values = [3.0, 5.0, math.nan, 2.0, math.inf, 4.0]
    whole = line.LossTracker()
    for value in values:
        whole.update(value)
    first = line.LossTracker()
    for value in values[:3]:
        first.update(value)
    second = line.LossTracker.from_state(first.state())
    for value in values[3:]:
        second.update(value)
    assert second == whole
    # 3 → 3.2 → 3.08 → 3.172: the newest logged loss weighs a tenth
    assert whole.ema == pytest.approx(3.172) and whole.best == 2.0


def test_a_state_before_the_first_loss_is_json_and_starts_afresh():
    state = line.LossTracker().state()
    assert state == {"ema": None, "best": None}
    resumed = line.LossTracker.from_state(state)
    resumed.update(1.5)
    assert resumed == line.LossTracker(1.5, 1.5)


class _Device:
    def __init__(self, used, total):
        self._stats = {"bytes_in_use": used, "bytes_limit": total} if total else None

    def memory_stats(self):
        return self._stats


def test_memory_is_that_of_the_fullest_device(monkeypatch):
    devices = [_Device(1 * GIB, 80 * GIB), _Device(9 * GIB, 80 * GIB), _Device(2 * GIB, 80 * GIB)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert str(line.memory()) == "9.0/80GB"


def test_memory_of_the_process_where_devices_do_not_tell(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [_Device(0, 0)])
    held = line.memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 10e6 < held.used < 1.05 * peak  # the kernel tells both, not at the same moment
    assert held.used < held.total
