"""Numbers about channels: powers by octave, and what a model is told."""

import numpy as np
import pytest

from tsmjax.wearables.summaries import OCTAVES, TOLD, octaves, summaries, told


@pytest.mark.parametrize("number", range(OCTAVES))
def test_a_wave_has_its_power_in_its_octave(number):
    steps = 512
    highest = steps // 2
    frequency = 0.75 * highest / 2**number  # the middle of the band, in periods of a window
    wave = 3 * np.sin(2 * np.pi * frequency * np.arange(steps) / steps) + 7  # a level has no power
    found = octaves(wave[None, None])[0, 0]
    assert found.argmax() == number and found[number] > 0.98 * found.sum()
    np.testing.assert_allclose(
        octaves(2 * wave[None, None])[0, 0, number], 4 * found[number], rtol=1e-5
    )


@pytest.mark.parametrize("steps", [2, 3, 9, 128])
def test_windows_of_two_or_more_readings_have_finite_numbers(steps):
    windows = np.random.default_rng(0).normal(size=(4, 3, steps)).astype(np.float32)
    windows[0] = 0  # what does not move at all
    found = told(windows)
    assert found.shape == (4, 3, TOLD) and found.dtype == np.float32
    assert np.isfinite(found).all() and np.abs(found).max() < 10


def test_spreads_and_powers_are_told_in_decades_and_levels_as_they_are():
    quiet = np.random.default_rng(0).normal(size=(2, 1, 128)).astype(np.float32)
    loud = 10 * quiet
    near, far = told(quiet), told(loud)
    five = TOLD - OCTAVES
    np.testing.assert_allclose(far[..., [1, 4]], near[..., [1, 4]] + 1, atol=1e-5)
    np.testing.assert_allclose(far[..., five:], near[..., five:] + 2, atol=2e-2)  # of squares
    np.testing.assert_allclose(far[..., [0, 2, 3]], summaries(loud)[..., [0, 2, 3]])
