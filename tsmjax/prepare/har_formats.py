"""The raw files of public activity recognition sets, read into recordings.

Each format has a function that looks at the files and says what is in them; reading is left to
jobs, which other processes may run.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.prepare.sensor_reading import Source
from tsmjax.wearables import streams
from tsmjax.wearables.recordings import UNLABELLED, Recording, on_grid, runs
from tsmjax.wearables.splits import natural

_AXES = ("x", "y", "z")
_SENSORS = {"acc": "accelerometer", "gyro": "gyroscope", "mag": "magnetometer"}


class Raw(NamedTuple):
    """What raw files hold.

    Attributes:
      source: channels, activities and jobs.
      rate: steps a second (Hz).
      seconds: usual length of a window.
      subjects: persons, as far as they are known; empty when the files name none.
      windowed: the files hold windows of that length.
      test_subjects: persons whom the literature tests on.
      notes: for the report.
    """

    source: Source
    rate: float
    seconds: float
    subjects: Sequence[str] = ()
    windowed: bool = False
    test_subjects: Sequence[str] = ()
    notes: Sequence[str] = ()


def _channels(*places: tuple[str, str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and texts of the three axes of sensors: (prefix, sensor, words)."""
    names = tuple(f"{prefix}{axis}_{kind}" for prefix, kind, _ in places for axis in _AXES)
    texts = tuple(
        f"{words}{axis}-axis {_SENSORS[kind]}" for _, kind, words in places for axis in _AXES
    )
    return names, texts


def _matching(folder: Path, pattern: str, what: str) -> list[tuple[Path, re.Match[str]]]:
    """Return the files below a folder whose names match, in natural order.

    Raises:
      InputError: when there are none.
    """
    files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
    found = [(file, match) for file in files if (match := re.fullmatch(pattern, file.name))]
    if not found:
        raise InputError(f"{folder} holds no files of {what}, which are named like {pattern!r}.")
    return sorted(found, key=lambda entry: natural(entry[0].name))


def _numbers(path: Path, columns: int | None = None, separator: str = r"\s+") -> np.ndarray:
    """Return a file of numbers as (lines, columns) float64, NaN where it says so.

    Raises:
      InputError: when it is damaged, or has other numbers of columns.
    """
    try:
        table = pd.read_csv(path, sep=separator, header=None, dtype=np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a table of numbers ({error}).") from error
    if columns is not None and table.shape[1] != columns:
        raise InputError(f"{path} has {table.shape[1]} columns, but must have {columns}.")
    return table.to_numpy()


def _even_times(steps: int, rate: float, first: int = 0) -> np.ndarray:
    """Return (steps,) int64 nanoseconds of a recording without a clock, from step `first` on."""
    return np.round((first + np.arange(steps)) * (1e9 / rate)).astype(np.int64)


# ----------------------------------------------------------------------------------------- UCI-HAR


UCI_LABELS = (
    *("Walking", "Walking upstairs", "Walking downstairs"),
    *("Sitting", "Standing", "Laying"),
)
_UCI = {"body_acc": "body ", "body_gyro": "", "total_acc": "total "}


def _open_uci(source: Path, options: argparse.Namespace) -> Raw:
    """Windows of 128 steps, in a training and a test part; persons where subject_*.txt is there."""
    files = {}
    kinds = r"y|subject|(?:body|total)_(?:acc|gyro)_[xyz]"
    pattern = rf"(?:(?:train|test)_)?({kinds})_(train|test)\.txt(?:\.gz)?"
    for file, match in _matching(source, pattern, "UCI-HAR"):
        files[match[2], match[1]] = file
    signals = [f"{name}_{axis}" for name in _UCI for axis in _AXES]
    splits = sorted({split for split, _ in files}, reverse=True)
    for split in splits:
        for name in ("y", *signals):
            if (split, name) not in files:
                raise InputError(f"{source} lacks {name}_{split}.txt.")
    subjects: set[str] = set()
    for split in splits:
        if (split, "subject") in files:
            numbers = _numbers(files[split, "subject"], 1)[:, 0]
            subjects |= {f"{int(number)}" for number in numbers}
    names = tuple(
        f"{name.split('_')[0]}_{axis}_{name.split('_')[1]}" for name in _UCI for axis in _AXES
    )
    texts = tuple(
        f"{words}{axis}-axis {_SENSORS[name.split('_')[1]]}"
        for name, words in _UCI.items()
        for axis in _AXES
    )
    jobs = [
        functools.partial(
            _read_uci,
            {name: files.get((split, name)) for name in ("y", "subject", *signals)},
            split,
        )
        for split in splits
    ]
    found = Source("ucihar", names, texts, UCI_LABELS, jobs)
    return Raw(found, 50.0, 2.56, sorted(subjects, key=natural), windowed=True)


def _read_uci(files: dict[str, Path | None], split: str) -> Iterator[Recording]:
    labels = _numbers(files["y"], 1)[:, 0].astype(int) - 1
    if not ((labels >= 0) & (labels < len(UCI_LABELS))).all():
        raise InputError(f"{files['y']} has a label that is not from 1 to {len(UCI_LABELS)}.")
    subjects = [""] * len(labels)
    if files["subject"]:
        subjects = [f"{int(number)}" for number in _numbers(files["subject"], 1)[:, 0]]
    signals = []
    for name, path in files.items():
        if name not in ("y", "subject"):
            signals.append(_numbers(path, 128).astype(np.float32))
            if len(signals[-1]) != len(labels):
                raise InputError(
                    f"{path} has {len(signals[-1])} windows, but {files['y']} labels {len(labels)}."
                )
    yield from _windows(np.stack(signals, axis=2), labels, subjects, split, 50.0)


def _windows(
    values: np.ndarray, labels: np.ndarray, subjects: Sequence[str], split: str, rate: float
) -> Iterator[Recording]:
    """Yield ready windows (n, steps, channels) as recordings of their own."""
    steps = values.shape[1]
    for number, (window, label, subject) in enumerate(zip(values, labels, subjects, strict=True)):
        times = _even_times(steps, rate, number * steps)
        yield Recording(subject, times, window, np.full(steps, label, np.int16), split)


# ------------------------------------------------------------------------------------------- WISDM

WISDM_LABELS = {
    **{"A": "Walking", "B": "Jogging", "C": "Stairs", "D": "Sitting", "E": "Standing"},
    **{"F": "Typing", "G": "Brushing teeth", "H": "Eating soup", "I": "Eating chips"},
    **{"J": "Eating pasta", "K": "Drinking", "L": "Eating a sandwich", "M": "Kicking a ball"},
    **{"O": "Playing catch", "P": "Dribbling a ball", "Q": "Writing", "R": "Clapping"},
    "S": "Folding clothes",
}
_WISDM_RATE = 20.0
_WISDM_GAP = 0.3  # s: six lost readings are no recording any more


def _open_wisdm(source: Path, options: argparse.Namespace) -> Raw:
    """WISDM-51: a text file for each person and sensor; accelerometer and gyroscope are joined."""
    pattern = rf"data_(\d+)_(accel|gyro)_{options.device}\.txt(?:\.gz)?"
    files: dict[str, dict[str, Path]] = {}
    for file, match in _matching(source, pattern, f"the {options.device} of WISDM"):
        files.setdefault(match[1], {})[match[2]] = file
    notes = []
    for subject, pair in list(files.items()):
        if len(pair) < 2:
            notes.append(f"{subject} has no {'gyro' if 'accel' in pair else 'accel'}: left out.")
            del files[subject]
    if not files:
        raise InputError(f"No person in {source} has both an accelerometer and a gyroscope file.")
    jobs = [functools.partial(_read_wisdm, subject, pair) for subject, pair in files.items()]
    names, texts = _channels(("", "acc", ""), ("", "gyro", ""))
    found = Source("wisdm", names, texts, tuple(WISDM_LABELS.values()), jobs)
    return Raw(found, _WISDM_RATE, 10.0, list(files), notes=notes)


def _read_wisdm(subject: str, pair: dict[str, Path]) -> Iterator[Recording]:
    tables = {}
    for sensor, path in pair.items():
        try:
            table = pd.read_csv(
                path, header=None, names=("subject", "code", "time", *_AXES), dtype=str
            )
            table["z"] = table["z"].str.rstrip("; ")
            numbers = table[list(_AXES)].astype(np.float32)
            times = table["time"].astype(np.int64)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} is damaged or no WISDM file ({error}).") from error
        strange = sorted(set(table["code"]) - set(WISDM_LABELS))
        if strange:
            raise InputError(f"{path} has an activity {strange[0]!r} that WISDM-51 has not.")
        tables[sensor] = (table["code"].to_numpy(), times.to_numpy(), numbers.to_numpy())
    for label, code in enumerate(WISDM_LABELS):
        parts = {}
        for sensor, (codes, times, numbers) in tables.items():
            rows = np.flatnonzero(codes == code)
            rows = rows[np.unique(times[rows], return_index=True)[1]]
            parts[sensor] = (times[rows], numbers[rows])
        if min(len(times) for times, _ in parts.values()) < 2:
            continue
        # Where the accelerometer pauses, another stretch of the activity begins.
        times = parts["accel"][0]
        for span in runs(np.diff(times) > _WISDM_GAP * 1e9, len(times)):
            first = max(times[span.start], parts["gyro"][0][0])
            last = min(times[span.stop - 1], parts["gyro"][0][-1])
            steps = int((last - first) * _WISDM_RATE // 10**9) + 1
            if steps < 2:
                continue
            grid = first + _even_times(steps, _WISDM_RATE)
            values = [on_grid(*parts[sensor], grid, _WISDM_GAP) for sensor in ("accel", "gyro")]
            labels = np.full(steps, label, np.int16)
            yield Recording(subject, grid, np.concatenate(values, axis=1), labels)


# ---------------------------------------------------------------------------------- PAMAP2, MHEALTH

PAMAP2_LABELS = {
    **{1: "lying", 2: "sitting", 3: "standing", 4: "walking", 5: "running", 6: "cycling"},
    **{7: "Nordic walking", 12: "ascending stairs", 13: "descending stairs"},
    **{16: "vacuum cleaning", 17: "ironing", 24: "rope jumping"},
}
MHEALTH_LABELS = dict(
    enumerate(
        (
            *("Standing still", "Sitting and relaxing", "Lying down", "Walking"),
            *("Climbing stairs", "Waist bends forward", "Frontal elevation of arms"),
            *("Knees bending (crouching)", "Cycling", "Jogging", "Running", "Jump front & back"),
        ),
        start=1,
    )
)
# Of each inertial unit of PAMAP2: accelerometer (±16 g), gyroscope, magnetometer.
_PAMAP2_COLUMNS = [3 + unit * 17 + place for unit in range(3) for place in (1, 2, 3, *range(7, 13))]
_MHEALTH_COLUMNS = [*range(0, 3), *range(5, 11), *range(14, 20)]


def _open_pamap2(source: Path, options: argparse.Namespace) -> Raw:
    """PAMAP2: subject101.dat … with 54 columns at 100 Hz; lost readings are NaN."""
    places = (("hand", "hand "), ("chest", "chest "), ("ankle", "ankle "))
    names, texts = _channels(
        *((f"{name}_", kind, words) for name, words in places for kind in _SENSORS)
    )
    return _open_tables(
        source,
        "pamap2",
        r"subject(\d+)\.dat(?:\.gz)?",
        names,
        texts,
        PAMAP2_LABELS,
        54,
        1,
        _PAMAP2_COLUMNS,
        0,
        100.0,
        ("105", "106"),
    )


def _open_mhealth(source: Path, options: argparse.Namespace) -> Raw:
    """MHEALTH: mHealth_subject1.log … with 24 columns at 50 Hz."""
    names, texts = _channels(
        ("chest_", "acc", "chest "),
        *(("ankle_", kind, "left-ankle ") for kind in ("acc", "gyro")),
        *(("arm_", kind, "right-lower-arm ") for kind in ("acc", "gyro")),
    )
    return _open_tables(
        source,
        "mhealth",
        r"mHealth_subject(\d+)\w*\.log(?:\.gz)?",
        names,
        texts,
        MHEALTH_LABELS,
        24,
        23,
        _MHEALTH_COLUMNS,
        None,
        50.0,
        ("1", "3", "6"),
    )


def _open_tables(
    source: Path,
    dataset: str,
    pattern: str,
    names: tuple[str, ...],
    texts: tuple[str, ...],
    labels: dict[int, str],
    columns: int,
    label_column: int,
    value_columns: list[int],
    time_column: int | None,
    rate: float,
    test_subjects: Sequence[str],
) -> Raw:
    files: dict[str, list[Path]] = {}
    for file, match in _matching(source, pattern, dataset):
        files.setdefault(match[1], []).append(file)
    jobs = [
        functools.partial(
            _read_table,
            path,
            subject,
            list(labels),
            columns,
            label_column,
            value_columns,
            time_column,
            rate,
        )
        for subject, paths in files.items()
        for path in paths
    ]
    found = Source(dataset, names, texts, tuple(labels.values()), jobs)
    return Raw(found, rate, 2.0, list(files), test_subjects=test_subjects)


def _read_table(
    path: Path,
    subject: str,
    codes: list[int],
    columns: int,
    label_column: int,
    value_columns: list[int],
    time_column: int | None,
    rate: float,
) -> Iterator[Recording]:
    """Yield one table of numbers; codes that are no activity count as unlabelled."""
    table = _numbers(path, columns)
    ids = {code: number for number, code in enumerate(codes)}
    labels = np.array([ids.get(int(code), UNLABELLED) for code in table[:, label_column]], np.int16)
    times = _even_times(len(table), rate)
    if time_column is not None:
        times = np.round(table[:, time_column] * 1e9).astype(np.int64)
    yield Recording(subject, times, table[:, value_columns].astype(np.float32), labels)


# ----------------------------------------------------------------------------------------- USC-HAD

USC_LABELS = (
    *("Walking Forward", "Walking Left", "Walking Right", "Walking Upstairs"),
    *("Walking Downstairs", "Running Forward", "Jumping", "Sitting", "Standing", "Sleeping"),
    *("Elevator Up", "Elevator Down"),
)


def _open_usc(source: Path, options: argparse.Namespace) -> Raw:
    """USC-HAD: Subject1/a1t1.mat …, one trial each, 100 Hz."""
    files: dict[str, list[tuple[Path, int]]] = {}
    for file, match in _matching(source, r"a(\d+)t(\d+)\.mat", "USC-HAD"):
        subject = re.fullmatch(r"Subject(\d+)", file.parent.name)
        if not subject:
            raise InputError(f"{file} must lie in a folder Subject1, Subject2 and so on.")
        if not 1 <= int(match[1]) <= len(USC_LABELS):
            raise InputError(f"{file} is of activity {match[1]}; USC-HAD has 1 to 12.")
        files.setdefault(subject[1], []).append((file, int(match[1]) - 1))
    names, texts = _channels(("", "acc", ""), ("", "gyro", ""))
    order = sorted(files, key=natural)
    jobs = [functools.partial(_read_usc, subject, files[subject]) for subject in order]
    found = Source("usc_had", names, texts, USC_LABELS, jobs)
    return Raw(found, 100.0, 2.0, order, test_subjects=("13", "14"))


def _read_usc(subject: str, trials: list[tuple[Path, int]]) -> Iterator[Recording]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InputError(
            "USC-HAD is in .mat files, which scipy reads: pip install tsmjax[data]."
        ) from error
    for path, label in trials:
        try:
            values = np.asarray(loadmat(path)["sensor_readings"], np.float32)
        except Exception as error:  # scipy has errors of its own for damaged files
            raise InputError(f"{path} is damaged or no trial of USC-HAD ({error}).") from error
        if values.ndim != 2 or values.shape[1] != 6:
            raise InputError(
                f"{path} has readings of shape {values.shape}, but must have 6 columns."
            )
        times = _even_times(len(values), 100.0)
        yield Recording(subject, times, values, np.full(len(values), label, np.int16))


# --------------------------------------------------------------------------------- .ts files of UEA


class _Cases(NamedTuple):
    """A .ts file: header, cases (n, dimensions, steps), and the label of each."""

    name: str
    labels: list[str]
    values: np.ndarray
    classes: list[str]


def _open_ts(source: Path, options: argparse.Namespace) -> Raw:
    """NAME_TRAIN.ts and NAME_TEST.ts of the UEA archive: cases of one length with class labels."""
    files = _matching(source, r"(.+)_(TRAIN|TEST)\.ts(?:\.gz)?", "the UEA archive")
    parts = {match[2]: read_ts(file) for file, match in files}
    if len(parts) < len(files):
        raise InputError(f"{source} holds several data sets: name a folder with one of them.")
    shapes = {case.values.shape[1:] for case in parts.values()}
    if len(shapes) > 1:
        raise InputError(f"The training and test cases of {source} differ in channels or length.")
    first = next(iter(parts.values()))
    motions = first.name == "BasicMotions"
    rate = options.rate or (10.0 if motions else None)
    if rate is None:
        raise InputError(f"{source} does not tell how many steps a second it has: say --rate.")
    channels, steps = first.values.shape[1:]
    if motions:
        names, texts = _channels(("", "acc", ""), ("", "gyro", ""))
    else:
        names = tuple(f"dim_{number + 1}" for number in range(channels))
        texts = tuple(f"channel {number + 1}" for number in range(channels))
    jobs = []
    for part in ("TRAIN", "TEST"):
        if part in parts:
            labels = np.array([first.classes.index(name) for name in parts[part].labels])
            values = parts[part].values.transpose(0, 2, 1)
            subjects = [""] * len(labels)
            jobs.append(functools.partial(_windows, values, labels, subjects, part.lower(), rate))
    found = Source(first.name, names, texts, tuple(first.classes), jobs)
    return Raw(found, rate, steps / rate, windowed=True)


def read_ts(path: Path) -> _Cases:
    """Read a .ts file whose cases have one length.

    Raises:
      InputError: when it is damaged, has no class labels, or cases of several lengths.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    header: dict[str, str] = {}
    cases, labels = [], []
    try:
        with opener(path, "rt") as lines:
            for line in map(str.strip, lines):
                if line.startswith("@"):
                    name, _, value = line[1:].partition(" ")
                    header[name.lower()] = value.strip()
                elif line and not line.startswith("#"):
                    *dimensions, label = line.split(":")
                    cases.append([np.array(d.split(","), np.float32) for d in dimensions])
                    labels.append(label.strip())
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is damaged or no .ts file ({error}).") from error
    answer, *classes = header.get("classlabel", "false").split()
    if answer.lower() != "true" or not cases:
        raise InputError(f"{path} has no cases with class labels.")
    if header.get("timestamps", "false").lower() == "true":
        raise InputError(f"{path} has times in its cases, which is not supported.")
    if (
        len({len(series) for case in cases for series in case}) > 1
        or len({len(c) for c in cases}) > 1
    ):
        raise InputError(
            f"The cases of {path} differ in length or channels; windows must have one shape."
        )
    strange = sorted(set(labels) - set(classes))
    if strange:
        raise InputError(
            f"{path} has a case of class {strange[0]!r}{closest(strange[0], classes)}, which "
            f"@classLabel does not name: {', '.join(classes)}."
        )
    return _Cases(header.get("problemname", path.name), labels, np.array(cases), classes)


# --------------------------------------------------------------------------------------------- CSV


def _open_csv(source: Path, options: argparse.Namespace) -> Raw:
    """Tables with a time, a label, perhaps a person, and channels; persons else by file name."""
    files = [file for file, _ in _matching(source, r".+\.csv(?:\.gz)?", "CSV")]
    tables = [(file, _read_frame(file, options)) for file in files]
    special = (options.time_column, options.label_column, options.subject_column)
    first = tables[0][1]
    columns = [
        name
        for name in first.columns
        if name not in special and pd.api.types.is_numeric_dtype(first[name])
    ]
    if not columns:
        raise InputError(f"{files[0]} has no column of numbers beside {', '.join(special)}.")
    texts = sorted({label for _, table in tables for label in table[options.label_column].dropna()})
    if not texts:
        raise InputError(f"No row of {source} has a label in column {options.label_column!r}.")
    times = first[options.time_column].to_numpy()
    rate = options.rate or streams.usual_rate(times, str(files[0]))
    jobs, subjects = [], []
    for file, table in tables:
        lacking = [name for name in columns if name not in table]
        if lacking:
            raise InputError(f"{file} lacks the column {lacking[0]!r} that {files[0]} has.")
        ids = {name: number for number, name in enumerate(texts)}
        found = table[options.label_column].map(ids).fillna(UNLABELLED).to_numpy(np.int16)
        persons = np.full(len(table), "" if len(files) == 1 else file.name.split(".")[0], object)
        if options.subject_column in table:
            persons = table[options.subject_column].astype(str).to_numpy()
        for person in dict.fromkeys(persons):
            rows = persons == person
            parts = (
                table[options.time_column].to_numpy()[rows],
                table[columns].to_numpy(np.float32)[rows],
                found[rows],
            )
            jobs.append(functools.partial(_recorded, person, *parts))
            subjects.append(person)
    markers = tuple(map(streams.marker, columns))
    if len(set(markers)) < len(markers):
        raise InputError(f"Two channels of {files[0]} differ in nothing but signs: rename them.")
    texts_of = tuple(name.replace("_", " ") for name in columns)
    known = sorted(set(subjects) - {""}, key=natural)
    return Raw(Source("csv", markers, texts_of, tuple(texts), jobs), rate, 5.0, known)


def _recorded(
    subject: str, times: np.ndarray, values: np.ndarray, labels: np.ndarray
) -> Iterator[Recording]:
    yield Recording(subject, times, values, labels)


def _read_frame(path: Path, options: argparse.Namespace) -> pd.DataFrame:
    """Return a table with times in int64 nanoseconds and labels as texts, missing ones None."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}).") from error
    for name in (options.time_column, options.label_column):
        if name not in table:
            raise InputError(
                f"{path} has no column {name!r}{closest(name, table.columns)}; it has "
                f"{', '.join(map(str, table.columns[:20]))}."
            )
    if not len(table):
        raise InputError(f"{path} has no rows.")
    table[options.time_column] = streams.nanoseconds(table[options.time_column], str(path))
    labels = table[options.label_column]
    table[options.label_column] = labels.map(lambda label: str(label).strip(), na_action="ignore")
    return table


FORMATS: dict[str, Callable[[Path, argparse.Namespace], Raw]] = {
    "ucihar": _open_uci,
    "wisdm": _open_wisdm,
    "pamap2": _open_pamap2,
    "mhealth": _open_mhealth,
    "usc_had": _open_usc,
    "ts": _open_ts,
    "csv": _open_csv,
}
