"""Public activity recognition sets to windows, from small files of their formats."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from tsmjax.data.sensor import SPLITS, SensorData
from tsmjax.prepare import har_formats
from tsmjax.prepare.__main__ import main


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare files; return (exit code, data, report, output)."""

    def run(layout, source, *options, name="out"):
        folder = tmp_path / name
        arguments = ["--format", layout, "--src", str(source), "--dst", str(folder)]
        code = main(["har", *arguments, "--workers", "1", *map(str, options)])
        output = " ".join("".join(capsys.readouterr()).split())
        if code:
            return code, None, None, output
        return code, SensorData(folder), json.loads((folder / "report.json").read_text()), output

    return run


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "raw"
    path.mkdir()
    return path


# ----------------------------------------------------------------------------------------- UCI-HAR


def uci(folder, subjects=True, windows=12):
    """The official layout; values tell signal, window and step."""
    for first, split in enumerate(("train", "test")):
        place = folder / split / "Inertial Signals"
        place.mkdir(parents=True)
        number = 0
        for name in ("body_acc", "body_gyro", "total_acc"):
            for axis in "xyz":
                values = number + np.arange(windows)[:, None] / 100 + np.arange(128) / 1e5
                np.savetxt(place / f"{name}_{axis}_{split}.txt", values, "%.5f")
                number += 1
        labels = np.arange(windows) % 6 + 1
        np.savetxt(folder / split / f"y_{split}.txt", labels, "%d")
        if subjects:
            people = 1 + 10 * first + np.arange(windows) // 4
            np.savetxt(folder / split / f"subject_{split}.txt", people, "%d")
    return folder


def test_uci_har_keeps_its_windows_and_its_test_persons(prepare, folder):
    _, data, _, _ = prepare("ucihar", uci(folder))
    facts = data.facts
    assert facts.channels[:4] == ("body_x_acc", "body_y_acc", "body_z_acc", "body_x_gyro")
    assert facts.channel_texts[3:7:3] == ("x-axis gyroscope", "total x-axis accelerometer")
    assert facts.labels[0] == "Walking"
    assert (facts.rate, facts.window, len(data)) == (50.0, 128, 24)
    assert facts.subjects["test"] == ["11", "12", "13"]
    assert len(facts.subjects["train"]) == 2
    assert len(facts.subjects["validation"]) == 1
    test = data.rows("test")
    np.testing.assert_allclose(data.windows(test)[5, 7], 7.05 + np.arange(128) / 1e5, atol=1e-6)
    assert data.label_ids[test].tolist() == (np.arange(12) % 6).tolist()


def test_uci_har_without_persons_validates_on_the_last_windows(prepare, folder):
    options = ("--channels", "total_x_acc", "body_z_gyro", "--validation-share", "0.5")
    _, data, report, output = prepare("ucihar", uci(folder, subjects=False), *options)
    assert data.facts.channels == ("total_x_acc", "body_z_gyro")
    assert [len(data.rows(split)) for split in SPLITS] == [6, 6, 12]
    assert "name no persons" in report["notes"][0] and "name no persons" in output
    values = data.windows(data.rows("validation"))[:, :, 0]
    np.testing.assert_allclose(values[:, 0], 6 + np.arange(6, 12) / 100, atol=1e-6)
    assert not data.facts.subjects["train"]


def test_uci_har_with_a_file_missing_or_short(prepare, folder):
    uci(folder)
    path = folder / "test" / "Inertial Signals" / "total_acc_z_test.txt"
    np.savetxt(path, np.zeros((3, 128)))
    assert "has 3 windows, but" in prepare("ucihar", folder)[-1]
    path.unlink()
    assert "lacks total_acc_z_test.txt" in prepare("ucihar", folder)[-1]


# ------------------------------------------------------------------------------------------- WISDM


def wisdm(folder, subjects=(1600, 1601, 1602, 1603), seconds=40):
    """Accelerometer = seconds since the start; gyroscope read 20 ms later, with a hole."""
    for subject in subjects:
        for sensor in ("accel", "gyro"):
            lines = []
            for place, code in enumerate("AS"):
                late = 20_000_000 if sensor == "gyro" else 0
                begin = 10**15 + place * 10**12
                for step in range(seconds * 20):
                    if sensor == "gyro" and code == "S" and 200 <= step < 260:
                        continue
                    time = begin + step * 50_000_000 + late
                    value = (time - begin) / 1e9
                    lines.append(f"{subject},{code},{time},{value},{-value},{place};\n")
            with gzip.open(folder / f"data_{subject}_{sensor}_watch.txt.gz", "wt") as file:
                file.writelines(lines)
    return folder


def test_wisdm_joins_its_sensors_on_one_grid(prepare, folder):
    _, data, report, _ = prepare("wisdm", wisdm(folder))
    facts = data.facts
    assert (facts.rate, facts.window, len(facts.labels)) == (20.0, 200, 18)
    assert facts.channels == ("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro")
    assert [len(facts.subjects[split]) for split in SPLITS] == [2, 1, 1]
    windows = data.windows(np.arange(len(data)))
    np.testing.assert_allclose(windows[:, 0], windows[:, 3], atol=1e-4)  # both at the same times
    np.testing.assert_allclose(np.diff(windows[:, 0], axis=1), 0.05, atol=1e-4)
    assert set(data.texts("label", range(len(data)))) == {"Walking", "Folding clothes"}
    assert any(why == "windows with missing values" for _, why in report["dropped"])


def test_wisdm_with_one_sensor_or_an_unknown_activity(prepare, folder):
    wisdm(folder, (1600, 1601))
    (folder / "data_1601_gyro_watch.txt.gz").unlink()
    _, _, report, _ = prepare("wisdm", folder, "--train-test-split", "100")
    assert "1601 has no gyro: left out." in report["notes"]
    (folder / "data_1600_gyro_watch.txt.gz").unlink()
    with open(folder / "data_1600_gyro_watch.txt", "w") as file:
        file.write("1600,N,1,0.1,0.2,0.3;\n")
    assert "activity 'N' that WISDM-51 has not" in prepare("wisdm", folder, name="n")[-1]
    assert (
        "no files of the phone of WISDM"
        in prepare("wisdm", folder, "--device", "phone", name="p")[-1]
    )


# -------------------------------------------------------------------------------- tables of numbers


def test_pamap2_columns_codes_and_lost_readings(prepare, folder):
    for subject in (101, 105, 107):
        table = np.tile(np.arange(54.0), (900, 1))
        table[:, 0] = 5.0 + np.arange(900) / 100
        table[:, 1] = np.repeat([0, 24, 4], 300)  # transient, rope jumping, walking
        table[40:80, 4:6] = np.nan
        table[401:404, 20:50] = np.nan
        table[650:720, 10] = np.nan
        np.savetxt(folder / f"subject{subject}.dat", table, "%.4f")
    _, data, report, _ = prepare("pamap2", folder, "--downsample-factor", "2")
    facts = data.facts
    assert (facts.rate, facts.window) == (50.0, 100)
    assert facts.channels[0] == "hand_x_acc"
    assert facts.channel_texts[-1] == "ankle z-axis magnetometer"
    assert facts.subjects["test"] == ["105"]
    # 300 labelled steps make 150; windows at 0 and, flush, 50; of walking none is whole.
    assert data.texts("label", data.rows("test")) == ["rope jumping"] * 2
    hand = [4, 5, 6, 10, 11, 12, 13, 14, 15]
    expected = [place + 17 * unit for unit in range(3) for place in hand]
    np.testing.assert_allclose(data.windows([0])[0, :, 60], expected, rtol=1e-6)
    assert {why for _, why in report["dropped"]} == {
        *("stretches without a label", "windows with missing values")
    }


def test_mhealth_columns(prepare, folder):
    for subject in (1, 2):
        table = np.tile(np.arange(24.0), (240, 1))
        table[:, 23] = np.repeat([0, 12], 120)
        np.savetxt(folder / f"mHealth_subject{subject}.log", table, "%.3f", delimiter="\t")
    _, data, *_ = prepare("mhealth", folder)
    assert data.facts.subjects == {"train": ["2"], "validation": [], "test": ["1"]}
    assert data.facts.channels[3] == "ankle_x_acc"
    assert data.texts("label", [0]) == ["Jump front & back"]
    columns = [*range(3), *range(5, 11), *range(14, 20)]
    np.testing.assert_array_equal(data.windows([0])[0, :, 0], columns)
    np.savetxt(folder / "mHealth_subject3.log", np.zeros((4, 23)))
    assert "has 23 columns, but must have 24" in prepare("mhealth", folder, name="short")[-1]


def test_usc_had_trials(prepare, folder):
    io = pytest.importorskip("scipy.io")
    for subject in (1, 13):
        (folder / f"Subject{subject}").mkdir()
        for activity in (1, 12):
            readings = np.full((420, 6), activity + np.arange(6) / 10)
            path = folder / f"Subject{subject}" / f"a{activity}t1.mat"
            io.savemat(path, {"sensor_readings": readings})
    _, data, *_ = prepare("usc_had", folder)
    assert data.facts.subjects["test"] == ["13"]
    assert set(data.texts("label", range(len(data)))) == {"Walking Forward", "Elevator Down"}
    assert len(data.rows("train")) == 2 * 4  # of 420 steps: 0, 100, 200, and flush 220
    (folder / "Subject1" / "a1t1.mat").write_bytes(b"no trial")
    assert "damaged or no trial of USC-HAD" in prepare("usc_had", folder, name="bad")[-1]


# --------------------------------------------------------------------------------------- .ts, CSV

TS = """#comment
@problemName Two
@timeStamps false
@univariate false
@dimensions 2
@classLabel true up down
@data
1,2,3,4:5,6,7,8:up
4,3,2,1:8,7,6,5:down
1,2,3,5:5,6,7,9:up
4,3,2,0:8,7,6,4:down
"""


def test_ts_files_have_an_official_split(prepare, folder):
    (folder / "Two_TRAIN.ts").write_text(TS)
    (folder / "Two_TEST.ts").write_text(TS.replace("1,2,3,4", "9,9,9,9"))
    _, data, *_ = prepare("ts", folder, "--rate", "10", "--validation-share", "0.5")
    assert [len(data.rows(split)) for split in SPLITS] == [2, 2, 4]
    assert data.facts.labels == ("up", "down")
    assert data.facts.channels == ("dim_1", "dim_2")
    np.testing.assert_array_equal(data.windows(data.rows("test"))[0], [[9] * 4, [5, 6, 7, 8]])
    assert data.texts("label", data.rows("validation")) == ["up", "down"]
    assert "say --rate" in prepare("ts", folder, name="rate")[-1]
    (folder / "Two_TEST.ts").write_text(TS.replace("8:up", "8,9:up"))
    assert "differ in length" in prepare("ts", folder, "--rate", "10", name="length")[-1]
    (folder / "Two_TEST.ts").write_text(TS.replace("8:up", "8:upp"))
    assert "class 'upp' (did you mean 'up'?)" in prepare("ts", folder, "--rate", "1", name="c")[-1]


def frame(people=("ann", "bob", "cy", "dee"), seconds=30, rate=10):
    tables = []
    for number, person in enumerate(people):
        steps = np.arange(seconds * rate)
        label = pd.Series(np.where(steps < 100, "sit", "walk"), dtype=object)
        label[150:170] = None
        table = pd.DataFrame({"time": 7.0 + steps / rate, "subject": person, "label": label})
        tables.append(table.assign(**{"acc x": steps + 1000.0 * number, "gyro": 1.0, "note": "n"}))
    return pd.concat(tables)


def test_csv_tables_of_ones_own(prepare, folder):
    frame().to_csv(folder / "walks.csv", index=False)
    _, data, _, _ = prepare("csv", folder, "--window-size-seconds", "2")
    assert data.facts.channels == ("acc_x", "gyro")
    assert (data.facts.rate, data.facts.window) == (10.0, 20)
    assert data.facts.labels == ("sit", "walk")
    assert [len(data.facts.subjects[split]) for split in SPLITS] == [2, 1, 1]
    windows = data.windows(data.rows("test"))
    assert (np.diff(windows[:, 0], axis=1) == 1).all()
    assert str(data.column("start")[0]) == "1970-01-01T00:00:07.000000000"
    named = ("--test", "ann", "--validation", "bob", "--window-size-seconds", "2")
    _, data, *_ = prepare("csv", folder, *named, name="named")
    assert data.facts.subjects == {"train": ["cy", "dee"], "validation": ["bob"], "test": ["ann"]}
    _, data, *_ = prepare("csv", folder, "--num-participants", "2", name="two")
    assert sum(map(len, data.facts.subjects.values())) == 2


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({}, ("--label-column", "labels"), "no column 'labels' (did you mean 'label'?)"),
        ({}, ("--test", "eve"), "no participant 'eve'"),
        ({}, ("--channels", "acc"), "no channel 'acc' (did you mean 'acc_x'?)"),
        ({"label": None}, (), "No row of"),
        ({"time": "noon"}, (), "has a time that is none"),
        ({"time": 1.0}, (), "never go on: say --rate"),
        ({"acc x": np.nan, "gyro": np.nan}, (), "windows with missing values"),
        ({"acc x": "1,0", "gyro": "?"}, (), "no column of numbers"),
        ({}, ("--window-size-seconds", "60"), "600 steps at 10 Hz, but the time-series encoder"),
        ({}, ("--window-size-seconds", "25"), "stretches shorter than a window"),
        ({}, ("--balance-ratio", "2"), "balance ratio is 2"),
    ],
)
def test_bad_tables_are_refused(prepare, folder, change, options, match):
    frame().assign(**change).to_csv(folder / "raw.csv", index=False)
    code, *_, output = prepare("csv", folder, *options)
    assert code == 2
    assert match in output


def test_all_layouts_have_a_reader():
    assert set(har_formats.FORMATS) == {
        *("ucihar", "wisdm", "pamap2", "mhealth", "usc_had", "ts", "csv")
    }


@pytest.mark.parametrize(
    ("layout", "place", "sizes"),
    [
        ("ts", ".", (32, 8, 40)),
        ("mhealth", "mhealth_sample", (12, 0, 12)),
        pytest.param("ucihar", "uci_har_subset", (2041, 359, 950), marks=pytest.mark.slow),
        pytest.param("wisdm", "wisdm51_watch", (3151, 630, 1260), marks=pytest.mark.slow),
    ],
)
def test_real_files(prepare, test_data, layout, place, sizes):
    options = ("--window-size-seconds", "0.06") if layout == "mhealth" else ()
    _, data, *_ = prepare(layout, test_data / "data" / "har" / place, *options)
    assert tuple(len(data.rows(split)) for split in SPLITS) == sizes
    assert np.isfinite(data.windows(np.arange(0, len(data), 7))).all()
