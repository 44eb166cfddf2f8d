"""CGM tables that no study defines, processed per-patient files, and REPLACE-BG, as generated."""

import numpy as np
import pandas as pd
import pytest

from tsmjax.glucose import features
from tsmjax.glucose.metrics import MG_DL_PER_MMOL_L


def export(rows=200, every=5, **columns):
    """A CGM export in mg/dL, a rising ramp."""
    times = pd.date_range("2024-03-01 06:00", periods=rows, freq=f"{every}min")
    return pd.DataFrame({"Device Timestamp": times, "Glucose": 80.0 + np.arange(rows), **columns})


def write(table, path):
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("column", "scale", "note"),
    [
        ("Glucose", 1.0, "is taken as mg/dL, its median is 180"),
        ("Glucose", 1 / MG_DL_PER_MMOL_L, "is taken as mmol/L, its median is 9.96"),
        ("Historic Glucose mmol/L", 1 / MG_DL_PER_MMOL_L, None),
        ("sgv (mg/dL)", 1.0, None),
        ("bg_mM", 1 / MG_DL_PER_MMOL_L, None),
    ],
)
@pytest.mark.parametrize("every", [5, 15])
def test_units_and_steps_are_recognised(prepare_glucose, tmp_path, column, scale, note, every):
    table = export(every=every).rename(columns={"Glucose": column})
    table[column] *= scale
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "anna.csv"))
    np.testing.assert_allclose(items["anna"].target[0], 80.0 + np.arange(200), rtol=1e-6)
    assert report["items"][0]["freq"] == f"{every}min" and report["layout"] == "table"
    assert bool(note) == any("is taken as" in line for line in report["notes"])
    assert note is None or any(note in line for line in report["notes"])


def test_meals_doses_and_people_are_found_by_name(prepare_glucose, tmp_path):
    table = pd.concat([export(carbs=0.0, bolus=0.0, hr=60.0).assign(patient_id=p) for p in "ab"])
    table = table.reset_index(drop=True)
    table.loc[[20, 30], "carbs"] = 50.0
    table.loc[[25, 26], "bolus"] = 4.0, -1.0
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "two.csv"))
    assert list(items) == ["a", "b"]
    note = "Covariates, in order: cob, carb_availability, iob, insulin_availability, hr."
    assert note in report["notes"] and "a: 1 negative insulin left out." in report["notes"]
    insulin = np.where(np.arange(200) == 25, 4.0, 0.0)
    expected = features.insulin_features(insulin, 5)[0]
    np.testing.assert_allclose(items["a"].past[2], expected, atol=1e-5)
    assert not items["b"].past[:4].any()


def test_clock_times_go_past_midnight_or_join_a_column_of_dates(prepare_glucose, tmp_path):
    table = export(rows=400)
    when = table.pop("Device Timestamp")
    table["time"] = when.dt.strftime("%H:%M")
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "a.csv"))
    assert items["a"].target.shape == (1, 400)
    assert any("dates are made up" in note for note in report["notes"])
    (tmp_path / "out").rename(tmp_path / "first")
    table["date"] = when.dt.strftime("%Y-%m-%d")
    table = table.drop(index=range(100, 388))  # a whole day less an hour: no gap by the clock
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "a.csv"), "--min-rows", "10")
    assert [item.target.shape[1] for item in items.values()] == [100, 12]
    assert report["items"][0]["start"].startswith("2024-03-01T06:00")


def second_sensor(rows, offset, first=0, value=200.0):
    times = pd.date_range("2024-03-01 06:00", periods=rows, freq="5min")[first:]
    return pd.DataFrame({"time": times + pd.Timedelta(minutes=offset), "glucose": value})


@pytest.mark.parametrize(("first", "second"), [(0, 100), (150, 80)])
def test_readings_of_a_second_sensor_are_left_out(prepare_glucose, tmp_path, first, second):
    rows = 200
    one = second_sensor(rows, 0, value=100.0)
    other = second_sensor(rows, 2, first, value=180.0).iloc[:second]
    table = pd.concat([one, other]).sample(frac=1.0, random_state=0)
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "a.csv"))
    (item,) = items.values()
    kept = item.target[0]
    assert report["items"][0]["freq"] == "5min" and len(kept) == rows
    np.testing.assert_allclose(kept, 100.0)
    (note,) = (note for note in report["notes"] if "second sensor" in note)
    assert note.startswith(f"a: {len(other)} readings of a second sensor, between 2024-03-01")


def test_a_new_sensor_with_another_phase_is_kept(prepare_glucose, tmp_path):
    old = second_sensor(120, 0, value=100.0)
    new = second_sensor(280, 2, 124, value=150.0)
    table = pd.concat([old, new, old.iloc[:8]])  # eight lines stand there twice
    _, items, report, _ = prepare_glucose(write(table, tmp_path / "a.csv"), "--min-rows", "10")
    (item,) = items.values()
    assert (item.target == 150.0).sum() == 156
    assert "a: 8 readings stand there twice; once is kept." in report["notes"]
    assert not any("second sensor" in note for note in report["notes"])


def test_tables_that_are_not_recognised_need_names(prepare_glucose, tmp_path):
    table = export().rename(columns={"Glucose": "signal", "Device Timestamp": "when"})
    path = write(table, tmp_path / "a.csv")
    code, _, _, output = prepare_glucose(path)
    assert code == 2 and "--target and --timestamp-column" in " ".join(output.split())
    code, _, _, output = prepare_glucose(path, "--format", "table", "--target", "signal")
    assert code == 2 and "no column of time that is recognised among when, signal" in output
    names = ["--target", "signal", "--timestamp-column", "when"]
    _, items, _, _ = prepare_glucose(path, *names, "--covariates")
    assert items["a"].target.shape == (1, 200)


def processed(folder, number=1, rows=200, **changes):
    table = pd.DataFrame(
        {
            "datetime": pd.date_range("2024-03-01", periods=rows, freq="5min"),
            **{"p_num": f"p{number:02d}", "bg_mM": 6.0, "steps": 4.0, "cob": 10.0, "iob": 1.0},
            **changes,
        }
    )
    folder.mkdir(exist_ok=True)
    return write(table, folder / f"p{number:02d}_full.csv")


def test_processed_files_bring_their_covariates(prepare_glucose, tmp_path):
    folder = tmp_path / "processed"
    bg = np.full(200, 6.0)
    bg[50:54] = np.nan
    cob = np.arange(200.0)
    cob[50:54] = np.nan
    steps = np.full(200, 4.0)
    steps[50:54] = np.nan
    processed(folder, 1, bg_mM=bg, cob=cob, steps=steps)
    processed(folder, 2, datetime=pd.date_range("2024-03-01", periods=200, freq="15min"))
    _, items, report, _ = prepare_glucose(folder, "--unit", "mmol/L", "--every", "5")
    assert report["layout"] == "processed" and list(items) == ["p01"]
    assert ["p02", "its readings are 15 minutes apart"] in report["dropped"]
    assert "Covariates, in order: steps, cob, iob." in report["notes"]
    np.testing.assert_allclose(items["p01"].target[0], 6.0, rtol=1e-6)
    np.testing.assert_allclose(items["p01"].past[0, 48:56], [4, 4, 0, 0, 0, 0, 4, 4])
    np.testing.assert_allclose(items["p01"].past[1, 48:56], [48, 49, 49, 49, 49, 49, 54, 55])
    (tmp_path / "out").rename(tmp_path / "first")
    names = ["--target", "bg_mM", "iob", "--covariates", "cob", "--announced"]
    _, items, report, _ = prepare_glucose(folder, *names)
    item = items["p01"]
    assert (item.target.shape, item.past.shape[0], item.future.shape[0]) == ((2, 200), 0, 1)
    np.testing.assert_allclose(item.target[1], 1.0)
    code, _, _, output = prepare_glucose(
        folder, "--dst", str(tmp_path / "x"), "--covariates", "cobb"
    )
    assert code == 2 and "no column 'cobb' (did you mean 'cob'?)" in output


def replace_bg(folder, **changes):
    """The study's tables for two persons, in its columns; person 7 has no pump."""
    inner = folder / "Data Tables"
    inner.mkdir(parents=True)
    start = pd.Timestamp("2000-01-01")
    times = pd.date_range(start - pd.Timedelta(hours=5), periods=400, freq="5min")

    def stamped(times, **columns):
        times = pd.DatetimeIndex(times)
        days = (times.normalize() - start).days
        keys = {"RecID": range(len(times)), "ParentHDeviceUploadsID": 3, "PtID": 12, "SiteID": 1}
        clock = {"DeviceDtTmDaysFromEnroll": days, "DeviceTm": times.strftime("%H:%M:%S")}
        return pd.DataFrame({**keys, **clock, **columns})

    def at(*hours):
        return [start + pd.Timedelta(hours=hour) for hour in hours]

    cgm = stamped(times, RecordType="CGM", GlucoseValue=110.0)
    calibration = stamped(at(3.01), RecordType="Calibration", GlucoseValue=300.0)
    stranger = cgm.assign(PtID=7)
    bolus = stamped(
        at(-4, 1, 1, 6, 27),  # the second was uploaded twice
        BolusType=["Normal", "Normal", "Normal", "Combination", "Normal"],
        **{"Normal": [9.0, 2.0, 2.0, 1.0, 0.5], "Extended": [np.nan] * 3 + [3.0, np.nan]},
        Duration=[np.nan, np.nan, np.nan, 30 * 60_000, np.nan],
    )
    basal = stamped(
        at(-4, 0.5, 4, 8, 12, 27),
        BasalType=["Scheduled", "Scheduled", "Temp", "Scheduled", "Suspend", "Scheduled"],
        Duration=[np.nan, np.nan, 2 * 3_600_000, np.nan, 3_600_000, np.nan],
        Rate=[0.5, 0.8, 0.2, 0.9, np.nan, 0.7],
        SuprRate=[np.nan, np.nan, np.nan, np.nan, 0.85, np.nan],
    )
    wizard = stamped(at(-4, 1, 27), CarbInput=[9.0, 45.0, 10.0]).rename(columns={"PtID": "PtId"})
    tables = {
        **{"HDeviceCGM": pd.concat([cgm, cgm.iloc[:9], calibration, stranger])},
        **{"HDeviceBolus": bolus, "HDeviceBasal": basal, "HDeviceWizard": wizard},
    }
    for name, table in (tables | changes).items():
        if table is not None:
            table.to_csv(inner / f"{name}.txt", sep="|", index=False)
    return folder, tables


def test_replace_bg_becomes_series_with_pump(prepare_glucose, tmp_path):
    folder, _ = replace_bg(tmp_path / "study")
    _, items, report, _ = prepare_glucose(folder)
    (item,) = items.values()
    assert report["layout"] == "replace_bg" and report["items"][0]["item_id"] == "ale_012"
    # All tables cover from 1:00 to 27:00; the run-in before day 0 is out.
    assert report["items"][0]["start"].startswith("2020-01-01T01:00")
    assert item.target.shape == (1, 313) and (item.target == 110.0).all()
    assert ["ale_007", "it has no HDeviceBolus"] in report["dropped"]
    notes = " ".join(report["notes"])
    assert "HDeviceCGM: 129 lines from before enrolment were left out." in notes
    assert "HDeviceCGM: 1 lines are no readings" in notes
    insulin, carbs = np.zeros(313), np.zeros(313)
    insulin[0], insulin[60] = 2.0, 1.0  # 1:00 and 6:00
    insulin[61:67] += 0.5  # 3 U over half an hour
    insulin[312], carbs[0], carbs[312] = 0.5, 45.0, 10.0
    cob, _, iob, _, basal = item.past
    np.testing.assert_allclose(iob, features.insulin_features(insulin, 5)[0], atol=1e-5)
    np.testing.assert_allclose(cob, features.carb_features(carbs, 5)[0], atol=1e-5)
    hours = {1: 0.8, 3.9: 0.8, 4: 0.2, 5.9: 0.2, 6: 0.8, 8: 0.9, 12: 0.0, 13: 0.85, 26.9: 0.85}
    rows = [round((hour - 1) * 12) for hour in hours]
    np.testing.assert_allclose(basal[rows], list(hours.values()), rtol=1e-6)
    assert basal[312] == pytest.approx(0.7)


def test_broken_tables_of_replace_bg_are_named(prepare_glucose, tmp_path):
    folder, tables = replace_bg(tmp_path / "a", HDeviceBasal=None)
    assert "lacks HDeviceBasal.txt" in prepare_glucose(folder)[3]
    cgm = tables["HDeviceCGM"]
    folder, _ = replace_bg(tmp_path / "b", HDeviceCGM=cgm.drop(columns="GlucoseValue"))
    assert "has no column 'GlucoseValue'" in prepare_glucose(folder)[3]
    folder, _ = replace_bg(tmp_path / "c", HDeviceCGM=cgm.assign(DeviceTm="noon"))
    assert "has a day or a DeviceTm that is none" in prepare_glucose(folder)[3]


def test_no_row_changes_when_the_future_does(prepare_glucose, tmp_path):
    rng = np.random.default_rng(0)
    until = 150
    table = export(rows=300, carbs=0.0, bolus=0.0, basal=np.nan)
    table["Glucose"] = rng.uniform(60, 300, 300).round()
    table.loc[rng.random(300) < 0.2, "Glucose"] = np.nan
    for name, values in (("carbs", 30.0), ("bolus", 3.0), ("basal", rng.random(20))):
        table.loc[rng.choice(300, 20, replace=False), name] = values
    table.loc[[0, until - 4, until], "Glucose"] = 100.0
    table.loc[until - 3 : until - 1, "Glucose"] = np.nan
    other = table.copy()
    other.loc[until:, ["Glucose", "carbs", "bolus", "basal"]] = 250.0, 9.0, 9.0, 9.0
    found = []
    for number, part in enumerate((table, other)):
        found.append(prepare_glucose(write(part, tmp_path / "a.csv"), "--min-rows", "2")[1]["a"])
        (tmp_path / "out").rename(tmp_path / f"out{number}")
    one, two = found
    np.testing.assert_array_equal(one.target[:, :until], two.target[:, :until])
    np.testing.assert_array_equal(one.past[:, :until], two.past[:, :until])
    assert (one.target[:, until:] != two.target[:, until:]).mean() > 0.9
