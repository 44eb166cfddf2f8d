"""Days in the life of the virtual patients: they eat, count, forget, inject and correct.

Meals and their hours follow the random scenario of simglucose 0.2.11, the bolus its basal-bolus
controller: counted carbohydrate over the carbohydrate ratio, plus what brings a high reading to the
target. The errors that people make, the sugar they take when low, and meals in proportion to the
body are ours.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data.synthetic.draws import Draws
from tsmjax.errors import InputError
from tsmjax.glucose import sensor
from tsmjax.glucose import simulator as sim

EVERY = 5  # minutes between two rows
ROWS = 24 * 60 // EVERY  # of one day

# Breakfast, snack, lunch, snack, dinner, snack.
_CHANCE = np.array([0.95, 0.3, 0.95, 0.3, 0.95, 0.3])
_FIRST = np.array([5, 9, 10, 14, 16, 20]) * 60.0  # minutes after midnight
_LAST = np.array([9, 10, 14, 16, 20, 23]) * 60.0
_USUAL = np.array([7, 9.5, 12, 15, 18, 21.5]) * 60.0
_SPREAD = np.array([60.0, 30, 60, 30, 60, 30])  # minutes
_GRAMS = np.array([45.0, 10, 70, 10, 80, 10])  # of an adult of 70 kg
_SNACK = np.array([False, True, False, True, False, True])

_TARGET, _HIGH = 140.0, 150.0  # mg/dL: a bolus corrects readings above _HIGH down to _TARGET
_PATIENCE = 120.0  # minutes after a bolus in which nothing is corrected
_LOW, _SUGAR = 70.0, 15.0  # mg/dL and g: below this reading, this much sugar (of 70 kg)
_AGAIN = 20.0  # minutes before more sugar


class Behaviour(NamedTuple):
    """How well the patients look after themselves.

    Attributes:
      counting: standard deviation of log(counted / eaten carbohydrate), meal by meal.
      bias: the same of each person's habit.
      forgotten: share of meals without a bolus.
      unannounced: share of snacks without a bolus.
      early: minutes before the meal of the earliest bolus; delays are uniform up to
      late: minutes after the meal of the latest.
      basal: standard deviation of log(basal rate / the right one), day by day.
      corrects: chance in an hour to notice and correct a high reading between meals.
      asleep: lowest reading in mg/dL that wakes nobody, from 23:00 to 06:00.
    """

    counting: float = 0.3
    bias: float = 0.15
    forgotten: float = 0.1
    unannounced: float = 0.5
    early: float = 15.0
    late: float = 25.0
    basal: float = 0.12
    corrects: float = 0.1
    asleep: float = 58.0


class Record(NamedTuple):
    """N patients over D days, (N, 288 D) arrays; row k is at minute 5 (k + 1) of the first day.

    Sums are over the five minutes that end at the row, so that a row is known at its time.
    """

    cgm: jax.Array  # mg/dL, what the sensor shows
    glucose: jax.Array  # mg/dL, the truth
    insulin: jax.Array  # U, basal and bolus
    bolus: jax.Array  # U, part of `insulin`
    carbs: jax.Array  # g served, sugar against lows included
    counted: jax.Array  # g that the patient counted and injected for


class _Day(NamedTuple):
    """Plans of one day: (6,) arrays over the meals, scalars, and (288,) arrays over the rows."""

    minute: jax.Array
    grams: jax.Array
    counted: jax.Array  # 0 where there is no bolus
    bolus_minute: jax.Array
    basal: jax.Array  # times the right rate
    noticing: jax.Array  # uniform draws
    error: jax.Array  # mg/dL of the sensor


def simulate_days(
    key: jax.Array, numbers: np.ndarray, days: int, behaviour: Behaviour | None = None
) -> Record:
    """Simulate patients over days that begin at midnight in the fasting state.

    Args:
      key: random key. Row i depends on it, on i and on ``numbers[i]`` alone.
      numbers: (N,) which of the 30 patients, 0 to 29; repeats are other days of the same patient.
      days: how many days.
      behaviour: how well they look after themselves; the defaults when None.

    Raises:
      InputError: for a number that is no patient, or fewer than one day.
    """
    numbers = np.asarray(numbers)
    known = len(sim.patients()[0])
    if numbers.ndim != 1 or not np.isin(numbers, np.arange(known)).all():
        raise InputError(f"Patients are numbers from 0 to {known - 1} in one row, got {numbers}.")
    if days < 1:
        raise InputError(f"days is {days}, but must be at least 1.")
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(numbers)))
    return _simulate_days(keys, sim.choose(numbers), days, behaviour or Behaviour())


@functools.partial(jax.jit, static_argnums=2)
def _simulate_days(
    keys: jax.Array, patient: sim.Patient, days: int, behaviour: Behaviour
) -> Record:
    records = jax.vmap(lambda key, one: _live(one, _plan(key, one, days, behaviour), behaviour))
    return records(keys, patient)


def _plan(key: jax.Array, patient: sim.Patient, days: int, behaviour: Behaviour) -> _Day:
    """Draw the days of one patient; arrays begin with the days."""
    draw_key, noise_key, notice_key = jax.random.split(key, 3)
    shape = days, len(_GRAMS)
    draws = Draws(draw_key, 3 + days * (6 * len(_GRAMS) + 1))
    shift = draws.normal(0.0, 30.0)
    appetite = jnp.exp(draws.normal(0.0, 0.15)) * _size(patient)
    bias = draws.normal(0.0, behaviour.bias)

    minute = jnp.clip(draws.normal(_USUAL + shift, _SPREAD, shape), _FIRST, _LAST)
    grams = _GRAMS * appetite * jnp.exp(draws.normal(0.0, 0.25, shape))
    grams = jnp.round(jnp.where(draws.uniform(shape=shape) < _CHANCE, grams, 0.0))
    skipped = jnp.where(_SNACK, behaviour.unannounced, behaviour.forgotten)
    announced = draws.uniform(shape=shape) >= skipped
    counted = grams * jnp.exp(bias + draws.normal(0.0, behaviour.counting, shape))
    delay = draws.uniform(-behaviour.early, behaviour.late, shape)
    normals = jax.random.normal(noise_key, (sensor.draws_needed(days * 24 * 60),))
    errors = sensor.errors(normals, EVERY)[: days * ROWS]
    return _Day(
        minute=jnp.round(minute),
        grams=grams,
        counted=jnp.where(announced, jnp.round(counted), 0.0),
        bolus_minute=jnp.clip(jnp.round(minute + delay), 0, 24 * 60 - 1),
        basal=jnp.exp(draws.normal(0.0, behaviour.basal, (days,))),
        noticing=jax.random.uniform(notice_key, (days, ROWS)),
        error=errors.reshape(days, ROWS),
    )


def _live(patient: sim.Patient, plan: _Day, behaviour: Behaviour) -> Record:
    """Run one patient through the plan."""
    sugar = jnp.round(_SUGAR * _size(patient))

    def day(carry: tuple, today: _Day) -> tuple[tuple, Record]:
        def row(carry: tuple, inputs: tuple) -> tuple[tuple, Record]:
            number, noticing, error = inputs
            state, shown, since_bolus, since_sugar = carry
            begins = number * EVERY
            night = (begins < 6 * 60) | (begins >= 23 * 60)

            # What the reading at the beginning of the row leads to.
            low = shown < jnp.where(night, behaviour.asleep, _LOW)
            treats = low & (since_sugar >= _AGAIN)
            high = (shown > _HIGH) & (since_bolus >= _PATIENCE)
            correction = jnp.where(high, (shown - _TARGET) / patient.CF, 0.0)
            notices = ~night & (noticing < behaviour.corrects * EVERY / 60)

            def within(minute: jax.Array) -> jax.Array:
                return (minute >= begins) & (minute < begins + EVERY)

            counted = jnp.sum(jnp.where(within(today.bolus_minute), today.counted, 0.0))
            wanted = counted / patient.CR + jnp.where((counted > 0) | notices, correction, 0.0)
            bolus = sim.pump(jnp.where(low, 0.0, wanted / EVERY))
            basal = sim.pump(patient.basal * today.basal)
            served = jnp.where(treats, sugar, 0.0)

            meals = jnp.sum(jnp.where(within(today.minute), today.grams, 0.0))

            def pass_minute(state: sim.State, minute: jax.Array) -> tuple[sim.State, None]:
                now = jnp.sum(jnp.where(today.minute == minute, today.grams, 0.0))
                now += jnp.where(minute == begins, served, 0.0)
                return sim.minute(patient, state, now, basal + bolus), None

            state, _ = jax.lax.scan(pass_minute, state, begins + jnp.arange(EVERY))
            truth = sim.glucose(patient, state)
            shown = sensor.reading(truth, error)
            since_bolus = jnp.where(bolus > 0, 0.0, since_bolus + EVERY)
            since_sugar = jnp.where(treats, 0.0, since_sugar + EVERY)
            given = EVERY * bolus
            counted = jnp.where(low, 0.0, counted)
            record = Record(shown, truth, EVERY * basal + given, given, served + meals, counted)
            return (state, shown, since_bolus, since_sugar), record

        return jax.lax.scan(row, carry, (jnp.arange(ROWS), today.noticing, today.error))

    state = sim.initial(patient)
    long_ago = jnp.asarray(24.0 * 60)
    _, records = jax.lax.scan(day, (state, sim.glucose(patient, state), long_ago, long_ago), plan)
    return jax.tree.map(jnp.ravel, records)


def _size(patient: sim.Patient) -> jax.Array:
    """Return how much a patient eats, relative to an adult of 70 kg."""
    return jnp.clip(patient.BW / 70.0, 0.35, 1.2)
