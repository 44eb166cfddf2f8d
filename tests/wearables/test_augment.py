"""Random changes of windows: what each may touch, and what they depend on."""

import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.wearables.augment import Augment, augment, triads

CHANNELS = ("total_x_acc", "total_y_acc", "total_z_acc", "pulse", "x_gyro", "y_gyro", "z_gyro")


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    level = rng.normal(size=(40, len(CHANNELS), 1)) * 5
    return (level + rng.normal(size=(40, len(CHANNELS), 64))).astype(np.float32)


def changed(windows, seed=3, draws=None, **values):
    draws = np.arange(len(windows)) if draws is None else draws
    return augment(windows, Augment(**values), triads(CHANNELS), seed, draws)


def test_axes_of_a_sensor_are_found_by_name():
    np.testing.assert_array_equal(triads(CHANNELS), [[0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(triads(["z_acc", "x_acc", "y_acc"]), [[1, 2, 0]])
    with pytest.raises(InputError, match="needs channels in threes"):
        triads(["x_acc", "y_acc", "z_gyro"])


def test_a_window_turns_as_one(windows):
    found = changed(windows, rotation=20.0)
    np.testing.assert_array_equal(found[:, 3], windows[:, 3])  # not a sensor of three axes
    angles = []
    for before, after in zip(windows, found, strict=True):
        turn, *_ = np.linalg.lstsq(before[[4, 5, 6]].T, after[[4, 5, 6]].T, rcond=None)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(before[:3].T @ turn, after[:3].T, atol=1e-4)
        angles.append(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    assert 10 < np.sqrt(np.mean(np.square(angles))) < 30


def test_a_factor_leaves_the_level_alone(windows):
    found = changed(windows, scale=0.3)
    np.testing.assert_allclose(found.mean(axis=2), windows.mean(axis=2), rtol=1e-4, atol=1e-5)
    ratio = found.std(axis=2) / windows.std(axis=2)
    np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], len(CHANNELS), axis=1), rtol=1e-4)
    assert 0.2 < np.log(ratio[:, 0]).std() < 0.4


def test_a_stretched_piece_is_slower_and_stays_inside():
    line = np.tile(np.arange(64, dtype=np.float32), (200, 1, 1))
    found = changed(line, stretch=0.3)[:, 0]
    slopes = np.diff(found, axis=1)
    np.testing.assert_allclose(slopes, np.repeat(slopes[:, :1], 63, axis=1), atol=1e-4)
    assert (found >= 0).all() and (found <= 63).all()
    assert slopes[:, 0].max() <= 1 and slopes[:, 0].min() >= 0.5 - 1e-6
    assert slopes[:, 0].std() > 0.1 and found[:, 0].std() > 1


def test_noise_is_a_share_of_what_moves(windows):
    windows[:, 3] = 7  # a channel that got stuck stays so
    found = changed(windows, jitter=0.1)
    np.testing.assert_array_equal(found[:, 3], windows[:, 3])
    shares = (found - windows).std(axis=2)[:, :3] / windows.std(axis=2)[:, :3]
    assert 0.09 < shares.mean() < 0.11


def test_changes_depend_on_seed_and_draw_alone(windows):
    values = {"rotation": 10.0, "scale": 0.1, "stretch": 0.1, "jitter": 0.1}
    whole = changed(windows, **values)
    some = np.array([7, 3])
    np.testing.assert_array_equal(changed(windows[some], draws=some, **values), whole[some])
    assert not np.allclose(changed(windows, draws=np.arange(40) + 40, **values), whole)
    assert not np.allclose(changed(windows, seed=4, **values), whole)
    np.testing.assert_array_equal(changed(windows), windows)


def test_negative_sizes_are_refused():
    with pytest.raises(InputError, match=r"data\.augment\.scale is -0\.1"):
        Augment(scale=-0.1)
