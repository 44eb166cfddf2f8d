"""Sensor data sets: facts in the schema, rows by split, and the embedded set."""

import pickle

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.sensor import SPLITS, SensorData
from tsmjax.errors import InputError

SMALL = "embedded:capture24?participants=4&minutes=4&seconds=3"


def test_the_embedded_set_has_learnable_activities():
    data = SensorData(SMALL)
    assert data.facts.window == 30
    assert [len(data.facts.subjects[split]) for split in SPLITS] == [2, 1, 1]
    rows = np.arange(len(data))
    windows = data.windows(rows)
    spread = windows.std(axis=2).mean(axis=1)
    labels = np.array(data.texts("label", rows))
    # Medians: a window may reach into the next activity.
    assert np.median(spread[labels == "sleep"]) < 0.02
    assert np.median(spread[labels == "sports"]) > 0.4
    upright = windows[:, 0].mean(axis=1)  # the arm hangs: gravity along −x
    assert upright[labels == "walking"].mean() < -0.7 < upright[labels == "sitting"].mean()
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.series(3), windows[3])
    assert again.facts == data.facts


def test_rows_and_columns_are_checked():
    data = SensorData(SMALL)
    with pytest.raises(InputError, match="no split 'valid' \\(did you mean 'validation'\\?\\)"):
        data.rows("valid")
    with pytest.raises(InputError, match="no column 'summary'"):
        data.texts("summary", [0])
    assert data.column("start").dtype == "datetime64[ns]"


def test_other_data_sets_are_refused(tmp_path):
    write_dataset([{"item_id": "a", "target": np.zeros(9, np.float32)}], tmp_path / "series")
    with pytest.raises(InputError, match="holds no facts about sensors"):
        SensorData(tmp_path / "series")
    with pytest.raises(InputError, match="no parameter 'people'"):
        SensorData("embedded:capture24?people=3")
