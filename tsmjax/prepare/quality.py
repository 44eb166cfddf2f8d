r"""Look at finished data sets: lengths, missing values, constant and double series, leakage.

With --against the training folders are searched for the windows that benchmarks score: the last 32
values of each benchmark series, before and after its test window, at any place of any training
series, whatever the units (a window is compared after its mean is taken away and its deviation
divided out). Of sets of wearable sensors the activities and persons are counted instead; --plot
draws examples of each activity.

For example:
  python -m tsmjax.prepare --report data/train
  python -m tsmjax.prepare --report data/capture24 --plot examples.png
  python -m tsmjax.prepare --report data/train data/other --against lite suites/mine.yaml data/test
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tsmjax.data.arrow import SENSOR, ArrowSource, Item
from tsmjax.data.cache import beside
from tsmjax.data.sensor import SensorData
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.errors import InputError
from tsmjax.evals import suites
from tsmjax.evals.forecast import EvalDataset
from tsmjax.prepare import sensor_quality

WINDOW = 32  # values of a window that is searched for
_DISTINCT = 12  # fewer distinct values in a window happen by chance: counts, zeros
_DIGITS = 3  # of a normalised value that are compared
_SHOWN = 10  # names of series that are printed


def run(arguments: list[str]) -> None:
    """Print the report that the command line asks for.

    Raises:
      InputError: when there is no such data set or suite.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.prepare --report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", help="Arrow data sets, or embedded:NAME")
    parser.add_argument(
        "--against", nargs="+", default=[], help="suites, suite files or folders that are scored"
    )
    parser.add_argument("--horizon", type=int, default=0, help="steps scored in folders")
    parser.add_argument("--data", default="", help="folder of downloaded benchmark data sets")
    parser.add_argument("--max-series", type=int, help="look at the first series of each only")
    parser.add_argument("--json", type=Path, help="also write the facts to this file")
    parser.add_argument("--plot", type=Path, help="picture of the first set, of sensors")
    options = parser.parse_args(arguments)
    benchmarks: list[EvalDataset] = []
    for name in options.against:
        benchmarks += suites.open_suite(name, options.horizon or 1, 1, options.data)[1]
    sources = {path: ArrowSource(resolve(path)) for path in options.folders}
    console = Console()
    facts = {}
    sensors = {path: SensorData(path) for path, source in sources.items() if source.common(SENSOR)}
    if options.plot and not sensors:
        raise InputError("--plot draws examples of a sensor data set, and none is given.")
    for path, source in sources.items():
        if path in sensors:
            facts[path] = sensor_quality.look(sensors[path])
            sensor_quality.show(console, path, sensors[path], facts[path])
            continue
        facts[path] = look(path, source, fingerprints(benchmarks), options.max_series)
        show(console, path, facts[path], bool(benchmarks))
    if options.plot:
        sensor_quality.plot(next(iter(sensors.values())), options.plot)
    if options.json:
        with beside(options.json) as unfinished:
            unfinished.write_text(json.dumps(facts, indent=1))


def look(
    path: str, source: ArrowSource, wanted: dict[int, str], max_series: int | None = None
) -> dict[str, Any]:
    """Return the facts about one data set.

    Args:
      path: its name in messages.
      source: the data set.
      wanted: `fingerprints` of the benchmarks.
      max_series: look at so many rows at most.
    """
    rows = np.arange(min(len(source), max_series or len(source)))
    keys = np.sort(np.fromiter(wanted, np.uint64, len(wanted)))
    lengths, variates, missing, values = [], 0, 0, 0
    constant: list[str] = []
    seen: dict[int, str] = {}
    duplicates: list[tuple[str, str]] = []
    leaks: Counter[str] = Counter()
    leaking: list[str] = []
    frequencies: Counter[str] = Counter()
    shown = track(source.read(rows), f"Reading {path}", len(rows), console=Console(stderr=True))
    for number, item in zip(rows.tolist(), shown, strict=True):
        facts = source.metadata(number)
        name = str(facts.get("item_id", number))
        frequencies[str(facts.get("freq"))] += 1
        lengths.append(item.target.shape[1])
        for index, series in enumerate(item.target):
            title = name if len(item.target) == 1 else f"{name}[{index}]"
            variates += 1
            known = np.asarray(series[np.isfinite(series)], np.float64)
            missing, values = missing + len(series) - len(known), values + len(series)
            if not len(known) or np.ptp(known) == 0:
                constant.append(title)
                continue
            key = int(_hashes(_normalised(known[None]))[0])
            if key in seen:
                duplicates.append((title, seen[key]))
            seen.setdefault(key, title)
            if len(keys) and (hits := _found(known, keys)):
                leaking.append(title)
                leaks.update({wanted[hit] for hit in hits})
    return {
        "items": len(rows),
        "series": variates,
        "values": values,
        "length_min": min(lengths),
        "length_median": float(np.median(lengths)),
        "length_max": max(lengths),
        "missing": missing / max(values, 1),
        "freq": dict(frequencies.most_common()),
        "constant": constant,
        "duplicates": duplicates,
        "leaking": leaking,
        "leaks": dict(leaks.most_common()),
    }


def fingerprints(benchmarks: Iterable[EvalDataset]) -> dict[int, str]:
    """Return hash → data set of the windows that benchmarks score.

    They are the last `WINDOW` values of each series, and those before and at the end of its test
    and validation windows: a training folder may hold whole series, or what comes before these.
    Windows of few distinct values are left out.
    """
    found: dict[int, str] = {}
    for dataset in benchmarks:
        for series in dataset.series:
            target = series.target if isinstance(series, Item) else series
            for variate in np.atleast_2d(np.asarray(target, np.float64)):
                for end in _ends(dataset, variate):
                    known = variate[:end]
                    known = known[np.isfinite(known)][-WINDOW:]
                    if len(known) == WINDOW and len(np.unique(known)) >= _DISTINCT:
                        found.setdefault(int(_hashes(_normalised(known[None]))[0]), dataset.name)
    return found


def _ends(dataset: EvalDataset, variate: np.ndarray) -> set[int]:
    """Return where windows of a series begin and end."""
    ends = {len(variate)}
    for split in ("validation", "test"):
        for past, label in dataset.windows(variate, split):
            ends |= {len(past), len(past) + len(label)}
    return ends


def _found(known: np.ndarray, keys: np.ndarray) -> set[int]:
    """Return which of the sorted hashes `keys` some window of a series has."""
    if len(known) < WINDOW:
        return set()
    windows = np.lib.stride_tricks.sliding_window_view(known, WINDOW)
    hits: set[int] = set()
    for first in range(0, len(windows), 4096):  # bounds the memory of a long series
        hashes = _hashes(_normalised(windows[first : first + 4096]))
        at = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
        hits |= set(hashes[keys[at] == hashes].tolist())
    return hits


def _normalised(windows: np.ndarray) -> np.ndarray:
    """Return windows (n, steps) with mean 0 and deviation 1, rounded, as whole numbers."""
    centred = windows - windows.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True))
    return np.round(centred / np.where(spread > 0, spread, 1) * 10**_DIGITS).astype(np.int64)


def _hashes(values: np.ndarray) -> np.ndarray:
    """Return a uint64 for each row: a polynomial in an odd number, modulo 2**64."""
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(values.shape[1], 0x9E3779B97F4A7C15, np.uint64))
        return (values.astype(np.uint64) * powers).sum(axis=1, dtype=np.uint64)


def show(console: Console, path: str, facts: dict[str, Any], compared: bool) -> None:
    """Print the facts about one data set, warnings last."""
    table = Table(title=path, show_header=False, title_justify="left")
    lengths = [facts["length_min"], facts["length_median"], facts["length_max"]]
    table.add_row("items", f"{facts['items']:,} with {facts['series']:,} series")
    table.add_row("values", f"{facts['values']:,}, {facts['missing']:.2%} missing")
    table.add_row("length", "shortest {:,} · median {:,.0f} · longest {:,}".format(*lengths))
    table.add_row("freq", ", ".join(f"{name} ({n:,})" for name, n in facts["freq"].items()))
    for name in ("constant", "duplicates"):
        table.add_row(name, f"{len(facts[name]):,} ({len(facts[name]) / facts['series']:.2%})")
    if compared:
        table.add_row("leakage", f"{len(facts['leaking']):,} series")
    console.print(table)
    _list(console, "Constant, or without values", facts["constant"])
    _list(console, "Duplicates", [f"{one} = {other}" for one, other in facts["duplicates"]])
    if facts["leaks"]:
        sets = ", ".join(f"{name} ({n:,} windows)" for name, n in facts["leaks"].items())
        console.print(
            f"Warning: {path} holds data that benchmarks score: {sets}. Scores of a model trained "
            "on it say nothing about unseen data.",
            style="bold red",
            markup=False,
        )
        _list(console, "They are in", facts["leaking"])


def _list(console: Console, title: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        console.print(f"{title}: {', '.join(names[:_SHOWN])}{more}.", markup=False)
