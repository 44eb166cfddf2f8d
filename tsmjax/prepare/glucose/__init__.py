r"""Continuous glucose monitoring: studies, per-patient tables and CGM exports onto a regular grid.

Readings are put on the regular grid of the sensor, one row each; meals and doses are added up in
the row that ends their interval. Where the next reading comes within --gap minutes the last one is
held, which asks nothing of the future; a longer gap ends the series and another begins. Target:
glucose. Past covariates, where the files have meals or insulin: carbohydrate on board and available
(g), insulin on board and available (U), and what else there is; the report names them in order.
Nothing is scaled.

Formats, recognised by their columns: iglu, shanghai (ShanghaiT1DM), big_ideas with its food logs,
simglucose, brist1d (its training part), replace_bg (the study's folder "Data Tables"), processed (a
folder of CSVs, one a patient, whose covariates are taken as they are), and table: any CGM table
whose columns have usual names (docs/glucose.md), or that --target and --timestamp-column name.

For example:
  python -m tsmjax.prepare glucose --src iglu_example_5_subjects.csv.gz --dst data/iglu
  python -m tsmjax.prepare glucose --src big_ideas --dst data/big_ideas --min-rows 608
  python -m tsmjax.prepare glucose --src brist1d/train.csv --dst data/brist1d --unit mmol/L
  python -m tsmjax.prepare glucose --src cache/data/aleppo_2017/processed --dst data/aleppo \
      --target bg_mM --covariates cob iob --unit mmol/L
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tsmjax.errors import InputError
from tsmjax.prepare.columns import some
from tsmjax.prepare.glucose import replace_bg, studies, tables
from tsmjax.prepare.glucose.grid import series
from tsmjax.prepare.glucose.person import Person
from tsmjax.prepare.report import Report

Reader = Callable[[dict[str, pd.DataFrame], argparse.Namespace, Report], Iterator[Person]]

_READERS: dict[str, Reader] = {
    "iglu": studies.iglu,
    "shanghai": studies.shanghai,
    "big_ideas": studies.big_ideas,
    "simglucose": studies.simglucose,
    "brist1d": studies.brist1d,
    "replace_bg": replace_bg.people,
    "processed": tables.processed,
    "table": tables.table,
}
_NEEDED = {**studies.NEEDED, "processed": {tables.TIME, tables.GLUCOSE}}
_SUFFIXES = (".csv", ".csv.gz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--format", "--layout", dest="layout", choices=("auto", *_READERS), default="auto")
    add("--gap", type=float, default=45.0, help="most minutes between two readings of one series")
    add("--min-rows", type=int, default=144, help="shortest series that is kept")
    add("--every", type=int, help="keep only people with so many minutes between two readings")
    add("--unit", choices=("mg/dL", "mmol/L"), default="mg/dL", help="of the target")
    add(
        "--covariates",
        nargs="*",
        help="covariates to keep, in this order; all that the files have by default",
    )
    add("--alone", action="store_true", help="glucose alone, without covariates")
    add("--target", nargs="+", default=[], help="column of glucose; further targets behind it")
    add("--timestamp-column", help="column of the times, of processed and table")
    add("--id-column", help="column that names the person, of processed and table")
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
      InputError: when no file is of a known format, a column is missing, or cells are refused.
    """
    layout, found = _open(source, options)
    report = Report(source=str(source), layout=layout)

    def rows() -> Iterator[dict[str, Any]]:
        for person in _READERS[layout](found, options, report):
            yield from series(person, options, report)

    return some(rows(), report), report


def _open(source: Path, options: argparse.Namespace) -> tuple[str, dict[str, pd.DataFrame]]:
    """Return the format and the tables by file name."""
    layout = options.layout
    if layout == "replace_bg" or (layout == "auto" and replace_bg.found(source)):
        return "replace_bg", replace_bg.read(source)
    files = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in files if file.name.lower().endswith(_SUFFIXES)]
    if not files:
        raise InputError(f"{source} holds no {' or '.join(_SUFFIXES)} files.")
    found = {}
    for file in files:
        try:
            found[file.name.split(".")[0]] = pd.read_csv(file, low_memory=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{file} cannot be read as a table ({error}): copy it again."
            ) from error
    if layout == "auto":
        # A folder may hold other tables too, as food logs: any that is recognised decides.
        known = (name for table in found.values() for name in _NEEDED if _fits(name, table))
        layout = next(known, "")
        if not layout and all(tables.recognised(table, options) for table in found.values()):
            layout = "table"
    if not layout:
        shown = ", ".join(map(str, next(iter(found.values())).columns[:12]))
        raise InputError(
            f"{source} is none of {', '.join(_READERS)}; its first columns are {shown}. Say "
            "--target and --timestamp-column; tables of other things are for prepare csv."
        )
    for name, table in found.items():
        if layout in studies.NEEDED and layout != "big_ideas" and not _fits(layout, table):
            lacking = sorted(_NEEDED[layout] - set(table.columns))
            raise InputError(f"{name} in {source} has no column {lacking[0]!r} of layout {layout}.")
    return layout, found


def _fits(layout: str, table: pd.DataFrame) -> bool:
    return set(table.columns) >= _NEEDED[layout]
