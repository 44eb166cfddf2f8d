"""Skeleton clips: filling, centring, sampling, splits, batches by step."""

import logging

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.skeleton import DataConfig, Reader, SkeletonBatches, SkeletonData, fill
from tsmjax.errors import InputError
from tsmjax.models.last.skeletons import skeleton
from tsmjax.prepare.skeletons import facts_of, row

RNG = np.random.default_rng(0)
FACTS = facts_of("ntu60", "ntu25", ("a", "b", "c"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Nine clips of 1 to 33 frames, of subjects 1 to 9; clip 4 has two people, 8 is infinite."""
    rows = []
    for number in range(9):
        joints = RNG.normal(size=(1 + (number == 4), 1 + 4 * number, 25, 3)).astype(np.float32)
        if number == 4:
            joints[1, :9] = np.nan
        if number == 8:
            joints[0, 3, 2, 1] = np.inf
        place = {"subject": number + 1, "camera": 1 + number % 3}
        rows.append(row(f"clip{number}", joints, number % 3, FACTS, **place))
    folder = tmp_path_factory.mktemp("clips") / "data"
    write_dataset(rows, folder)
    return SkeletonData(str(folder))


def read(data, clips, draws=None, frames=16, **options):
    return Reader(data, DataConfig(**options), frames, 0).read(np.asarray(clips), draws)


def raw(data, clip, body=0):
    return data.joints(np.asarray([clip]))[0][body].transpose(2, 0, 1)


def test_uniform_sampling_takes_every_nth_frame_and_repeats_the_last(data):
    plain = {"centre": "none", "frames": 8}
    long, short, one = read(data, [6, 1, 0], **plain)["joints"][:, 0]
    np.testing.assert_array_equal(long, raw(data, 6)[np.linspace(0, 24, 8).astype(int)])
    np.testing.assert_array_equal(short[:5], raw(data, 1))
    np.testing.assert_array_equal(short[5:], np.repeat(short[4:5], 3, axis=0))
    np.testing.assert_array_equal(one, np.repeat(raw(data, 0), 8, axis=0))


def test_resizing_interpolates_and_leaves_nothing_half_way_to_an_absent_body(data):
    batch = read(data, [4], bodies=2, sampling="resize", centre="none", frames=31)
    first, second = batch["joints"][0]
    times = np.linspace(0, 16, 31)
    expected = np.interp(times, np.arange(17), raw(data, 4)[:, 3, 1])
    np.testing.assert_allclose(first[:, 3, 1], expected, atol=1e-5)
    away = ~second.any(axis=(1, 2))
    assert away[: len(away) // 2].all() and not away[17:].any()
    own = raw(data, 4, 1)[9:]
    for frame in second[~away]:  # between two frames of the body, or one of them
        distance = np.abs(frame - own).reshape(len(own), -1).max(axis=1)
        assert distance.min() <= np.abs(np.diff(own, axis=0)).max() / 2 + 1e-5
    assert batch["present"].tolist() == [[True, True]]


def test_segments_draw_one_frame_each_by_the_ordinal_and_the_middle_in_evaluation(data):
    options = {"sampling": "segments", "centre": "none", "frames": 5}
    (still,) = read(data, [6], **options)["joints"]
    np.testing.assert_array_equal(still[0], raw(data, 6)[[2, 7, 12, 17, 22]])
    one, same, other = (
        read(data, [6], np.asarray([draw]), **options)["joints"] for draw in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    for segment, frame in enumerate(one[0, 0]):
        assert (raw(data, 6)[5 * segment : 5 * segment + 5] == frame).all(axis=(1, 2)).any()


def test_centre_scale_and_upright(data):
    joints = skeleton("ntu25").joints
    spine, base, neck = (joints.index(name) for name in ("spine_mid", "spine_base", "neck"))
    left, right = joints.index("left_shoulder"), joints.index("right_shoulder")
    options = {"frames": 25, "scale": "torso", "upright": True}
    x = read(data, [6], **options)["joints"][0, 0]
    assert np.abs(x[0, spine]).max() < 1e-6 and np.abs(x[5, spine]).max() > 0.1
    assert np.linalg.norm(x[:, neck] - x[:, base], axis=1).mean() == pytest.approx(1, abs=1e-5)
    across = x[0, right] - x[0, left]
    assert abs(across[2]) < 1e-5 and across[0] > 0
    turned, metres = read(data, [6], frames=25, upright=True), read(data, [6], frames=25)
    height, length = turned["joints"][..., 1], np.linalg.norm(turned["joints"], axis=-1)
    np.testing.assert_allclose(height, metres["joints"][..., 1], atol=1e-6)
    np.testing.assert_allclose(length, np.linalg.norm(metres["joints"], axis=-1), atol=1e-5)
    still = read(data, [6], centre="every_frame", frames=25)["joints"][0, 0]
    assert np.abs(still[:, spine]).max() < 1e-6


def test_the_second_body_keeps_its_place_and_absence(data):
    batch = read(data, [4, 0], bodies=2, frames=17)
    spine = skeleton("ntu25").joints.index("spine_mid")
    first, second = batch["joints"][0]
    assert not second[:9].any()
    np.testing.assert_allclose(
        second[9:] - first[9:], raw(data, 4, 1)[9:] - raw(data, 4)[9:], atol=1e-5
    )
    np.testing.assert_allclose(second[9:], raw(data, 4, 1)[9:] - raw(data, 4)[0, spine], atol=1e-5)
    assert batch["present"].tolist() == [[True, True], [True, False]]


def test_untracked_joints_are_filled(data):
    clip = RNG.normal(size=(2, 6, 25, 3)).astype(np.float32)
    expected = clip.copy()
    clip[0, 2:4, 7] = np.nan
    expected[0, 2:4, 7] = clip[0, 1, 7]
    clip[0, 0, 8] = np.nan
    expected[0, 0, 8] = clip[0, 1, 8]
    clip[0, :, 9] = np.nan
    clip[1, 3:] = np.nan
    expected[1, 3:] = 0
    found = fill(clip)
    others = np.delete(expected[0], 9, axis=1).mean(axis=1)
    np.testing.assert_allclose(found[0, :, 9], others, atol=1e-6)
    expected[0, :, 9] = found[0, :, 9]
    np.testing.assert_array_equal(found, expected)


def test_a_clip_that_is_not_finite_counts_nothing_and_is_named_once(data, caplog):
    reader = Reader(data, DataConfig(), 16, 0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batch = reader.read(np.asarray([7, 8]))
    assert batch["weight"].tolist() == [1, 0] and np.isfinite(batch["joints"]).all()
    assert [record.getMessage().split()[2] for record in caplog.records] == ["clip8"]


def test_batches_are_a_function_of_the_step_and_draw_every_clip_once_an_epoch(data):
    config = DataConfig(batch_size=4, protocol="xview", sampling="segments")
    batches = SkeletonBatches(data, config, frames=8, seed=3)
    clips = data.part("train", config, 3)
    assert batches.steps_per_epoch == len(clips) / 4 == 1.5
    drawn = np.concatenate([batches[step]["label"] for step in range(3)])
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == sorted(data.labels[clips])
    again = SkeletonBatches(data, config, frames=8, seed=3)[2]
    for name, values in batches[2].items():
        np.testing.assert_array_equal(values, again[name])
    halves = [SkeletonBatches(data, config, frames=8, seed=3, host=h, hosts=2)[2] for h in (0, 1)]
    joined = np.concatenate([half["joints"] for half in halves])
    np.testing.assert_array_equal(joined, batches[2]["joints"])
    with pytest.raises(InputError, match="multiple of 3 hosts"):
        SkeletonBatches(data, config, frames=8, seed=3, hosts=3)


def test_parts_do_not_overlap_and_validation_is_taken_of_training(data):
    config = DataConfig(validation=0.4)
    parts = [data.part(part, config, 1) for part in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(range(9))
    assert {3, 6, 7} == set((parts[2] + 1).tolist())
    assert 0 < len(parts[1]) < 6
    whole = DataConfig()
    np.testing.assert_array_equal(data.part("validation", whole, 1), data.part("test", whole, 1))
    with pytest.raises(InputError, match=r"no protocol 'xset'.*it has xsub, xview, given"):
        data.part("train", DataConfig(protocol="xset"), 0)
    with pytest.raises(InputError, match="leaves nothing"):
        data.part("train", DataConfig(protocol="given"), 0)


def test_other_arrow_data_are_refused(walks):
    with pytest.raises(InputError, match="no facts about skeletons"):
        SkeletonData(walks)
    with pytest.raises(InputError, match=r"data\.path is empty"):
        SkeletonData("")
