r"""Continuous glucose monitoring: iglu, ShanghaiT1DM, BIG IDEAs, simglucose and BrisT1D files.

Readings are put on the regular grid of the sensor, one row each; meals and doses are added up in
the row that ends their interval. Where the next reading comes within --gap minutes the last one is
held, which asks nothing of the future; a longer gap ends the series and another begins. Target:
glucose. Past covariates, where the files have meals or insulin: carbohydrate on board and available
(g), insulin on board and available (U), and what else there is; the report names them in order.
Nothing is scaled.

For example:
  python -m tsmjax.prepare glucose --src iglu_example_5_subjects.csv.gz --dst data/iglu
  python -m tsmjax.prepare glucose --src big_ideas --dst data/big_ideas --min-rows 608
  python -m tsmjax.prepare glucose --src brist1d/train.csv --dst data/brist1d --unit mmol/L
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tsmjax.errors import InputError
from tsmjax.glucose.features import carb_features, insulin_features
from tsmjax.glucose.metrics import MG_DL_PER_MMOL_L, to_mg
from tsmjax.prepare.columns import some
from tsmjax.prepare.report import Report

LOWEST, HIGHEST = 20.0, 600.0  # mg/dL: other readings are faults
_SUFFIXES = (".csv", ".csv.gz")
# Columns of ShanghaiT1DM.
_BASAL, _BOLUS = "CSII - basal insulin (Novolin R, IU / H)", "CSII - bolus insulin (Novolin R, IU)"
_INJECTED, _INFUSED = "Insulin dose - s.c.", "Insulin dose - i.v."
_DOSE = re.compile(r"(?P<name>[A-Za-z][^,;]*),\s*(?P<units>[\d.]+)\s*IU", re.I)
# Insulin that acts over a day, or a mixture with it: another course than that of a bolus.
_SLOW = re.compile(r"glargine|detemir|degludec|NPH|Novolin N|[3-7]0\s*R|[2-7]5\s*R|/", re.I)


class _Person(NamedTuple):
    """The raw records of one person.

    Attributes:
      name: identifier of the records.
      readings: glucose in mg/dL by time, as recorded.
      events: by name, amounts by time that add up: carbs (g), insulin (U), meal (count), steps …
      levels: by name, values by time that hold until the next: basal (U/h), heart rate …
      subject: whose records they are, where a person has several; empty for `name`.
    """

    name: str
    readings: pd.Series
    events: dict[str, pd.Series]
    levels: dict[str, pd.Series]
    subject: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--layout", choices=("auto", *_READERS), default="auto")
    add("--gap", type=float, default=45.0, help="most minutes between two readings of one series")
    add("--min-rows", type=int, default=144, help="shortest series that is kept")
    add("--unit", choices=("mg/dL", "mmol/L"), default="mg/dL", help="of the target")
    add("--alone", action="store_true", help="glucose alone, without covariates")
    add(
        "--announced",
        action="store_true",
        help="covariates are known in the future too: for models that are told of meals to come",
    )
    add(
        "--legacy-hovorka-180",
        action="store_true",
        help="carbohydrate and insulin by Euler steps, and nothing after 180 minutes",
    )


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when no file is of a known layout, a column is missing, or cells are refused.
    """
    layout, tables = _open(source, options.layout)
    report = Report(source=str(source), layout=layout)

    def rows() -> Iterator[dict[str, Any]]:
        for person in _READERS[layout](tables, report):
            yield from _series(person, options, report)

    return some(rows(), report), report


# ------------------------------------------------------------------------------------ onto the grid


def _series(
    person: _Person, options: argparse.Namespace, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield the unbroken series of one person."""
    name, readings = person.name, person.readings.sort_index().astype(float)
    faults = ~readings.between(LOWEST, HIGHEST) & readings.notna()
    if faults.any():
        span = f"{LOWEST:.0f} to {HIGHEST:.0f} mg/dL"
        report.notes.append(f"{name}: {int(faults.sum())} readings outside {span} were left out.")
    readings = readings[~faults].dropna()
    if len(readings) < 3:
        report.dropped.append((name, f"it has {len(readings)} readings"))
        return
    every = _spacing(readings.index)
    first = readings.index[0]

    def cell(times: pd.DatetimeIndex) -> np.ndarray:
        return np.round((times - first) / pd.Timedelta(minutes=every)).astype(int)

    cells = cell(readings.index)
    merged = len(cells) - len(np.unique(cells))
    if merged:
        report.notes.append(f"{name}: {merged} readings fell into the row of another; the mean.")
    glucose = readings.groupby(cells).mean().reindex(range(cells[-1] + 1)).to_numpy()
    covariates = _covariates(person, first, every, len(glucose), options, report)

    observed = np.flatnonzero(~np.isnan(glucose))
    breaks = np.flatnonzero(np.diff(observed) * every > options.gap) + 1
    for number, part in enumerate(np.split(observed, breaks)):
        span = slice(part[0], part[-1] + 1)
        start = first + pd.Timedelta(minutes=float(part[0] * every))
        label = f"{name}/{number}" if len(breaks) else name
        length = span.stop - span.start
        if length < options.min_rows:
            why = f"{length} rows between long gaps, less than --min-rows {options.min_rows}"
            report.dropped.append((label, why))
            continue
        target = pd.Series(glucose[span]).ffill().to_numpy()
        if lacking := length - len(part):
            report.notes.append(f"{label}: {lacking} missing readings hold the one before.")
        if options.unit == "mmol/L":
            target = target / MG_DL_PER_MMOL_L
        row = {
            "item_id": label,
            "subject": person.subject or name,
            "start": np.datetime64(start, "ns"),
            "freq": f"{every}min",
            "target": target.astype(np.float32),
            "names": {"target": ["glucose"]},
        }
        if covariates and not options.alone:
            kind = "feat_dynamic_real" if options.announced else "past_feat_dynamic_real"
            row["names"][kind] = list(covariates)
            row[kind] = np.stack([values[span] for values in covariates.values()]).astype(
                np.float32
            )
        yield row


def _spacing(times: pd.DatetimeIndex) -> int:
    """Return the usual minutes between two readings."""
    minutes = np.round(np.diff(times.to_numpy()) / np.timedelta64(1, "m")).astype(int)
    minutes = minutes[minutes > 0]
    return int(np.bincount(minutes[minutes <= 60]).argmax()) if (minutes <= 60).any() else 5


def _covariates(
    person: _Person,
    first: pd.Timestamp,
    every: int,
    rows: int,
    options: argparse.Namespace,
    report: Report,
) -> dict[str, np.ndarray]:
    """Return covariates by name, (rows,) each; meals and doses go to the row that ends theirs."""

    def added(events: pd.Series) -> np.ndarray:
        events = events.dropna()
        row = np.ceil((events.index - first) / pd.Timedelta(minutes=every) - 1e-6).astype(int)
        inside = (row >= 0) & (row < rows)
        return np.bincount(row[inside], events.to_numpy(float)[inside], minlength=rows)

    found: dict[str, np.ndarray] = {}
    options_of_kernels = {"legacy_hovorka_180": options.legacy_hovorka_180}
    for name, events in person.events.items():
        negative = events < 0
        if negative.any():
            report.notes.append(f"{person.name}: {int(negative.sum())} negative {name} left out.")
            events = events[~negative]
        amounts = added(events)
        if name == "carbs":
            cob, available = carb_features(amounts, every, **options_of_kernels)
            found |= {"cob": cob, "carb_availability": available}
        elif name == "insulin":
            iob, available = insulin_features(amounts, every, **options_of_kernels)
            found |= {"iob": iob, "insulin_availability": available}
        else:
            found[name] = amounts
    grid = first + pd.to_timedelta(np.arange(rows) * every, unit="min")
    for name, values in person.levels.items():
        values = values.dropna().sort_index()
        values = values[~values.index.duplicated(keep="last")]
        found[name] = values.reindex(grid, method="ffill").to_numpy(float)
    note = f"Covariates, in order: {', '.join(found) or 'none'}."
    if note not in report.notes:
        report.notes.insert(0, note)
    return found


# ----------------------------------------------------------------------------------- the raw files


def _open(source: Path, layout: str) -> tuple[str, dict[str, pd.DataFrame]]:
    """Return the layout and the tables by file name."""
    files = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in files if file.name.lower().endswith(_SUFFIXES)]
    if not files:
        raise InputError(f"{source} holds no {' or '.join(_SUFFIXES)} files.")
    tables = {}
    for file in files:
        try:
            tables[file.name.split(".")[0]] = pd.read_csv(file)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{file} cannot be read as a table ({error}): copy it again."
            ) from error
    if layout == "auto":
        # A folder may hold other tables too, as food logs: any that is recognised decides.
        known = (name for table in tables.values() for name in _NEEDED if _fits(name, table))
        layout = next(known, "")
    if not layout:
        shown = ", ".join(next(iter(tables.values())).columns[:12])
        raise InputError(
            f"{source} is none of {', '.join(_READERS)}; its first columns are {shown}. "
            "Other tables are for prepare csv."
        )
    for name, table in tables.items():
        if layout != "big_ideas" and not _fits(layout, table):
            lacking = sorted(_NEEDED[layout] - set(table.columns))
            raise InputError(f"{name} in {source} has no column {lacking[0]!r} of layout {layout}.")
    return layout, tables


def _fits(layout: str, table: pd.DataFrame) -> bool:
    return set(table.columns) >= _NEEDED[layout]


def _times(name: str, texts: pd.Series) -> pd.DatetimeIndex:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a format that has to be guessed
            return pd.DatetimeIndex(pd.to_datetime(texts, utc=True).dt.tz_localize(None))
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} has a time that is none ({error}).") from error


def _numbers(name: str, cells: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = numbers.isna() & cells.notna()
    if wrong.any():
        raise InputError(
            f"{name} has {int(wrong.sum())} cells in {cells.name!r} that are no numbers, the first "
            f"is {cells[wrong].iloc[0]!r}: correct or empty them."
        )
    return numbers


def _iglu(tables: dict[str, pd.DataFrame], report: Report) -> Iterator[_Person]:
    for file, table in tables.items():
        for name, rows in table.groupby("id", sort=False):
            glucose = _numbers(file, rows["gl"]).set_axis(_times(file, rows["time"]))
            yield _Person(str(name), glucose, {}, {})


def _simglucose(tables: dict[str, pd.DataFrame], report: Report) -> Iterator[_Person]:
    for file, table in tables.items():
        times = _times(file, table["Time"])
        minutes = (times[1:] - times[:-1]).total_seconds().to_numpy() / 60
        # A row has the means of what is given until the next row.
        amounts = {
            name: pd.Series(_numbers(file, table[column]).to_numpy()[:-1] * minutes, times[1:])
            for name, column in (("carbs", "CHO"), ("insulin", "insulin"))
        }
        glucose = _numbers(file, table["CGM"]).set_axis(times)
        yield _Person(file, glucose, amounts, {})


def _big_ideas(tables: dict[str, pd.DataFrame], report: Report) -> Iterator[_Person]:
    for file, table in tables.items():
        if not _fits("big_ideas", table):
            continue
        number = file.removeprefix("Dexcom_")
        rows = table[table["event_type"] == "EGV"]
        others = len(table) - len(rows)
        if others:
            report.notes.append(f"{file}: {others} lines are no readings and were left out.")
        glucose = _numbers(file, rows["glucose"]).set_axis(_times(file, rows["timestamp"]))
        food = tables.get(f"Food_Log_{number}")
        if food is None:
            report.notes.append(f"{file}: there is no Food_Log_{number}; no meals.")
            carbs = pd.Series([], pd.DatetimeIndex([]), float)
        else:
            food = food[food["time_begin"].notna() & food["total_carb"].notna()]
            times = _times(f"Food_Log_{number}", food["time_begin"])
            carbs = _numbers(f"Food_Log_{number}", food["total_carb"]).set_axis(times)
        yield _Person(number, glucose, {"carbs": carbs}, {})


def _shanghai(tables: dict[str, pd.DataFrame], report: Report) -> Iterator[_Person]:
    for file, table in tables.items():
        for name, rows in table.groupby("record", sort=False):
            times = _times(file, rows["Date"])
            glucose = _numbers(file, rows["CGM (mg / dl)"]).set_axis(times)
            doses = rows[_INJECTED].fillna("").astype(str).str.extractall(_DOSE)
            slow = doses["name"].str.contains(_SLOW)
            if slow.any():
                report.notes.append(f"{name}: {int(slow.sum())} doses of slow insulin left out.")
            fast = doses["units"][~slow].astype(float).groupby(level=0).sum()
            drips = int(rows[_INFUSED].notna().sum())
            if drips:
                report.notes.append(f"{name}: {drips} intravenous infusions left out.")
            bolus = pd.to_numeric(rows[_BOLUS], errors="coerce").fillna(0.0)
            insulin = bolus.add(fast, fill_value=0.0).set_axis(times)
            meal = rows["Dietary intake"].notna().astype(float).set_axis(times)
            # A rate stands where it changes; texts say that the pump is suspended.
            rate = pd.to_numeric(rows[_BASAL], errors="coerce")
            rate = rate.where(rate.notna() | rows[_BASAL].isna(), 0.0).set_axis(times)
            rate = rate.where(rate.ffill().notna(), 0.0)
            events = {"insulin": insulin, "meal": meal}
            # Records are named PATIENT_NUMBER_DATE.
            patient = str(name).partition("_")[0]
            yield _Person(str(name), glucose, events, {"basal": rate}, patient)


def _brist1d(tables: dict[str, pd.DataFrame], report: Report) -> Iterator[_Person]:
    sums = ("carbs", "insulin", "steps", "cals")
    for file, table in tables.items():
        if "bg+1:00" not in table:
            raise InputError(
                f"{file} is the test part of BrisT1D, whose rows are in random order: no series "
                "can be made of it."
            )
        clock = pd.to_timedelta(table["time"], errors="coerce")
        if clock.isna().any():
            raise InputError(f"{file} has a time that is not of the form HH:MM:SS.")
        for name, rows in table.groupby("p_num", sort=False):
            # There are no dates: a clock that goes backwards begins another day.
            days = (clock[rows.index].diff() < pd.Timedelta(0)).cumsum()
            times = pd.DatetimeIndex(
                pd.Timestamp("2024-01-01") + clock[rows.index] + pd.to_timedelta(days, unit="D")
            )
            now = {
                column: _numbers(file, rows[f"{column}-0:00"]).set_axis(times)
                for column in ("bg", "hr", *sums)
            }
            events = {column: now[column] for column in sums}
            yield _Person(str(name), to_mg(now["bg"]), events, {"hr": now["hr"]})
    report.notes.append("Dates are made up: days follow the clock, and a gap of days is not seen.")


_READERS: dict[str, Callable[[dict[str, pd.DataFrame], Report], Iterator[_Person]]] = {
    "iglu": _iglu,
    "shanghai": _shanghai,
    "big_ideas": _big_ideas,
    "simglucose": _simglucose,
    "brist1d": _brist1d,
}
_NEEDED = {
    "iglu": {"id", "time", "gl"},
    "shanghai": {
        *("record", "Date", "CGM (mg / dl)", "Dietary intake"),
        *(_INJECTED, _INFUSED, _BOLUS, _BASAL),
    },
    "big_ideas": {"timestamp", "event_type", "glucose"},
    "simglucose": {"Time", "BG", "CGM", "CHO", "insulin"},
    "brist1d": {
        *("p_num", "time", "bg-0:00", "insulin-0:00", "carbs-0:00"),
        *("hr-0:00", "steps-0:00", "cals-0:00"),
    },
}
