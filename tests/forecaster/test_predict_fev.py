"""predict_fev, with a stand-in for the benchmark library that keeps what it is given."""

import sys
import types

import numpy as np
import pandas as pd
import pytest

from tsmjax import Forecaster
from tsmjax.errors import InputError


class Window(types.SimpleNamespace):
    id_column, timestamp_column, horizon = "id", "t", 5
    target_columns = ["y"]  # noqa: RUF012

    def frames(self):
        times = pd.date_range("2024-01-01", periods=35, freq="D")
        x = np.sin(np.arange(35.0))
        frame = pd.DataFrame({"id": "a", "t": times, "y": x + self.shift, "k": x})
        return frame.iloc[:30], frame.iloc[30:].drop(columns="y")


class Task:
    quantile_levels = [0.1, 0.5]  # noqa: RUF012

    def __init__(self, known):
        self.windows = [Window(shift=n, known_dynamic_columns=known) for n in (0.0, 9.0)]

    def iter_windows(self):
        return iter(self.windows)

    def get_window(self, number):
        return self.windows[number]


@pytest.fixture
def fev(monkeypatch):
    def convert(window, adapter, as_univariate):
        past, future = window.frames()
        if as_univariate:
            past = past.rename(columns={"y": "target"})
        return past, future, None

    module = types.ModuleType("fev")
    module.convert_input_data = convert
    module.utils = types.SimpleNamespace(
        convert_forecast_df_to_predictions=lambda frame, **options: (frame, options)
    )
    monkeypatch.setitem(sys.modules, "fev", module)


@pytest.fixture(scope="module")
def forecaster(test_data):
    return Forecaster.from_pretrained(test_data / "weights/dummy-chronos2-model")


@pytest.mark.parametrize("known", [["k"], []])
def test_each_window_is_forecast_with_its_covariates(fev, forecaster, known):
    task = Task(known)
    found, seconds = forecaster.predict_fev(task)
    assert seconds > 0 and len(found) == 2
    for window, (frame, options) in zip(task.windows, found, strict=True):
        past, future = window.frames()
        expected = forecaster.predict_df(
            past, future if known else None, "id", "t", "y", 5, quantile_levels=[0.1, 0.5]
        )
        pd.testing.assert_frame_equal(frame, expected)
        assert options == {"horizon": 5, "quantile_levels": [0.1, 0.5], "target_columns": ["y"]}


def test_univariate_leaves_covariates_out(fev, forecaster):
    found, _ = forecaster.predict_fev(Task(["k"]), as_univariate=True)
    past = Window(shift=0.0).frames()[0]["y"].to_numpy()
    _, median = forecaster.predict_quantiles([past], 5)
    np.testing.assert_allclose(found[0][0]["predictions"], median[0][0], rtol=1e-5)


def test_fitting_starts_from_the_first_window(fev, forecaster, monkeypatch):
    calls = []

    def fit(inputs, prediction_length, **options):
        calls.append((inputs[0].past.shape, inputs[0].known, prediction_length, options))
        return forecaster

    monkeypatch.setattr(forecaster, "fit", fit)
    forecaster.predict_fev(Task(["k"]), batch_size=8, finetune_kwargs={"num_steps": 3})
    assert calls == [((2, 30), 1, 5, {"batch_size": 8, "num_steps": 3})]


def test_without_fev_the_message_says_what_to_install(forecaster, monkeypatch):
    monkeypatch.setitem(sys.modules, "fev", None)
    with pytest.raises(InputError, match="pip install fev"):
        forecaster.predict_fev(Task([]))
