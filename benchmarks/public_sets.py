"""Public data sets in a folder of files, as the benchmarks and tests score them.

The folder is named by the environment variable TSMJAX_TEST_DATA; docs/test_data.md lists its files.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tsmjax.errors import InputError, closest
from tsmjax.evals.forecast import EvalDataset

Reader = Callable[[Path], list[np.ndarray]]

# Names in the result tables that chronos-forecasting publishes, where they are others.
PUBLISHED_NAMES = {
    name: f"monash_{name}"
    for name in (
        "tourism_monthly",
        "tourism_quarterly",
        "hospital",
        "m1_monthly",
        "m1_quarterly",
        "m1_yearly",
        "covid_deaths",
    )
}


def six() -> list[EvalDataset]:
    """Return the zero-shot sets on which models are compared."""
    return [load(name) for name in _SIX]


def ten() -> list[EvalDataset]:
    """Return `six` and four more sets of the published zero-shot benchmark."""
    return [load(name) for name in (*_SIX, *_FOUR)]


def tuning() -> list[EvalDataset]:
    """Return sets to choose hyperparameters on; none of them is in `ten`."""
    return [load(name) for name in _TUNING]


def load(name: str) -> EvalDataset:
    """Read one data set by name.

    Raises:
      InputError: when TSMJAX_TEST_DATA is unset, lacks the file, or the name is unknown.
    """
    table = {**_SIX, **_FOUR, **_TUNING}
    if name not in table:
        raise InputError(f"There is no public data set {name!r}{closest(name, table)}.")
    read, horizon, season = table[name]
    try:
        series = read(folder())
    except FileNotFoundError as error:
        raise InputError(
            f"The data set {name!r} needs {error.filename}, which does not exist; "
            "docs/test_data.md describes the folder TSMJAX_TEST_DATA."
        ) from error
    return EvalDataset(name, [np.asarray(one, np.float32) for one in series], horizon, season)


def folder() -> Path:
    """Return the folder of public forecasting data.

    Raises:
      InputError: when TSMJAX_TEST_DATA is unset.
    """
    root = os.environ.get("TSMJAX_TEST_DATA")
    if not root:
        raise InputError(
            "Set TSMJAX_TEST_DATA to the folder of public data that docs/test_data.md describes."
        )
    return Path(root) / "data" / "forecasting"


def published_seasonal_naive() -> pd.DataFrame:
    """Return the published MASE and WQL of seasonal naive, indexed by data set."""
    folder = Path(os.environ["TSMJAX_TEST_DATA"]) / "data" / "reference_results" / "chronos_eval"
    parts = [
        pd.read_csv(folder / f"seasonal-naive-{part}.csv") for part in ("in-domain", "zero-shot")
    ]
    return pd.concat(parts).set_index("dataset")


# ------------------------------------------------------------------------------------- the readers


def _rows(file: str) -> Reader:
    """One row a series, values in the list column `target`."""
    return lambda folder: list(pd.read_parquet(folder / file)["target"])


def _competition(file: str, period: str) -> Reader:
    """One row a series, `train` and `test` in list columns, many periods in one file."""

    def read(folder: Path) -> list[np.ndarray]:
        table = pd.read_parquet(folder / file)
        table = table[table["period"].str.lower() == period]
        pairs = zip(table["train"], table["test"], strict=True)
        return [np.r_[train, test] for train, test in pairs]

    return read


def _long(file: str, item: str, value: str) -> Reader:
    """One line a series and time."""

    def read(folder: Path) -> list[np.ndarray]:
        groups = pd.read_csv(folder / file).groupby(item, sort=False)[value]
        return [group.to_numpy() for _, group in groups]

    return read


def _columns(*files: str, only: Sequence[str] = ()) -> Reader:
    """One column a series, beside columns of dates; one file or several."""

    def read(folder: Path) -> list[np.ndarray]:
        series = []
        for file in files:
            one = folder / file
            table = pd.read_parquet(one) if one.suffix == ".parquet" else pd.read_csv(one)
            table = table[list(only)] if only else table.select_dtypes("number")
            series += [table[name].to_numpy() for name in table]
        return series

    return read


def _exchange_rate(folder: Path) -> list[np.ndarray]:
    with gzip.open(folder / "exchange_rate.txt.gz", "rt") as file:
        return list(np.loadtxt(file, delimiter=",").T)


def _m4_hourly(folder: Path) -> list[np.ndarray]:
    parts = [
        pd.read_csv(folder / f"m4_hourly_{part}.csv.gz").iloc[:, 1:].to_numpy(np.float64)
        for part in ("train", "test")
    ]
    return [np.r_[past[~np.isnan(past)], label] for past, label in zip(*parts, strict=True)]


def _covid_deaths(folder: Path) -> list[np.ndarray]:
    table = pd.read_csv(folder / "covid_deaths_jhu_to_2020-08-27.csv.gz")
    return list(table.iloc[:, 4 : 4 + 212].to_numpy(np.float64))


# name → (reader, horizon, steps of one season)
_SIX: dict[str, tuple[Reader, int, int]] = {
    "m4_hourly": (_m4_hourly, 48, 24),
    "tourism_monthly": (_competition("tourism.parquet", "monthly"), 24, 12),
    "tourism_quarterly": (_competition("tourism.parquet", "quarterly"), 8, 4),
    "hospital": (_rows("hospital.parquet"), 12, 12),
    "nn5": (_rows("nn5_daily.parquet"), 56, 1),
    "exchange_rate": (_exchange_rate, 30, 5),
}
_FOUR: dict[str, tuple[Reader, int, int]] = {
    "m1_monthly": (_competition("m1.parquet", "monthly"), 18, 12),
    "m1_quarterly": (_competition("m1.parquet", "quarterly"), 8, 4),
    "m1_yearly": (_competition("m1.parquet", "yearly"), 6, 1),
    "covid_deaths": (_covid_deaths, 30, 1),
}
_TUNING: dict[str, tuple[Reader, int, int]] = {
    "m4_monthly_sampled": (_long("m4_monthly_sampled.csv.gz", "series", "value"), 18, 12),
    "m4_quarterly_sampled": (_long("m4_quarterly_sampled.csv.gz", "series", "value"), 8, 4),
    "nn3_monthly": (_rows("nn3_monthly.parquet"), 18, 12),
    "us_births": (_columns("us_births_daily.csv.gz"), 30, 7),
    "saugeen": (_columns("saugeen_river_flow_daily.csv.gz"), 30, 1),
    "ETTh1": (_columns("ETTh1.csv.gz"), 24, 24),
    "nyc_taxi": (_columns("nyc_taxi_30min.csv.gz"), 48, 48),
    "vic_elec": (_columns("vic_elec_halfhourly.parquet", only=("Demand", "Temperature")), 48, 48),
    "small_monthly": (
        _columns(
            "small/AirPassengers.csv",
            "small/monthly-milk.csv",
            "small/monthly-sunspots.csv",
            "small/wineind.csv",
        ),
        12,
        12,
    ),
    "small_quarterly": (
        _columns("small/ausbeer.csv", "small/woolyrnq.csv", "small/australian_tourism.csv"),
        8,
        4,
    ),
}
