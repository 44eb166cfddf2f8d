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

from tsmjax.errors import InputError, closest
from tsmjax.prepare.report import Report

ID_NAMES = ("item_id", "unique_id", "series_id", "ts_id", "series", "id")
TIME_NAMES = ("timestamp", "datetime", "date", "time", "ds", "day", "week", "month", "quarter")
TARGET_NAMES = ("target", "value", "y")
SUFFIXES = (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz", ".parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--layout", choices=("auto", "long", "wide", "rows"), default="auto")
    add("--id-column", help="long: column that names the item")
    add("--timestamp-column", help="column of the times; without one the order of lines counts")
    add("--target", nargs="+", help="columns to forecast; several are variates of one item")
    add("--past-covariates", nargs="+", default=[], help="columns known in the past only")
    add("--future-covariates", nargs="+", default=[], help="columns known in the future too")
    add("--freq", help="pandas offset alias (h, D, MS, …); needed without timestamps only")
    add("--separator", help="character between cells; recognised by default")
    add("--decimal", default=".", help="decimal point of numbers (default: %(default)s)")
    add("--header", choices=("yes", "no"), help="whether the first line names the columns")
    add("--missing", nargs="+", default=[], help="further texts that stand for a missing value")
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


@dataclasses.dataclass
class _Columns:
    """Which column is what."""

    item: str | None
    time: str | None
    target: list[str]
    past: list[str]
    future: list[str]

    @property
    def values(self) -> list[str]:
        return [*self.target, *self.past, *self.future]


def prepare(source: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], Report]:
    """Read `source` and return the rows of the data set and the report.

    Raises:
      InputError: when there is nothing to read, a column is missing, or cells are refused.
    """
    files = _files(source)
    report = Report(source=str(source), layout="")
    rows: list[dict[str, Any]] = []
    for file in files:
        table = _read(file, options)
        prefix = f"{_stem(file)}/" if len(files) > 1 else ""
        for row in _rows(file, table, prefix, options, report):
            report.add(row)
            rows.append(row)
    if not rows:
        why = "; ".join(f"{what}: {reason}" for what, reason in report.dropped[:3])
        raise InputError(f"No series of {source} is usable ({why}).")
    return rows, report


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
    item = _given_or_known(file, table, options.id_column, ID_NAMES)
    long = bool(options.target or options.past_covariates or options.future_covariates)
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
            yield from _row(
                f"{prefix}{name}" if item else str(name), group, columns, options, report
            )
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


def _given_or_known(
    file: Path, table: pd.DataFrame, given: str | None, known: tuple[str, ...]
) -> str | None:
    """Return the column that the user named, or the first with a usual name."""
    if given is not None:
        return _column(file, table, given)
    lower = {name.lower(): name for name in reversed(table.columns)}
    return next((lower[name] for name in known if name in lower), None)


def _column(file: Path, table: pd.DataFrame, name: str) -> str:
    if name not in table.columns:
        shown = ", ".join(table.columns[:20])
        raise InputError(
            f"{file} has no column {name!r}{closest(name, table.columns)}; it has {shown}."
        )
    return name


def _time_column(file: Path, table: pd.DataFrame, options: argparse.Namespace) -> str | None:
    """Return the timestamp column: named by the user, by its name, or a first column of dates."""
    named = _given_or_known(file, table, options.timestamp_column, TIME_NAMES)
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
    past = [_column(file, table, name) for name in options.past_covariates]
    future = [_column(file, table, name) for name in options.future_covariates]
    taken = {item, time, *past, *future}
    if options.target:
        target = [_column(file, table, name) for name in options.target]
    else:
        free = [name for name in table.columns if name not in taken]
        target = [name for name in free if name.lower() in TARGET_NAMES][:1] or free
        if len(target) != 1:
            raise InputError(
                f"Which column of {file} is to be forecast? Say --target NAME; "
                f"there are {', '.join(free) or 'none left'}."
            )
    names = [*target, *past, *future]
    if twice := [name for name in names if names.count(name) > 1 or name in (item, time)]:
        raise InputError(f"The column {twice[0]!r} of {file} is given two parts at once.")
    return _Columns(item, time, target, past, future)


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
    if columns.time:
        table = table.set_index(columns.time)[columns.values]
        if not table.index.is_monotonic_increasing:
            table = table.sort_index(kind="stable")
            report.notes.append(f"{name}: the lines were sorted by time.")
        table = _without_duplicates(name, table, options, report)
        if options.gaps == "ignore":
            row["timestamp"] = table.index.to_numpy()
        else:
            table, row["freq"] = _regular(name, table, options, report)
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


def _regular(
    name: str, table: pd.DataFrame, options: argparse.Namespace, report: Report
) -> tuple[pd.DataFrame, str]:
    """Return the table on a regular grid of times, and the grid's frequency."""
    freq = options.freq or _frequency(table.index)
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


def _frequency(times: pd.DatetimeIndex) -> str | None:
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
