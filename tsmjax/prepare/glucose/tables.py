"""Tables that no study defines: processed per-patient CSVs, and exports with usual column names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas.api import types

from tsmjax.errors import InputError
from tsmjax.glucose.metrics import to_mg
from tsmjax.prepare.columns import require
from tsmjax.prepare.glucose.person import CLOCK, Person, follow_clock, numbers, times
from tsmjax.prepare.report import Report

TIME, GLUCOSE = "datetime", "bg_mM"  # columns of processed files
_IDS = ("p_num", "id", "patient_id", "patient", "ptid", "subject", "subject_id", "pid", "user_id")
# Amounts that add up, of processed files; everything else holds until its next value.
_AMOUNTS = ("steps", "cals", "dose_units", "food_g", "carbs", "insulin", "insulin_u", "carb_g")
_HIGHEST_MMOL = 30.0  # mmol/L: a median above it is one of mg/dL
# What a column is, by its name in lower-case letters and digits.
_TIMES = r"(device|local|reading|cgm)?(timestamp|datetime|date|time|ts)(local|utc)?"
_ROLES = {
    "glucose": r"(historic|sensor|blood|cgm|current)?(glucose|bg|gl|sgv|cgm)"
    r"(value|level|reading)?(mgdl|mmoll|mmol|mm)?",
    "carbs": r"(carbs?|carbohydrates?|cho|carbinput|foodg|meals?|mealcarbs)(g|grams)?",
    "insulin": r"(insulin|bolus|dose|insulindose|bolusinsulin|totalinsulin|doseunits)(u|units|iu)?",
    "basal": r"(basal|basalrate)(uh|uhr|uperh)?",
    "steps": r"(steps?|stepcount)",
    "cals": r"(cals|calories)",
    "hr": r"(hr|heartrate)(bpm)?",
}


def processed(
    files: dict[str, pd.DataFrame], options: argparse.Namespace, report: Report
) -> Iterator[Person]:
    """Read a folder of processed CSVs, one a patient, with covariates that are ready.

    Raises:
      InputError: when a file lacks a column that is asked for.
    """
    glucose = options.target[0] if options.target else GLUCOSE
    when = options.timestamp_column or TIME
    for file, table in files.items():
        columns = list(table.columns)
        require(file, columns, glucose)
        ids = _id_column(table, options)
        if options.covariates is None:
            wanted = [
                name
                for name in columns
                if types.is_numeric_dtype(table[name])
                and name not in (glucose, when, ids)
                and not str(name).startswith("Unnamed")
            ]
        else:
            wanted = [*options.covariates, *options.target[1:]]
            for name in wanted:
                require(file, columns, name)
        for name, rows in _people(file, table, ids):
            index = _when(file, rows, require(file, columns, when), report)
            readings = _in_mg(name, glucose, numbers(file, rows[glucose]), report).set_axis(index)
            values = {name: numbers(file, rows[name]).set_axis(index) for name in wanted}
            yield Person(
                *(name, readings),
                amounts={name: values[name] for name in wanted if name in _AMOUNTS},
                levels={name: values[name] for name in wanted if name not in _AMOUNTS},
            )


def table(
    files: dict[str, pd.DataFrame], options: argparse.Namespace, report: Report
) -> Iterator[Person]:
    """Read CGM tables: a person a file, or a column that names the person.

    Raises:
      InputError: when a file has no column of times or of glucose.
    """
    for file, content in files.items():
        columns = roles(content, options)
        for role in ("time", "glucose"):
            if role not in columns:
                option = "--target" if role == "glucose" else "--timestamp-column"
                raise InputError(
                    f"{file} has no column of {role} that is recognised among "
                    f"{', '.join(map(str, content.columns[:12]))}: say {option}."
                )
        for name, rows in _people(file, content, _id_column(content, options)):
            index = _when(file, rows, columns["time"], report)
            found = {
                role: numbers(file, rows[column]).set_axis(index)
                for role, column in columns.items()
                if role != "time"
            }
            yield Person(
                name,
                _in_mg(name, columns["glucose"], found["glucose"], report),
                found.get("carbs"),
                found.get("insulin"),
                amounts={role: found[role] for role in ("steps", "cals") if role in found},
                levels={role: found[role] for role in ("basal", "hr") if role in found},
            )


def recognised(content: pd.DataFrame, options: argparse.Namespace) -> bool:
    """Tell whether a table has columns of times and of glucose."""
    return {"time", "glucose"} <= roles(content, options).keys()


def roles(content: pd.DataFrame, options: argparse.Namespace) -> dict[str, str]:
    """Return role → column, by the options and the usual names."""
    found: dict[str, str] = {}
    for column in map(str, content.columns):
        plain = re.sub(r"[^a-z0-9]", "", column.lower())
        for role, pattern in {"time": _TIMES, **_ROLES}.items():
            if role not in found and re.fullmatch(pattern, plain):
                found[role] = column
    given = {"time": options.timestamp_column}
    given["glucose"] = options.target[0] if options.target else None
    for role, column in given.items():
        if column in content.columns:
            found[role] = column
        elif column is not None and role == "time":
            found.pop(role, None)
    return found


def _id_column(content: pd.DataFrame, options: argparse.Namespace) -> str | None:
    """Return the column that names the person, or None where the file does."""
    columns = list(content.columns)
    if options.id_column:
        return require("The table", columns, options.id_column)
    lower = {str(name).lower().replace(" ", "_"): name for name in reversed(columns)}
    return next((lower[name] for name in _IDS if name in lower), None)


def _people(
    file: str, content: pd.DataFrame, ids: str | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    if ids is None:
        yield file, content
        return
    for name, rows in content.groupby(ids, sort=False):
        yield str(name), rows


def _when(file: str, rows: pd.DataFrame, column: str, report: Report) -> pd.DatetimeIndex:
    """Read times, with a column of dates beside clock times, or days that follow the clock."""
    texts = rows[column]
    if (
        types.is_numeric_dtype(texts)
        or not texts.astype(str).str.strip().str.fullmatch(CLOCK).all()
    ):
        return times(file, texts)
    dates = next(
        (n for n in rows.columns if str(n).lower() in ("date", "day") and n != column), None
    )
    if dates is not None:
        return times(file, rows[dates].astype(str) + " " + texts.astype(str))
    note = f"{file}: dates are made up; days follow the clock, and a gap of days is not seen."
    if note not in report.notes:
        report.notes.append(note)
    return follow_clock(file, texts)


def _in_mg(person: str, column: str, values: pd.Series, report: Report) -> pd.Series:
    """Return glucose in mg/dL; its unit is in the name of the column, or the values tell."""
    plain = re.sub(r"[^a-z]", "", column.lower())
    if plain.endswith(("mgdl", "mmoll", "mmol", "mm")):
        return values if plain.endswith("mgdl") else to_mg(values)
    positive = values[values > 0]
    median = float(np.median(positive)) if len(positive) else _HIGHEST_MMOL
    unit = "mmol/L" if median < _HIGHEST_MMOL else "mg/dL"
    report.notes.append(f"{person}: {column} is taken as {unit}, its median is {median:.3g}.")
    return to_mg(values) if unit == "mmol/L" else values
