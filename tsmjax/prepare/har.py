r"""Activity recognition sets: UCI-HAR, WISDM, PAMAP2, MHEALTH, USC-HAD, .ts files, and CSV.

Windows lie within one activity and between two gaps in time; a last one ends where the stretch
ends. Persons are in one split each: the test persons of the literature where they are there, else
a share. UCI-HAR and .ts files come as windows, in a training and a test part.

CSV: a table, or a folder of them, with columns time (seconds, or dates), label and, where there
are several persons, subject; all other columns of numbers are channels. No label: an empty cell.

For example:
  python -m tsmjax.prepare har --format ucihar --src "UCI HAR Dataset" --dst data/uci
  python -m tsmjax.prepare har --format wisdm --src wisdm-dataset/raw/watch --dst data/wisdm
  python -m tsmjax.prepare har --format pamap2 --src Protocol --downsample-factor 2 --dst data/pamap
  python -m tsmjax.prepare har --format ts --src BasicMotions --dst data/motions
  python -m tsmjax.prepare har --format csv --src stream.csv --window-size-seconds 5 --dst data/own
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tsmjax.errors import InputError, closest
from tsmjax.prepare import sensor_sets
from tsmjax.prepare.har_formats import FORMATS
from tsmjax.prepare.sensor_reading import Job
from tsmjax.prepare.sensor_sets import SensorReport
from tsmjax.wearables.recordings import Recording
from tsmjax.wearables.splits import draw
from tsmjax.wearables.windows import Cutting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--format", choices=tuple(FORMATS), required=True)
    add("--rate", type=float, help="Hz of the raw files, where they do not tell")
    add("--channels", nargs="+", help="these channels only, in this order")
    add("--device", choices=("watch", "phone"), default="watch", help="of WISDM")
    add("--time-column", default="time", help="of CSV")
    add("--label-column", default="label", help="of CSV")
    add("--subject-column", default="subject", help="of CSV")
    sensor_sets.add_arguments(parser)


def prepare(
    source: Path, options: argparse.Namespace
) -> tuple[Iterator[dict[str, Any]], SensorReport]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when files are missing or of another format, or nothing is left of them.
    """
    raw = FORMATS[options.format](source, options)
    defaults = {
        "overlap": 0.5,
        "downsample_factor": 1,
        "min_label_fraction": 0.5,
        "balance_ratio": 1.0,
        "train_test_split": 75.0,
        "window_size_seconds": raw.seconds,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if raw.windowed and abs(options.window_size_seconds - raw.seconds) > 1e-9:
        raise InputError(
            f"{source} holds windows of {raw.seconds:g} s: leave --window-size-seconds out."
        )
    seconds = options.window_size_seconds
    if options.stage == 1:
        seconds = options.lengths[1] * options.downsample_factor / raw.rate
    cutting = Cutting(
        rate=raw.rate,
        seconds=seconds,
        factor=options.downsample_factor,
        antialias=options.antialias,
        order=options.order,
        overlap=options.overlap,
        within="label",
        flush=True,
        min_fraction=options.min_label_fraction,
        max_missing=options.max_missing,
    )
    found = raw.source
    if options.channels:
        places = [_place(name, found.channels, source) for name in options.channels]
        found = found._replace(
            channels=tuple(found.channels[place] for place in places),
            channel_texts=tuple(found.channel_texts[place] for place in places),
            jobs=[functools.partial(_with_channels, job, places) for job in found.jobs],
        )
    subjects = raw.subjects
    if options.num_participants is not None:
        subjects = draw(subjects, options.num_participants, options.split_seed)
        found = found._replace(
            jobs=[functools.partial(_of_subjects, job, subjects) for job in found.jobs]
        )
    named = options.train or options.validation or options.test
    usual = [subject for subject in raw.test_subjects if subject in subjects]
    if not named and 0 < len(usual) < len(subjects):
        options.test = usual
    report = SensorReport(source=str(source), layout=options.format, notes=list(raw.notes))
    return sensor_sets.prepare(found, cutting, options, report), report


def _place(name: str, channels: Sequence[str], source: Path) -> int:
    if name not in channels:
        raise InputError(
            f"{source} has no channel {name!r}{closest(name, channels)}; it has "
            f"{', '.join(channels)}."
        )
    return channels.index(name)


def _with_channels(job: Job, places: Sequence[int]) -> Iterator[Recording]:
    for recording in job():
        yield recording._replace(values=recording.values[:, places])


def _of_subjects(job: Job, subjects: Sequence[str]) -> Iterator[Recording]:
    for recording in job():
        if recording.subject in subjects:
            yield recording
