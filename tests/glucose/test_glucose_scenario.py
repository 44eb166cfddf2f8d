"""Days of virtual life: plausible, reproducible, and what their columns say they are."""

import jax
import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import metrics, scenario, sensor
from tsmjax.glucose import simulator as sim

DAYS = 7


@pytest.fixture(scope="module")
def life() -> scenario.Record:
    record = scenario.simulate_days(jax.random.key(3), np.arange(30), DAYS)
    return jax.tree.map(np.asarray, record)


def test_everybody_lives_a_plausible_life(life):
    assert life.cgm.shape == (30, DAYS * scenario.ROWS)
    assert all(np.isfinite(column).all() for column in life)
    assert life.glucose.min() > 15
    assert life.glucose.max() < 800
    shares = metrics.ranges(life.glucose)
    assert 0.6 < shares["in_range"].mean() < 0.95
    assert 0.001 < shares["below_70"].mean() < 0.08
    assert 20 < metrics.control(life.glucose)["cv"].mean() < 45
    grams = life.carbs.sum(1) / DAYS
    weight = sim.patients()[1].BW
    assert np.corrcoef(grams, weight)[0, 1] > 0.8
    assert 40 < grams.min() < grams.max() < 420


def test_insulin_is_basal_and_bolus(life):
    basal = (life.insulin - life.bolus).reshape(30, DAYS, scenario.ROWS)
    np.testing.assert_allclose(basal, basal[..., :1] * np.ones(scenario.ROWS), atol=1e-4)
    error = np.log(basal[..., 0] / (5 * sim.patients()[1].basal[:, None]))
    assert 0.08 < error.std() < 0.16
    counted = life.counted > 0
    assert np.mean(life.bolus[counted] > 0) == 1.0
    corrections = (life.bolus > 0) & ~counted
    assert 0.05 < corrections.sum(1).mean() / DAYS < 2.0  # a day


def test_some_meals_are_not_counted(life):
    assert 0.7 < life.counted.sum() / life.carbs.sum() < 0.95


def test_sugar_is_taken_when_the_reading_is_low(life):
    before = life.cgm[:, :-1]
    hour = np.arange(1, before.shape[1] + 1) * scenario.EVERY % 1440 / 60
    awake = (hour >= 6) & (hour < 23)
    low = (before < 70) & awake
    quiet = (before > 75) & (before < 250)
    assert life.carbs[:, 1:][low].mean() > 5 * life.carbs[:, 1:][quiet].mean()
    assert life.bolus[:, 1:][low].max() == 0.0


def test_sensor_shows_the_truth_with_an_error(life):
    assert life.cgm.min() >= sensor.LOWEST
    error = life.cgm - life.glucose
    assert 8 < error.std() < 16  # its own standard deviation is 12
    assert np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1] > 0.8


def test_a_row_depends_on_its_key_and_patient_alone(life):
    numbers = np.arange(30)
    numbers[2:] = 0
    few = scenario.simulate_days(jax.random.key(3), numbers, DAYS)
    np.testing.assert_allclose(few.cgm[:2], life.cgm[:2], rtol=1e-4)
    assert np.abs(few.cgm[0] - few.cgm[2]).max() > 20  # another life of the same patient
    other = scenario.simulate_days(jax.random.key(4), numbers, DAYS)
    assert np.abs(other.cgm[0] - few.cgm[0]).max() > 20


def test_perfect_patients_do_better(life):
    careful = scenario.Behaviour(
        **{"counting": 0.0, "bias": 0.0, "forgotten": 0.0, "unannounced": 0.0, "basal": 0.0},
        **{"early": 10.0, "late": 0.0},
    )
    good = scenario.simulate_days(jax.random.key(3), np.arange(30), DAYS, careful)
    high = metrics.ranges(np.asarray(good.glucose))["above_180"].mean()
    assert high < 0.6 * metrics.ranges(life.glucose)["above_180"].mean()


@pytest.mark.parametrize(
    ("numbers", "days", "match"),
    [([0, 30], 1, "0 to 29"), ([-1], 1, "0 to 29"), ([0], 0, "at least 1")],
)
def test_bad_requests_are_named(numbers, days, match):
    with pytest.raises(InputError, match=match):
        scenario.simulate_days(jax.random.key(0), np.array(numbers), days)
