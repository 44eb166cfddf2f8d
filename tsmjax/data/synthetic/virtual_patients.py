"""Virtual patients with type 1 diabetes: tables of sensor glucose, with meals and insulin.

Days of life by `tsmjax.glucose.scenario`. Row n is patient n modulo 30; beyond 30 they live other
days, and column ``subject`` says who they are. The first day is left out: carbohydrate and insulin
from before the beginning are then known to the covariates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tsmjax.errors import InputError
from tsmjax.glucose import scenario
from tsmjax.glucose import simulator as sim
from tsmjax.glucose.features import carb_features, insulin_features

DEFAULTS = {
    **{"patients": 30, "days": 14, "every": 5, "covariates": 1, "announced": 0},
    **{"careful": 0, "seed": 0},
}
MAY_BE_ZERO = ("covariates", "announced", "careful", "seed")
VERSION = 1
BLOCK = 30  # patients simulated together
COVARIATES = ("cob", "carb_availability", "iob", "insulin_availability")


def roles(covariates: int, announced: int) -> tuple[list[str], list[str]]:
    """Return the names of the covariates known in the past only, and of those known ahead."""
    names = list(COVARIATES) if covariates else []
    known = 2 * announced
    return names[known:], names[:known]


def count(*, patients: int, **_: int) -> int:
    """Return the number of rows of the data set."""
    return patients


def check(path: str, parameters: Mapping[str, int]) -> None:
    """Check what a whole number may be.

    Raises:
      InputError: when a parameter is out of range.
    """
    every = parameters["every"]
    if every % scenario.EVERY or (24 * 60) % every:
        raise InputError(
            f"In {path}, every is {every}, but must be a multiple of {scenario.EVERY} minutes that "
            "divides a day."
        )
    if max(parameters[name] for name in ("covariates", "careful")) > 1:
        raise InputError(f"In {path}, covariates and careful are 0 or 1.")
    if parameters["announced"] > 2:
        raise InputError(f"In {path}, announced is 0, 1 or 2.")


def rows(
    first: int,
    last: int,
    *,
    patients: int,
    days: int,
    every: int,
    covariates: int,
    announced: int,
    careful: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1; a row depends on its number, days and seed alone.

    Args:
      first: number of the first row.
      last: number of the last row, and one.
      patients: how many rows there are.
      days: length of each, in days.
      every: minutes between two readings, a multiple of 5.
      covariates: whether there are covariates: carbohydrate on board and available in g, from meals
        as the patients counted them, insulin on board and available in U.
      announced: which of them are known ahead: 0 none, 1 those of meals, 2 those of insulin too,
        which also answers to readings that are still to come.
      careful: 1, the patients weigh every meal and inject for it, as simulations with announced
        meals assume; 0, they guess and forget, as `scenario.Behaviour` says.
      seed: chooses the days.
    """
    past, known = roles(covariates, announced)
    names = sim.patients()[0]
    step = every // scenario.EVERY
    behaviour = scenario.Behaviour()
    if careful:
        behaviour = behaviour._replace(counting=0.0, bias=0.0, forgotten=0.0, unannounced=0.0)
    for block in range(first // BLOCK, -(-last // BLOCK)):
        key = jax.random.fold_in(jax.random.key(seed), block)
        here = np.arange(block * BLOCK, (block + 1) * BLOCK)
        record = scenario.simulate_days(key, here % len(names), days + 1, behaviour)
        cob, available = carb_features(np.asarray(record.counted), scenario.EVERY)
        iob, acting = insulin_features(np.asarray(record.insulin), scenario.EVERY)
        found = dict(zip(COVARIATES, (cob, available, iob, acting), strict=True))
        found = {"glucose": np.asarray(record.cgm), **found}
        # The first row that is kept ends the first interval of the second day.
        kept = slice(scenario.ROWS + step - 1, None, step)
        found = {name: values[:, kept].astype(np.float32) for name, values in found.items()}
        columns = {"past_feat_dynamic_real": past, "feat_dynamic_real": known}
        columns = {column: called for column, called in columns.items() if called}
        for number in range(max(first, here[0]), min(last, here[-1] + 1)):
            row = number - here[0]
            subject, again = names[number % len(names)], number // len(names)
            yield {
                "item_id": f"{subject}/{again}",
                "subject": subject,
                "start": np.datetime64("2024-01-01T00:00", "ns") + np.timedelta64(every, "m"),
                "freq": f"{every}min",
                "target": found["glucose"][row],
                **{
                    column: np.stack([found[name][row] for name in called])
                    for column, called in columns.items()
                },
                "names": {"target": ["glucose"], **columns},
            }
