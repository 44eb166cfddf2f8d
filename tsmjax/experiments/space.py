"""What a sweep tries: the values of each field, and the next trial to make of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tsmjax.errors import InputError

Values = dict[str, str]  # config field → value as the command line takes it

_RANGE = re.compile(r"(log:)?([-+.\deE]+)\.\.([-+.\deE]+)")


@dataclasses.dataclass(frozen=True)
class Axis:
    """The values that one config field may take.

    Attributes:
      choices: the values of a list; empty for a range.
      low: lower end of a range.
      high: upper end of a range, included.
      log: whether a range is even in its logarithm.
      whole: whether a range holds whole numbers only.
    """

    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> str:
        """Draw one value."""
        if self.choices:
            return self.choices[rng.integers(len(self.choices))]
        low, high = (math.log(end) if self.log else end for end in (self.low, self.high))
        value = rng.uniform(low, high)
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        return str(round(value)) if self.whole else f"{value:.6g}"


def parse(words: Sequence[str]) -> dict[str, Axis]:
    """Read ``FIELD=a,b,c``, ``FIELD=low..high`` and ``FIELD=log:low..high``.

    Raises:
      InputError: for another form, an empty or turned range, or a field named twice.
    """
    axes: dict[str, Axis] = {}
    for word in words:
        field, equals, text = word.partition("=")
        field = field.removeprefix("config.")
        if not equals or not field or not text:
            raise InputError(
                f"{word!r} must read FIELD=a,b,c or FIELD=low..high or FIELD=log:low..high, "
                "such as optim.lr=1e-4,1e-3."
            )
        if field in axes:
            raise InputError(f"The field {field} is named twice.")
        axes[field] = _axis(field, text)
    if not axes:
        raise InputError("Say what to sweep over: FIELD=a,b,c, such as optim.lr=1e-4,1e-3.")
    return axes


def _axis(field: str, text: str) -> Axis:
    match = _RANGE.fullmatch(text)
    if not match:
        return Axis(tuple(dict.fromkeys(text.split(","))))
    try:
        low, high = float(match[2]), float(match[3])
    except ValueError as error:
        raise InputError(f"{field}={text} is no range of numbers.") from error
    log = bool(match[1])
    if not low < high or (log and low <= 0):
        least = " and above 0" if log else ""
        raise InputError(f"{field}={text} is no range: it must rise{least}.")
    whole = all(re.fullmatch(r"[-+]?\d+", end) for end in match.groups()[1:])
    return Axis(low=low, high=high, log=log, whole=whole)


class Sampler(Protocol):
    """Hands out trials. A trial has a number, which names its folder, and values."""

    def ask(self) -> tuple[int, Values] | None:
        """Return the next trial to run; None when there is no more to start."""
        ...

    def tell(self, number: int, score: float | None) -> None:
        """Report the score of a trial that ended, None when it failed."""
        ...


class Listed:
    """Trials that are known beforehand: a grid, or random draws."""

    def __init__(self, trials: Sequence[Values], done: Sequence[bool]):
        """Hand out those of `trials` that are not `done`, in order."""
        self._left = [
            (number, trial)
            for number, (trial, finished) in enumerate(zip(trials, done, strict=True))
            if not finished
        ]

    def ask(self) -> tuple[int, Values] | None:
        """Return the next trial."""
        return self._left.pop(0) if self._left else None

    def tell(self, number: int, score: float | None) -> None:
        """Learn nothing."""


def grid(axes: dict[str, Axis]) -> list[Values]:
    """Return every combination; the last field changes fastest.

    Raises:
      InputError: when a field has a range.
    """
    for field, axis in axes.items():
        if not axis.choices:
            raise InputError(
                f"{field} is a range, which has no grid: list its values, or take --method=random."
            )
    combinations = itertools.product(*(axis.choices for axis in axes.values()))
    return [dict(zip(axes, combination, strict=True)) for combination in combinations]


def random(axes: dict[str, Axis], trials: int, seed: int) -> list[Values]:
    """Draw trials; the n-th depends on the seed and n alone."""
    drawn = []
    for number in range(trials):
        rng = np.random.default_rng((seed, number))
        drawn.append({field: axis.draw(rng) for field, axis in axes.items()})
    return drawn


class Optuna:
    """Trials that Optuna suggests in the light of those that ended; kept in a journal file."""

    def __init__(self, axes: dict[str, Axis], trials: int, seed: int, mode: str, journal: Path):
        """Open or begin the study in `journal`.

        Args:
          axes: what to choose from.
          trials: number of trials in all.
          seed: seed of the sampler.
          mode: "min" or "max".
          journal: the file that remembers trials, so that a sweep can be taken up again.

        Raises:
          InputError: when Optuna is not installed.
        """
        try:
            import optuna
        except ImportError as error:
            raise InputError(
                '--method=optuna needs Optuna: pip install "tsmjax[sweep]".'
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(
            study_name="sweep",
            storage=optuna.storages.JournalStorage(backend),
            sampler=optuna.samplers.TPESampler(seed=seed + _count(journal)),
            direction={"min": "minimize", "max": "maximize"}[mode],
            load_if_exists=True,
        )
        self._axes, self._trials = axes, trials
        running = optuna.trial.TrialState.RUNNING
        # What was running when the sweep was stopped goes on under its number.
        self._cut = [t for t in self._study.get_trials(deepcopy=False) if t.state == running]

    def ask(self) -> tuple[int, Values] | None:
        """Return a trial that was cut short, else a new suggestion."""
        if self._cut:
            trial = self._cut.pop(0)
            return trial.number, json.loads(trial.user_attrs["values"])
        if len(self._study.get_trials(deepcopy=False)) >= self._trials:
            return None
        trial = self._study.ask()
        values = {field: _suggest(trial, field, axis) for field, axis in self._axes.items()}
        trial.set_user_attr("values", json.dumps(values))
        return trial.number, values

    def tell(self, number: int, score: float | None) -> None:
        """Pass the score on; a trial without one counts as failed."""
        if score is None or not math.isfinite(score):
            self._study.tell(number, state=self._failed)
        else:
            self._study.tell(number, score)


def _suggest(trial: Any, field: str, axis: Axis) -> str:
    if axis.choices:
        return trial.suggest_categorical(field, axis.choices)
    if axis.whole:
        return str(trial.suggest_int(field, int(axis.low), int(axis.high), log=axis.log))
    # Optuna must learn of the value that is run, so that nothing is rounded here.
    return repr(trial.suggest_float(field, axis.low, axis.high, log=axis.log))


def _count(journal: Path) -> int:
    """Lines in the journal: a sweep that is taken up again must not repeat its first draws."""
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0
