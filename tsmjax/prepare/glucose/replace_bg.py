"""REPLACE-BG (Aleppo et al. 2017): sensor, boluses, basal rates and bolus calculator of pump users.

Times are days from enrolment and a clock; day 0 becomes 2020-01-01, and days before it, when the
run-in was, are left out. Only the time that all tables of a person cover is kept: before and after
it a missing dose would look like none.

Source: Aleppo et al., "REPLACE-BG: a randomized trial comparing continuous glucose monitoring with
and without routine blood glucose monitoring in adults with well-controlled type 1 diabetes"
(Diabetes Care 2017).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tsmjax.errors import InputError
from tsmjax.prepare.columns import require
from tsmjax.prepare.glucose.person import Person, numbers
from tsmjax.prepare.report import Report

_ENROLMENT = pd.Timestamp("2020-01-01")
_PERSON, _DAY, _CLOCK = "PtID", "DeviceDtTmDaysFromEnroll", "DeviceTm"
_COLUMNS = {
    "HDeviceCGM": ("RecordType", "GlucoseValue"),
    "HDeviceBolus": ("Normal", "Extended", "Duration"),
    "HDeviceBasal": ("BasalType", "Duration", "Rate", "SuprRate"),
    "HDeviceWizard": ("CarbInput",),
}
_OPTIONAL = ("Extended", "Duration", "SuprRate")
_SPREAD = 5.0  # minutes between the parts of an extended bolus


def _folder(source: Path) -> Path:
    """Return the folder of the tables, which the study's archive calls "Data Tables"."""
    inner = source / "Data Tables"
    return inner if inner.is_dir() else source


def _file(folder: Path, name: str) -> Path | None:
    return next(
        (file for end in ("txt", "csv") if (file := folder / f"{name}.{end}").exists()), None
    )


def found(source: Path) -> bool:
    """Tell whether the folder holds the study's tables."""
    return source.is_dir() and _file(_folder(source), "HDeviceCGM") is not None


def read(source: Path) -> dict[str, pd.DataFrame]:
    """Read the four tables, with a column `when`, without the days before enrolment.

    Raises:
      InputError: when a table or a column is missing, or a day or clock is none.
    """
    folder, tables = _folder(source), {}
    for name, columns in _COLUMNS.items():
        file = _file(folder, name)
        if file is None:
            raise InputError(f"{folder} lacks {name}.txt: copy the study's data tables there.")
        try:
            content = pd.read_csv(file, sep="|", low_memory=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{file} cannot be read as a table ({error}): copy it again."
            ) from error
        # The bolus calculator's table spells the person's number differently.
        content = content.rename(columns={"PtId": _PERSON})
        for column in (_PERSON, _DAY, _CLOCK, *columns):
            if column not in _OPTIONAL:
                require(file, list(content.columns), column)
            elif column not in content:
                content[column] = np.nan
        content = content[[_PERSON, _DAY, _CLOCK, *columns]]
        days = numbers(file.name, content[_DAY])
        clock = pd.to_timedelta(content[_CLOCK].astype(str), errors="coerce")
        if clock.isna().any() or days.isna().any():
            raise InputError(f"{file} has a day or a {_CLOCK} that is none.")
        when = _ENROLMENT + pd.to_timedelta(days, unit="D") + clock
        tables[name] = content.assign(when=when)[days >= 0].drop(columns=[_DAY, _CLOCK])
        tables[name].attrs["before"] = int((days < 0).sum())
    return tables


def people(
    tables: dict[str, pd.DataFrame], options: argparse.Namespace, report: Report
) -> Iterator[Person]:
    """Yield those who have a sensor and a pump."""
    for name, table in tables.items():
        if before := table.attrs["before"]:
            report.notes.append(f"{name}: {before} lines from before enrolment were left out.")
    cgm = tables["HDeviceCGM"]
    others = int((cgm["RecordType"] != "CGM").sum())
    if others:
        report.notes.append(f"HDeviceCGM: {others} lines are no readings and were left out.")
    parts = {"HDeviceCGM": cgm[cgm["RecordType"] == "CGM"]}
    parts |= {name: table for name, table in tables.items() if name not in parts}
    by_person = {
        name: dict(iter(table.drop_duplicates().groupby(_PERSON))) for name, table in parts.items()
    }
    for number in sorted(by_person["HDeviceCGM"]):
        person = f"ale_{int(number):03d}"
        own = {
            name: rows[number].sort_values("when")
            for name, rows in by_person.items()
            if number in rows
        }
        lacking = [name for name in ("HDeviceBolus", "HDeviceBasal") if name not in own]
        if lacking:
            report.dropped.append((person, f"it has no {lacking[0]}"))
            continue
        begin = max(rows["when"].iloc[0] for rows in own.values())
        end = min(rows["when"].iloc[-1] for rows in own.values())
        readings = numbers("HDeviceCGM", own["HDeviceCGM"]["GlucoseValue"])
        readings = readings.set_axis(pd.DatetimeIndex(own["HDeviceCGM"]["when"]))
        covered = readings[(readings.index >= begin) & (readings.index <= end)]
        if apart := len(readings) - len(covered):
            report.notes.append(
                f"{person}: {apart} readings are outside what all tables cover and were left out."
            )
        meals = pd.Series([], pd.DatetimeIndex([]), float)
        if "HDeviceWizard" in own:
            wizard = own["HDeviceWizard"]
            meals = numbers("HDeviceWizard", wizard["CarbInput"])
            meals = meals.set_axis(pd.DatetimeIndex(wizard["when"]))
        yield Person(
            *(person, covered, meals, _boluses(own["HDeviceBolus"])),
            levels={"basal": _basal(own["HDeviceBasal"])},
        )


def _boluses(rows: pd.DataFrame) -> pd.Series:
    """Return doses in U by time; the extended part of a bolus in parts every five minutes."""
    normal = numbers("HDeviceBolus", rows["Normal"]).set_axis(pd.DatetimeIndex(rows["when"]))
    extended = numbers("HDeviceBolus", rows["Extended"]).fillna(0.0).to_numpy()
    minutes = _in_minutes("HDeviceBolus", rows["Duration"]).fillna(0.0).to_numpy()
    doses = [normal.dropna()]
    for row in np.flatnonzero(extended):
        parts = max(int(np.ceil(minutes[row] / _SPREAD)), 1)
        share = minutes[row] / parts * np.arange(1, parts + 1)
        when = rows["when"].iloc[row] + pd.to_timedelta(share, unit="min")
        doses.append(pd.Series(extended[row] / parts, pd.DatetimeIndex(when)))
    return pd.concat(doses).sort_index()


def _basal(rows: pd.DataFrame) -> pd.Series:
    """Return the basal rate in U/h by time, from the records of its changes.

    A record says from when a rate is delivered and for how long. A scheduled rate goes on until the
    next record. A temporary rate or a suspension that ends before it gives way to the rate that it
    suppressed: the recorded one, else the last that was scheduled.
    """
    kind = rows["BasalType"].astype(str).str.lower()
    rate = numbers("HDeviceBasal", rows["Rate"]).where(~kind.str.contains("suspend"), 0.0)
    scheduled = ~kind.str.contains("temp|suspend")
    before = rate.where(scheduled).ffill()
    after = numbers("HDeviceBasal", rows["SuprRate"]).fillna(before)
    ends = rows["when"] + pd.to_timedelta(_in_minutes("HDeviceBasal", rows["Duration"]), unit="min")
    over = ~scheduled & ends.notna() & ~(ends >= rows["when"].shift(-1))
    changes = [
        pd.Series(rate.to_numpy(), pd.DatetimeIndex(rows["when"])),
        pd.Series(after[over].to_numpy(), pd.DatetimeIndex(ends[over])),
    ]
    return pd.concat(changes).dropna().sort_index(kind="stable")


def _in_minutes(name: str, durations: pd.Series) -> pd.Series:
    """Return durations, which are milliseconds, or minutes where the upload came from Diasend."""
    found = numbers(name, durations)
    return found.where(found < 1440, found / 60_000)
