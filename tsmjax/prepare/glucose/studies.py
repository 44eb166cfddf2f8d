"""Files of studies and simulators, each in the format it is published in."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pandas as pd

from tsmjax.errors import InputError
from tsmjax.glucose.metrics import to_mg
from tsmjax.prepare.glucose.person import Person, follow_clock, numbers, times
from tsmjax.prepare.report import Report

Tables = dict[str, pd.DataFrame]

# Columns of ShanghaiT1DM.
_BASAL, _BOLUS = "CSII - basal insulin (Novolin R, IU / H)", "CSII - bolus insulin (Novolin R, IU)"
_INJECTED, _INFUSED = "Insulin dose - s.c.", "Insulin dose - i.v."
_DOSE = re.compile(r"(?P<name>[A-Za-z][^,;]*),\s*(?P<units>[\d.]+)\s*IU", re.I)
# Insulin that acts over a day, or a mixture with it: another course than that of a bolus.
_SLOW = re.compile(r"glargine|detemir|degludec|NPH|Novolin N|[3-7]0\s*R|[2-7]5\s*R|/", re.I)
# Format → the columns that tell it.
NEEDED = {
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


def iglu(tables: Tables, options: argparse.Namespace, report: Report) -> Iterator[Person]:
    """Read the example data of the R package iglu: glucose alone."""
    for file, table in tables.items():
        for name, rows in table.groupby("id", sort=False):
            yield Person(str(name), numbers(file, rows["gl"]).set_axis(times(file, rows["time"])))


def simglucose(tables: Tables, options: argparse.Namespace, report: Report) -> Iterator[Person]:
    """Read traces of simglucose, whose rows hold the means of what is given until the next row."""
    for file, table in tables.items():
        when = times(file, table["Time"])
        minutes = (when[1:] - when[:-1]).total_seconds().to_numpy() / 60
        meals, insulin = (
            pd.Series(numbers(file, table[column]).to_numpy()[:-1] * minutes, when[1:])
            for column in ("CHO", "insulin")
        )
        yield Person(file, numbers(file, table["CGM"]).set_axis(when), meals, insulin)


def big_ideas(tables: Tables, options: argparse.Namespace, report: Report) -> Iterator[Person]:
    """Read the BIG IDEAs files: Dexcom exports, and a food log beside each."""
    for file, table in tables.items():
        if not set(table.columns) >= NEEDED["big_ideas"]:
            continue
        number = file.removeprefix("Dexcom_")
        rows = table[table["event_type"] == "EGV"]
        others = len(table) - len(rows)
        if others:
            report.notes.append(f"{file}: {others} lines are no readings and were left out.")
        glucose = numbers(file, rows["glucose"]).set_axis(times(file, rows["timestamp"]))
        log = f"Food_Log_{number}"
        food = tables.get(log)
        if food is None:
            report.notes.append(f"{file}: there is no {log}; no meals.")
            carbs = pd.Series([], pd.DatetimeIndex([]), float)
        else:
            food = food[food["time_begin"].notna() & food["total_carb"].notna()]
            carbs = numbers(log, food["total_carb"]).set_axis(times(log, food["time_begin"]))
        yield Person(number, glucose, carbs)


def shanghai(tables: Tables, options: argparse.Namespace, report: Report) -> Iterator[Person]:
    """Read ShanghaiT1DM: meals without their size, doses as texts, a basal rate."""
    for file, table in tables.items():
        for name, rows in table.groupby("record", sort=False):
            when = times(file, rows["Date"])
            glucose = numbers(file, rows["CGM (mg / dl)"]).set_axis(when)
            doses = rows[_INJECTED].fillna("").astype(str).str.extractall(_DOSE)
            slow = doses["name"].str.contains(_SLOW)
            if slow.any():
                report.notes.append(f"{name}: {int(slow.sum())} doses of slow insulin left out.")
            fast = doses["units"][~slow].astype(float).groupby(level=0).sum()
            drips = int(rows[_INFUSED].notna().sum())
            if drips:
                report.notes.append(f"{name}: {drips} intravenous infusions left out.")
            bolus = pd.to_numeric(rows[_BOLUS], errors="coerce").fillna(0.0)
            insulin = bolus.add(fast, fill_value=0.0).set_axis(when)
            meal = rows["Dietary intake"].notna().astype(float).set_axis(when)
            # A rate stands where it changes; texts say that the pump is suspended.
            rate = pd.to_numeric(rows[_BASAL], errors="coerce")
            rate = rate.where(rate.notna() | rows[_BASAL].isna(), 0.0).set_axis(when)
            rate = rate.where(rate.ffill().notna(), 0.0)
            # Records are named PATIENT_NUMBER_DATE.
            patient = str(name).partition("_")[0]
            amounts, levels = {"meal": meal}, {"basal": rate}
            yield Person(str(name), glucose, None, insulin, amounts, levels, patient)


def brist1d(tables: Tables, options: argparse.Namespace, report: Report) -> Iterator[Person]:
    """Read the training part of BrisT1D: rows in order, clock times without dates, lags."""
    for file, table in tables.items():
        if "bg+1:00" not in table:
            raise InputError(
                f"{file} is the test part of BrisT1D, whose rows are in random order: no series "
                "can be made of it."
            )
        for name, rows in table.groupby("p_num", sort=False):
            when = follow_clock(file, rows["time"])
            now = {
                column: numbers(file, rows[f"{column}-0:00"]).set_axis(when)
                for column in ("bg", "carbs", "insulin", "steps", "cals", "hr")
            }
            yield Person(
                *(str(name), to_mg(now["bg"]), now["carbs"], now["insulin"]),
                amounts={"steps": now["steps"], "cals": now["cals"]},
                levels={"hr": now["hr"]},
            )
    report.notes.append("Dates are made up: days follow the clock, and a gap of days is not seen.")
