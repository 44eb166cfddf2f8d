r"""Tables of numbers: CSV (compressed or not) and Parquet, in three layouts.

  long  one row for each item and time: an id column, a timestamp column, one or more targets,
        and covariates. Without an id column the file is one item.
  wide  one column for each series, and optionally a timestamp column.
  rows  one line for each series, its name in the first column (as in the M4 competition).

The layout is recognised when there is a column such as item_id (long), and is wide otherwise.
Nothing is mended in silence: cells that are no numbers, duplicate timestamps and gaps are refused
with a sentence that names the option to deal with them; what is dropped, sorted or trimmed is
listed in the report, which is printed and kept as report.json.

For example:
  python -m tsmjax.prepare csv --src AirPassengers.csv --dst data/air
  python -m tsmjax.prepare csv --src sales.csv --dst data/sales --id-column store \
      --timestamp-column day --target units --future-covariates price promotion --gaps fill
  python -m tsmjax.prepare csv --src exchange_rate.txt.gz --dst data/fx --header no --freq B
  python -m tsmjax.prepare csv --src Hourly-train.csv --dst data/m4_hourly --layout rows --freq h
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsmjax.data import categories
from tsmjax.data.arrow import NAMES, VALUE_COLUMNS
from tsmjax.errors import InputError
from tsmjax.prepare.columns import (
    ID_NAMES,
    TARGET_NAMES,
    TIME_NAMES,
    find,
    ordered,
    regular,
    require,
    some,
)
from tsmjax.prepare.columns import add_arguments as add_shared
from tsmjax.prepare.report import Report

SUFFIXES = (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz", ".parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add_shared(parser)
    add = parser.add_argument
    add("--layout", choices=("auto", "long", "wide", "rows"), default="auto")
    add("--separator", help="character between cells; recognised by default")
    add("--decimal", default=".", help="decimal point of numbers (default: %(default)s)")
    add("--header", choices=("yes", "no"), help="whether the first line names the columns")
    add("--static-categories", nargs="+", default=[], help="columns that never change in an item")
    add("--missing", nargs="+", default=[], help="further texts that stand for a missing value")


@dataclasses.dataclass
class _Columns:
    """Which column is what."""

    item: str | None
    time: str | None
    target: list[str]
    past: list[str]
    future: list[str]
    static: list[str] = dataclasses.field(default_factory=list)

    @property
    def values(self) -> list[str]:
        return [*self.target, *self.past, *self.future]

    @property
    def names(self) -> dict[str, list[str]]:
        groups = zip(VALUE_COLUMNS, (self.target, self.past, self.future), strict=True)
        found = {column: names for column, names in groups if names}
        return found | ({categories.COLUMN: self.static} if self.static else {})


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Read `source` and return the rows of the data set and the report.

    Raises:
      InputError: when there is nothing to read, a column is missing, or cells are refused.
    """
    files = _files(source)
    report = Report(source=str(source), layout="")

    def rows() -> Iterator[dict[str, Any]]:
        for file in files:
            prefix = f"{_stem(file)}/" if len(files) > 1 else ""
            yield from _rows(file, _read(file, options), prefix, options, report)

    return some(rows(), report), report


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    files = sorted(path for path in source.iterdir() if path.name.lower().endswith(SUFFIXES))
    if not files:
        raise InputError(f"The folder {source} holds no {', '.join(SUFFIXES)} files.")
    return files


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


# --------------------------------------------------------------------------------- reading a file


def _read(file: Path, options: argparse.Namespace) -> pd.DataFrame:
    """Return the table of a file; its columns are named by stripped texts."""
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
    else:
        try:
            table = pd.read_csv(
                file,
                sep=options.separator or _separator(file),
                decimal=options.decimal,
                header=None if options.header == "no" else 0,
                na_values=options.missing,
                skipinitialspace=True,
                low_memory=False,
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{file} is not a table of text ({error}).") from error
    table.columns = [str(name).strip() for name in table.columns]
    if table.empty:
        raise InputError(f"{file} has no lines of data.")
    if file.suffix != ".parquet" and options.header is None and options.layout != "rows":
        values = [name for name in table.columns if _is_fraction(name)]
        if values:
            raise InputError(
                f"The first line of {file} reads like data ({values[0]}, …): say --header no, "
                "or --header yes if these are names."
            )
    return table


def _separator(file: Path) -> str:
    """Return the most frequent of the usual separators in the first line."""
    import bz2
    import gzip
    import lzma

    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(file.suffix, open)
    try:
        with opened(file, "rt") as handle:
            line = handle.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not a table of text ({error}).") from error
    return max(",;\t|", key=line.count)


def _is_fraction(name: str) -> bool:
    try:
        return not float(name).is_integer()
    except ValueError:
        return False


# ------------------------------------------------------------------------------ finding the columns


def _rows(
    file: Path, table: pd.DataFrame, prefix: str, options: argparse.Namespace, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield the data set's rows of one table."""
    layout = options.layout
    item = find(file, list(table.columns), options.id_column, ID_NAMES)
    roles = ("target", "past_covariates", "future_covariates", "static_categories")
    long = any(getattr(options, role) for role in roles)
    if layout == "auto":
        layout = "long" if long or (item and table[item].duplicated().any()) else "wide"
    if layout == "rows":
        table, item = table.set_index(item or table.columns[0]).T, None
        table.columns = [str(name) for name in table.columns]
        time = None
    else:
        time = _time_column(file, table, options)
    if time is not None:
        table = table.assign(**{time: _times(file, table[time])})
    elif options.layout == "auto" and layout == "wide" and not _mostly_numeric(table.iloc[:, 0]):
        raise InputError(
            f"The first column of {file}, {table.columns[0]!r}, holds neither numbers nor times: "
            "say --layout rows if a line is a series, --id-column if it names the items, or "
            "--layout wide to leave it out."
        )
    elif options.timestamp_column is None and not any("no timestamp" in n for n in report.notes):
        report.notes.append(
            "There is no timestamp column: the order of lines is the order of time."
        )
    report.layout = layout

    if layout == "long":
        columns = _long_columns(file, table, item, time, options)
        numbers = table.assign(**{n: _numbers(file, table[n], options) for n in columns.values})
        groups = numbers.groupby(item, sort=False) if item else [(_stem(file), numbers)]
        for name, group in groups:
            title = f"{prefix}{name}" if item else str(name)
            for row in _row(title, group, columns, options, report):
                yield row | {NAMES: columns.names}
        if item and (nameless := int(table[item].isna().sum())):
            report.dropped.append((f"{nameless} lines of {file.name}", f"{item} is empty"))
        return

    for name in table.columns:
        if name in (time, item):
            continue
        if not _mostly_numeric(table[name]):
            report.dropped.append((f"{prefix}{name}", "the column holds text"))
            continue
        series = pd.DataFrame({name: _numbers(file, table[name], options)})
        if time:
            series[time] = table[time]
        known = series[name].notna().to_numpy().nonzero()[0]
        if len(known) and (trimmed := len(series) - (known[-1] - known[0] + 1)):
            # Shorter series are padded in a wide table; the padding is no observation.
            series = series.iloc[known[0] : known[-1] + 1]
            report.notes.append(f"{prefix}{name}: {trimmed} empty cells at the ends were trimmed.")
        columns = _Columns(None, time, [name], [], [])
        yield from _row(f"{prefix}{name}", series, columns, options, report)


def _time_column(file: Path, table: pd.DataFrame, options: argparse.Namespace) -> str | None:
    """Return the timestamp column: named by the user, by its name, or a first column of dates."""
    named = find(file, list(table.columns), options.timestamp_column, TIME_NAMES)
    if named:
        return named
    first = table.columns[0]
    if not _mostly_numeric(table[first]) and _parsed(table[first]).notna().all():
        return first
    return None


def _long_columns(
    file: Path,
    table: pd.DataFrame,
    item: str | None,
    time: str | None,
    options: argparse.Namespace,
) -> _Columns:
    past = [require(file, list(table.columns), name) for name in options.past_covariates]
    future = [require(file, list(table.columns), name) for name in options.future_covariates]
    static = [require(file, list(table.columns), name) for name in options.static_categories]
    taken = {item, time, *past, *future, *static}
    if options.target:
        target = [require(file, list(table.columns), name) for name in options.target]
    else:
        free = [name for name in table.columns if name not in taken]
        target = [name for name in free if name.lower() in TARGET_NAMES][:1] or free
        if len(target) != 1:
            raise InputError(
                f"Which column of {file} is to be forecast? Say --target NAME; "
                f"there are {', '.join(free) or 'none left'}."
            )
    names = [*target, *past, *future, *static]
    if twice := [name for name in names if names.count(name) > 1 or name in (item, time)]:
        raise InputError(f"The column {twice[0]!r} of {file} is given two parts at once.")
    return _Columns(item, time, target, past, future, static)


# --------------------------------------------------------------------------- values and timestamps


def _mostly_numeric(column: pd.Series) -> bool:
    known = column.dropna()
    return pd.to_numeric(known, errors="coerce").notna().sum() * 2 >= len(known)


def _numbers(file: Path, column: pd.Series, options: argparse.Namespace) -> np.ndarray:
    """Return float64 values; cells that are neither empty nor numbers are refused."""
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        header = options.header != "no" and options.layout != "rows"
        text = column.iloc[place]
        raise InputError(
            f"The column {column.name!r} of {file} has {int(wrong.sum())} cells that are no "
            f"numbers, the first is {text!r} in line {place + 1 + header}: say "
            f"--missing {text!r} if it stands for a missing value, or correct the file."
        )
    return numbers.to_numpy(np.float64)


def _times(file: Path, column: pd.Series) -> pd.Series:
    """Return timestamps; whole numbers such as 1949 are years."""
    numeric = pd.api.types.is_numeric_dtype(column)
    if numeric and not column.dropna().between(1000, 3000).all():
        raise InputError(
            f"The timestamps in column {column.name!r} of {file} are numbers such as "
            f"{column.dropna().iloc[0]}, which are no years: write dates as 2024-01-31."
        )
    text = column.astype("Int64").astype(str).where(column.notna()) if numeric else column
    times = _parsed(text)
    if times.isna().any():
        place = int(np.flatnonzero(times.isna())[0])
        raise InputError(
            f"The column {column.name!r} of {file} has {int(times.isna().sum())} cells that are no "
            f"timestamps of one format, the first is {column.iloc[place]!r} in data line "
            f"{place + 1}."
        )
    return times.dt.tz_convert(None) if times.dt.tz is not None else times


def _parsed(column: pd.Series) -> pd.Series:
    """Return timestamps, NaT where a cell is none; one format holds for the whole column."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no format is common to all: NaT says so
        for options in ({}, {"format": "ISO8601"}, {"dayfirst": True}):
            times = pd.to_datetime(column, errors="coerce", **options)
            if times.notna().all():
                break
    return times


def _row(
    name: str, table: pd.DataFrame, columns: _Columns, options: argparse.Namespace, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield the data set's row of one item, or nothing when it is dropped."""
    if not table[columns.target].notna().any(axis=None):
        report.dropped.append((name, "all values are missing"))
        return
    row: dict[str, Any] = {"item_id": name}
    if columns.static:
        row[categories.COLUMN] = [_constant(name, table[column]) for column in columns.static]
    if columns.time:
        table = table.set_index(columns.time)[columns.values]
        table = ordered(name, table, options, report)
        if options.gaps == "ignore":
            row["timestamp"] = table.index.to_numpy()
        else:
            table, row["freq"] = regular(name, table, options, report)
            row["start"] = table.index[0].to_datetime64()
    elif options.freq:
        row["freq"] = options.freq
    values = table[columns.values].to_numpy(np.float32).T
    targets, past = len(columns.target), len(columns.past)
    row["target"] = values[0] if targets == 1 else values[:targets]
    if past:
        row["past_feat_dynamic_real"] = values[targets : targets + past]
    if columns.future:
        row["feat_dynamic_real"] = values[targets + past :]
    yield row


def _constant(name: str, column: pd.Series) -> str:
    """Return the one value of a static category, as text."""
    values = column.unique()
    if len(values) > 1 or pd.isna(values[0]):
        shown = ", ".join(map(str, values[:3]))
        raise InputError(
            f"The static category {column.name!r} of {name} has the values {shown}, but must have "
            "one in each item: make it a covariate, or correct the file."
        )
    return str(values[0])
