"""Glucose files to Arrow: grid, gaps, covariates, and what the report says."""

import numpy as np
import pandas as pd
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.glucose import features


def readings(minutes, values, **columns) -> pd.DataFrame:
    times = pd.Timestamp("2024-03-01 06:00:02") + pd.to_timedelta(minutes, unit="min")
    return pd.DataFrame({"id": "a", "time": times, "gl": values, **columns})


def test_short_gaps_hold_and_long_gaps_split(prepare_glucose, tmp_path):
    # 45 minutes without a reading are held, 50 are not; one reading is a fault, one comes twice.
    minutes = [0, 5, 10.4, 14.8, 60, 65, 115, 120, 125, 130, 131]
    values = [100, 101, 102, 900, 104, 105, 106, 107, 108, 109, 111]
    table = readings(minutes, values)
    table.loc[3, "time"] += pd.Timedelta(minutes=0.2)
    table.to_csv(tmp_path / "raw.csv", index=False)
    table.loc[3, "gl"] = 103
    code, items, report, _ = prepare_glucose(tmp_path / "raw.csv", "--min-rows", "2", "--gap", "50")
    assert code == 0
    assert list(items) == ["a"]

    table.to_csv(tmp_path / "mended.csv", index=False)
    (tmp_path / "out").rename(tmp_path / "first")
    _, items, report, _ = prepare_glucose(tmp_path / "mended.csv", "--min-rows", "2")
    held = [100, 101, 102, 103, *[103] * 8, 104, 105]
    np.testing.assert_allclose(items["a/0"].target[0], held)
    np.testing.assert_allclose(items["a/1"].target[0], [106, 107, 108, 110])
    assert "a/0: 8 missing readings hold the one before." in report["notes"]
    assert any("1 readings fell into the row of another" in note for note in report["notes"])
    assert [item["freq"] for item in report["items"]] == ["5min", "5min"]
    assert report["items"][1]["start"].startswith("2024-03-01T07:55:02")


def test_faults_and_short_series_are_reported(prepare_glucose, tmp_path):
    minutes = 5 * np.arange(40)
    values = np.where(minutes == 50, 5.0, 120.0)
    readings(minutes, values).to_csv(tmp_path / "raw.csv", index=False)
    code, items, report, _ = prepare_glucose(tmp_path / "raw.csv", "--min-rows", "30")
    assert (code, len(items)) == (0, 1)
    assert "a: 1 readings outside 20 to 600 mg/dL were left out." in report["notes"]
    (tmp_path / "out").rename(tmp_path / "first")
    code, _, _, output = prepare_glucose(tmp_path / "raw.csv")
    assert code == 2
    assert "40 rows between long gaps, less than --min-rows 144" in output


def test_held_values_never_come_from_the_future(prepare_glucose, tmp_path):
    rng = np.random.default_rng(0)
    minutes = 5 * np.flatnonzero(rng.random(300) < 0.8)
    values = rng.uniform(60, 300, len(minutes)).round()
    results = []
    for number, until in enumerate((len(minutes), 120)):
        readings(minutes[:until], values[:until]).to_csv(tmp_path / "raw.csv", index=False)
        results.append(prepare_glucose(tmp_path / "raw.csv", "--min-rows", "2")[1])
        (tmp_path / "out").rename(tmp_path / f"out{number}")
    whole, part = (next(iter(found.values())).target[0] for found in results)
    np.testing.assert_array_equal(whole[: len(part)], part)


def simglucose(tmp_path, rows=200):
    times = pd.date_range("2024-01-01 06:00", periods=rows, freq="3min")
    table = pd.DataFrame({"Time": times, "BG": 120.0, "CGM": 121.5, "CHO": 0.0, "insulin": 0.02})
    table.loc[10, "CHO"] = 20.0  # g/min over the three minutes after row 10
    table.loc[rows - 1, ["CHO", "insulin"]] = np.nan
    table.to_csv(tmp_path / "adult_001.csv", index=False)
    return tmp_path / "adult_001.csv"


def test_meals_and_doses_stand_in_the_row_that_ends_them(prepare_glucose, tmp_path):
    _, items, report, _ = prepare_glucose(simglucose(tmp_path))
    item = items["adult_001"]
    names = ["cob", "carb_availability", "iob", "insulin_availability"]
    assert ArrowSource(tmp_path / "out").names["past_feat_dynamic_real"] == names
    np.testing.assert_allclose(item.target[0], 121.5)
    assert (
        "Covariates, in order: cob, carb_availability, iob, insulin_availability."
        in (report["notes"])
    )
    carbs, insulin = np.zeros(200), np.full(200, 0.06)
    carbs[11], insulin[0] = 60.0, 0.0
    expected = [*features.carb_features(carbs, 3), *features.insulin_features(insulin, 3)]
    np.testing.assert_allclose(item.past, expected, rtol=1e-5, atol=1e-5)
    assert item.future.shape[0] == 0


def test_announced_meals_are_known_ahead_and_units_are_converted(prepare_glucose, tmp_path):
    options = "--announced", "--unit", "mmol/L", "--legacy-hovorka-180"
    _, items, _, _ = prepare_glucose(simglucose(tmp_path), *options)
    item = items["adult_001"]
    names = ["cob", "carb_availability", "iob", "insulin_availability"]
    assert ArrowSource(tmp_path / "out").names["feat_dynamic_real"] == names
    np.testing.assert_allclose(item.target[0], 121.5 / 18.018, rtol=1e-6)
    assert item.past.shape[0] == 0
    assert item.future.shape[0] == 4
    assert item.future[0][11 + 60 :].max() == 0  # nothing after 180 minutes


def test_big_ideas_joins_food_logs(prepare_glucose, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    times = pd.date_range("2020-02-13 17:23:32", periods=150, freq="5min")
    glucose = {"timestamp": times, "event_type": "EGV", "glucose": 100.0}
    table = pd.DataFrame(glucose)
    table.loc[149, ["event_type", "glucose"]] = ["Exercise", np.nan]
    table.to_csv(folder / "Dexcom_001.csv", index=False)
    food = {"time_begin": ["2020-02-13 17:40:00", "2020-02-13 17:43:32", np.nan]}
    food = pd.DataFrame({**food, "total_carb": [30.0, 10.0, 99.0]})
    food.to_csv(folder / "Food_Log_001.csv", index=False)
    _, items, report, _ = prepare_glucose(folder)
    carbs = np.zeros(149)
    carbs[4] = 40.0  # 17:43:32 ends the interval of both
    np.testing.assert_allclose(items["001"].past[0], features.carb_features(carbs)[0], atol=1e-5)
    assert "Dexcom_001: 1 lines are no readings and were left out." in report["notes"]


def test_shanghai_insulin_is_sorted_by_kind(prepare_glucose, tmp_path):
    rows = 200
    table = pd.DataFrame(
        {
            "record": "1001",
            "Date": pd.date_range("2021-07-30 16:43", periods=rows, freq="15min"),
            "CGM (mg / dl)": 120.0,
            "Dietary intake": None,
            "Insulin dose - s.c.": None,
            "CSII - bolus insulin (Novolin R, IU)": None,
            "CSII - basal insulin (Novolin R, IU / H)": None,
            "Insulin dose - i.v.": None,
        }
    )
    doses = {
        **{3: "Novolin R, 4 IU", 5: "insulin\xa0glargine, 19 IU", 7: "Novolin 30R, 8 IU"},
        9: "insulin detemir, 6 IU; Novolin R, 2 IU",
    }
    for row, dose in doses.items():
        table.loc[row, "Insulin dose - s.c."] = dose
    table.loc[20, "CSII - bolus insulin (Novolin R, IU)"] = "5"
    table.loc[10, "CSII - basal insulin (Novolin R, IU / H)"] = "0.8"
    stop = "temporarily suspend insulin delivery"
    table.loc[30, "CSII - basal insulin (Novolin R, IU / H)"] = stop
    table.loc[2, "Dietary intake"] = "Egg 60 g"
    table.to_csv(tmp_path / "shanghai.csv", index=False)
    _, items, report, _ = prepare_glucose(tmp_path / "shanghai.csv")
    iob, _, meal, basal = items["1001"].past
    insulin = np.zeros(rows)
    insulin[[3, 9, 20]] = 4, 2, 5
    np.testing.assert_allclose(iob, features.insulin_features(insulin, 15)[0], atol=1e-5)
    assert np.flatnonzero(meal).tolist() == [2]
    np.testing.assert_allclose(basal[[9, 10, 29, 30, 199]], [0, 0.8, 0.8, 0, 0])
    assert "1001: 3 doses of slow insulin left out." in report["notes"]


def test_records_of_one_person_have_one_subject_and_covariates_may_be_left_out(
    prepare_glucose, tmp_path
):
    shown = dict.fromkeys(_shanghai_columns(), [None] * 150)
    tables = [
        pd.DataFrame(
            shown
            | {
                "record": record,
                "Date": pd.date_range("2021-07-30 16:43", periods=150, freq="15min"),
                "CGM (mg / dl)": 120.0,
            }
        )
        for record in ("1002_0_20210504", "1002_1_20210521", "1003_0_20210831")
    ]
    pd.concat(tables).to_csv(tmp_path / "shanghai.csv", index=False)
    _, items, _, _ = prepare_glucose(tmp_path / "shanghai.csv", "--alone")
    assert list(items) == ["1002_0_20210504", "1002_1_20210521", "1003_0_20210831"]
    assert {len(item.past) + len(item.future) for item in items.values()} == {0}
    source = ArrowSource(tmp_path / "out")
    assert [source.metadata(row)["subject"] for row in range(3)] == ["1002", "1002", "1003"]
    assert source.names == {"target": ["glucose"]}


def _shanghai_columns():
    return (
        *("record", "Date", "CGM (mg / dl)", "Dietary intake", "Insulin dose - s.c."),
        *("CSII - bolus insulin (Novolin R, IU)", "Insulin dose - i.v."),
        "CSII - basal insulin (Novolin R, IU / H)",
    )


def brist1d(tmp_path, **changes):
    """Rows of the competition's file: every 5 minutes for two days, no dates, 72 lags of each."""
    clock = pd.date_range("2024-01-01 20:00", periods=576, freq="5min")
    table = {"id": [f"p01_{i}" for i in range(576)], "p_num": "p01", "time": clock.strftime("%T")}
    for family, value in (("bg", 6.5), ("insulin", 0.05), ("carbs", np.nan), ("hr", 70.0)):
        table |= {f"{family}-{lag // 12}:{lag % 12 * 5:02d}": value for lag in range(71, -1, -1)}
    table |= {"steps-0:00": 3.0, "cals-0:00": 9.1, "activity-0:00": None, "bg+1:00": 7.0}
    table = pd.DataFrame(table | changes)
    table.loc[100, "insulin-0:00"] = -0.3
    table.loc[50, "carbs-0:00"] = 45.0
    table.loc[60, "hr-0:00"] = np.nan
    table.to_csv(tmp_path / "train.csv", index=False)
    return tmp_path / "train.csv"


def test_brist1d_rows_become_days(prepare_glucose, tmp_path):
    _, items, report, _ = prepare_glucose(brist1d(tmp_path), "--unit", "mmol/L")
    item = items["p01"]
    assert item.target.shape == (1, 576)  # past midnight twice, unbroken
    np.testing.assert_allclose(item.target[0], 6.5, rtol=1e-6)
    cob, _, iob, _, steps, _, hr = item.past
    assert (cob[49], cob[50]) == (0.0, pytest.approx(36.0))
    assert iob[101] < iob[99]
    np.testing.assert_allclose([steps[5], hr[60]], [3.0, 70.0])
    assert "p01: 1 negative insulin left out." in report["notes"]


def test_the_test_part_of_brist1d_is_refused(prepare_glucose, tmp_path):
    path = brist1d(tmp_path)
    pd.read_csv(path).drop(columns="bg+1:00").to_csv(path, index=False)
    code, _, _, output = prepare_glucose(path)
    assert code == 2
    assert "random order" in output


@pytest.mark.parametrize(
    ("table", "options", "match"),
    [
        (pd.DataFrame({"x": [1]}), (), "is none of iglu"),
        (pd.DataFrame({"x": [1]}), ("--layout", "iglu"), "has no column 'gl' of layout iglu"),
        (readings([0, 5], ["100", "high"]), (), "no numbers, the first is 'high'"),
        (readings([0, 5], [100, 100]).assign(time="noon"), (), "has a time that is none"),
        (readings([0, 5], [100, 100]), (), "it has 2 readings"),
    ],
)
def test_bad_files_are_named(prepare_glucose, tmp_path, table, options, match):
    table.to_csv(tmp_path / "raw.csv", index=False)
    code, _, _, output = prepare_glucose(tmp_path / "raw.csv", *options)
    assert code == 2
    assert match in " ".join(output.split())


@pytest.mark.parametrize(
    ("name", "items", "variates"),
    [
        ("iglu_example_5_subjects.csv.gz", 15, 0),
        ("shanghai_t1dm.csv.gz", 16, 4),
        ("big_ideas", 20, 2),
        ("simglucose", 30, 4),
    ],
)
def test_real_files(prepare_glucose, test_data, name, items, variates):
    code, found, report, _ = prepare_glucose(test_data / "data" / "cgm" / name)
    assert code == 0
    assert len(found) >= items
    assert report["summary"]["missing"] == 0.0
    for item in found.values():
        assert item.past.shape[0] == variates
        assert np.isfinite(item.target).all()
        assert np.isfinite(item.past).all()
        assert 20 <= item.target.min() <= item.target.max() <= 600
