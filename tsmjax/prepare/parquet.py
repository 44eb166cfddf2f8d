r"""Parquet files: one row a series with list columns, or tables as `prepare csv` reads them.

The layout is recognised: with a column of lists, each row holds one series or several (all list
columns but the timestamps); otherwise the table is long or wide as explained by prepare csv --help.

For example:
  python -m tsmjax.prepare parquet --src m4.parquet --dst data/m4
  python -m tsmjax.prepare parquet --src shops --dst data/shops --target units --future-covariates price
  python -m tsmjax.prepare parquet --src long.parquet --dst data/long --id-column store --target units
"""  # noqa: E501

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsmjax.errors import InputError
from tsmjax.prepare import columns, csv, lists
from tsmjax.prepare.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    columns.add_arguments(parser)
    parser.add_argument("--layout", choices=("auto", "lists", "long", "wide"), default="auto")
    unused = {"missing": [], "static_categories": []}
    parser.set_defaults(separator=None, decimal=".", header=None, **unused)


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when there is nothing to read, a column is missing, or values are refused.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.parquet"))
    if not files:
        raise InputError(f"The folder {source} holds no .parquet files.")
    nested = any(lists.is_list(field.type) for field in lists.schema(files[0]))
    if options.layout == "lists" or (options.layout == "auto" and nested):
        report = Report(source=str(source), layout="")
        found = lists.rows(str(source), lists.batches(files), options, report)
        return columns.some(found, report), report
    return csv.prepare(source, options)
