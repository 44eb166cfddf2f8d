r"""Stage-2 files of SensorLLM: pickles of windows and labels, with questions and texts in JSON.

A folder with NAME_train_data_stage2_TAG.pkl (a list of arrays, steps × channels), the labels of the
same name, and NAME_train_qa_stage2_cls.json, the same for test, in folders or not. Texts are joined
to windows by their index; windows without texts are left out. Pickles that ask for more than arrays
are refused. Without a validation part some persons of the training part validate.

For example:
  python -m tsmjax.prepare sensorllm --src stage_2_compare/300seconds_99DS --dst data/capture24
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tsmjax.data.arrow import SENSOR
from tsmjax.data.sensor import SPLITS, TEXTS, SensorFacts
from tsmjax.errors import InputError
from tsmjax.prepare import capture24
from tsmjax.prepare.sensor_sets import SensorReport
from tsmjax.wearables import splits
from tsmjax.wearables.pickles import load
from tsmjax.wearables.windows import MAX_WINDOW

_NAMES = re.compile(
    r"(?P<dataset>.+?)_(?P<split>train|val|valid|validation|eval|test)_"
    r"(?:(?P<kind>data|labels)_stage2_.+\.pkl|(?P<qa>qa)_stage2_cls\.json)"
)
_SPLITS = {"train": "train", "test": "test"}  # every other name means validation
# Upstream's order of the ten activities, beside that of `capture24.SCHEMES`.
_UPSTREAM = (
    *("sleep", "sitting", "household-chores", "walking", "vehicle", "bicycling"),
    *("mixed-activity", "standing", "manual-work", "sports"),
)


class _Window(NamedTuple):
    """One window: values (channels, steps), facts and texts."""

    values: np.ndarray
    subject: str
    label: int
    split: str
    texts: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--rate", type=float, help="steps a second, where settings.json does not tell")
    add("--channels", nargs="+", help="names of the channels (default: x_acc y_acc z_acc)")
    add(
        "--validation-share",
        type=float,
        default=0.15,
        help="share of the training persons that validate, without such a part "
        "(default: %(default)s)",
    )
    add("--split-seed", type=int, default=42, help="of their choice (default: %(default)s)")


def prepare(
    source: Path, options: argparse.Namespace
) -> tuple[Iterator[dict[str, Any]], SensorReport]:
    """Return the rows of the data set and the report.

    Raises:
      InputError: when files are missing, unsafe, or do not fit each other.
    """
    files = _files(source)
    report = SensorReport(source=str(source), layout="SensorLLM stage 2")
    windows, names = [], {}
    for (split, kind), path in sorted(files.items()):
        if kind == "data":
            windows += _read_split(split, path, files, names, report)
    labels = _labels(names, source)
    windows = _validated(windows, options, report)
    if not any(window.split == "train" for window in windows):
        raise InputError(f"{source} has no window to train on.")
    shapes = {window.values.shape for window in windows}
    if len(shapes) > 1:
        raise InputError(f"The windows of {source} differ in shape: {sorted(shapes)}.")
    channels, steps = shapes.pop()
    if not 2 <= steps <= MAX_WINDOW:
        raise InputError(
            f"The windows of {source} have {steps} steps, but the time-series encoder reads 2 to "
            f"{MAX_WINDOW}."
        )
    named = tuple(options.channels or capture24.CHANNELS)
    if len(named) != channels:
        raise InputError(
            f"The windows of {source} have {channels} channels: say --channels with their names."
        )
    rate = options.rate or _rate(source)
    known = dict(zip(capture24.CHANNELS, capture24.CHANNEL_TEXTS, strict=True))
    counts = {split: [0] * len(labels) for split in SPLITS}
    subjects: dict[str, set[str]] = {split: set() for split in SPLITS}
    for window in windows:
        counts[window.split][window.label] += 1
        subjects[window.split].add(window.subject)
    stacked = np.stack([w.values for w in windows if w.split == "train"]).astype(np.float64)
    facts = SensorFacts(
        dataset=next(iter(files.values())).name.split("_")[0],
        stage=2,
        rate=rate,
        window=steps,
        channels=named,
        channel_texts=tuple(known.get(name, name.replace("_", " ")) for name in named),
        labels=labels,
        subjects={
            split: sorted(found - {""}, key=splits.natural) for split, found in subjects.items()
        },
        counts=counts,
        mean=tuple(stacked.mean(axis=(0, 2)).tolist()),
        std=tuple(stacked.std(axis=(0, 2)).tolist()),
        settings={"source": str(source)},
    )
    report.facts = dataclasses.asdict(facts)
    report.before = {
        name: sum(counts[split][i] for split in SPLITS) for i, name in enumerate(labels)
    }
    return _rows(windows, facts, report), report


def _rows(windows: list[_Window], facts: SensorFacts, report: SensorReport) -> Iterator[dict]:
    seen: dict[str, int] = {}
    for window in sorted(windows, key=lambda window: SPLITS.index(window.split)):
        number = seen[window.subject] = seen.get(window.subject, -1) + 1
        yield {
            "item_id": f"{window.subject}/{number}".removeprefix("/"),
            "target": np.ascontiguousarray(window.values, np.float32),
            "label": facts.labels[window.label],
            "label_id": np.int32(window.label),
            "subject": window.subject,
            "start": np.datetime64(round(number * facts.window * 1e9 / facts.rate), "ns"),
            "rate": float(facts.rate),
            "split": window.split,
            "label_fraction": 1.0,
            **window.texts,
            SENSOR: report.facts,
        }


def _files(source: Path) -> dict[tuple[str, str], Path]:
    """Return (split, data | labels | qa) → file."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(source.rglob("*")):
        if match := _NAMES.fullmatch(path.name):
            key = _SPLITS.get(match["split"], "validation"), match["kind"] or match["qa"]
            if key in found:
                raise InputError(
                    f"{source} has {found[key].name} and {path.name}: name one folder."
                )
            found[key] = path
    if not any(kind == "data" for _, kind in found):
        raise InputError(f"{source} holds no files NAME_train_data_stage2_TAG.pkl.")
    for split in {split for split, _ in found}:
        for kind in ("data", "labels", "qa"):
            if (split, kind) not in found:
                raise InputError(f"{source} lacks the {kind} file of the {split} part.")
    return found


def _read_split(
    split: str,
    path: Path,
    files: dict[tuple[str, str], Path],
    names: dict[int, str],
    report: SensorReport,
) -> Iterator[_Window]:
    """Yield the windows of one part that have texts; `names` gathers activity ids and names."""
    data, labels = load(path), load(files[split, "labels"])
    if not isinstance(data, (list, np.ndarray)) or not isinstance(labels, list):
        raise InputError(f"{path} and {files[split, 'labels'].name} must hold lists.")
    if len(data) != len(labels):
        raise InputError(
            f"{path} holds {len(data)} windows, but {files[split, 'labels']} {len(labels)} labels."
        )
    questions = _questions(files[split, "qa"], len(data))
    missing = broken = 0
    for index, (values, label) in enumerate(zip(data, labels, strict=True)):
        try:
            subject, activity, name = (
                str(label.get("subject", "")),
                int(label["activity"]),
                str(label["activity_name"]),
            )
            values = np.asarray(values, np.float32)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"Window {index} of {path} has no numbers, or its label no subject, activity and "
                f"activity_name ({error})."
            ) from error
        if names.setdefault(activity, name) != name:
            raise InputError(
                f"Activity {activity} is {names[activity]!r} and {name!r} in the labels of {path}."
            )
        if values.ndim != 2:
            raise InputError(f"Window {index} of {path} is of shape {values.shape}, not 2-D.")
        texts = questions.get(index)
        if texts is None:
            missing += 1
        elif not np.isfinite(values).all():
            broken += 1
        elif texts["A"] != name:
            raise InputError(
                f"Window {index} of {path} is {name!r}, but its answer is {texts['A']!r}."
            )
        else:
            yield _Window(values.T, subject, activity, split, texts)
    for number, why in ((missing, "without texts"), (broken, "with missing values")):
        if number:
            report.dropped.append((f"{number:,} windows of {split}", why))


def _questions(path: Path, windows: int) -> dict[int, dict[str, str]]:
    """Return index → texts."""
    try:
        entries = json.loads(path.read_text())["dataset"]
        pairs = [(int(entry["index"]), entry["qa_pair"]) for entry in entries]
        found = {
            index: {name: str(pair.get(name) or "") for name in TEXTS} for index, pair in pairs
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no questions of SensorLLM ({error!r}).") from error
    if len(found) < len(pairs):
        raise InputError(f"{path} has an index that occurs twice.")
    if found and not 0 <= min(found) <= max(found) < windows:
        raise InputError(f"{path} has an index that is not from 0 to {windows - 1}.")
    return found


def _labels(names: dict[int, str], source: Path) -> tuple[str, ...]:
    """Return all activities by id; absent ones are known from the orders that are in use."""
    for order in (capture24.SCHEMES["WillettsSpecific2018"], _UPSTREAM):
        if all(0 <= i < len(order) and order[i] == name for i, name in names.items()):
            return order
    if sorted(names) != list(range(len(names))):
        raise InputError(
            f"The labels of {source} have the ids {sorted(names)}, but must count from 0 on."
        )
    return tuple(names[i] for i in range(len(names)))


def _validated(
    windows: list[_Window], options: argparse.Namespace, report: SensorReport
) -> list[_Window]:
    """Check that nobody is in two parts, and let some training persons validate."""
    split_of: dict[str, str] = {}
    for window in windows:
        if window.subject and split_of.setdefault(window.subject, window.split) != window.split:
            raise InputError(
                f"Person {window.subject!r} is in {split_of[window.subject]} and in "
                f"{window.split}: who is tested on must not be trained on."
            )
    if "validation" in split_of.values():
        return windows
    train = [subject for subject, split in split_of.items() if split == "train"]
    order = splits.draw(train, None, options.split_seed) if train else []
    moved = splits.by_share(order, 100, options.validation_share) if order else {}
    if "validation" not in moved.values():
        report.notes.append(
            "There is no validation split: it takes two persons to train on. Nothing but the test "
            "split is left to choose a checkpoint by, whose score is then too good."
        )
    return [window._replace(split=moved.get(window.subject, window.split)) for window in windows]


def _rate(source: Path) -> float:
    """Return the steps a second that settings.json tells."""
    for path in (*source.rglob("settings.json"), source.parent / "settings.json"):
        try:
            settings = json.loads(path.read_text())
            return float(settings["original_sampling_rate"]) / float(settings["downsample_factor"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise InputError(f"{source} has no settings.json that tells the rate: say --rate.")
