"""Real series that come inside the statsmodels package, so that nothing is downloaded."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tsmjax.errors import InputError

DEFAULTS: dict[str, int] = {}
BLOCK = 1000  # more than there are: one worker process reads all


class _Frequency(NamedTuple):
    alias: str  # pandas offset alias
    season: int  # steps of one season, as the M4 competition counts them
    horizon: int  # steps to forecast, as the M4 competition asks for


_YEARLY = _Frequency("YS", 1, 6)
_QUARTERLY = _Frequency("QS", 4, 8)
_MONTHLY = _Frequency("MS", 12, 18)
_WEEKLY = _Frequency("W-SAT", 52, 13)


class RealSeries(NamedTuple):
    """One real series.

    Attributes:
      dataset: name of the statsmodels data set it belongs to; scores are averaged within one first.
      item_id: unique name, ``dataset/column``.
      values: float32, shape (length,); NaN = missing.
      start: ISO date of the first value.
      freq: pandas offset alias.
      season_length: steps of one season, 1 when there is none.
      horizon: steps that evaluators forecast. The last horizon is the test window, the one before
        it the validation window; training sees neither.
    """

    dataset: str
    item_id: str
    values: np.ndarray
    start: str
    freq: str
    season_length: int
    horizon: int

    @property
    def training_values(self) -> np.ndarray:
        """Values before the validation and test windows."""
        return self.values[: -2 * self.horizon]


@functools.cache
def series() -> tuple[RealSeries, ...]:
    """Return all real series, in a fixed order.

    Weekly CO2 at Mauna Loa (with gaps), monthly sea surface temperature (El Niño) and electrical
    equipment orders, quarterly macroeconomic series of the United States, Denmark and Germany,
    yearly sunspots, the flow of the Nile, and yearly fertility rates of 24 countries.

    Raises:
      InputError: when statsmodels is not installed.
    """
    return tuple(_read())


def count() -> int:
    """Return the number of rows that `rows` can make."""
    return len(series())


def rows(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1: the training part of the real series."""
    for found in series()[first:last]:
        yield {
            "item_id": found.item_id,
            "start": np.datetime64(found.start, "ns"),
            "freq": found.freq,
            "target": found.training_values,
        }


def _read() -> Iterator[RealSeries]:
    yield _series("co2", "co2", _load("co2")["co2"], "1958-03-29", _WEEKLY)

    elnino = _load("elnino").drop(columns="YEAR")  # one row a year, one column a month
    yield _series("elnino", "temperature", elnino.to_numpy().ravel(), "1950-01-01", _MONTHLY)
    elec = _load("elec_equip").iloc[:, 0]
    yield _series("elec_equip", "orders", elec, "1995-01-01", _MONTHLY)

    macro = _load("macrodata").drop(columns=["year", "quarter"])
    for column in macro:
        yield _series("macrodata", column, macro[column], "1959-01-01", _QUARTERLY)
    danish = _load("danish_data")
    for column in danish:
        yield _series("danish_data", column, danish[column], "1974-01-01", _QUARTERLY)
    german = _load("interest_inflation")
    for column in ("Dp", "R"):
        yield _series("interest_inflation", column, german[column], "1972-04-01", _QUARTERLY)

    yield _series("sunspots", "activity", _load("sunspots")["SUNACTIVITY"], "1700-01-01", _YEARLY)
    yield _series("nile", "volume", _load("nile")["volume"], "1871-01-01", _YEARLY)

    fertility = _load("fertility").set_index("Country Code").loc[:, "1960":"2011"].dropna()
    for country, rates in fertility.iloc[::8].iterrows():  # every eighth: most curves look alike
        yield _series("fertility", country, rates, "1960-01-01", _YEARLY)


def _series(dataset: str, name: str, values: Any, start: str, frequency: _Frequency) -> RealSeries:
    values = np.array(values, np.float32)
    values.setflags(write=False)  # all callers share it
    return RealSeries(
        dataset=dataset,
        item_id=f"{dataset}/{name}",
        values=values,
        start=start,
        freq=frequency.alias,
        season_length=frequency.season,
        horizon=frequency.horizon,
    )


def _load(name: str) -> Any:
    """Return the data frame of one statsmodels data set."""
    try:
        module = importlib.import_module(f"statsmodels.datasets.{name}")
    except ModuleNotFoundError as error:
        raise InputError(
            "The real series come with statsmodels, which is not installed: "
            'run pip install "tsmjax[demo]".'
        ) from error
    return module.load_pandas().data
