"""Capture-24 files to windows: labels, gaps, caps, splits by person, and what is refused."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pytest

from tsmjax.data.sensor import SPLITS, SensorData
from tsmjax.prepare import capture24
from tsmjax.prepare.__main__ import main
from tsmjax.wearables import generator

RATE = 10
OPTIONS = (
    *("--original-sampling-rate", str(RATE), "--window-size-seconds", "4"),
    *("--downsample-factor", "2", "--workers", "1", "--balance-ratio", "1"),
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Five persons, ten minutes each, at 10 Hz."""
    folder = tmp_path_factory.mktemp("raw")
    generator.write_recordings(folder, 5, 600, RATE, seed=1)
    return folder


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare a folder; return (exit code, data, report, output)."""

    def run(source, *options, name="out"):
        folder = tmp_path / name
        arguments = ["capture24", "--dst", str(folder), *OPTIONS, *map(str, options)]
        if source is not None:
            arguments += ["--src", str(source)]
        code = main(arguments)
        output = " ".join("".join(capsys.readouterr()).split())
        if code:
            return code, None, None, output
        return code, SensorData(folder), json.loads((folder / "report.json").read_text()), output

    return run


@pytest.fixture
def one(tmp_path):
    """Write one person's rows, and a dictionary, by hand."""

    def write(rows, name="P001", dictionary=None):
        folder = tmp_path / "hand"
        folder.mkdir(exist_ok=True)
        dictionary = dictionary or {"a walk;MET 3": "walking", "a  walk;MET 3": "sports"}
        table = pd.DataFrame({"annotation": dictionary.keys()})
        table["label:WillettsSpecific2018"] = list(dictionary.values())
        table.to_csv(folder / capture24.DICTIONARY, index=False)
        times = pd.date_range("2016-11-13 02:18:00", periods=len(rows), freq=f"{1000 // RATE}ms")
        columns = {"time": times.strftime("%Y-%m-%d %H:%M:%S.%f")}
        values = np.arange(3 * len(rows)).reshape(-1, 3) / 64
        columns |= dict(zip("xyz", values.T, strict=True))
        table = pd.DataFrame({**columns, "annotation": rows})
        table.to_csv(folder / f"{name}.csv.gz", index=False)
        return folder

    return write


def test_windows_have_texts_facts_and_splits(prepare, raw):
    code, data, report, output = prepare(raw)
    assert code == 0
    facts = data.facts
    assert (facts.rate, facts.window, facts.stage) == (5.0, 20, 2)
    assert facts.labels == capture24.SCHEMES["WillettsSpecific2018"]
    people = [set(facts.subjects[split]) for split in SPLITS]
    assert [len(part) for part in people] == [3, 1, 1]
    assert set.union(*people) == {f"P00{number}" for number in range(1, 6)}
    rows = [data.rows(split) for split in SPLITS]
    assert np.concatenate(rows).tolist() == list(range(len(data)))
    subjects = data.column("subject")
    for part, numbers in zip(people, rows, strict=True):
        assert set(subjects[numbers]) == part
    for split, numbers in zip(SPLITS, rows, strict=True):
        counts = np.bincount(data.label_ids[numbers], minlength=10)
        assert counts.tolist() == facts.counts[split]
    windows = data.windows(rows[0])
    assert windows.shape[1:] == (3, 20)
    np.testing.assert_allclose(facts.mean, windows.mean(axis=(0, 2)), atol=1e-5)
    np.testing.assert_allclose(facts.std, windows.std(axis=(0, 2)), atol=1e-5)
    assert data.texts("A", [3]) == [facts.labels[data.label_ids[3]]] == data.texts("label", [3])
    assert data.texts("smry", [3])[0].count("Mean=") == 3
    assert data.texts("info_text", [3])[0].startswith("The wearer is ")
    assert "mixed-activity" in output
    assert sum(report["before"].values()) == len(data)
    assert {item["subject"] for item in report["items"]} == set.union(*people)
    assert all(0 < item["unlabelled"] < item["steps"] for item in report["items"])
    assert any("without a label" in why for _, why in report["dropped"])


def test_the_same_bytes_by_any_number_of_workers(prepare, raw):
    _, first, *_ = prepare(raw, name="one")
    _, second, *_ = prepare(raw, "--workers", "2", name="two")
    rows = np.arange(len(first))
    np.testing.assert_array_equal(first.windows(rows), second.windows(rows))
    for name in ("item_id", "smry", "trend_text", "corr_text", "Q"):
        assert first.texts(name, rows) == second.texts(name, rows)


def test_hugging_face_opens_it(prepare, raw, tmp_path):
    prepare(raw)
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert {"target", "label", "label_id", "split", "start"} <= set(found.column_names)
    assert np.shape(found[0]["target"]) == (3, 20)


def test_windows_are_the_raw_rows_that_the_label_says(prepare, one):
    rows = ["a walk;MET 3"] * 200 + [""] * 30 + ["a  walk;MET 3"] * 200
    _, data, *_ = prepare(one(rows), "--overlap", "0", "--min-label-fraction", "1")
    assert data.texts("label", range(len(data))) == ["walking"] * 5 + ["sports"] * 4
    assert len(data.rows("train")) == 9
    first = np.arange(0, 3 * 200, 6).reshape(5, 20)[0] / 64  # every second row of x
    np.testing.assert_allclose(data.windows([0])[0, 0], first)
    assert str(data.column("start")[1]) == "2016-11-13T02:18:04.000000000"


def test_balance_caps_the_training_part_only(prepare, raw):
    _, data, *_ = prepare(raw, "--balance-ratio", "0.4")
    counts = {split: np.array(data.facts.counts[split]) for split in SPLITS}
    _, whole, *_ = prepare(raw, name="whole")
    before = np.array(whole.facts.counts["train"])
    assert counts["train"].tolist() == np.minimum(before, int(before.max() * 0.4)).tolist()
    assert counts["test"].tolist() == whole.facts.counts["test"]
    _, capped, *_ = prepare(raw, "--balance-ratio", "0.2", "--cap", "all", name="all")
    assert sum(capped.facts.counts["test"]) < counts["test"].sum()


def test_activities_that_are_tested_on_alone_are_told(prepare, one):
    one(["a walk;MET 3"] * 200, "P001")
    folder = one(["a  walk;MET 3"] * 200, "P002")
    parts = ("--train", "P001", "--test", "P002", "--validation-share", "0")
    _, _, report, _ = prepare(folder, *parts)
    assert "In test but never trained on: sports." in report["notes"]
    parts = ("--train", "P002", "--test", "P001", "--validation-share", "0")
    assert "In test but never trained on: walking." in prepare(folder, *parts, name="b")[2]["notes"]


def test_compat_joins_what_gaps_separate(prepare, one):
    rows = ["a walk;MET 3"] * 70 + [""] * 500 + ["a walk;MET 3"] * 70
    assert prepare(one(rows), "--train-test-split", "100")[1] is not None
    _, data, *_ = prepare(one(rows), "--compat", "--train-test-split", "100", name="compat")
    values = data.windows(np.arange(len(data)))[:, 0]
    assert np.diff(values, axis=1).max() > 6 * 200 / 64  # a window across fifty seconds
    assert not len(data.rows("validation"))


def test_the_keys_of_the_yaml_file(prepare, raw, tmp_path):
    settings = {
        **{"original_sampling_rate": RATE, "downsample_factor": 2, "window_size_seconds": 4},
        **{"balance_ratio": 0.5, "min_label_fraction": 0.75, "num_participants": 4},
        **{"train_test_split": 50, "data_dir": str(raw)},
    }
    (tmp_path / "config_stage2.yaml").write_text(json.dumps(settings))
    arguments = ["--config", str(tmp_path / "config_stage2.yaml"), "--workers", "1"]
    assert main(["capture24", "--dst", str(tmp_path / "out"), *arguments]) == 0
    data = SensorData(tmp_path / "out")
    assert [len(data.facts.subjects[split]) for split in SPLITS] == [1, 1, 2]
    assert data.column("label_fraction").min() >= 0.75
    assert (data.facts.rate, data.facts.window) == (5.0, 20)
    assert data.facts.settings["balance_ratio"] == 0.5
    (tmp_path / "typo.yaml").write_text("downsample_factr: 9\n")
    assert prepare(raw, "--config", tmp_path / "typo.yaml", name="typo")[0] == 2
    (tmp_path / "type.yaml").write_text("num_participants: two\n")
    code, *_, output = prepare(raw, "--config", tmp_path / "type.yaml", name="type")
    assert code == 2
    assert "num_participants is 'two', but must be of type int" in output


def test_stage_1_asks_about_single_channels(prepare, raw):
    options = ("--stage", "1", "--lengths", "5", "40", "--qa", "trend", "question")
    _, data, *_ = prepare(raw, *options, "--max-rows", "300")
    assert data.facts.stage == 1
    assert len(data.rows("train")) == 300
    assert 5 <= data.lengths.min() < data.lengths.max() <= 40 == data.facts.window
    assert set(data.column("channel")) == set(capture24.CHANNELS)
    assert set(data.column("qa_type")) == {"trend", "question"}
    assert data.series(7).shape == (1, data.lengths[7])
    trend = np.flatnonzero(data.column("qa_type") == "trend")[:5]
    assert all("\n\n" in text for text in data.texts("A", trend))
    with_channel = zip(data.texts("Q", trend), data.texts("channel", trend), strict=True)
    assert all(f"{channel[0]}-axis accelerometer" in question for question, channel in with_channel)


@pytest.mark.parametrize("scheme", capture24.SCHEMES)
def test_all_six_schemes(scheme, raw):
    labels, activities = capture24.read_dictionary(raw / capture24.DICTIONARY, scheme)
    assert set(activities.values()) <= set(range(len(labels)))
    assert len(activities) == len(generator.DICTIONARY)
    column = generator.SCHEME_COLUMNS.index(f"label:{scheme}")
    for annotation, names in generator.DICTIONARY.items():
        assert labels[activities[annotation]] == names[column]


def test_the_generator_makes_what_recordings_bring_along(raw):
    table = pd.read_csv(raw / "P001.csv.gz", dtype={"annotation": str}, keep_default_na=False)
    assert list(table.columns) == list(capture24.COLUMNS)
    assert table["time"].str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}").all()
    values = table[list("xyz")].to_numpy()
    np.testing.assert_array_equal(values * 64, np.round(values * 64))
    known = set(table["annotation"])
    assert "" in known
    assert known - {""} <= set(generator.DICTIONARY)
    seconds = pd.to_datetime(table["time"]).diff().dt.total_seconds()
    assert seconds.max() > 1  # a gap
    stuck = (table["z"].diff() == 0).astype(int)
    assert stuck.groupby((stuck == 0).cumsum()).sum().max() >= 600 * RATE // 20 - 60 * RATE
    activities = table["annotation"].map({a: names[0] for a, names in generator.DICTIONARY.items()})
    shares = activities.value_counts(normalize=True)
    assert shares["sports"] < shares.max() / 2


def test_bad_files_are_named(prepare, one, tmp_path):
    good = ["a walk;MET 3"] * 100
    code, *_, output = prepare(one([""] * 100))
    assert code == 2
    assert "Participant P001 has no labelled row" in output
    code, *_, output = prepare(one([*good, "a walk;MET3"]))
    assert code == 2
    assert "annotation 'a walk;MET3' (did you mean 'a walk;MET 3'?) that the dictionary" in output
    everyone = ("--train-test-split", "100", "--unknown", "drop", "--unlabelled", "drop")
    assert prepare(one([*good, "a walk;MET3"]), *everyone, name="dropped")[0] == 0
    code, *_, output = prepare(one([""] * 100), *everyone, name="none")
    assert (code, "No window of" in output) == (2, True)
    code, *_, output = prepare(one(good), "--original-sampling-rate", "50", name="rate")
    assert "a row every 0.1 s, which is not the original sampling rate 50 Hz" in output
    code, *_, output = prepare(one(good), "--window-size-seconds", "300", name="long")
    assert (code, "1500 steps at 5 Hz, but the time-series encoder" in output) == (2, True)
    code, *_, output = prepare(one(good), "--label-scheme", "Wilets2018", name="scheme")
    assert "did you mean 'Willetts2018'" in output
    code, *_, output = prepare(one(good), "--label-scheme", "Walmsley2020", name="column")
    assert "has no column 'label:Walmsley2020'" in output
    code, *_, output = prepare(one(good, dictionary={"a walk;MET 3": "wlaking"}), name="activity")
    assert "'wlaking' (did you mean 'walking'?)" in output
    code, *_, output = prepare(one(good), "--num-participants", "2", name="number")
    assert "2 participants are asked for, but there are 1" in output
    code, *_, output = prepare(one(good), "--lengths", "5", "600", name="lengths")
    assert "--lengths is 5 600" in output
    code, *_, output = prepare(None)
    assert "Say --src" in output
    path = one(good) / "P001.csv.gz"
    path.write_bytes(path.read_bytes()[:100])
    code, *_, output = prepare(path.parent, name="cut")
    assert (code, "is damaged or no Capture-24 file" in output) == (2, True)
    with gzip.open(path, "wt") as file:
        file.write("time,x,y,annotation\n2016-11-13 02:18:00,1,2,\n")
    code, *_, output = prepare(path.parent, name="columns")
    assert "lacks a column" in output
    with gzip.open(path, "wt") as file:
        file.write("time,x,y,z,annotation\n2016-11-13 02:18:00,1,two,3,\n")
    code, *_, output = prepare(path.parent, name="text")
    assert "is damaged or no Capture-24 file" in output
    assert not (tmp_path / "text").exists()
