"""The simulator against simglucose 0.2.11, stored and live, and days of generated life."""

import importlib.util

import golden_simglucose as golden
import jax
import numpy as np
import pandas as pd
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import sensor
from tsmjax.glucose import simulator as sim

TOLERANCE = 0.1  # mg/dL over 24 hours
EVERYONE = np.arange(golden.PATIENTS)


def inputs(number: int) -> tuple:
    p = sim.patients()[1]
    return golden.day(p.BW[number], p.CR[number], p.basal[number], number)


def ours(numbers) -> np.ndarray:
    carbs, insulin = zip(*(inputs(number) for number in numbers), strict=True)
    return np.asarray(sim.simulate(sim.choose(numbers), np.stack(carbs), np.stack(insulin)))


def needs_simglucose() -> None:
    if importlib.util.find_spec("simglucose") is None:
        pytest.skip("simglucose is not installed")


def test_a_day_of_every_patient_is_that_of_simglucose():
    expected = np.load(golden.FIXTURE)["glucose"]
    assert np.ptp(expected) > 300  # lows, highs, and the kidneys at work
    found = ours(EVERYONE)[:, ::5]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_three_patients_are_those_of_simglucose_run_now():
    needs_simglucose()
    numbers = np.array([3, 16, 26])
    expected = np.stack([golden.reference_day(number)[2] for number in numbers])
    np.testing.assert_allclose(ours(numbers), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_all_patients_are_those_of_simglucose_run_now():
    needs_simglucose()
    expected = np.stack([golden.reference_day(number)[2] for number in EVERYONE])
    np.testing.assert_allclose(ours(EVERYONE), expected, rtol=0, atol=TOLERANCE)


def test_stored_traces_have_the_meal_in_grams(test_data):
    folder = test_data / "data" / "cgm" / "simglucose"
    names = sim.patients()[0]
    traces = [pd.read_csv(folder / f"{name.replace('#', '_')}.csv.gz") for name in names]
    # Seed 3 of the random scenario, to the minute; rows begin at 06:00 and are means of 3 minutes.
    carbs = np.zeros((len(names), 1440))
    for minute, grams in ((451, 46), (656, 51), (856, 8), (1102, 79), (1304, 8)):
        carbs[:, minute - 360] = grams
    rows = carbs.reshape(len(names), -1, 3).mean(-1)
    np.testing.assert_allclose(rows, [t.CHO[:-1] for t in traces], atol=1e-9)
    insulin = np.stack([np.repeat(t.insulin[:-1], 3) for t in traces])
    stored = np.stack([t.BG[1:] for t in traces])

    def worst(**compat) -> float:
        values = np.asarray(sim.simulate(sim.choose(EVERYONE), carbs, insulin, **compat))
        means = values[:, 1:].reshape(len(names), -1, 3).mean(-1)
        return np.abs(means - stored).max()

    assert worst(compat_dbar_grams=True) < 2.0
    assert worst() > 100.0


@pytest.mark.parametrize("name", golden.SENSORS)
def test_sensor_errors_are_those_of_simglucose(name):
    stored = np.load(golden.FIXTURE)
    found = sensor.errors(stored["normals"], golden.SENSORS[name])[: golden.READINGS]
    np.testing.assert_allclose(found, stored[name], atol=1e-4)


def test_fasting_stays_as_it_is():
    p = sim.choose(EVERYONE)
    insulin = np.repeat(np.asarray(p.basal)[:, None], 600, axis=1)
    values = np.asarray(sim.simulate(p, np.zeros_like(insulin), insulin))
    np.testing.assert_allclose(values, values[:, :1] * np.ones(601), atol=0.02)


def test_food_is_eaten_at_five_grams_a_minute_and_none_is_lost():
    one = jax.tree.map(lambda values: values[4], sim.choose(EVERYONE))
    state, step = sim.initial(one), jax.jit(sim.minute)
    for _ in range(3):
        state = step(one, state, 0.0, one.basal)
    state = step(one, state, 12.0, one.basal)
    assert float(state.planned) == 7.0
    for _ in range(2):
        state = step(one, state, 0.0, one.basal)
    assert float(state.planned) == 0.0
    assert float(state.eaten) == 12.0
    on_its_way = sum(float(amount) for amount in state.food)
    assert 11_500 < on_its_way < 12_000  # mg; what is missing was absorbed


def test_pump_delivers_multiples_of_its_step():
    np.testing.assert_allclose(sim.pump(np.array([-1.0, 0.0, 50.0])), [0.0, 0.0, 30.0])
    assert float(sim.pump(1.0000031)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("carbs", "insulin", "match"),
    [
        (np.zeros((3, 10)), np.zeros((2, 10)), "carbs has shape"),
        (np.zeros((2, 10)), np.zeros((2, 9)), "minutes"),
        (np.zeros((2, 10)), np.full((2, 10), np.nan), "insulin has negative, missing"),
        (np.full((2, 10), -1.0), np.zeros((2, 10)), "carbs has negative"),
    ],
)
def test_bad_inputs_are_named(carbs, insulin, match):
    with pytest.raises(InputError, match=match):
        sim.simulate(sim.choose(np.array([0, 1])), carbs, insulin)
