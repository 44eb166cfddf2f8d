r"""Capture-24: a day of wrist accelerometer of 151 persons, with annotations of what they did.

Reads P001.csv.gz … (time, x, y, z, annotation) and annotation-label-dictionary.csv, which maps
each annotation, letter by letter, to an activity in six schemes. Windows span no gap in time, and
hold unlabelled steps only as far as --min-label-fraction allows. A person is in one split. The
options are the keys of a YAML file too (--config), with - as _; those of the command line count.

For example:
  python -m tsmjax.prepare capture24 --src capture24 --dst data/capture24
  python -m tsmjax.prepare capture24 --config config_stage2.yaml --dst data/capture24_small
  python -m tsmjax.prepare capture24 --src capture24 --dst data/align --stage 1 --lengths 10 500 \
      --downsample-factor 1
"""

from __future__ import annotations

import argparse
import functools
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import yaml

from tsmjax.errors import InputError, closest
from tsmjax.prepare import sensor_sets
from tsmjax.prepare.sensor_reading import Source
from tsmjax.prepare.sensor_sets import SensorReport
from tsmjax.wearables.recordings import UNLABELLED, Recording
from tsmjax.wearables.splits import draw
from tsmjax.wearables.windows import Cutting

SRC_REQUIRED = False  # data_dir of the YAML file will do
DICTIONARY, METADATA = "annotation-label-dictionary.csv", "metadata.csv"
COLUMNS = ("time", "x", "y", "z", "annotation")
CHANNELS = ("x_acc", "y_acc", "z_acc")
CHANNEL_TEXTS = ("x-axis accelerometer", "y-axis accelerometer", "z-axis accelerometer")
# Activities of each scheme by id. Those of the first are in the order of the Stage-2 configuration.
SCHEMES = {
    "WillettsSpecific2018": (
        *("sleep", "sitting", "standing", "walking", "bicycling", "vehicle"),
        *("household-chores", "manual-work", "sports", "mixed-activity"),
    ),
    "WillettsMET2018": (
        *("sleep", "sitting", "standing", "sitstand+lowactivity", "sitstand+activity"),
        *("walking", "walking+activity", "gym", "sports", "bicycling", "vehicle"),
    ),
    "DohertySpecific2018": (
        *("sleep", "sedentary-screen", "sedentary-non-screen", "tasks-light", "tasks-moderate"),
        *("walking", "sports-continuous", "sport-interrupted", "bicycling", "vehicle"),
    ),
    "Willetts2018": ("sleep", "sit-stand", "walking", "vehicle", "bicycling", "mixed"),
    "Doherty2018": ("sleep", "sedentary", "tasks-light", "walking", "moderate"),
    "Walmsley2020": ("sleep", "sedentary", "light", "moderate-vigorous"),
}
DEFAULTS = {
    "original_sampling_rate": 100.0,
    "downsample_factor": 99,
    "window_size_seconds": 300.0,
    "overlap": 0.5,
    "balance_ratio": 0.05,
    "min_label_fraction": 0.5,
    "num_participants": None,
    "train_test_split": 80.0,
    "label_scheme": "WillettsSpecific2018",
}
_RATE_TOLERANCE = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--config", type=Path, help="YAML file of options; data_dir there is --src")
    add("--original-sampling-rate", type=float, help="of the raw files (100 Hz)")
    add("--label-scheme", help=f"{', '.join(SCHEMES)} (default: the first)")
    add("--dictionary", type=Path, help=f"default: {DICTIONARY} in the folder")
    add("--participants", nargs="+", metavar="SUBJECT", help="these persons only")
    for name, what in (("unlabelled", "persons without any label"), ("unknown", "annotations")):
        add(
            f"--{name}",
            choices=("refuse", "drop"),
            default="refuse",
            help=f"{what}{' that the dictionary lacks' if name == 'unknown' else ''} "
            "(default: %(default)s)",
        )
    add(
        "--compat",
        action="store_true",
        help="as the published Stage-2 preprocessing: steps without a label are dropped and the "
        "gaps closed, the first windows in time are kept, every split is capped, nobody validates",
    )
    sensor_sets.add_arguments(parser)


def locate(src: str | None, options: argparse.Namespace) -> Path:
    """Take options from the YAML file, then defaults, and return the folder of the raw files.

    Raises:
      InputError: for an unknown key, or when there is no folder.
    """
    settings = _yaml(options.config) if options.config else {}
    src = src or settings.pop("data_dir", None)
    for key, value in settings.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    for key, value in DEFAULTS.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if src is None:
        raise InputError("Say --src, the folder of the raw files, or data_dir in --config.")
    if options.config and not Path(src).is_absolute() and not Path(src).exists():
        src = options.config.parent / src
    if not Path(src).is_dir():
        raise InputError(f"There is no folder {src}: --src must hold P001.csv.gz and so on.")
    return Path(src)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--config {path} cannot be read as YAML ({error}).") from error
    if not isinstance(settings, dict):
        raise InputError(f"--config {path} must hold lines of the form key: value.")
    known = {"data_dir": str} | {key: type(value) for key, value in DEFAULTS.items()}
    for key, value in settings.items():
        if key not in known:
            raise InputError(
                f"{path} has a key {key!r}{closest(str(key), known)} that is not known; known are "
                f"{', '.join(known)}."
            )
        wanted = {"num_participants": int}.get(key, known[key])
        numeric = wanted is float and isinstance(value, int)
        if isinstance(value, bool) or not (isinstance(value, wanted) or numeric):
            raise InputError(
                f"In {path}, {key} is {value!r}, but must be of type {wanted.__name__}."
            )
    return settings


def prepare(
    source: Path, options: argparse.Namespace
) -> tuple[Iterator[dict[str, Any]], SensorReport]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when files are missing or wrong, or nothing is left of them.
    """
    if options.compat:
        options.validation_share, options.selection, options.cap = 0.0, "first", "all"
    labels, activities = read_dictionary(
        options.dictionary or source / DICTIONARY, options.label_scheme
    )
    files = {file.name.split(".")[0]: file for file in sorted(source.glob("P*.csv*"))}
    if not files:
        raise InputError(f"{source} holds no files P001.csv.gz and so on.")
    for name in options.participants or ():
        if name not in files:
            raise InputError(f"{source} holds no participant {name!r}{closest(name, files)}.")
    chosen = draw(options.participants or list(files), options.num_participants, options.split_seed)
    if options.compat and not (options.train or options.validation or options.test):
        first = max(1, int(len(chosen) * options.train_test_split / 100))
        options.train, options.test = chosen[:first], chosen[first:]
    cutting = Cutting(
        rate=options.original_sampling_rate,
        seconds=_seconds(options),
        factor=options.downsample_factor,
        antialias=options.antialias,
        order=options.order,
        overlap=options.overlap,
        min_fraction=options.min_label_fraction,
        max_missing=options.max_missing,
        ignore_gaps=options.compat,
    )
    infos = _read_metadata(source / METADATA)
    jobs = [
        functools.partial(
            read_participant,
            files[name],
            name,
            activities,
            options.original_sampling_rate,
            options.unlabelled,
            options.unknown,
            infos.get(name, ""),
        )
        for name in chosen
    ]
    report = SensorReport(source=str(source), layout=f"Capture-24, {options.label_scheme}")
    found = Source("capture24", CHANNELS, CHANNEL_TEXTS, labels, jobs)
    return sensor_sets.prepare(found, cutting, options, report), report


def _seconds(options: argparse.Namespace) -> float:
    """Return the length of a window; stage 1 cuts none, and needs none to be valid."""
    if options.stage == 2:
        return options.window_size_seconds
    return options.lengths[1] * options.downsample_factor / options.original_sampling_rate


def read_dictionary(path: Path, scheme: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the activities of a scheme by id, and annotation → id.

    Annotations are kept letter by letter: some differ in a space alone.

    Raises:
      InputError: when there is no such file, column or activity.
    """
    if scheme not in SCHEMES:
        raise InputError(
            f"There is no label scheme {scheme!r}{closest(scheme, SCHEMES)}; there are "
            f"{', '.join(SCHEMES)}."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"The annotation dictionary {path} cannot be read ({error}).") from error
    column = f"label:{scheme}"
    for name in ("annotation", column):
        if name not in table:
            raise InputError(
                f"{path} has no column {name!r}{closest(name, table.columns)}; it has "
                f"{', '.join(table.columns)}."
            )
    labels = SCHEMES[scheme]
    strange = sorted(set(table[column]) - set(labels) - {""})
    if strange:
        raise InputError(
            f"{path} maps to {strange[0]!r}{closest(strange[0], labels)}, which is no activity of "
            f"{scheme}: {', '.join(labels)}."
        )
    ids = {name: number for number, name in enumerate(labels)} | {"": UNLABELLED}
    return labels, {
        annotation: ids[name]
        for annotation, name in zip(table["annotation"], table[column], strict=True)
    }


def read_participant(
    path: Path,
    subject: str,
    activities: Mapping[str, int],
    rate: float,
    unlabelled: str,
    unknown: str,
    info: str,
) -> Iterator[Recording]:
    """Yield the recording of one file; none when it has no labels and these are dropped.

    Raises:
      InputError: when the file is damaged, has other columns or another rate, has no label, or has
        an annotation that the dictionary lacks.
    """
    table = _read_csv(path)
    times = table["time"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    values = np.stack([table[name].to_numpy() for name in "xyz"], axis=1)
    spacing = np.median(np.diff(times)) / 1e9 if len(times) > 1 else 0.0
    if abs(spacing * rate - 1) > _RATE_TOLERANCE:
        raise InputError(
            f"{path} has a row every {spacing:g} s, which is not the original sampling rate "
            f"{rate:g} Hz: correct the rate."
        )
    annotations = table["annotation"].combine_chunks()
    known = annotations.dictionary.to_pylist()
    ids = np.empty(len(known) + 1, np.int16)
    ids[-1] = UNLABELLED  # of null
    for place, annotation in enumerate(known):
        label = UNLABELLED if annotation == "" else activities.get(annotation)
        if label is None and unknown == "refuse":
            raise InputError(
                f"{path} has an annotation {annotation!r}{closest(annotation, activities)} that "
                "the dictionary lacks: add it there, or say --unknown drop to treat its steps as "
                "unlabelled."
            )
        ids[place] = UNLABELLED if label is None else label
    labels = ids[annotations.indices.fill_null(len(known)).to_numpy()]
    if (labels == UNLABELLED).all():
        if unlabelled == "refuse":
            raise InputError(
                f"Participant {subject} has no labelled row in {path}: take the file away, or say "
                "--unlabelled drop to leave such persons out."
            )
        return
    yield Recording(subject, times, values, labels, info=info)


def _read_csv(path: Path) -> pa.Table:
    types = {"time": pa.timestamp("ns"), **dict.fromkeys("xyz", pa.float32())}
    convert = pyarrow.csv.ConvertOptions(
        column_types=types | {"annotation": pa.dictionary(pa.int32(), pa.string())},
        include_columns=list(COLUMNS),
        strings_can_be_null=False,
    )
    try:
        table = pyarrow.csv.read_csv(path, convert_options=convert)
    except KeyError as error:
        raise InputError(
            f"{path} lacks a column ({error.args[0]}); it must have {', '.join(COLUMNS)}."
        ) from error
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or no Capture-24 file ({error}).") from error
    if not len(table):
        raise InputError(f"{path} has no rows: take it away.")
    # Chunks are encoded one by one, each with a dictionary of its own.
    return table.unify_dictionaries()


def _read_metadata(path: Path) -> dict[str, str]:
    """Return person → a sentence about age and sex; nothing without the file."""
    if not path.exists():
        return {}
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = {"pid", "age", "sex"} - set(table.columns)
    if lacking:
        raise InputError(f"{path} has no column {sorted(lacking)[0]!r}.")
    words = {"F": "female", "M": "male"}
    return {
        row.pid: f"The wearer is {words.get(row.sex, row.sex)}, aged {row.age}."
        for row in table.itertuples()
    }
