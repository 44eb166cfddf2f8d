"""Pickles and JSON of SensorLLM's stage 2, and pickles that would run something."""

import collections
import json
import os
import pickle

import numpy as np
import pytest

from tsmjax.data.sensor import SPLITS, SensorData
from tsmjax.errors import InputError
from tsmjax.prepare.__main__ import main
from tsmjax.wearables import pickles

TAG = "300seconds_99DS"


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/evil",)


def stage2(folder, windows=9, train=("P1", "P2", "P3"), test=("P4",), **changes):
    """Write the published layout; window i of a split is full of i."""
    for split, people in (("train", train), ("test", test)):
        place = folder / split
        place.mkdir(parents=True, exist_ok=True)
        data = [np.full((20, 3), float(i)) for i in range(windows)]
        labels = [
            {"subject": people[i % len(people)], "activity": i % 2, "segments": [0, 19]}
            | {"activity_name": ("sleep", "sitting")[i % 2]}
            for i in range(windows)
        ]
        texts = [
            {"index": i, "qa_pair": {"Q": "?", "smry": f"{i}", "trend_text": "t", "corr_text": "c"}}
            for i in range(windows)
            if i != 4  # it was skipped when the questions were made
        ]
        for entry in texts:
            entry["qa_pair"]["A"] = labels[entry["index"]]["activity_name"]
        parts = {"data": data, "labels": labels, "qa": {"dataset": texts}} | changes
        for kind in ("data", "labels"):
            path = place / f"capture24_{split}_{kind}_stage2_{TAG}.pkl"
            path.write_bytes(pickle.dumps(parts[kind]))
        (place / f"capture24_{split}_qa_stage2_cls.json").write_text(json.dumps(parts["qa"]))
    (folder / "settings.json").write_text(
        '{"original_sampling_rate": 100, "downsample_factor": 99}'
    )
    return folder


@pytest.fixture
def prepare(tmp_path, capsys):
    def run(source, *options):
        code = main(["sensorllm", "--src", str(source), "--dst", str(tmp_path / "out"), *options])
        output = " ".join("".join(capsys.readouterr()).split())
        return code, SensorData(tmp_path / "out") if code == 0 else None, output

    return run


def test_windows_and_texts_are_joined_by_index(prepare, tmp_path):
    code, data, output = prepare(stage2(tmp_path / "raw"))
    assert code == 0
    assert [len(data.facts.subjects[split]) for split in SPLITS] == [2, 1, 1]
    assert data.facts.rate == pytest.approx(100 / 99)
    assert data.facts.labels[:2] == ("sleep", "sitting") and len(data.facts.labels) == 10
    rows = data.rows("test")
    values = data.windows(rows)[:, 0, 0]
    assert values.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert data.texts("smry", rows) == [f"{int(value)}" for value in values]
    assert data.texts("A", rows) == data.texts("label", rows)
    assert "without texts" in output


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": Evil()}, "asks to call posix.system when it is read"),
        ({"labels": [collections.Counter()] * 9}, "asks to call collections.Counter"),
        ({"data": [np.zeros((20, 3))] * 8}, "holds 8 windows, but"),
        ({"data": [np.zeros(20)] * 9}, "is of shape (20,)"),
        ({"data": [np.zeros((600, 3))] * 9}, "have 600 steps, but the time-series encoder"),
        ({"data": [np.zeros((0, 3))] * 9}, "have 0 steps, but the time-series encoder"),
        ({"data": [np.zeros((20, 4))] * 9}, "4 channels: say --channels"),
        ({"labels": [{"subject": "P1"}] * 9}, "its label no subject, activity and activity_name"),
        ({"qa": {"dataset": [{"index": 99, "qa_pair": {}}]}}, "index that is not from 0 to 8"),
        ({"qa": {"dataset": [{"index": 0, "qa_pair": {}}] * 2}}, "an index that occurs twice"),
        ({"qa": {"dataset": [{"index": 0, "qa_pair": {"A": "sports"}}]}}, "its answer is 'sports'"),
        ({"qa": []}, "holds no questions of SensorLLM"),
        ({"test": ("P1",)}, "Person 'P1' is in"),
    ],
)
def test_wrong_files_are_refused(prepare, tmp_path, changes, match):
    code, _, output = prepare(stage2(tmp_path / "raw", **changes))
    assert code == 2
    assert match in output
    assert not os.path.exists("/tmp/evil")


def test_missing_parts_are_named(prepare, tmp_path):
    folder = stage2(tmp_path / "raw")
    (folder / "settings.json").unlink()
    assert "say --rate" in prepare(folder)[-1]
    (folder / "test" / "capture24_test_qa_stage2_cls.json").unlink()
    assert "lacks the qa file of the test part" in prepare(folder)[-1]
    (tmp_path / "empty").mkdir()
    assert "holds no files NAME_train" in prepare(tmp_path / "empty")[-1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_all_protocols_are_read(tmp_path, protocol):
    content = {
        "a": [np.arange(6.0).reshape(2, 3), np.zeros((0, 3), np.float32), np.float64(1.5)],
        "b": (np.array(["x"]), np.array([None, 3], object), True, None, "text", np.int64(3)),
    }
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(content, protocol))
    found = pickles.load(tmp_path / "good.pkl")
    np.testing.assert_array_equal(found["a"][0], content["a"][0])
    assert found["a"][2] == 1.5
    assert found["b"][1].tolist() == [None, 3]


def test_damaged_pickles_are_told_from_unsafe_ones(tmp_path):
    path = tmp_path / "cut.pkl"
    path.write_bytes(pickle.dumps([np.zeros((50, 3))])[:-40])
    with pytest.raises(InputError, match="is damaged or no pickle"):
        pickles.load(path)
    path.write_bytes(pickle.dumps(np.array([Evil()], object)))
    with pytest.raises(InputError, match=r"asks to call posix\.system"):
        pickles.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        pickles.load(tmp_path / "none.pkl")
    assert not os.path.exists("/tmp/evil")
