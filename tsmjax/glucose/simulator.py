"""Type 1 diabetes in silico: the UVA/Padova model of 2008, for many patients at once.

The 13 compartments of Dalla Man, Rizza and Cobelli, "Meal simulation model of the glucose-insulin
system" (IEEE TBME 2007), with the subcutaneous insulin and glucose of Dalla Man, Raimondo, Rizza
and Cobelli, "GIM, simulation software of meal glucose-insulin model" (J. Diabetes Sci. Technol.
2007), as the package simglucose 0.2.11 has them, whose 30 virtual patients are here too (MIT, see
LICENSE.simglucose). Inputs are constant within a minute. A minute is one step of the classic
Runge-Kutta method for glucose and insulin, where no rate is faster than 1.3 a minute, and two for
the stomach, whose emptying turns within a minute of eating.

Names of parameters are those of the papers. Amounts are mg (stomach and gut), mg/kg (glucose) and
pmol/kg (insulin), rates are per minute. Everything works in float32; in float64 where JAX has it
enabled.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError

EATING_RATE = 5.0  # g of carbohydrate a minute: faster food waits
PMOL_PER_UNIT = 6000.0  # of insulin
PUMP_STEP = 0.05 / PMOL_PER_UNIT  # U/min: what the pump's rates are multiples of
PUMP_LIMIT = 30.0  # U/min


class Food(NamedTuple):
    """Carbohydrate on its way to the blood."""

    solid: jax.Array  # mg, in the stomach
    liquid: jax.Array  # mg, in the stomach
    gut: jax.Array  # mg


class Body(NamedTuple):
    """Glucose and insulin."""

    plasma_glucose: jax.Array  # mg/kg
    tissue_glucose: jax.Array  # mg/kg
    plasma_insulin: jax.Array  # pmol/kg
    action: jax.Array  # pmol/L, of insulin on glucose uptake
    delayed: jax.Array  # pmol/L, insulin on its way to the liver
    liver_action: jax.Array  # pmol/L, of insulin on glucose production
    liver_insulin: jax.Array  # pmol/kg
    depot: jax.Array  # pmol/kg, insulin under the skin
    depot_monomeric: jax.Array  # pmol/kg, the same further on
    skin_glucose: jax.Array  # mg/kg, what a sensor sees


class Patient(NamedTuple):
    """Parameters of one patient, or of several in arrays of one shape."""

    food: Food  # the fasting state at the basal rate
    body: Body
    BW: jax.Array  # kg, body weight
    Vg: jax.Array  # dL/kg, volume of glucose
    Vi: jax.Array  # L/kg, volume of insulin
    Ib: jax.Array  # pmol/L, basal insulin
    kabs: jax.Array  # absorption from the gut
    kmax: jax.Array  # emptying of the stomach, fastest
    kmin: jax.Array  # and slowest
    b: jax.Array  # shares of the meal at which emptying slows down
    d: jax.Array  # and speeds up again
    f: jax.Array  # share of the carbohydrate that reaches the blood
    kp1: jax.Array  # mg/kg/min, glucose production of the liver
    kp2: jax.Array  # and its fall with glucose
    kp3: jax.Array  # and with insulin
    ki: jax.Array  # delay of insulin action on the liver
    Fsnc: jax.Array  # mg/kg/min, uptake of brain and red cells
    ke1: jax.Array  # excretion by the kidneys
    ke2: jax.Array  # mg/kg, above this much glucose
    k1: jax.Array  # plasma to tissue
    k2: jax.Array  # tissue to plasma
    Vm0: jax.Array  # mg/kg/min, uptake of tissue
    Vmx: jax.Array  # and its growth with insulin action
    Km0: jax.Array  # mg/kg, half saturation of it
    p2u: jax.Array  # delay of insulin action on uptake
    m1: jax.Array  # liver to plasma
    m2: jax.Array  # plasma to liver
    m4: jax.Array  # clearance from plasma
    m30: jax.Array  # clearance by the liver
    ka1: jax.Array  # depot to plasma
    ka2: jax.Array  # monomeric depot to plasma
    kd: jax.Array  # depot to monomeric depot
    ksc: jax.Array  # delay of the glucose under the skin
    u2ss: jax.Array  # pmol/kg/min, basal insulin
    CR: jax.Array  # g/U, carbohydrate that one unit makes up for
    CF: jax.Array  # mg/dL/U, fall of glucose by one unit
    age: jax.Array  # years
    TDI: jax.Array  # U, daily insulin

    @property
    def basal(self) -> jax.Array:
        """Insulin in U/min that keeps the fasting state."""
        return self.u2ss * self.BW / PMOL_PER_UNIT


class State(NamedTuple):
    """What a patient carries from one minute into the next."""

    food: Food
    body: Body
    planned: jax.Array  # g, food that waits to be eaten
    eating: jax.Array  # whether the last minute had food
    before: jax.Array  # mg in the stomach when the meal began
    eaten: jax.Array  # g of the meal so far


@functools.cache
def patients() -> tuple[tuple[str, ...], Patient]:
    """Return the names of the 30 patients and their parameters, float64 arrays of shape (30,).

    Ten adolescents, ten adults and ten children, as ``adult#003``.
    """
    with open(Path(__file__).with_name("patients.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    values = {key: column.astype(np.float64) for key, column in columns.items() if key != "name"}
    first = [values.pop(f"x{number}") for number in range(1, 14)]
    return tuple(columns["name"].tolist()), Patient(Food(*first[:3]), Body(*first[3:]), **values)


def choose(numbers: np.ndarray) -> Patient:
    """Return the parameters of the patients with these numbers (0 to 29), in arrays like it."""
    return jax.tree.map(lambda column: jnp.asarray(column[np.asarray(numbers)]), patients()[1])


def pump(rate: jax.Array) -> jax.Array:
    """Return the rate, in U/min, that the pump delivers when `rate` is asked of it."""
    return jnp.clip(jnp.round(rate / PUMP_STEP) * PUMP_STEP, 0.0, PUMP_LIMIT)


def initial(patient: Patient) -> State:
    """Return the fasting state of a patient."""
    nothing = jnp.zeros_like(patient.BW)
    return State(patient.food, patient.body, nothing, nothing > 0, nothing, nothing)


def glucose(patient: Patient, state: State) -> jax.Array:
    """Return the glucose under the skin in mg/dL, which a perfect sensor would show."""
    return state.body.skin_glucose / patient.Vg


def minute(
    patient: Patient,
    state: State,
    carbs: jax.Array,
    insulin: jax.Array,
    compat_dbar_grams: bool = False,
) -> State:
    """Return the state one minute later; scalars, to be vmapped.

    Args:
      patient: the parameters.
      state: the state now.
      carbs: g served now; what exceeds `EATING_RATE` is eaten in the minutes that follow.
      insulin: U/min during this minute, basal and bolus.
      compat_dbar_grams: add the meal in grams to the stomach's content in milligrams where the
        size of the meal is asked for, as simglucose did before May 2022. The stomach then
        empties at its fastest as long as there is food in it.
    """
    waiting = state.planned + carbs
    bite = jnp.minimum(waiting, EATING_RATE)
    eating = bite > 0
    begins = eating & ~state.eating
    before = jnp.where(begins, state.food.solid + state.food.liquid, state.before)
    eaten = jnp.where(begins, 0.0, state.eaten) + bite
    meal = before + eaten * (1.0 if compat_dbar_grams else 1000.0)
    infused = insulin * PMOL_PER_UNIT / patient.BW

    def digestion(food: Food, _: int) -> Food:
        return _digestion(patient, food, bite * 1000.0, meal)

    def metabolism(body: Body, stage: int) -> Body:
        return _metabolism(patient, body, foods[stage].gut, infused)

    middle = _runge_kutta(digestion, state.food, 0.5)
    foods = state.food, middle, _runge_kutta(digestion, middle, 0.5)
    body = _runge_kutta(metabolism, state.body, 1.0)
    return State(foods[2], body, waiting - bite, eating, before, eaten)


def _runge_kutta(slope: Callable[[Any, int], Any], x: Any, h: float) -> Any:
    """Move `x` on by `h`; ``slope(x, stage)`` is taken at its start (0), middle (1) and end (2)."""

    def moved(slope: Any, by: float) -> Any:
        return jax.tree.map(lambda x, dx: x + by * dx, x, slope)

    first = slope(x, 0)
    second = slope(moved(first, h / 2), 1)
    third = slope(moved(second, h / 2), 1)
    fourth = slope(moved(third, h), 2)
    return jax.tree.map(
        lambda x, a, b, c, d: x + h / 6 * (a + 2 * (b + c) + d), x, first, second, third, fourth
    )


def _digestion(p: Patient, x: Food, food: jax.Array, meal: jax.Array) -> Food:
    """Return d/dt of the carbohydrate; `food` in mg/min, `meal` in mg."""
    # Emptying of the stomach slows down in the middle of a meal.
    stomach = x.solid + x.liquid
    size = jnp.where(meal > 0, meal, 1.0)
    falls = jnp.tanh(2.5 / (size * (1 - p.b)) * (stomach - p.b * size))
    rises = jnp.tanh(2.5 / (size * p.d) * (stomach - p.d * size))
    kgut = p.kmin + (p.kmax - p.kmin) / 2 * (falls - rises + 2)
    kgut = jnp.where(meal > 0, kgut, p.kmax)
    return Food(
        solid=food - p.kmax * x.solid,
        liquid=p.kmax * x.solid - kgut * x.liquid,
        gut=kgut * x.liquid - p.kabs * x.gut,
    )


def _metabolism(p: Patient, x: Body, gut: jax.Array, infused: jax.Array) -> Body:
    """Return d/dt of glucose and insulin; `gut` in mg, `infused` in pmol/kg/min."""
    appearance = p.f * p.kabs * gut / p.BW
    production = jnp.maximum(p.kp1 - p.kp2 * x.plasma_glucose - p.kp3 * x.liver_action, 0.0)
    excretion = p.ke1 * jnp.maximum(x.plasma_glucose - p.ke2, 0.0)
    exchange = p.k1 * x.plasma_glucose - p.k2 * x.tissue_glucose
    uptake = (p.Vm0 + p.Vmx * x.action) * x.tissue_glucose / (p.Km0 + x.tissue_glucose)
    insulin = x.plasma_insulin / p.Vi  # pmol/L

    def unless_negative(value: jax.Array, change: jax.Array) -> jax.Array:
        return jnp.where(value >= 0, change, 0.0)

    return Body(
        plasma_glucose=unless_negative(
            x.plasma_glucose, production + appearance - p.Fsnc - excretion - exchange
        ),
        tissue_glucose=unless_negative(x.tissue_glucose, exchange - uptake),
        plasma_insulin=unless_negative(
            x.plasma_insulin,
            p.m1 * x.liver_insulin
            - (p.m2 + p.m4) * x.plasma_insulin
            + p.ka1 * x.depot
            + p.ka2 * x.depot_monomeric,
        ),
        action=p.p2u * (insulin - p.Ib - x.action),
        delayed=p.ki * (insulin - x.delayed),
        liver_action=p.ki * (x.delayed - x.liver_action),
        liver_insulin=unless_negative(
            x.liver_insulin, p.m2 * x.plasma_insulin - (p.m1 + p.m30) * x.liver_insulin
        ),
        depot=unless_negative(x.depot, infused - (p.ka1 + p.kd) * x.depot),
        depot_monomeric=unless_negative(
            x.depot_monomeric, p.kd * x.depot - p.ka2 * x.depot_monomeric
        ),
        skin_glucose=unless_negative(x.skin_glucose, p.ksc * (x.plasma_glucose - x.skin_glucose)),
    )


def simulate(
    patient: Patient, carbs: np.ndarray, insulin: np.ndarray, *, compat_dbar_grams: bool = False
) -> jax.Array:
    """Return the glucose of N patients under given inputs, from the fasting state on.

    Args:
      patient: parameters of shape (N,), as from `choose`.
      carbs: (N, T) g served at each minute.
      insulin: (N, T) U/min during each minute, basal and bolus.
      compat_dbar_grams: see `minute`.

    Returns:
      (N, T + 1) mg/dL; column t is the value after t minutes.

    Raises:
      InputError: when shapes do not fit, or an input is negative or no number.
    """
    expected = np.shape(patient.BW)
    for name, values in (("carbs", carbs), ("insulin", insulin)):
        if np.ndim(values) != 2 or np.shape(values)[:1] != expected:
            raise InputError(
                f"{name} has shape {np.shape(values)}, but must be (N, T) for patients of shape "
                f"(N,); patients have shape {expected}."
            )
        if not (np.isfinite(values).all() and (np.asarray(values) >= 0).all()):
            raise InputError(f"{name} has negative, missing or infinite values: give 0 for none.")
    if np.shape(carbs) != np.shape(insulin):
        raise InputError(
            f"carbs has {np.shape(carbs)[1]} minutes and insulin {np.shape(insulin)[1]}: "
            "give both the same."
        )
    return _simulate(patient, jnp.asarray(carbs), jnp.asarray(insulin), compat_dbar_grams)


@functools.partial(jax.jit, static_argnums=3)
def _simulate(
    patient: Patient, carbs: jax.Array, insulin: jax.Array, compat_dbar_grams: bool
) -> jax.Array:
    step = jax.vmap(functools.partial(minute, compat_dbar_grams=compat_dbar_grams))

    def scanned(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        state = step(patient, state, *inputs)
        return state, glucose(patient, state)

    state = initial(patient)
    _, values = jax.lax.scan(scanned, state, (carbs.T, insulin.T))
    return jnp.concatenate([glucose(patient, state)[:, None], values.T], axis=1)
