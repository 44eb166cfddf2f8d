"""Rows of list columns: one row holds one series, or several; shared by parquet, hf and benchmark.

Without ``--target`` every list of numbers is a series of its own (the columns named like ours,
past_feat_dynamic_real and feat_dynamic_real, are covariates). With it, the columns named are the
variates of one item, and the covariate options name further list columns.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tsmjax.errors import InputError
from tsmjax.prepare.columns import (
    ID_NAMES,
    TIME_NAMES,
    find,
    frequency,
    ordered,
    regular,
    require,
)
from tsmjax.prepare.report import Report

PAST, FUTURE = "past_feat_dynamic_real", "feat_dynamic_real"


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds a list in each row."""
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def schema(file: Path) -> pa.Schema:
    """Return the columns of a Parquet or Arrow file."""
    with _readable(file):
        if file.suffix == ".parquet":
            return pq.read_schema(file)
        with _arrow(file) as reader:
            return reader.schema


def batches(files: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet and Arrow files (both formats), a thousand or so at a time."""
    for file in files:
        with _readable(file):
            if file.suffix == ".parquet":
                yield from pq.ParquetFile(file).iter_batches(batch_size=1000)
                continue
            with _arrow(file) as reader:
                if isinstance(reader, pa.ipc.RecordBatchFileReader):
                    yield from map(reader.get_batch, range(reader.num_record_batches))
                else:
                    yield from reader


def rows(
    source: str, parts: Iterable[pa.RecordBatch], options: argparse.Namespace, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield the data set's rows.

    Args:
      source: what the tables are called in messages.
      parts: tables of one schema.
      options: the options of `columns.add_arguments`.
      report: takes down what is dropped and changed.

    Raises:
      InputError: when a named column is missing, lists differ in length, or times are irregular.
    """
    number = 0
    freq = options.freq
    layout = None
    for part in parts:
        layout = layout or _Layout(source, part.schema, options, report)
        for raw in _unpacked(part):
            name = str(raw[layout.item]) if layout.item else f"series {number}"
            number += 1
            times = _times(name, raw[layout.time]) if layout.time else None
            if not freq:
                # One frequency for all, that of the first row: what the benchmarks do.
                freq = raw.get("freq") or (frequency(times[:10_000]) if times is not None else None)
            yield from layout.items(name, raw, times, freq, options, report)


class _Layout:
    """Which columns of the tables are what."""

    def __init__(self, source: str, schema: pa.Schema, options: argparse.Namespace, report: Report):
        names = schema.names
        lists = [name for name in names if is_list(schema.field(name).type)]
        scalars = [name for name in names if name not in lists]
        self.item = find(source, scalars, options.id_column, ID_NAMES)
        time = find(source, names, options.timestamp_column, TIME_NAMES)
        self.time = time if time in lists else None
        self.start = "start" if "start" in scalars else None
        numeric = [name for name in lists if _is_numeric(schema.field(name).type)]
        for name in lists:
            if name not in numeric and name != self.time:
                report.dropped.append((f"the column {name}", "its lists hold no numbers"))
        self.past = [require(source, names, name) for name in options.past_covariates]
        self.future = [require(source, names, name) for name in options.future_covariates]
        self.past += [PAST] if PAST in numeric and PAST not in self.past else []
        self.future += [FUTURE] if FUTURE in numeric and FUTURE not in self.future else []
        if options.target:
            self.targets = [[require(source, names, name) for name in options.target]]
        else:
            taken = (*self.past, *self.future, self.time)
            self.targets = [[name] for name in numeric if name not in taken]
        used = {name for group in self.targets for name in group} | {*self.past, *self.future}
        if wrong := sorted(used - set(numeric)):
            raise InputError(
                f"The column {wrong[0]!r} of {source} does not hold a list of numbers in each row."
            )
        if not self.targets:
            raise InputError(
                f"{source} has no column that holds a list of numbers in each row; its columns are "
                f"{', '.join(names[:20])}."
            )
        if len(self.targets) > 1 and (self.past or self.future):
            raise InputError(
                f"{source} has the series {', '.join(name for (name,) in self.targets)}: say with "
                "--target which of them the covariates belong to."
            )
        report.layout = "one row a series" if len(self.targets) == 1 else "several series a row"
        if self.time is None and self.start is None:
            report.notes.append("There is no timestamp column: values are in the order of time.")

    def items(
        self,
        name: str,
        raw: dict[str, Any],
        times: pd.DatetimeIndex | None,
        freq: str | None,
        options: argparse.Namespace,
        report: Report,
    ) -> Iterator[dict[str, Any]]:
        """Yield the data set's rows of one row of a table."""
        for target in self.targets:
            title = name if len(self.targets) == 1 else f"{name}/{target[0]}"
            parts = [_values(title, raw, group) for group in (target, self.past, self.future)]
            length = parts[0].shape[1]
            parts[1:] = [
                part if len(part) else np.empty((0, length), np.float32) for part in parts[1:]
            ]
            if wrong := [part.shape[1] for part in parts if part.shape[1] != length]:
                raise InputError(
                    f"The covariates of {title} have {wrong[0]} values, its target {length}."
                )
            if not np.isfinite(parts[0]).any():
                report.dropped.append((title, "all values are missing"))
                continue
            row: dict[str, Any] = {"item_id": title}
            if times is not None:
                if len(times) != length:
                    raise InputError(
                        f"{title} has {length} values and {len(times)} timestamps: they must be as "
                        "many."
                    )
                values = np.concatenate(parts)
                values, row["start"], freq = _on_grid(title, values, times, freq, options, report)
                parts = np.split(values, np.cumsum([len(p) for p in parts])[:-1])
            elif self.start:
                row["start"] = np.datetime64(raw["start"], "ns")
            if freq:
                row["freq"] = freq
            row["target"] = parts[0][0] if len(parts[0]) == 1 else parts[0]
            row |= {
                column: part for column, part in ((PAST, parts[1]), (FUTURE, parts[2])) if len(part)
            }
            yield row


def _on_grid(
    name: str,
    values: np.ndarray,
    times: pd.DatetimeIndex,
    freq: str | None,
    options: argparse.Namespace,
    report: Report,
) -> tuple[np.ndarray, np.datetime64, str | None]:
    """Return values (variates, length) on a regular grid of times, the first time, and freq."""
    if options.gaps == "ignore" or len(times) < 2:
        if not times.is_monotonic_increasing:
            order = np.argsort(times.to_numpy(), kind="stable")
            values, times = values[:, order], times[order]
            report.notes.append(f"{name}: the values were sorted by time.")
        return values, times[0].to_datetime64(), freq
    with contextlib.suppress(ValueError):  # an unknown frequency: `regular` says so
        size = {"periods": len(times), "unit": times.unit}
        if freq and times.equals(pd.date_range(times[0], freq=freq, **size)):
            return values, times[0].to_datetime64(), freq
    table = ordered(name, pd.DataFrame(values.T, index=times), options, report)
    wanted = argparse.Namespace(**vars(options) | {"freq": freq})
    table, freq = regular(name, table, wanted, report)
    return table.to_numpy(np.float32).T, table.index[0].to_datetime64(), freq


def _values(name: str, raw: dict[str, Any], group: list[str]) -> np.ndarray:
    """Stack the columns of `group` to (variates, length) float32; missing values become NaN."""
    parts = []
    for column in group:
        value = raw[column]
        if value is None:
            raise InputError(f"The column {column!r} of {name} is empty: fill or remove the row.")
        try:
            part = np.asarray(value, np.float32)
        except ValueError as error:
            raise InputError(f"The variates in {column!r} of {name} differ in length.") from error
        parts.append(np.atleast_2d(part))
    if len({part.shape[1] for part in parts}) > 1:
        sizes = ", ".join(f"{c} {p.shape[1]}" for c, p in zip(group, parts, strict=True))
        raise InputError(f"The columns of {name} differ in length ({sizes}).")
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _times(name: str, values: Any) -> pd.DatetimeIndex:
    try:
        times = pd.DatetimeIndex(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"The timestamps of {name} cannot be read ({error}).") from error
    if times.hasnans:
        raise InputError(f"{int(times.isna().sum())} timestamps of {name} are missing.")
    return times.tz_convert(None) if times.tz is not None else times


def _unpacked(part: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield rows whose lists of numbers and times are NumPy arrays, without Python objects."""
    for index in range(part.num_rows):
        row = {}
        for name, column in zip(part.schema.names, part.columns, strict=True):
            cell = column[index]
            flat = is_list(column.type) and not is_list(column.type.value_type)
            if flat and cell.is_valid:
                row[name] = cell.values.to_numpy(zero_copy_only=False)
            else:
                row[name] = cell.as_py()
        yield row


def _is_numeric(kind: pa.DataType) -> bool:
    while is_list(kind):
        kind = kind.value_type
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


@contextlib.contextmanager
def _arrow(file: Path) -> Iterator[Any]:
    with pa.memory_map(str(file)) as source:
        is_file = source.size() > 6 and source.read(6) == b"ARROW1"
        source.seek(0)
        yield pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{file} cannot be read ({reason}): copy or write it again.") from error
