"""Batches in time: worker threads or processes ahead of the step, then one batch on the device.

The position is one integer, the step. One Grain element is one batch, so that neither the number
of workers nor the number of hosts is part of it.
"""

from __future__ import annotations

import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

_ENDLESS = 2**40


class BatchSource(Protocol):
    """Batches addressed by step."""

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of `step`."""
        ...


class Pipeline:
    """Iterator over device batches from a given step on, without end.

    Attributes:
      step: the step that the next batch belongs to.
      wait_ms: time that the last `next` waited for the host's batch, in milliseconds.
      close: stops the threads or processes; also called when the iterator goes out of use.
    """

    def __init__(
        self,
        batches: BatchSource,
        put: Callable[[dict[str, np.ndarray]], Any],
        *,
        step: int = 0,
        workers: int = 0,
        prefetch: int = 4,
    ):
        """Start reading ahead.

        Args:
          batches: host batches by step; must pickle when there are workers.
          put: moves a host batch to the device; called one batch ahead, and should not block.
          step: the first step.
          workers: processes that assemble batches, or 0 for threads of this process.
          prefetch: batches that are kept ready on the host.
        """
        self.step, self.wait_ms = step, 0.0
        self._put = put
        self._host = [read_ahead(batches, step=step, workers=workers, prefetch=prefetch)]
        # Also runs when the interpreter ends, while what stopping the workers needs still exists.
        self.close = weakref.finalize(self, _stop, self._host)
        self._ahead: list[Any] = []

    def __iter__(self) -> Pipeline:
        return self

    def __next__(self) -> Any:
        """Return the batch of `step` and begin to move the next one."""
        self.wait_ms = 0.0
        batch = self._ahead.pop() if self._ahead else self._fetch()
        self._ahead.append(self._fetch())
        self.step += 1
        return batch

    def _fetch(self) -> Any:
        started = time.perf_counter()
        batch = next(self._host[0])
        self.wait_ms += (time.perf_counter() - started) * 1e3
        # Workers hand over shared memory that is freed with the array; a device may alias it.
        return self._put({name: np.array(value) for name, value in batch.items()})


def read_ahead(
    batches: BatchSource, *, step: int = 0, workers: int = 0, prefetch: int = 4
) -> Iterator[dict[str, np.ndarray]]:
    """Return an endless iterator over the host batches from `step` on.

    Raises:
      Exception: whatever the assembly of a batch raised, in this process or in a worker.
    """
    dataset = grain.MapDataset.source(_FromStep(batches, step))
    threads = grain.ReadOptions(num_threads=min(prefetch, 2), prefetch_buffer_size=prefetch)
    if not workers:
        return iter(dataset.to_iter_dataset(threads))
    if not flags.FLAGS.is_parsed():  # Grain reads flags here; from Python and notebooks nobody did
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=max(1, prefetch // workers)
    )
    return iter(dataset.to_iter_dataset(threads).mp_prefetch(options, worker_init_fn=_begin_worker))


def _stop(host: list[Iterator]) -> None:
    """Stop reading ahead, and let go of the iterator."""
    host.pop().close()


class _FromStep:
    """The batches from one step on, as a Grain source."""

    def __init__(self, batches: BatchSource, step: int):
        self._batches, self._step = batches, step

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._batches[self._step + index]


def _begin_worker(worker: int, workers: int) -> None:
    """Keep a worker off accelerators, whatever it imports, and alive until its parent ends it.

    A scheduler sends SIGTERM to every process; the parent still needs batches to reach a stop.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
