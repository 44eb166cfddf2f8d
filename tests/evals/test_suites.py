import numpy as np
import pytest

from tsmjax import config
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError
from tsmjax.evals import EvalsConfig, suites

SETTINGS = {
    "quantiles": (0.1, 0.5, 0.9),
    "context_length": 128,
    "max_horizon": 32,
    "patch": 16,
    "batch_size": 8,
}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"target": rng.random((2, 90)).astype(np.float32), "freq": "h"} for _ in range(3)]
    write_dataset(rows, tmp_path / "load")
    return tmp_path / "load"


def test_embedded_windows_are_those_that_training_never_sees():
    real = pytest.importorskip("statsmodels") and __import__(
        "tsmjax.data.synthetic.real", fromlist=["series"]
    )
    training = {one.item_id: one for one in real.series()}
    ours = suites.suite("embedded", "validation", **SETTINGS)
    assert ours.name == "embedded"
    assert {dataset.name for dataset in ours.datasets} == {one.dataset for one in training.values()}
    for dataset in ours.datasets:
        members = [one for one in training.values() if one.dataset == dataset.name]
        for values, one in zip(dataset.series, members, strict=True):
            ((past, label),) = dataset.windows(values, "validation")
            np.testing.assert_array_equal(past, one.training_values)
            assert len(label) == one.horizon == dataset.horizon
            assert one.season_length == dataset.season_length


def test_a_folder_is_a_suite_of_its_variates(folder):
    ours = suites.suite(str(folder), "test", **SETTINGS, horizon=20)
    (dataset,) = ours.datasets
    assert (ours.name, dataset.name, dataset.horizon, dataset.season_length) == (
        "load", "load", 20, 24,
    )  # fmt: skip
    assert len(dataset.series) == 6
    assert suites.suite(str(folder), "test", **SETTINGS).datasets[0].horizon == 32
    (dataset,) = suites.suite(str(folder), "test", **SETTINGS, season_length=7).datasets
    assert dataset.season_length == 7


def test_items_of_a_folder_may_be_forecast_together(folder):
    ours = suites.suite(str(folder), "test", **SETTINGS, grouped=True)
    assert [list(task.windows) for task in ours.tasks] == [[0, 1], [2, 3], [4, 5]]
    path = folder.parent / "mine.yaml"
    path.write_text("- {path: load, horizon: 8, grouped: true}")
    assert len(suites.suite(str(path), "test", **SETTINGS).tasks) == 3
    path.write_text("- {path: load, horizon: 8, grouped: 1}")
    with pytest.raises(InputError, match="grouped: 1, but it must be true or false"):
        suites.suite(str(path), "test", **SETTINGS)


def test_a_file_lists_data_sets(folder):
    path = folder.parent / "mine.yaml"
    path.write_text(
        "- path: load\n  horizon: 12\n"
        "- {name: half, path: load, horizon: 8, freq: 30min, offset: -16}\n"
        f"- {{name: third, path: {folder}, horizon: 8, season_length: 5}}\n"
    )
    ours = suites.suite(str(path), "test", **SETTINGS)
    assert ours.name == "mine"
    assert [(d.name, d.horizon, d.season_length, d.offset) for d in ours.datasets] == [
        ("load", 12, 24, 0),
        ("half", 8, 48, -16),
        ("third", 8, 5, 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {path: load, horzion: 4}", "Entry 1 of .* unknown field 'horzion' .did you mean 'hor"),
        ("- {path: load, horizon: 4}\n- {path: load}", "Entry 2 of .* has no horizon"),
        ("- {path: load, horizon: soon}", "horizon: 'soon', but it must be a whole number"),
        ("- {path: load, horizon: true}", "must be a whole number"),
        ("- {path: load, horizon: 4, freq: h, season_length: 24}", "both freq and season_length"),
        ("- {path: laod, horizon: 4}", "names the folder .*laod, which does not exist"),
        ("- {path: load, horizon: 4, freq: hourly}", "frequency 'hourly' is not known"),
        (
            "- {path: load, horizon: 4}\n- {path: load, horizon: 5}",
            "several data sets named 'load'",
        ),
        ("- {path: load, horizon: 4, offset: -2}", "offset -2"),
        ("- {path: load, horizon: 4, num_rols: 2}", "'num_rols' .did you mean 'num_rolls'"),
        ("- {path: load, horizon: 4, prediction_length: 4}", "both horizon and prediction_length"),
        ("- {path: load, hf_repo: a/b, name: x, horizon: 4}", "both path and hf_repo"),
        ("- {hf_repo: a/b, horizon: 4}", "has no name"),
        ("- {name: x, hf_repo: a/b, horizon: 4}", r"prepare benchmark --suite .*mine.yaml --dst"),
        ("- {path: load, horizon: 4, rolls: 0}", "rolls 0"),
        ("- load", "Entry 1 of .* is 'load'"),
        ("path: load", "must be a list"),
        ("", "must be a list"),
        ("- {path: load\nhorizon: 4", "not valid YAML at line 2"),
    ],
)
def test_mistakes_in_a_file_are_wrong_input(folder, text, message):
    path = folder.parent / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        suites.suite(str(path), "test", **SETTINGS)


@pytest.mark.parametrize(("name", "count"), [("lite", 5), ("zero_shot", 27), ("in_domain", 15)])
def test_built_in_suites(name, count, test_data):
    entries = suites.read_entries(suites.suite_file(name))
    assert len(entries) == count
    published = [
        line.split(",")[0]
        for part in ("in-domain", "zero-shot")
        for line in (test_data / f"data/reference_results/chronos_eval/seasonal-naive-{part}.csv")
        .read_text()
        .splitlines()
    ]
    assert {entry["name"] for entry in entries} <= set(published)
    assert all(entry["rolls"] == 1 and entry["offset"] <= -entry["horizon"] for entry in entries)


def test_downloaded_data_sets_lie_in_the_data_folder(folder, tmp_path):
    with pytest.raises(InputError, match=r"benchmark --suite lite --dst DIR .*--data DIR"):
        suites.suite("lite", "test", **SETTINGS)
    with pytest.raises(InputError, match=r"'m4_hourly'.* --suite lite --dst .*/none"):
        suites.suite("lite", "test", **SETTINGS, data=tmp_path / "none")
    path = tmp_path / "mine.yaml"
    path.write_text("- {name: load, hf_repo: a/b, offset: -24, prediction_length: 8, num_rolls: 2}")
    (dataset,) = suites.suite(str(path), "test", **SETTINGS, data=folder.parent).datasets
    assert (dataset.horizon, dataset.offset, dataset.rolls) == (8, -24, 2)
    assert dataset.season_length == 24


def test_an_unknown_suite_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match=r"'embeded' .did you mean 'embedded'"):
        suites.suite("embeded", "test", **SETTINGS)
    with pytest.raises(InputError, match="cannot be read"):
        suites.suite(str(tmp_path / "none.yaml"), "test", **SETTINGS)


def test_the_config_section_checks_its_values():
    made = config.build(EvalsConfig, {"suites": ["a", "b"], "mode": "max"}, "evals")
    assert made.suites == ("a", "b") and made.mode == "max"
    with pytest.raises(InputError, match=r"evals.mode is 'mx'.*did you mean 'max'"):
        config.build(EvalsConfig, {"mode": "mx"}, "evals")
    with pytest.raises(InputError, match=r"evals\.batch_size is 0"):
        config.build(EvalsConfig, {"batch_size": 0}, "evals")
