"""Augmentation of skeletons, and the streams derived of them."""

import jax
import numpy as np
import pytest

from tsmjax.data.motion import AugmentConfig, augment, middle, resample, streams
from tsmjax.errors import InputError
from tsmjax.models.last.skeletons import skeleton

SKELETON = skeleton("ntu25")
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def clips(rows=3, bodies=2, frames=8):
    joints = RNG.normal(size=(rows, bodies, frames, 25, 3)).astype(np.float32)
    if bodies == 2:
        joints[0, 1] = 0.0
        joints[1, 1, :3] = 0.0
    return joints


def augmented(joints, frames=None, key=KEY, **options):
    frames = frames or joints.shape[2]
    return np.asarray(augment(joints, key, AugmentConfig(**options), frames, SKELETON.permutation))


def distances(x):
    return np.linalg.norm(x[..., :, None, :] - x[..., None, :, :], axis=-1)


def test_a_rotation_keeps_distances_and_one_about_the_vertical_heights():
    joints = clips()
    turned = augmented(joints, rotation=(0.5, 1.0, 0.5))
    assert np.abs(turned - joints).max() > 0.1
    np.testing.assert_allclose(distances(turned), distances(joints), atol=1e-4)
    yaw = augmented(joints, rotation=(0.0, 1.0, 0.0))
    np.testing.assert_allclose(yaw[..., 1], joints[..., 1], atol=1e-6)
    # One rotation a clip, another one for each.
    for clip, other in zip(joints, turned, strict=True):
        matrix = np.linalg.lstsq(clip[0].reshape(-1, 3), other[0].reshape(-1, 3), rcond=None)[0]
        np.testing.assert_allclose(clip[1] @ matrix, other[1], atol=1e-4)
    assert np.abs(turned[0, 0] / joints[0, 0] - turned[2, 0] / joints[2, 0]).max() > 0.1


def test_scale_and_shear_stay_in_their_range():
    joints = clips(16, 1, 2)
    factors = (augmented(joints, scale=0.2) / joints).reshape(16, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(factors.shape[1], 1), rtol=1e-4)
    np.testing.assert_array_less(np.abs(factors[:, 0] - 1), 0.2001)
    assert np.ptp(factors[:, 0]) > 0.1
    sheared = augmented(joints, shear=0.1)
    for clip, other in zip(joints, sheared, strict=True):
        matrix = np.linalg.lstsq(clip.reshape(-1, 3), other.reshape(-1, 3), rcond=None)[0]
        np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-4)
        assert np.abs(matrix - np.eye(3)).max() < 0.1001


def test_a_mirror_exchanges_left_and_right_and_flips_x():
    joints = clips()
    mirrored = augmented(joints, mirror=1.0)
    left, right = SKELETON.joints.index("left_thumb"), SKELETON.joints.index("right_thumb")
    np.testing.assert_array_equal(mirrored[..., left, :], joints[..., right, :] * [-1, 1, 1])
    head = SKELETON.joints.index("head")
    np.testing.assert_array_equal(mirrored[..., head, :], joints[..., head, :] * [-1, 1, 1])
    np.testing.assert_array_equal(augmented(mirrored, mirror=1.0), joints)


def test_an_absent_body_stays_absent():
    joints = clips()
    everything = {"rotation": (0.3, 0.3, 0.3), "noise": 0.1, "scale": 0.1, "shear": 0.1}
    found = augmented(joints, **everything, mirror=0.5)
    away = ~joints.any(axis=(3, 4))
    np.testing.assert_array_equal(~found.any(axis=(3, 4)), away)
    shorter = augmented(joints, frames=5, crop=(0.5, 0.9))
    assert not shorter[0, 1].any() and shorter[1, 1].any()


def test_a_crop_of_as_many_frames_is_a_piece_of_the_clip():
    joints = clips(16, 1, 24)
    pieces = augmented(joints, frames=6, crop=(0.25, 0.25))
    starts = []
    for clip, piece in zip(joints[:, 0], pieces[:, 0], strict=True):
        fits = [np.allclose(clip[at : at + 6], piece, atol=1e-5) for at in range(19)]
        assert sum(fits) == 1
        starts.append(fits.index(True))
    assert len(set(starts)) > 4
    np.testing.assert_allclose(middle(joints, 0.25, 6)[1, 0], joints[1, 0, 9:15], atol=1e-5)
    np.testing.assert_array_equal(middle(joints, 1.0, 24), joints)


def test_resampling_interpolates_only_between_frames_that_have_the_body():
    joints = clips(1, 1, 5)
    joints[0, 0, 3:] = 0.0
    found = np.asarray(resample(joints, np.array([0]), np.array([5]), 9))[0, 0]
    clip = joints[0, 0]
    np.testing.assert_allclose(found[1], (clip[0] + clip[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[5], clip[2], atol=1e-6)
    assert not found[6:].any()


def test_draws_depend_on_the_key_and_on_nothing_else():
    joints = clips()
    options = {"rotation": (0.3, 0.3, 0.3), "noise": 0.1, "crop": (0.5, 1.0), "mirror": 0.5}
    np.testing.assert_array_equal(augmented(joints, **options), augmented(joints, **options))
    other = augmented(joints, key=jax.random.key(1), **options)
    assert np.abs(augmented(joints, **options) - other).max() > 0.1
    np.testing.assert_array_equal(augmented(joints), joints)


def test_streams_are_exact_differences():
    joints, parents = clips(), np.asarray(SKELETON.parents())
    names = ("joint", "bone", "joint_velocity", "bone_velocity")
    found = {name: np.asarray(x) for name, x in streams(joints, names, parents).items()}
    bone = joints - joints[:, :, :, parents]
    np.testing.assert_array_equal(found["joint"], joints)
    np.testing.assert_array_equal(found["bone"], bone)
    both = joints.any(axis=(3, 4))
    both = (both[:, :, 1:] & both[:, :, :-1])[..., None, None]
    for name, x in (("joint_velocity", joints), ("bone_velocity", bone)):
        np.testing.assert_array_equal(found[name][:, :, :-1], np.where(both, np.diff(x, axis=2), 0))
        assert not found[name][:, :, -1].any()
    single = streams(joints[:, :, :1], names, parents)["joint_velocity"]
    assert single.shape == (3, 2, 1, 25, 3) and not np.asarray(single).any()


@pytest.mark.parametrize("options", [{"crop": (0.9, 0.5)}, {"crop": (0.0, 1.0)}, {"scale": 1.0}])
def test_impossible_augmentations_are_refused(options):
    with pytest.raises(InputError):
        AugmentConfig(**options)
