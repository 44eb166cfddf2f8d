import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.in_flight import InFlight, overlapped


class Counted:
    """An array on a device, as far as the queue is concerned; counts its trips to the host."""

    def __init__(self, value):
        self.value, self.fetched = np.float32(value), 0

    def __array__(self, dtype=None, copy=None):
        self.fetched += 1
        return np.asarray(self.value)

    def __float__(self):
        return float(self.__array__())


def metrics(loss=1.0, norm=2.0, bad=0.0):
    return {"loss": Counted(loss), "grad_norm": Counted(norm), "pulse": Counted([loss, norm, bad])}


def queue(limit=1, logged=lambda at: False, max_bad=3):
    reports, watched = [], []
    flight = InFlight(
        limit,
        max_bad,
        logged,
        lambda *report: reports.append(report),
        lambda *watch: watched.append(watch),
    )
    return flight, reports, watched


def test_one_array_is_fetched_of_each_step_and_all_of_a_logged_one(monkeypatch):
    flight, reports, watched = queue(logged=lambda at: at == 3)
    steps = [metrics(loss=at) for at in range(1, 5)]
    pulses = [step["pulse"] for step in steps]
    for at, step in enumerate(steps, start=1):
        flight.add(at, step, wait_ms=0.5)
    assert [pulse.fetched for pulse in pulses] == [1, 1, 1, 0]  # the fourth is still in flight
    flight.drain()
    assert [pulse.fetched for pulse in pulses] == [1, 1, 1, 1]
    assert [step["loss"].fetched for step in steps] == [0, 0, 1, 0]
    assert reports == [(3, {"loss": 3.0, "grad_norm": 2.0}, 0.5)]
    assert watched == [(at, float(at), 2.0) for at in range(1, 5)]


def test_too_many_bad_steps_in_a_row_end_the_run_after_they_are_reported():
    flight, _, watched = queue(limit=0)
    flight.add(7, metrics(bad=2), 0.0)
    with pytest.raises(InputError, match="stopped at step 8"):
        flight.add(8, metrics(loss=float("nan"), bad=3), 0.0)
    assert [at for at, *_ in watched] == [7, 8]


def test_a_forward_pass_starts_before_the_last_one_is_waited_for():
    events = []

    class Result:
        def __init__(self, number):
            events.append(f"start {number}")
            self.number = number

        def __array__(self, dtype=None, copy=None):
            events.append(f"wait {self.number}")
            return np.array(self.number)

    assert [int(result) for result in overlapped(Result, range(3))] == [0, 1, 2]
    assert events == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]
