"""From the records of a person to rows of the data set: sensors, grid, gaps, covariates."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tsmjax.data.arrow import NAMES
from tsmjax.errors import InputError, closest
from tsmjax.glucose.features import carb_features, insulin_features
from tsmjax.glucose.metrics import MG_DL_PER_MMOL_L
from tsmjax.prepare.glucose.person import Person
from tsmjax.prepare.report import Report

LOWEST, HIGHEST = 20.0, 600.0  # mg/dL: other readings are faults
_STEPS = (1, 3, 5, 10, 15)  # minutes between the readings of sensors that are sold
_RUN = 6  # readings in a row that make a second sensor, instead of a reading that came twice


def series(person: Person, options: argparse.Namespace, report: Report) -> Iterator[dict[str, Any]]:
    """Yield the unbroken series of one person.

    Raises:
      InputError: when a covariate that was asked for is not among the records.
    """
    name, readings = person.name, _clean(person, report)
    if len(readings) < 3:
        report.dropped.append((name, f"it has {len(readings)} readings"))
        return
    every = _spacing(readings.index)
    if options.every and every != options.every:
        report.dropped.append((name, f"its readings are {every} minutes apart"))
        return
    readings = _one_sensor(name, readings, every, report)
    first = readings.index[0]
    cells = np.round((readings.index - first) / pd.Timedelta(minutes=every)).astype(int)
    merged = len(cells) - len(np.unique(cells))
    if merged:
        report.notes.append(f"{name}: {merged} readings fell into the row of another; the mean.")
    glucose = readings.groupby(cells).mean().reindex(range(cells[-1] + 1)).to_numpy()
    covariates = _covariates(person, first, every, len(glucose), options, report)
    targets = options.target or ["glucose"]
    others = [_chosen(person.name, covariates, target) for target in targets[1:]]
    covariates = {
        key: values
        for key, values in covariates.items()
        if key not in targets and not options.alone
    }
    kind = "feat_dynamic_real" if options.announced else "past_feat_dynamic_real"
    names = {"target": targets, **({kind: list(covariates)} if covariates else {})}

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
            "target": _rows([target, *(values[span] for values in others)]),
            NAMES: names,
        }
        if covariates:
            row[kind] = np.atleast_2d(_rows([values[span] for values in covariates.values()]))
        yield row


def _rows(values: list[np.ndarray]) -> np.ndarray:
    """Return (length,) of one series, (variates, length) of several, float32."""
    return np.stack(values).astype(np.float32) if len(values) > 1 else values[0].astype(np.float32)


def _clean(person: Person, report: Report) -> pd.Series:
    """Return the readings in order of time, without faults and repeated lines."""
    name, readings = person.name, person.readings.sort_index(kind="stable").astype(float)
    faults = ~readings.between(LOWEST, HIGHEST) & readings.notna()
    if faults.any():
        span = f"{LOWEST:.0f} to {HIGHEST:.0f} mg/dL"
        report.notes.append(f"{name}: {int(faults.sum())} readings outside {span} were left out.")
    readings = readings[~faults].dropna()
    twice = pd.DataFrame({"time": readings.index, "value": readings.to_numpy()}).duplicated()
    if twice.any():
        report.notes.append(f"{name}: {int(twice.sum())} readings stand there twice; once is kept.")
    return readings[~twice.to_numpy()]


def _minutes(times: pd.DatetimeIndex) -> np.ndarray:
    return (times - times[0]) / pd.Timedelta(minutes=1)


def _spacing(times: pd.DatetimeIndex) -> int:
    """Return the usual minutes between two readings of a sensor.

    Where two sensors take turns, neighbours have no usual distance, but most readings have another
    one step later as their next or next but one.
    """
    minutes = np.asarray(_minutes(times))
    apart = [np.round(minutes[lag:] - minutes[:-lag]).astype(int) for lag in (1, 2)]
    near = apart[0][(apart[0] > 0) & (apart[0] <= 60)]
    if not len(near):
        return 5
    usual = int(np.bincount(near).argmax())
    if usual in _STEPS and np.mean(near == usual) >= 0.6:
        return usual
    shares = [np.mean((apart[0][:-1] == step) | (apart[1] == step)) for step in _STEPS]
    return _STEPS[int(np.argmax(shares))] if max(shares) >= 0.8 else usual


def _one_sensor(name: str, readings: pd.Series, every: int, report: Report) -> pd.Series:
    """Leave out the readings of a second sensor that are between those of the first.

    Readings are chained into sensors by their distances, which are whole steps within a sensor; of
    two that overlap, the one with more readings stays.
    """
    minutes = np.asarray(_minutes(readings.index))
    close = np.diff(minutes) < 0.6 * every
    if close.sum() < _RUN:
        return readings
    chains: list[list[int]] = []
    for number, minute in enumerate(minutes):
        best = None
        for chain in chains[-4:]:
            steps = (minute - minutes[chain[-1]]) / every
            off = abs(steps - round(steps))
            if 0.5 < steps < 12 and off < 0.15 and (best is None or off < best[0]):
                best = off, chain
        if best is None:
            chains.append([number])
        else:
            best[1].append(number)
    spans: list[tuple[float, float]] = []
    dropped: list[int] = []
    for chain in sorted(chains, key=len, reverse=True):
        if len(chain) < _RUN:
            break
        times = minutes[chain]
        inside = np.zeros(len(chain), bool)
        for begin, end in spans:
            inside |= (times > begin - 0.6 * every) & (times < end + 0.6 * every)
        if inside.sum() >= _RUN:
            dropped += np.asarray(chain)[inside].tolist()
        spans.append((times[0], times[-1]))
    if not dropped:
        return readings
    when = readings.index[sorted(dropped)]
    report.notes.append(
        f"{name}: {len(dropped)} readings of a second sensor, between {when[0]} and {when[-1]}, "
        "were left out."
    )
    return readings.iloc[np.setdiff1d(np.arange(len(readings)), dropped)]


def _covariates(
    person: Person,
    first: pd.Timestamp,
    every: int,
    rows: int,
    options: argparse.Namespace,
    report: Report,
) -> dict[str, np.ndarray]:
    """Return covariates by name, (rows,) each; meals and doses go to the row that ends theirs."""

    def added(name: str, events: pd.Series) -> np.ndarray:
        events = events.dropna()
        if negative := int((events < 0).sum()):
            report.notes.append(f"{person.name}: {negative} negative {name} left out.")
            events = events[events >= 0]
        row = np.ceil((events.index - first) / pd.Timedelta(minutes=every) - 1e-6).astype(int)
        inside = (row >= 0) & (row < rows)
        return np.bincount(row[inside], events.to_numpy(float)[inside], minlength=rows)

    found: dict[str, np.ndarray] = {}
    legacy = {"legacy_hovorka_180": options.legacy_hovorka_180}
    if person.meals is not None:
        cob, available = carb_features(added("carbs", person.meals), every, **legacy)
        found |= {"cob": cob, "carb_availability": available}
    if person.insulin is not None:
        iob, available = insulin_features(added("insulin", person.insulin), every, **legacy)
        found |= {"iob": iob, "insulin_availability": available}
    found |= {name: added(name, amounts) for name, amounts in person.amounts.items()}
    grid = first + pd.to_timedelta(np.arange(rows) * every, unit="min")
    for name, values in person.levels.items():
        values = values.dropna().sort_index()
        values = values[~values.index.duplicated(keep="last")]
        found[name] = values.reindex(grid, method="ffill").to_numpy(float)
    if options.covariates is not None:
        wanted = [*options.covariates, *options.target[1:]]
        found = {name: _chosen(person.name, found, name) for name in wanted}
    note = f"Covariates, in order: {', '.join(found) or 'none'}."
    if note not in report.notes:
        report.notes.insert(0, note)
    return found


def _chosen(person: str, found: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in found:
        raise InputError(
            f"{person} has no covariate {name!r}{closest(name, found)}; there are "
            f"{', '.join(found) or 'none'}."
        )
    return found[name]
