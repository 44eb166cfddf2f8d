"""Look at finished sensor data sets: classes, persons, constant channels, repeated windows."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tsmjax.data.cache import beside
from tsmjax.data.counter import permute
from tsmjax.data.sensor import SPLITS, SensorData

_EXAMPLES = 4  # windows of each activity in the picture
_CHANNELS = 6  # lines of a plot: more cannot be told apart


def look(data: SensorData) -> dict[str, Any]:
    """Return the facts about one data set.

    `shared` lists persons who are in two splits, `leaking` counts windows of the validation and
    test splits that are in the training split too, value by value; `repeated` counts windows that
    occur before within their split; `untrained` lists activities that are tested on but were never
    trained on; `constant` counts windows by channel in which it never changes.
    """
    facts = data.facts
    subjects = data.column("subject")
    constant: Counter[str] = Counter()
    seen: dict[str, set[bytes]] = {}
    repeated = leaking = missing = 0
    people: dict[str, set[str]] = {}
    named = list(facts.channels)
    channel_ids = data.column("channel_id") if facts.stage == 1 else None
    for split in SPLITS:
        rows = data.rows(split)
        people[split] = set(subjects[rows]) - {""}
        seen[split] = set()
        for row in rows.tolist():
            values = data.series(row)
            missing += int(not np.isfinite(values).all())
            for channel in np.flatnonzero(np.ptp(values, axis=1) == 0).tolist():
                constant[named[channel if channel_ids is None else channel_ids[row]]] += 1
            key = hashlib.blake2b(np.ascontiguousarray(values), digest_size=12).digest()
            repeated += key in seen[split]
            leaking += split != "train" and key in seen["train"]
            seen[split].add(key)
    train, tested = (np.array(facts.counts[split]) for split in ("train", "test"))
    return {
        "rows": {split: int(sum(facts.counts[split])) for split in SPLITS},
        "persons": {split: len(people[split]) for split in SPLITS},
        "shared": sorted(
            set().union(
                *(people[one] & people[other] for one in SPLITS for other in SPLITS if one < other)
            )
        ),
        "counts": {
            label: [facts.counts[split][place] for split in SPLITS]
            for place, label in enumerate(facts.labels)
        },
        "untrained": [facts.labels[place] for place in np.flatnonzero((tested > 0) & (train == 0))],
        "imbalance": float(train.max() / train[train > 0].min()),
        "constant": dict(constant),
        "repeated": int(repeated),
        "leaking": int(leaking),
        "with_missing": missing,
        "mean": list(facts.mean),
        "std": list(facts.std),
    }


def show(console: Console, path: str, data: SensorData, facts: dict[str, Any]) -> None:
    """Print the facts about one data set, warnings last."""
    table = Table(title=path, title_justify="left")
    table.add_column("activity")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for label, counts in facts["counts"].items():
        table.add_row(label, *(f"{count:,}" for count in counts))
    table.add_section()
    table.add_row("all", *(f"{facts['rows'][split]:,}" for split in SPLITS))
    table.add_row("persons", *(f"{facts['persons'][split]:,}" for split in SPLITS))
    console.print(table)
    for name, mean, std in zip(data.facts.channels, facts["mean"], facts["std"], strict=True):
        stuck = facts["constant"].get(name, 0)
        console.print(f"{name}: mean {mean:.4g}, deviation {std:.4g}, constant in {stuck:,} rows")
    console.print(
        f"Largest class by smallest in training: {facts['imbalance']:.1f}. Rows that repeat one of "
        f"their split: {facts['repeated']:,}.",
    )
    warnings = {
        "persons are in two splits": facts["shared"],
        "activities are tested on but never trained on": facts["untrained"],
        "rows of validation and test are in training too": facts["leaking"],
        "rows have missing values": facts["with_missing"],
    }
    for what, found in warnings.items():
        if found:
            number, names = (
                (len(found), ", ".join(found[:10])) if isinstance(found, list) else (found, "")
            )
            text = f"Warning: {number:,} {what}{': ' if names else ''}{names}."
            console.print(text, style="bold red", markup=False)


def plot(data: SensorData, path: Path, seed: int = 0) -> None:
    """Draw examples of each activity, a row an activity, of the training split.

    All plots have one scale, so that levels and strengths compare.
    """
    facts, rows = data.facts, data.rows("train")
    labels = [place for place, count in enumerate(facts.counts["train"]) if count]
    channels = 1 if facts.stage == 1 else min(len(facts.channels), _CHANNELS)
    figure = Figure(figsize=(10, 1.1 * len(labels) + 0.5), layout="constrained")
    grid = figure.subplots(len(labels), _EXAMPLES, squeeze=False, sharex=True, sharey=True)
    for axes_of_label, label in zip(grid, labels, strict=True):
        known = rows[data.label_ids[rows] == label]
        count = min(_EXAMPLES, len(known))
        chosen = known[permute(np.arange(count), len(known), seed, label)]
        for axes, row in zip(axes_of_label, chosen.tolist(), strict=False):
            values = data.series(row)
            times = np.arange(values.shape[1]) / facts.rate
            for channel in range(channels):
                axes.plot(times, values[channel], linewidth=0.7, label=facts.channels[channel])
        for axes in axes_of_label:
            axes.tick_params(labelsize=5, length=1.5, pad=1)
        name = axes_of_label[0].set_ylabel(
            facts.labels[label], fontsize=7, rotation=0, ha="right", va="center"
        )
        name.set_wrap(True)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=6, labelpad=1)
    if facts.stage == 2:
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=channels, fontsize=6)
    with beside(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=90, pil_kwargs={"optimize": True})
