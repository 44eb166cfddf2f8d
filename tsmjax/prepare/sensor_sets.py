"""From recordings to a sensor data set: windows, splits by person, caps, texts; shared by kinds.

`sensor_reading` cuts the windows; here it is decided which of them stay, for what, and with which
texts.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tsmjax.data.arrow import SENSOR
from tsmjax.data.counter import permute
from tsmjax.data.sensor import SPLITS, SensorFacts
from tsmjax.errors import InputError
from tsmjax.prepare.report import Report
from tsmjax.prepare.sensor_reading import Read, Source, Windows, read
from tsmjax.wearables import alignment, splits, texts
from tsmjax.wearables.recordings import ANTIALIAS
from tsmjax.wearables.windows import MAX_WINDOW, Cutting, capped


@dataclasses.dataclass
class SensorReport(Report):
    """Facts about the preparation of a sensor data set.

    `items` holds a dict for each person: subject, split, windows, and steps read and unlabelled.

    Attributes:
      facts: what stands in the schema.
      before: activity → windows before the cap.
    """

    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    before: dict[str, int] = dataclasses.field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return totals as JSON values."""
        return {
            "windows": {split: sum(n) for split, n in self.facts["counts"].items()},
            "subjects": {split: len(names) for split, names in self.facts["subjects"].items()},
            "window": self.facts["window"],
            "rate": self.facts["rate"],
            "dropped": len(self.dropped),
        }

    def show(self, console: Console, folder: Path) -> None:
        """Print the report."""
        facts, total = self.facts, self.summary()
        unit = "windows" if facts["stage"] == 2 else "questions"
        table = Table(title=f"{self.source} → {folder}", title_justify="left")
        table.add_column(unit)
        for name in ("before", *SPLITS):
            table.add_column(name, justify="right")
        for label, name in enumerate(facts["labels"]):
            kept = [f"{facts['counts'][split][label]:,}" for split in SPLITS]
            table.add_row(name, f"{self.before.get(name, 0):,}", *kept)
        ends = [f"{total['windows'][split]:,}" for split in SPLITS]
        table.add_section()
        table.add_row("all", f"{sum(self.before.values()):,}", *ends)
        people = [f"{total['subjects'].get(split, 0):,}" for split in SPLITS]
        table.add_row("persons", f"{sum(map(len, facts['subjects'].values())):,}", *people)
        console.print(table)
        console.print(
            f"layout {self.layout}; {len(facts['channels'])} channels of "
            f"{'up to ' if facts['stage'] == 1 else ''}{facts['window']} steps at "
            f"{facts['rate']:.4g} Hz",
            markup=False,
        )
        self.tell(console, folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that all kinds of recordings share; None leaves it to the kind."""
    add = parser.add_argument
    add("--window-size-seconds", type=float, help="length of a window")
    add("--downsample-factor", type=int, help="raw steps that become one")
    add(
        "--antialias",
        choices=ANTIALIAS,
        default="none",
        help="how: pick one (none), average them, or filter first (default: %(default)s)",
    )
    add(
        "--order",
        choices=("decimate_first", "window_first"),
        default="decimate_first",
        help="lower the rate of the recording, or of each window (default: %(default)s)",
    )
    add("--overlap", type=float, help="share of a window that the next repeats")
    add(
        "--min-label-fraction",
        type=float,
        help="least share of the steps of a window with its label (0.5)",
    )
    add(
        "--max-missing",
        type=float,
        default=0.25,
        help="seconds of missing values that a line replaces (default: %(default)s)",
    )
    add(
        "--balance-ratio",
        type=float,
        help="most windows of a class, as a share of the largest class; 1 for all",
    )
    add(
        "--cap",
        choices=("train", "all"),
        default="train",
        help="which splits --balance-ratio caps (default: %(default)s)",
    )
    add(
        "--selection",
        choices=("random", "first"),
        default="random",
        help="which windows a cap keeps (default: %(default)s)",
    )
    add("--num-participants", type=int, help="so many persons only, drawn by --split-seed")
    add(
        "--train-test-split",
        type=float,
        help="per cent of the persons for training and validation, where none are named",
    )
    add("--train", nargs="+", metavar="SUBJECT", help="persons to train on; all that are not named")
    add("--validation", nargs="+", metavar="SUBJECT", help="persons to validate on")
    add("--test", nargs="+", metavar="SUBJECT", help="persons to test on")
    add(
        "--validation-share",
        type=float,
        default=0.15,
        help="share of the training persons that validate, where none are named "
        "(default: %(default)s)",
    )
    add("--split-seed", type=int, default=42, help="of the order of persons (default: %(default)s)")
    add("--stage", type=int, choices=(1, 2), default=2, help="1: questions about one channel")
    add(
        "--lengths",
        type=int,
        nargs=2,
        default=(5, 200),
        metavar=("LEAST", "MOST"),
        help="stage 1: steps of a piece (default: 5 200)",
    )
    add("--cuttings", type=int, default=2, help="stage 1: cuttings of a training recording (2)")
    add(
        "--qa",
        nargs="+",
        choices=alignment.QA_TYPES,
        default=["trend"],
        help="stage 1: types of question asked about each piece (default: trend)",
    )
    add("--max-rows", type=int, default=20_000, help="stage 1: most rows of a split (20000)")
    add("--seed", type=int, default=0, help="of the wording and of random choices")
    add("--workers", type=int, help="processes that read (one a core)")


def prepare(
    source: Source,
    cutting: Cutting,
    options: argparse.Namespace,
    report: SensorReport,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the data set; the report is complete after the last one.

    Raises:
      InputError: when the options contradict each other, or no window is left.
    """
    _check(options)
    with tempfile.TemporaryDirectory(prefix="tsmjax-") as folder:
        found = read(source, cutting, options, Path(folder))
        table = Windows(found)
        _take_down(found, source, report)
        if not len(table.labels):
            why = Counter()
            for part in found:
                for (_, reason), number in part.dropped.items():
                    why[reason] += number
            told = ", ".join(f"{n:,} {reason}" for reason, n in why.items()) or "no recordings"
            raise InputError(f"No window of {report.source} is usable: {told}.")
        split_of = _split(table, found, options, report)
        before = np.bincount(table.labels, minlength=len(source.labels))
        report.before = dict(zip(source.labels, before.tolist(), strict=True))
        chosen = _chosen(table, split_of, options)
        rows = _questions(table, chosen, split_of, source, options)
        facts = _facts(table, rows, split_of, source, cutting, options)
        report.facts = dataclasses.asdict(facts)
        for split in SPLITS[1:]:
            pairs = zip(facts.labels, facts.counts[split], facts.counts["train"], strict=True)
            if unseen := [name for name, there, trained in pairs if there and not trained]:
                report.notes.append(f"In {split} but never trained on: {', '.join(unseen)}.")
        _people(table, chosen, split_of, found, report)
        numbers = table.numbers()
        for index, channel, qa_type in rows:
            values = table.values(index)
            name = f"{table.subjects[index]}/{numbers[index]}".removeprefix("/")
            label = int(table.labels[index])
            row = {
                "item_id": name,
                "target": values,
                "label": source.labels[label],
                "label_id": np.int32(label),
                "subject": table.subjects[index],
                "start": np.datetime64(int(table.times[index]), "ns"),
                "rate": float(cutting.low_rate),
                "split": split_of[index],
                SENSOR: report.facts,
            }
            if options.stage == 2:
                row["label_fraction"] = float(table.fractions[index])
                row |= texts.stage2(
                    values, source.channel_texts, cutting.low_rate, options.seed, name
                )
                row |= {"A": row["label"], "info_text": table.infos[index]}
            else:
                row["item_id"] = f"{name}/{source.channels[channel]}/{qa_type}"
                row["target"] = values[channel : channel + 1]
                row |= {"channel": source.channels[channel], "channel_id": np.int32(channel)}
                row["qa_type"] = qa_type
                text = source.channel_texts[channel]
                rate, seed = cutting.low_rate, options.seed
                row |= alignment.ask(values[channel], text, rate, qa_type, seed, row["item_id"])
            yield row


def _check(options: argparse.Namespace) -> None:
    least, most = options.lengths
    if not 2 <= least <= most <= MAX_WINDOW:
        raise InputError(
            f"--lengths is {least} {most}, but must be two numbers of steps in order, from 2 to "
            f"{MAX_WINDOW}, which is what the time-series encoder reads."
        )
    for name in ("cuttings", "max_rows"):
        if getattr(options, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is {getattr(options, name)}, but must be at least 1.")
    if not 0 < options.balance_ratio <= 1:
        raise InputError(
            f"The balance ratio is {options.balance_ratio:g}, but must be a share of the largest "
            "class, above 0 and at most 1."
        )


# -------------------------------------------------------------------------- splits, caps and texts


def _split(
    table: Windows, found: Sequence[Read], options: argparse.Namespace, report: SensorReport
) -> list[str]:
    """Return the split of each window."""
    if not any(table.subjects):
        return _split_without_subjects(table, options, report)
    subjects = sorted({name for part in found for name in part.steps}, key=splits.natural)
    given: dict[str, set[str]] = {}
    for subject, name in zip(table.subjects, table.given, strict=True):
        given.setdefault(subject, set()).add(name)
    both = [subject for subject, names in given.items() if len(names) > 1]
    if both:
        raise InputError(
            f"The raw files put person {both[0]} into {' and '.join(sorted(given[both[0]]))}: a "
            "person who is tested on must not be trained on."
        )
    parts = {split: getattr(options, split) or [] for split in SPLITS}
    share, seed = options.validation_share, options.split_seed
    if any(parts.values()):
        of = splits.by_name(subjects, parts)
    elif held := [subject for subject in subjects if given.get(subject) == {"test"}]:
        of = dict.fromkeys(subjects, "train") | dict.fromkeys(held, "test")
    else:
        of = splits.by_share(splits.draw(subjects, None, seed), options.train_test_split, 0)
    if not parts["validation"]:
        rest = [subject for subject in subjects if of[subject] == "train"]
        of |= splits.by_share(splits.draw(rest, None, seed), 100, share) if rest else {}
    if "validation" not in of.values():
        report.notes.insert(
            0,
            "There is no validation split: it takes two persons to train on. Nothing but the test "
            "split is left to choose a checkpoint by, whose score is then too good.",
        )
    return [of[subject] for subject in table.subjects]


def _split_without_subjects(
    table: Windows, options: argparse.Namespace, report: SensorReport
) -> list[str]:
    """Split as the raw files do; the last training windows of each activity validate.

    Windows that follow each other may overlap or come from one person: the last ones are further
    away than random ones.
    """
    if options.train or options.validation or options.test:
        raise InputError("The raw files name no persons: --train, --validation, --test need them.")
    of = [name or "train" for name in table.given]
    held = 0
    for label in np.unique(table.labels):
        rows = [i for i in np.flatnonzero(table.labels == label).tolist() if of[i] == "train"]
        if "test" not in table.given:
            first = max(1, int(len(rows) * options.train_test_split / 100))
            for index in rows[first:]:
                of[index] = "test"
            rows = rows[:first]
        last = min(len(rows) - 1, round(len(rows) * options.validation_share))
        for index in rows[len(rows) - last :]:
            of[index] = "validation"
        held += last
    report.notes.insert(
        0,
        "The raw files name no persons: nothing keeps one person out of two splits. The last "
        f"training windows of each activity validate, {held:,} in all.",
    )
    return of


def _chosen(table: Windows, split_of: Sequence[str], options: argparse.Namespace) -> np.ndarray:
    """Return the windows that are kept, in the order of the splits."""
    names = np.asarray(split_of)
    _, groups = np.unique(np.asarray(table.subjects), return_inverse=True)
    if options.stage == 1:  # further cuttings are for training alone
        names = np.where((table.fractions > 0) & (names != "train"), "", names)
    counts = np.bincount(table.labels) if options.cap == "all" else None
    kept = []
    for split in SPLITS:
        rows = np.flatnonzero(names == split)
        if len(rows) and options.balance_ratio < 1 and (split == "train" or options.cap == "all"):
            rows = rows[
                capped(
                    table.labels[rows],
                    groups[rows],
                    options.balance_ratio,
                    options.selection,
                    options.seed,
                    counts,
                    refill=not getattr(options, "compat", False),
                )
            ]
        kept.append(rows)
    return np.concatenate(kept)


def _questions(
    table: Windows,
    chosen: np.ndarray,
    split_of: Sequence[str],
    source: Source,
    options: argparse.Namespace,
) -> list[tuple[int, int, str]]:
    """Return what the rows are: (window, channel, type of question), at random up to a number."""
    if options.stage == 2:
        return [(index, 0, "") for index in chosen.tolist()]
    kinds = [(c, qa) for c in range(len(source.channels)) for qa in options.qa]
    rows = []
    for order, split in enumerate(SPLITS):
        windows = [index for index in chosen.tolist() if split_of[index] == split]
        size = len(windows) * len(kinds)
        kept = min(size, options.max_rows)
        places = np.arange(size)
        if kept < size:
            places = np.sort(permute(np.arange(kept), size, options.seed, order))
        for place in places.tolist():
            rows.append((windows[place // len(kinds)], *kinds[place % len(kinds)]))  # noqa: PERF401
    return rows


def _facts(
    table: Windows,
    rows: Sequence[tuple[int, int, str]],
    split_of: Sequence[str],
    source: Source,
    cutting: Cutting,
    options: argparse.Namespace,
) -> SensorFacts:
    counts = {split: [0] * len(source.labels) for split in SPLITS}
    subjects: dict[str, set[str]] = {split: set() for split in SPLITS}
    for index, *_ in rows:
        counts[split_of[index]][table.labels[index]] += 1
        subjects[split_of[index]].add(table.subjects[index])
    if not sum(counts["train"]):
        raise InputError(
            "There is no window to train on: put more persons into the training split."
        )
    channels = len(source.channels)
    sums, squares, steps = np.zeros(channels), np.zeros(channels), 0
    for index in dict.fromkeys(index for index, *_ in rows if split_of[index] == "train"):
        values = table.values(index).astype(np.float64)
        sums, squares = sums + values.sum(1), squares + (values**2).sum(1)
        steps += values.shape[1]
    mean = sums / steps
    std = np.sqrt(np.maximum(squares / steps - mean**2, 0))
    window = cutting.window
    if options.stage == 1:
        window = max(int(table.lengths[index]) for index, *_ in rows)
    settings = {
        name: value if isinstance(value, (int, float, str, list, type(None))) else str(value)
        for name, value in vars(options).items()
        if name not in ("src", "dst", "workers")
    }
    return SensorFacts(
        dataset=source.dataset,
        stage=options.stage,
        rate=cutting.low_rate,
        window=window,
        channels=source.channels,
        channel_texts=source.channel_texts,
        labels=source.labels,
        subjects={
            split: sorted(names - {""}, key=splits.natural) for split, names in subjects.items()
        },
        counts=counts,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        settings=settings,
    )


def _take_down(found: Sequence[Read], source: Source, report: SensorReport) -> None:
    """Put what was dropped into the report."""
    dropped: Counter[tuple[str, str]] = Counter()
    for part in found:
        dropped.update(part.dropped)
    for (subject, reason), number in dropped.items():
        report.dropped.append((f"{number:,} of {subject or source.dataset}", reason))


def _people(
    table: Windows,
    chosen: np.ndarray,
    split_of: Sequence[str],
    found: Sequence[Read],
    report: SensorReport,
) -> None:
    """Put the facts about each person into the report."""
    steps: Counter[str] = Counter()
    unlabelled: Counter[str] = Counter()
    for part in found:
        steps.update(part.steps)
        unlabelled.update(part.unlabelled)
    cut_windows = Counter(table.subjects)
    kept = Counter(table.subjects[index] for index in chosen.tolist())
    split = dict(zip(table.subjects, split_of, strict=True))
    for subject in sorted(steps, key=splits.natural):
        report.items.append(
            {
                "subject": subject,
                "split": split.get(subject) if subject else None,
                "windows": cut_windows[subject],
                "kept": kept[subject],
                "steps": steps[subject],
                "unlabelled": unlabelled[subject],
            }
        )
