r"""Monash time series files (.tsf, .tsf.gz): header, one line a series.

The frequency comes from the header, the start from an attribute of type date, and ? is a missing
value; the other attributes become columns. The text is UTF-8 or, as in the Monash archive, cp1252.

For example:
  python -m tsmjax.prepare tsf --src hospital_dataset.tsf --dst data/hospital
  python -m tsmjax.prepare tsf --src mine.tsf --dst data/mine --freq 2h
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.prepare.columns import some
from tsmjax.prepare.report import Report

_UNITS = {
    "secondly": "s", "seconds": "s", "minutely": "min", "minutes": "min", "hourly": "h",
    "hours": "h", "daily": "D", "days": "D", "weekly": "W", "weeks": "W", "monthly": "MS",
    "months": "MS", "quarterly": "QS", "yearly": "YS", "years": "YS", "half_hourly": "30min",
}  # fmt: skip
_TYPES = ("string", "numeric", "date")
_SUFFIXES = (".tsf", ".tsf.gz", ".txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    parser.add_argument("--freq", help="pandas offset alias, instead of the header's frequency")
    parser.add_argument("--encoding", help="encoding of the text (default: UTF-8, else cp1252)")


@dataclasses.dataclass
class _Header:
    """What the lines before @data say."""

    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    frequency: str | None = None


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when the file is not of this format.
    """
    if source.is_dir():
        found = [path for path in sorted(source.iterdir()) if path.name.endswith(_SUFFIXES)]
        if len(found) != 1:
            raise InputError(f"The folder {source} holds {len(found)} .tsf files: name one.")
        source = found[0]
    report = Report(source=str(source), layout="tsf")
    return some(_rows(source, _lines(source, options, report), options, report), report), report


def _lines(source: Path, options: argparse.Namespace, report: Report) -> list[str]:
    try:
        raw = source.read_bytes()
        if source.suffix == ".gz":
            raw = gzip.decompress(raw)
        if options.encoding:
            return raw.decode(options.encoding).splitlines()
        try:
            return raw.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            report.notes.append("The text is not UTF-8 and was read as cp1252.")
            return raw.decode("cp1252").splitlines()
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise InputError(
            f"{source} is not readable text ({error}): say --encoding, or copy it again."
        ) from error


def _rows(
    source: Path, lines: list[str], options: argparse.Namespace, report: Report
) -> Iterator[dict[str, Any]]:
    header, first = _header(source, lines, report)
    texts = [name for name, kind in header.attributes.items() if kind == "string"]
    dates = [name for name, kind in header.attributes.items() if kind == "date"]
    item = next((name for name in ("series_name", *texts) if name in header.attributes), None)
    freq = options.freq or header.frequency
    for number, line in enumerate(lines[first:], first + 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"Line {number} of {source}"
        *cells, values = line.strip().rsplit(":", len(header.attributes))
        if len(cells) != len(header.attributes):
            raise InputError(
                f"{where} has {len(cells)} attributes before its values, but the header declares "
                f"{len(header.attributes)}."
            )
        known = dict(zip(header.attributes, cells, strict=True))
        name = known[item].strip() if item else f"T{number - first}"
        target = _values(where, values)
        if not np.isfinite(target).any():
            report.dropped.append((name, "all values are missing"))
            continue
        row: dict[str, Any] = {"item_id": name}
        if dates:
            row["start"] = _date(where, known[dates[0]])
        if freq:
            row["freq"] = _anchored(freq, row["start"]) if dates and not options.freq else freq
        for other, kind in header.attributes.items():
            if other != item and other not in dates[:1]:
                row[other] = _number(where, known[other]) if kind == "numeric" else known[other]
        yield row | {"target": target}


def _header(source: Path, lines: list[str], report: Report) -> tuple[_Header, int]:
    """Return the header and the number of the first line of data, counted from 0."""
    header = _Header()
    for number, line in enumerate(lines):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        where, key = f"Line {number + 1} of {source}", words[0].lower()
        if key == "@data":
            return header, number + 1
        if not key.startswith("@"):
            raise InputError(
                f"{where} is neither a header line (@…) nor after @data: {line[:60]!r}."
            )
        if key == "@attribute":
            if len(words) != 3 or words[2] not in _TYPES:
                raise InputError(
                    f"{where} must be '@attribute NAME TYPE', with TYPE {', '.join(_TYPES)}."
                )
            header.attributes[words[1]] = words[2]
        elif key == "@frequency" and len(words) > 1:
            header.frequency = _frequency(where, words[1].lower())
        elif key == "@horizon" and len(words) > 1:
            report.notes.append(f"The header asks for forecasts of {words[1]} steps.")
    raise InputError(f"{source} has no line @data: it is not a .tsf file, or it is cut off.")


def _frequency(where: str, text: str) -> str:
    """``10_minutes`` → ``10min``, ``half_hourly`` → ``30min``, ``weekly`` → ``W``."""
    match = re.fullmatch(r"(?:(\d+)_)?([a-z_]+)", text)
    if not match or match[2] not in _UNITS:
        raise InputError(
            f"{where} has the frequency {text!r}, which is not known"
            f"{closest(text, _UNITS)}: say --freq."
        )
    return (match[1] or "") + _UNITS[match[2]]


def _anchored(freq: str, start: np.datetime64) -> str:
    """Weeks begin on the weekday of the first value: ``W`` → ``W-MON``."""
    return f"W-{pd.Timestamp(start).day_name()[:3].upper()}" if freq == "W" else freq


def _values(where: str, text: str) -> np.ndarray:
    cells = [cell.strip() for cell in text.rstrip(",").split(",")]
    try:
        values = [np.nan if cell in ("?", "NaN") else float(cell) for cell in cells]
        return np.array(values, np.float32)
    except ValueError as error:
        raise InputError(f"{where} holds a value that is no number ({error}).") from error


def _number(where: str, text: str) -> float:
    try:
        return float("nan") if text.strip() == "?" else float(text)
    except ValueError as error:
        raise InputError(f"{where} has a numeric attribute {text!r}.") from error


def _date(where: str, text: str) -> np.datetime64:
    date, _, time = text.strip().partition(" ")
    try:
        return np.datetime64(pd.Timestamp(f"{date} {time.replace('-', ':')}".strip()), "ns")
    except ValueError as error:
        raise InputError(
            f"{where} has the date {text!r}, which is not of the form 2000-01-31 00-00-00."
        ) from error
