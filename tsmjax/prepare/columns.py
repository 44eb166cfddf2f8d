"""Which column is what, and times made regular: shared by the kinds of raw data."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.prepare.report import Report

ID_NAMES = ("item_id", "unique_id", "series_id", "ts_id", "series", "id")
TIME_NAMES = ("timestamp", "datetime", "date", "time", "ds", "day", "week", "month", "quarter")
TARGET_NAMES = ("target", "value", "y")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which column is what and how to treat odd times."""
    add = parser.add_argument
    add("--id-column", help="column that names the item")
    add("--timestamp-column", help="column of the times; without one the order counts")
    add("--target", nargs="+", help="columns to forecast; several are variates of one item")
    add("--past-covariates", nargs="+", default=[], help="columns known in the past only")
    add("--future-covariates", nargs="+", default=[], help="columns known in the future too")
    add("--freq", help="pandas offset alias (h, D, MS, …); needed without timestamps only")
    add(
        "--duplicates",
        choices=("refuse", "first", "last", "mean"),
        default="refuse",
        help="which value of a timestamp that occurs twice counts (default: %(default)s)",
    )
    add(
        "--gaps",
        choices=("refuse", "fill", "ignore"),
        default="refuse",
        help="timestamps that are left out: fill with missing values, or ignore the times and "
        "keep the order (default: %(default)s)",
    )


def some(rows: Iterable[dict[str, Any]], report: Report) -> Iterator[dict[str, Any]]:
    """Yield the rows and take them down in the report; refuse to yield none."""
    for row in rows:
        report.add(row)
        yield row
    if not report.items:
        why = "; ".join(f"{what}: {reason}" for what, reason in report.dropped[:3])
        raise InputError(f"No series of {report.source} is usable ({why or 'it has no rows'}).")


def find(
    source: Path | str, names: Sequence[str], given: str | None, known: Sequence[str]
) -> str | None:
    """Return the column that the user named, or the first with a usual name, or None."""
    if given is not None:
        return require(source, names, given)
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def require(source: Path | str, names: Sequence[str], name: str) -> str:
    """Return `name`, or raise with the columns that there are."""
    if name not in names:
        shown = ", ".join(names[:20])
        raise InputError(f"{source} has no column {name!r}{closest(name, names)}; it has {shown}.")
    return name


def ordered(
    name: str, table: pd.DataFrame, options: argparse.Namespace, report: Report
) -> pd.DataFrame:
    """Return a table indexed by time in order of time, with repeated times treated as asked for."""
    if not table.index.is_monotonic_increasing:
        table = table.sort_index(kind="stable")
        report.notes.append(f"{name}: the lines were sorted by time.")
    return _without_duplicates(name, table, options, report)


def _without_duplicates(
    name: str, table: pd.DataFrame, options: argparse.Namespace, report: Report
) -> pd.DataFrame:
    repeated = table.index.duplicated()
    if not repeated.any():
        return table
    if options.duplicates == "refuse":
        raise InputError(
            f"{name} has {int(repeated.sum())} timestamps that occur twice, the first is "
            f"{table.index[repeated][0]}: say --duplicates first, last or mean (or name the "
            "column that tells the items apart with --id-column)."
        )
    report.notes.append(f"{name}: {int(repeated.sum())} repeated timestamps were merged.")
    return getattr(table.groupby(level=0), options.duplicates)()


def regular(
    name: str, table: pd.DataFrame, options: argparse.Namespace, report: Report
) -> tuple[pd.DataFrame, str]:
    """Return the table on a regular grid of times, and the grid's frequency."""
    freq = options.freq or frequency(table.index)
    if freq is None:
        raise InputError(
            f"The timestamps of {name} have no regular spacing that could be recognised: say "
            "--freq, or --gaps ignore to keep nothing but their order."
        )
    try:
        grid = pd.date_range(table.index[0], table.index[-1], freq=freq)
    except ValueError as error:
        raise InputError(f"--freq {freq!r} is no frequency that pandas knows ({error}).") from error
    off = table.index.difference(grid)
    if len(off):
        raise InputError(
            f"{len(off)} timestamps of {name} are not on a grid of frequency {freq!r}, the first "
            f"is {off[0]}: say another --freq, or --gaps ignore to keep nothing but their order."
        )
    lacking = len(grid) - len(table)
    if lacking and options.gaps == "refuse":
        first = grid.difference(table.index)[0]
        raise InputError(
            f"{name} lacks {lacking} of {len(grid)} timestamps of frequency {freq!r}, the first "
            f"is {first}: say --gaps fill to insert missing values, or --gaps ignore."
        )
    if lacking:
        report.notes.append(
            f"{name}: {lacking} missing timestamps were filled with missing values."
        )
    return table.reindex(grid), freq


def frequency(times: pd.DatetimeIndex) -> str | None:
    """Return the frequency of the timestamps, gaps aside, or None."""
    if len(times) < 3:
        return None
    if freq := pd.infer_freq(times):
        return freq
    # Between gaps the spacing is regular: most of fifty short stretches agree on it.
    size = min(8, max(3, len(times) // 2))
    places = np.unique(np.linspace(0, len(times) - size, 50).astype(int))
    found = [pd.infer_freq(times[place : place + size]) for place in places]
    candidates = pd.Series([freq for freq in found if freq]).value_counts()
    return candidates.index[0] if len(candidates) else None
