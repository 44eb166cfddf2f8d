"""Recordings of nobody, in the file format of Capture-24, for tests and first runs.

A person has a gait, a posture of the arm and a way to wear the sensor; each activity has a physics
of its own: gravity turns with the arm, walking swings it twice a second, a bus shakes it, sleep
leaves it still. What a recording of this kind brings along is there too: readings in steps of
1/64 g, gaps, spans that nobody annotated, rare activities, a channel that got stuck.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

SCHEME_COLUMNS = (
    "label:WillettsSpecific2018",
    "label:WillettsMET2018",
    "label:DohertySpecific2018",
    "label:Willetts2018",
    "label:Doherty2018",
    "label:Walmsley2020",
)
# Annotation → activity in each of the six schemes. Two differ in one space only, and in activity.
DICTIONARY = {
    "7030 sleeping;MET 0.95": ("sleep",) * 6,
    "home activity;miscellaneous;sitting;9060 sitting/lying reading or without observable/"
    "identifiable activities;MET 1.3": (
        *("sitting", "sitting", "sedentary-non-screen", "sit-stand", "sedentary", "sedentary"),
    ),
    "occupation;office and administrative work;11580 office/computer work general;MET 1.5": (
        *("sitting", "sitting", "sedentary-screen", "sit-stand", "sedentary", "sedentary"),
    ),
    "leisure;miscellaneous;standing;9070 standing reading or without observable/identifiable "
    "activities;MET 1.8": (
        *("standing", "standing", "tasks-light", "sit-stand", "tasks-light", "light"),
    ),
    "transportation;walking;17250 walking as the single means to a destination not to work or "
    "class;MET 3.0": (*("walking",) * 5, "light"),
    "transportation;walking;17270 walking as the single means to work or class (not from);"
    "MET 3.5": (*("walking",) * 5, "moderate-vigorous"),
    "transportation;bicycling;1010 bicycling;MET 7.5": (
        *("bicycling",) * 4,
        *("moderate", "moderate-vigorous"),
    ),
    "transportation;public transportation;16016 riding in a bus or train;MET 1.3": (
        *("vehicle",) * 4,
        *("sedentary", "sedentary"),
    ),
    "transportation;private transportation;16010 driving automobile or light truck (not a taxi);"
    "MET 2.5": (*("vehicle",) * 4, "sedentary", "light"),
    "home activity;household chores;5035 kitchen activity general cooking/washing/dishes/cleaning "
    "up;MET 3.3": (
        *("household-chores", "sitstand+activity", "tasks-moderate", "mixed"),
        *("moderate", "moderate-vigorous"),
    ),
    "occupation;manual labor;11475 manual or unskilled labor;MET 3.5": (
        *("manual-work", "walking+activity", "tasks-moderate", "mixed"),
        *("moderate", "moderate-vigorous"),
    ),
    "occupation;interruption;11820 kneeling occasional lifting;MET 3.0": (
        *("manual-work", "sitstand+activity", "tasks-moderate", "mixed"),
        *("moderate", "moderate-vigorous"),
    ),
    "occupation;interruption;11820 kneeling  occasional lifting;MET 3.0": (
        *("mixed-activity", "sitstand+lowactivity", "tasks-light", "mixed"),
        *("tasks-light", "light"),
    ),
    "leisure;sports;15675 tennis general;MET 7.3": (
        *("sports", "sports", "sport-interrupted", "mixed", "moderate", "moderate-vigorous"),
    ),
    "leisure;sports;12150 running;MET 8.0": (
        *("sports", "gym", "sports-continuous", "mixed", "moderate", "moderate-vigorous"),
    ),
    "home activity;child/elderly/pet care;5175 walking/running playing with child(ren);MET 3.5": (
        *("mixed-activity", "walking+activity", "tasks-moderate", "mixed"),
        *("moderate", "moderate-vigorous"),
    ),
}
# How often a bout of each activity begins, by its name in the first scheme.
_SHARES = {
    **{"sleep": 20, "sitting": 20, "standing": 10, "walking": 12, "bicycling": 5, "vehicle": 8},
    **{"household-chores": 9, "manual-work": 3, "sports": 3, "mixed-activity": 5},
}
_BOUT = (1 / 40, 1 / 12)  # shortest and longest bout, as shares of the recording


class _Person(NamedTuple):
    """What makes one person's readings unlike another's."""

    frame: np.ndarray  # (3, 3) rotation of the sensor on the wrist
    stride: float  # Hz, two steps
    swing: float  # g, of the arm
    noise: float  # g


def write_recordings(
    folder: Path, participants: int, seconds: float, rate: float = 100.0, seed: int = 0
) -> None:
    """Write P001.csv.gz …, the annotation dictionary and the metadata.

    Args:
      folder: where to; must exist.
      participants: how many persons.
      seconds: length of each recording, gaps included.
      rate: rows a second; 100 as in Capture-24.
      seed: of everything.
    """
    with open(folder / "annotation-label-dictionary.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["annotation", *SCHEME_COLUMNS])
        writer.writerows([annotation, *labels] for annotation, labels in DICTIONARY.items())
    people = []
    for number in range(participants):
        rng = np.random.default_rng([seed, number])
        name = f"P{number + 1:03d}"
        age = ("18-29", "30-37", "38-52", "53+")[int(rng.integers(4))]
        people.append([name, age, "F" if rng.random() < 0.66 else "M"])
        _write(folder / f"{name}.csv.gz", recording(rng, seconds, rate, stuck=number == 0))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["pid", "age", "sex"], *people])


def recording(
    rng: np.random.Generator, seconds: float, rate: float, stuck: bool
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Make one recording.

    Args:
      rng: of everything about the person.
      seconds: length.
      rate: rows a second.
      stuck: let the last channel be constant for a twentieth of the time.

    Returns:
      times (n,) int64 ns, values (n, 3) float64 in g, annotations, and which one each row has, (n,)
      int32, −1 for none.
    """
    person = _Person(
        frame=_rotation(rng, 0.25),
        stride=rng.uniform(0.8, 1.05),
        swing=rng.uniform(0.2, 0.4),
        noise=rng.uniform(0.003, 0.008),
    )
    size = int(seconds * rate)
    annotations = list(DICTIONARY)
    activities = [labels[0] for labels in DICTIONARY.values()]
    values, which = np.zeros((size, 3)), np.full(size, -1, np.int32)
    at = 0
    # Every activity once in random order, so that no person lacks one; then as often as they occur.
    waiting = list(rng.permutation(list(_SHARES)))
    names, shares = list(_SHARES), np.array(list(_SHARES.values()), float)
    while at < size:
        activity = waiting.pop() if waiting else str(rng.choice(names, p=shares / shares.sum()))
        rare = 0.5 if _SHARES[activity] < 5 else 1.0
        length = int(rng.uniform(*_BOUT) * rare * size) + 1
        length = min(length, size - at)
        values[at : at + length] = _MOTIONS[activity](rng, person, length, rate)
        which[at : at + length] = rng.choice(
            [place for place, name in enumerate(activities) if name == activity]
        )
        at += length
    values = values @ person.frame.T + rng.normal(0, person.noise, values.shape)
    if stuck:
        first = int(rng.uniform(0.3, 0.6) * size)
        values[first : first + size // 20, 2] = values[first, 2]
    values = np.clip(np.round(values * 64) / 64, -8, 8)
    for _ in range(4):  # nobody saw what was done there
        first = int(rng.uniform(0, 0.95) * size)
        which[first : first + size // 40] = -1
    which[: size // 50] = -1
    keep = np.ones(size, bool)
    for _ in range(2):  # the sensor was off
        first = int(rng.uniform(0.1, 0.9) * size)
        keep[first : first + size // 60] = False
    begin = np.datetime64("2016-11-13T02:18:00", "ns").astype(np.int64)
    times = begin + np.round(np.arange(size) * (1e9 / rate)).astype(np.int64)
    return times[keep], values[keep], annotations, which[keep]


def _write(path: Path, parts: tuple[np.ndarray, np.ndarray, list[str], np.ndarray]) -> None:
    times, values, annotations, which = parts
    texts = pa.array(["", *annotations]).take(pa.array(which + 1))
    columns = {
        "time": pa.array(times // 1000).cast(pa.timestamp("us")).cast(pa.string()),
        **{name: pa.array(values[:, place]) for place, name in enumerate("xyz")},
        "annotation": texts,
    }
    with pa.CompressedOutputStream(str(path), "gzip") as stream:
        options = pyarrow.csv.WriteOptions(quoting_style="none")
        pyarrow.csv.write_csv(pa.table(columns), stream, options)


# ---------------------------------------------------------------------------------------- motions


def _rotation(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Return a random rotation matrix by angles of so many radians."""
    a, b, c = rng.normal(0, spread, 3)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def _wander(rng: np.random.Generator, length: int, rate: float, seconds: float) -> np.ndarray:
    """Return (length, 3) of deviation 1 that drift over so many seconds."""
    knots = max(4, int(length / rate / seconds) + 4)
    places = np.linspace(0, knots - 1, length)
    return np.stack([np.interp(places, np.arange(knots), rng.normal(size=knots)) for _ in "xyz"], 1)


def _posture(
    rng: np.random.Generator,
    length: int,
    rate: float,
    down: tuple[float, float, float],
    restless: float,
    seconds: float,
) -> np.ndarray:
    """Return gravity in the frame of the wrist, (length, 3) g; the arm drifts about a posture."""
    gravity = np.array(down) + restless * _wander(rng, length, rate, seconds)
    return gravity / np.linalg.norm(gravity, axis=1, keepdims=True)


def _waves(
    rng: np.random.Generator, length: int, rate: float, hertz: float, amplitudes: np.ndarray
) -> np.ndarray:
    """Return harmonics (rows of `amplitudes` (harmonics, 3)) of a rhythm that is not quite even."""
    pace = hertz * (1 + 0.04 * _wander(rng, length, rate, 5)[:, 0])
    phase = 2 * np.pi * np.cumsum(pace) / rate
    shifts = rng.uniform(0, 2 * np.pi, amplitudes.shape)
    orders = np.arange(1, len(amplitudes) + 1)
    waves = np.sin(phase[:, None, None] * orders[:, None] + shifts)
    return (waves * amplitudes).sum(axis=1)


def _shaken(rng: np.random.Generator, length: int, rate: float, strength: float) -> np.ndarray:
    """Return vibration (length, 3) whose strength changes over seconds."""
    envelope = np.exp(0.5 * _wander(rng, length, rate, 4)[:, :1])
    return strength * envelope * rng.normal(size=(length, 3))


def _sleep(rng, person, length, rate):
    down = rng.normal(size=3) * (0.4, 1.0, 1.0)
    return _posture(rng, length, rate, tuple(down), 0.01, 60)


def _sitting(rng, person, length, rate):
    still = _posture(rng, length, rate, (0.1, 0.25, 0.95), 0.12, 6)
    busy = np.clip(_wander(rng, length, rate, 3)[:, :1] - 0.8, 0, None)
    return still + busy * _shaken(rng, length, rate, 0.05)


def _standing(rng, person, length, rate):
    return _posture(rng, length, rate, (-0.9, 0.2, 0.3), 0.15, 2) + _shaken(
        rng, length, rate, 0.012
    )


def _walking(rng, person, length, rate):
    hanging = _posture(rng, length, rate, (-0.97, 0.15, 0.1), 0.08, 3)
    swing = person.swing * np.array([[0.5, 1.0, 0.6], [1.0, 0.4, 0.3], [0.3, 0.2, 0.2]])
    return hanging + _waves(rng, length, rate, person.stride, swing)


def _bicycling(rng, person, length, rate):
    held = _posture(rng, length, rate, (-0.4, -0.2, 0.85), 0.05, 4)
    pedals = _waves(rng, length, rate, 1.2, np.array([[0.05, 0.05, 0.08]]))
    return held + pedals + _shaken(rng, length, rate, 0.16)


def _vehicle(rng, person, length, rate):
    held = _posture(rng, length, rate, (-0.2, 0.6, 0.75), 0.06, 8)
    return held + _shaken(rng, length, rate, 0.035) + 0.06 * _wander(rng, length, rate, 2)


def _chores(rng, person, length, rate):
    reaching = _posture(rng, length, rate, (-0.4, 0.3, 0.6), 0.5, 0.8)
    busy = np.clip(_wander(rng, length, rate, 1)[:, :1] + 0.4, 0, None)
    return reaching + busy * _shaken(rng, length, rate, 0.12)


def _manual(rng, person, length, rate):
    held = _posture(rng, length, rate, (-0.6, 0.5, 0.5), 0.2, 3)
    strokes = _waves(rng, length, rate, 0.7, np.array([[0.15, 0.4, 0.3], [0.1, 0.2, 0.1]]))
    knocks = (rng.random((length, 1)) < 1.5 / rate) * rng.normal(0, 1.2, (length, 3))
    return held + strokes + knocks


def _sports(rng, person, length, rate):
    swing = np.array([[0.6, 0.9, 0.5], [1.2, 0.5, 0.4], [0.4, 0.3, 0.3]])
    moving = _posture(rng, length, rate, (-0.6, 0.5, 0.3), 0.3, 1)
    return moving + _waves(rng, length, rate, 1.35 * person.stride / 0.95, swing)


def _mixed(rng, person, length, rate):
    """Change between three other activities every few seconds."""
    found, at = np.zeros((length, 3)), 0
    while at < length:
        steps = min(length - at, int(rng.uniform(1.5, 4) * rate) + 1)
        motion = (_walking, _sitting, _chores)[int(rng.integers(3))]
        found[at : at + steps] = motion(rng, person, steps, rate)
        at += steps
    return found


_MOTIONS = {
    "sleep": _sleep,
    "sitting": _sitting,
    "standing": _standing,
    "walking": _walking,
    "bicycling": _bicycling,
    "vehicle": _vehicle,
    "household-chores": _chores,
    "manual-work": _manual,
    "sports": _sports,
    "mixed-activity": _mixed,
}
