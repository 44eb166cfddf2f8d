"""What the trainer asks of an evaluator, and the one function that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tsmjax import watch
from tsmjax.monitor.logs import console

T = TypeVar("T")
Batch = dict[str, np.ndarray]
Sums = dict[str, np.ndarray]
Predict = Callable[[Batch], np.ndarray]

_PATIENCE = 3.0  # seconds after which an evaluation counts as long and shows a progress bar


class Evaluator(Protocol):
    """Scores one suite of data; owns the data and how they are batched.

    Attributes:
      name: prefix of every score.
    """

    name: str

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches.

        Every host has the same number of batches, the n-th of them with the same shapes on every
        host: predictions are collective. Where rows run out, batches are padded with rows of
        weight zero.
        """
        ...

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Score one batch: float64 arrays that may be added over batches and hosts.

        Calls `predict` as often on every host, also for a batch of padding alone.
        """
        ...

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into ``{"suite/metric": value}``."""
        ...

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw examples of the last evaluation into `folder` and return the files; may be none."""
        ...


def evaluate(
    evaluator: Evaluator,
    predict: Predict,
    host: int = 0,
    hosts: int = 1,
    reduce: Callable[[Sums], Sums] | None = None,
) -> dict[str, float]:
    """Run `predict` over all batches of `evaluator` and return its scores.

    Args:
      evaluator: what to score.
      predict: host batch → host array, with the parameters already bound.
      host: index of this process.
      hosts: number of processes.
      reduce: adds sums over processes; needed when `hosts` > 1.
    """
    return evaluator.scores(total_sums(evaluator, predict, host, hosts, reduce))


def total_sums(
    evaluator: Evaluator,
    predict: Predict,
    host: int = 0,
    hosts: int = 1,
    reduce: Callable[[Sums], Sums] | None = None,
) -> Sums:
    """Run `predict` over all batches and add up; arguments of `evaluate`."""
    total: Sums = {}
    batches = evaluator.batches(host, hosts)
    label = f"evaluating {evaluator.name}"
    for batch in tracked(read_ahead(batches), label, len(batches), host == 0):
        for name, value in evaluator.sums(predict, batch).items():
            total[name] = total[name] + value if name in total else value
    return reduce(total) if reduce else total


def read_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, getting each in a thread while the caller works on the one before."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, source, end)
            yield item


def tracked(items: Iterable[T], description: str, total: int, show: bool = True) -> Iterator[T]:
    """Yield `items`, with a progress bar and the time left once it takes long (terminals only)."""
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not show or not console.is_terminal,
    ) as progress:
        bar = progress.add_task(description, total=total, visible=False)
        for item in items:
            yield item
            watch.progress()
            progress.update(bar, advance=1, visible=time.monotonic() - started > _PATIENCE)
