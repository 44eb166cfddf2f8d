"""Windows of recordings: raw files are read and cut by worker processes, one after the other.

What they cut lies in a folder, memory-mapped, until it is known how many windows of each activity
are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from tsmjax.wearables import alignment, splits, texts
from tsmjax.wearables.recordings import UNLABELLED, Recording
from tsmjax.wearables.windows import Cutting, cut, stretches

Job = Callable[[], Iterator[Recording]]


class Source(NamedTuple):
    """Raw files of one layout.

    Attributes:
      dataset: name.
      channels: names for markers, as ``x_acc``.
      channel_texts: what texts call them.
      labels: activities by id.
      jobs: functions that read recordings, one a raw file; picklable.
    """

    dataset: str
    channels: tuple[str, ...]
    channel_texts: tuple[str, ...]
    labels: tuple[str, ...]
    jobs: Sequence[Job]


class Read(NamedTuple):
    """What a job found; arrays over its windows (stage 1: pieces), values in the file `values`."""

    values: str
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    fractions: np.ndarray
    times: np.ndarray
    subjects: list[str]
    given: list[str]
    infos: list[str]
    steps: Counter[str]
    unlabelled: Counter[str]
    dropped: Counter[tuple[str, str]]


def read(source: Source, cutting: Cutting, options: argparse.Namespace, folder: Path) -> list[Read]:
    """Run the jobs, in order."""
    pieces = (*options.lengths, options.cuttings, options.seed) if options.stage == 1 else None
    calls = [
        (job, cutting, pieces, str(folder / f"{number:05d}.npy"))
        for number, job in enumerate(source.jobs)
    ]
    workers = min(options.workers or multiprocessing.cpu_count(), len(calls))
    with contextlib.ExitStack() as stack:
        if workers > 1:
            # Not forked: the caller may have threads.
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            results = pool.imap(_run_job, calls)
        else:
            results = map(_run_job, calls)
        return list(
            track(
                results,
                f"Reading {source.dataset}",
                total=len(calls),
                console=Console(stderr=True),
                transient=True,
            )
        )


def _run_job(call: tuple[Job, Cutting, tuple[int, int, int, int] | None, str]) -> Read:
    job, cutting, pieces, path = call
    values, found, at = [], [], 0
    subjects, given, infos = [], [], []
    steps, unlabelled, dropped = Counter(), Counter(), Counter()
    for number, recording in enumerate(job()):
        steps[recording.subject] += len(recording.labels)
        unlabelled[recording.subject] += int((recording.labels == UNLABELLED).sum())
        if pieces:
            part, windows = _cut_pieces(recording, cutting, pieces, number)
        else:
            result = cut(recording, cutting)
            part = result.values
            lengths = np.full(len(result.starts), cutting.window)
            windows = (result.starts, lengths, result.labels, result.fractions, result.times)
            for reason, count in result.dropped.items():
                dropped[recording.subject, reason] += count
        found.append((windows[0] + at, *windows[1:]))
        values.append(part)
        at += len(part)
        count = len(windows[0])
        subjects += [recording.subject] * count
        given += [recording.split] * count
        infos += [recording.info] * count
    channels = values[0].shape[1] if values else 0
    np.save(path, np.concatenate(values) if values else np.zeros((0, channels), np.float32))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    columns = columns or [np.zeros(0)] * 5
    return Read(path, *columns, subjects, given, infos, steps, unlabelled, dropped)


def _cut_pieces(
    recording: Recording, cutting: Cutting, pieces: tuple[int, int, int, int], number: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Cut one recording into pieces of random length, several times over.

    The number of the cutting stands in the place of the label fractions.
    """
    least, most, cuttings, seed = pieces
    values, found, at = [], [], 0
    for order, stretch in enumerate(stretches(recording, cutting)):
        whole = np.isfinite(stretch.values).all(axis=1)
        labels = np.where(whole, stretch.labels, UNLABELLED)
        for again in range(cuttings):
            rng = texts.chooser(seed, f"{recording.subject} {number} {order} {again}")
            spans = alignment.random_pieces(labels, least, most, rng)
            first, lengths = spans[:, 0], spans[:, 1] - spans[:, 0]
            marks = np.full(len(spans), float(again))
            found.append((first + at, lengths, labels[first], marks, stretch.times[first]))
        values.append(stretch.values)
        at += len(stretch.values)
    empty = [np.zeros(0, kind) for kind in (np.int64, np.int64, np.int16, float, np.int64)]
    columns = [np.concatenate(column) for column in zip(empty, *found, strict=True)]
    return np.concatenate(values), tuple(columns)


class Windows:
    """All windows of all jobs, in order of person and time."""

    def __init__(self, found: Sequence[Read]):
        self._maps = [np.load(part.values, mmap_mode="r") for part in found]
        self.subjects = [name for part in found for name in part.subjects]
        order = sorted(
            range(len(self.subjects)), key=lambda index: splits.natural(self.subjects[index])
        )
        self.subjects = [self.subjects[index] for index in order]
        given = [name for part in found for name in part.given]
        infos = [text for part in found for text in part.infos]
        self.given = [given[index] for index in order]
        self.infos = [infos[index] for index in order]

        def joined(name: str, kind: type) -> np.ndarray:
            parts = [getattr(part, name) for part in found]
            return (
                np.concatenate([np.zeros(0), *parts])[order].astype(kind)
                if order
                else (np.zeros(0, kind))
            )

        self.starts, self.lengths = joined("starts", np.int64), joined("lengths", np.int64)
        self.labels, self.fractions = joined("labels", np.int64), joined("fractions", float)
        times = [part.times for part in found]
        self.times = np.concatenate(times)[order] if order else np.zeros(0, np.int64)
        files = np.repeat(np.arange(len(found)), [len(part.starts) for part in found])
        self.files = files[order] if order else files

    def values(self, index: int) -> np.ndarray:
        """Return a window, (channels, steps) float32."""
        first = self.starts[index]
        part = self._maps[self.files[index]][first : first + self.lengths[index]]
        return np.ascontiguousarray(part.T)

    def numbers(self) -> list[int]:
        """Return the number of each window among those of its person."""
        seen: Counter[str] = Counter()
        numbers = []
        for subject in self.subjects:
            numbers.append(seen[subject])
            seen[subject] += 1
        return numbers
