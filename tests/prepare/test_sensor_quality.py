"""What the report on a finished sensor set finds."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.image import imread

from tsmjax.data.arrow import SENSOR
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.sensor import SensorFacts
from tsmjax.prepare.__main__ import main


@pytest.fixture
def flawed(tmp_path):
    """A person in two splits, a window twice, one in training and test, a constant channel."""
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(8, 2, 10)).astype(np.float32)
    windows[2] = windows[1]
    windows[7] = windows[0]
    windows[3:5, 1] = 1.5
    split = ["train"] * 5 + ["validation"] + ["test"] * 2
    subjects = ["a", "a", "a", "b", "b", "c", "d", "b"]
    labels = [0, 0, 0, 1, 1, 0, 1, 2]
    facts = SensorFacts(
        dataset="flawed",
        stage=2,
        rate=10.0,
        window=10,
        channels=("x_acc", "y_acc"),
        channel_texts=("x", "y"),
        labels=("sit", "walk", "run"),
        subjects={},
        counts={"train": [3, 2, 0], "validation": [1, 0, 0], "test": [0, 1, 1]},
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        settings={},
    )
    rows = [
        {"item_id": str(i), "target": windows[i], "label_id": np.int32(labels[i])}
        | {"subject": subjects[i], "split": split[i], SENSOR: dataclasses.asdict(facts)}
        for i in range(8)
    ]
    write_dataset(rows, tmp_path / "flawed")
    return tmp_path / "flawed"


def test_flaws_are_found_and_examples_drawn(flawed, tmp_path, capsys):
    files = ["--json", str(tmp_path / "facts.json"), "--plot", str(tmp_path / "examples.png")]
    assert main(["--report", str(flawed), *files]) == 0
    output = " ".join(capsys.readouterr().out.split())
    facts = json.loads((tmp_path / "facts.json").read_text())[str(flawed)]
    assert facts["shared"] == ["b"]
    assert facts["untrained"] == ["run"]
    assert (facts["repeated"], facts["leaking"], facts["with_missing"]) == (1, 1, 0)
    assert facts["constant"] == {"y_acc": 2}
    assert facts["imbalance"] == 1.5
    assert facts["persons"] == {"train": 2, "validation": 1, "test": 2}
    assert "Warning: 1 persons are in two splits: b." in output
    assert "Warning: 1 rows of validation and test are in training too." in output
    picture = imread(tmp_path / "examples.png")
    assert picture.shape[1] == 900
    assert 0.01 < (picture[..., :3] < 0.9).any(axis=2).mean() < 0.5  # something is drawn


def test_pictures_need_a_sensor_set(tmp_path, capsys):
    write_dataset([{"item_id": "a", "target": np.zeros(9, np.float32)}], tmp_path / "series")
    assert main(["--report", str(tmp_path / "series"), "--plot", str(tmp_path / "p.png")]) == 2
    assert "examples of a sensor data set" in capsys.readouterr().err
