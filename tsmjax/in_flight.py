"""Steps and forward passes that were dispatched and have not finished."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np

from tsmjax.errors import InputError

T = TypeVar("T")


def overlapped(forward: Callable[[T], jax.Array], batches: Iterable[T]) -> Iterator[np.ndarray]:
    """Yield the result of each forward pass on the host, while the device works on the next one.

    Args:
      forward: dispatches the pass of a batch, and does not wait for it.
      batches: what `forward` takes; one more of them than was yielded is on the device.
    """
    before = None
    for batch in batches:
        current = forward(batch)
        if before is not None:
            yield np.asarray(before)
        before = current
    if before is not None:
        yield np.asarray(before)


class InFlight:
    """Bounds the steps in flight, reports logged ones, and stops a run that is not finite.

    Unbounded dispatch piles up batches in device memory, and on a CPU mesh it deadlocks. Metrics
    are read only of steps that left the queue, while the device works on the next one.
    """

    def __init__(
        self,
        limit: int,
        max_bad_steps: int,
        logged: Callable[[int], bool],
        report: Callable[[int, dict[str, float], float], None],
        watch: Callable[[int, float, float], None],
    ):
        """Configure the queue.

        Args:
          limit: number of unfinished steps allowed.
          max_bad_steps: number of consecutive non-finite steps allowed.
          logged: whether a step is reported.
          report: called with (step, metrics on the host, milliseconds waited for data).
          watch: called with (step, loss, gradient norm) of every step.
        """
        self._limit, self._max_bad = limit, max_bad_steps
        self._logged, self._report, self._watch = logged, report, watch
        self._steps: collections.deque[tuple[int, dict[str, jax.Array], float]] = (
            collections.deque()
        )

    def add(self, at: int, metrics: dict[str, jax.Array], wait_ms: float) -> None:
        """Register a dispatched step; waits for the oldest one beyond the limit."""
        self._steps.append((at, metrics, wait_ms))
        while len(self._steps) > self._limit:
            self._finish()

    def drain(self) -> None:
        """Wait for every step."""
        while self._steps:
            self._finish()

    def _finish(self) -> None:
        at, metrics, wait_ms = self._steps.popleft()
        # One small array is all that is read of every step, and what waits for it.
        loss, norm, bad_in_row = np.asarray(metrics.pop("pulse")).tolist()
        if self._logged(at):
            host = jax.device_get(metrics)
            self._report(at, {name: float(value) for name, value in host.items()}, wait_ms)
        self._watch(at, loss, norm)
        if bad_in_row >= self._max_bad:
            raise InputError(
                f"Training stopped at step {at:,}: the loss or gradient was not finite in "
                f"{self._max_bad} steps in a row; lower optim.lr, or check the data for huge "
                "values. The checkpoints hold the last finite state."
            )
