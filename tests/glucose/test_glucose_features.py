"""Carbohydrate and insulin on board against numerical integration and causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import features


def integrated(rates: np.ndarray, dose: float, minutes: int) -> np.ndarray:
    """(minutes + 1, states) of x' = rates x from a dose in the first state, in fine RK4 steps."""
    step = 0.02
    one = np.eye(len(rates))
    h = step * rates
    one = one + h + h @ h / 2 + h @ h @ h / 6 + h @ h @ h @ h / 24
    minute = np.linalg.matrix_power(one, round(1 / step))
    states = [np.eye(len(rates))[0] * dose]
    for _ in range(minutes):
        states.append(minute @ states[-1])
    return np.array(states)


def test_carbs_are_those_of_numerical_integration():
    states = integrated(np.array([[-1.0, 0], [1, -1]]) / 40, 0.8, 480)
    cob, available = features.carb_kernels(every=1)
    np.testing.assert_allclose(cob, states.sum(1), atol=1e-9)
    np.testing.assert_allclose(available, states[:, 1], atol=1e-9)


def test_insulin_is_that_of_numerical_integration():
    a, k = 1 / 55, 0.138
    states = integrated(np.array([[-a, 0, 0], [a, -a, 0], [0, a, -k]]), 1.0, 480)
    iob, available = features.insulin_kernels(every=1)
    np.testing.assert_allclose(iob, states.sum(1), atol=1e-9)
    np.testing.assert_allclose(available, states[:, 2], atol=1e-9)


def test_known_values():
    cob, _ = features.carb_kernels()
    iob, _ = features.insulin_kernels()
    minutes = np.array([60, 120, 180, 240])
    np.testing.assert_allclose(cob[minutes // 5], [0.446, 0.159, 0.049, 0.014], atol=6e-4)
    np.testing.assert_allclose(iob[minutes // 5], [0.750, 0.394, 0.180, 0.076], atol=6e-4)
    assert iob[360 // 5] == pytest.approx(0.012, abs=5e-4)
    assert iob[-1] < 0.003
    assert cob[-1] < 1e-4


@pytest.mark.parametrize(("every", "expected"), [(1, [0.751, 0.391]), (5, [0.752, 0.380])])
def test_legacy_steps_by_euler_a_row_late_and_stops(every, expected):
    iob, available = features.insulin_kernels(every, legacy_hovorka_180=True)
    assert len(iob) == len(available) == 180 // every
    # The dose is put in during the first step, so what is 60 minutes old stands one row further.
    rows = np.array([60, 120]) // every + 1
    by_hand = []
    s1, s2, plasma = 1.0, 0.0, 0.0
    for row in range(1, 180 // every):
        if row in rows:
            by_hand.append(s1 + s2 + plasma)
        s1, s2, plasma = (
            s1 - every * s1 / 55,
            s2 + every * (s1 - s2) / 55,
            plasma + every * (s2 / 55 - 0.138 * plasma),
        )
    np.testing.assert_allclose(iob[rows], expected, atol=6e-4)
    np.testing.assert_allclose(iob[rows], by_hand, rtol=1e-12)
    assert (iob[0], available[0], available[1]) == (1.0, 0.0, 0.0)
    assert iob[-1] > 0.16  # and nothing in the next row

    dose = np.zeros(50)
    dose[3] = 2.0
    on_board, _ = features.insulin_features(dose, every, legacy_hovorka_180=True)
    assert on_board[3] == 2.0
    assert on_board[3 + 35] > 0.3
    assert on_board[3 + 36 :].any() == (every == 1)


def test_legacy_carbs_by_hand():
    cob, available = features.carb_kernels(5, legacy_hovorka_180=True)
    np.testing.assert_allclose(cob[:4], [0.8, 0.8, 0.8, 0.8 - 0.1 * 0.125])
    np.testing.assert_allclose(available[:4], [0, 0, 0.1, 0.1 + (0.7 - 0.1) * 0.125])


def test_events_add_up_and_the_future_is_unknown():
    rng = np.random.default_rng(0)
    carbs = np.where(rng.random((3, 400)) < 0.05, rng.uniform(5, 90, (3, 400)), np.nan)
    cob, available = features.carb_features(carbs)
    kernel, other = features.carb_kernels()
    known = np.nan_to_num(carbs)
    for row in range(3):
        np.testing.assert_allclose(cob[row], np.convolve(known[row], kernel)[:400], atol=1e-9)
        np.testing.assert_allclose(available[row], np.convolve(known[row], other)[:400], atol=1e-9)
    changed = carbs.copy()
    changed[:, 200:] = 50.0
    np.testing.assert_array_equal(features.carb_features(changed)[0][:, :200], cob[:, :200])
    short, _ = features.carb_features(carbs[:, :7])
    np.testing.assert_array_equal(short, cob[:, :7])


def test_jax_arrays_stay_jax_arrays():
    insulin = np.random.default_rng(1).uniform(0, 2, (2, 200)).astype(np.float32)
    found = jax.jit(features.insulin_features)(jnp.asarray(insulin))
    for ours, expected in zip(found, features.insulin_features(insulin), strict=True):
        assert isinstance(ours, jax.Array)
        np.testing.assert_allclose(ours, expected, rtol=2e-5)


@pytest.mark.parametrize("wrong", [-1.0, np.inf])
def test_bad_amounts_are_named(wrong):
    with pytest.raises(InputError, match="insulin has negative or infinite"):
        features.insulin_features(np.array([0.0, wrong]))
