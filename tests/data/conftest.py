"""A cache folder of its own for every test, and data sets to read."""

import numpy as np
import pytest
from hypothesis import settings

from tsmjax.data.arrow_writer import write_dataset

settings.register_profile("no deadline", deadline=None)  # other work may share the machine
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TSMJAX_CACHE", str(folder))
    return folder


@pytest.fixture
def dataset(tmp_path):
    """Write rows of chosen sizes whose every value tells its row, variate and position.

    value = 10000 · row + 1000 · variate + position, so that any window can be checked alone.
    """

    def write(name, lengths, targets=1, past=0, future=0):
        def rows():
            for row, length in enumerate(lengths):
                values = (
                    10_000.0 * row
                    + 1000.0 * np.arange(targets + past + future)[:, None]
                    + np.arange(length)
                ).astype(np.float32)
                parts = np.split(values, [targets, targets + past])
                found = {"item_id": f"item-{row}", "target": parts[0]}
                if targets == 1 and not past and not future:
                    found["target"] = parts[0][0]
                if past:
                    found["past_feat_dynamic_real"] = parts[1]
                if future:
                    found["feat_dynamic_real"] = parts[2]
                yield found

        write_dataset(rows(), tmp_path / name)
        return str(tmp_path / name)

    return write
