"""From CSV files to Arrow: layouts, times, covariates, and sentences for everything refused."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.prepare.__main__ import main

DAYS = [f"2024-01-{day:02d}" for day in range(1, 11)]


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare a text or a frame; return (exit code, source, report, output)."""

    def run(content, *options, name="raw.csv"):
        path, folder = tmp_path / name, tmp_path / "out"
        if isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        elif content is not None:
            path.write_text(content)
        code = main(["csv", "--src", str(path), "--dst", str(folder), *options])
        captured = capsys.readouterr()
        source = ArrowSource(folder) if code == 0 else None
        report = json.loads((folder / "report.json").read_text()) if code == 0 else None
        return code, source, report, captured.out + captured.err

    return run


def wide(**columns):
    return pd.DataFrame({"date": DAYS, **columns})


def long():
    frames = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": DAYS[:length],
                "target": np.arange(length) + offset,
                "price": np.arange(length) * 2.0,
                "rain": np.arange(length) * 3.0,
            }
        )
        for name, length, offset in (("b", 6, 100), ("a", 10, 200))
    ]
    return pd.concat(frames)


def test_wide(prepare):
    code, source, report, output = prepare(wide(x=np.arange(10.0), y=np.arange(10) ** 2))
    assert code == 0 and report["layout"] == "wide"
    assert source[1].target.tolist() == [[float(n * n) for n in range(10)]]
    assert source.metadata(0) == {
        "item_id": "x",
        "freq": "D",
        "start": pd.Timestamp("2024-01-01"),
    }
    assert report["summary"]["items"] == 2 and report["summary"]["values"] == 20
    assert "shortest 10" in output


def test_hugging_face_opens_the_result(prepare, tmp_path):
    prepare(wide(x=np.arange(10.0)))
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert loaded[0]["item_id"] == "x" and loaded[0]["target"] == list(range(10))


def test_long_is_recognised(prepare):
    frame = long()[["item_id", "timestamp", "target"]]
    _, source, report, _ = prepare(frame)
    assert report["layout"] == "long"
    assert [source.metadata(i)["item_id"] for i in range(2)] == ["b", "a"]
    assert source[0].target.tolist() == [[100, 101, 102, 103, 104, 105]]
    assert source[1].target.shape == (1, 10)


def test_covariates_and_variates(prepare):
    frame = long().rename(columns={"item_id": "store", "timestamp": "when"})
    frame["other"] = -frame["target"]
    _, source, _, _ = prepare(
        frame,
        *["--id-column", "store", "--timestamp-column", "when", "--target", "target", "other"],
        *["--past-covariates", "rain", "--future-covariates", "price"],
    )
    item = source[1]
    assert item.target.tolist() == [list(range(200, 210)), list(range(-200, -210, -1))]
    assert item.past.tolist() == [[3 * n for n in range(10)]]
    assert item.future.tolist() == [[2 * n for n in range(10)]]
    names = {"target": ["target", "other"], "past_feat_dynamic_real": ["rain"]}
    assert source.names == names | {"feat_dynamic_real": ["price"]}


def test_series_of_a_wide_table_have_no_names_of_their_own(prepare):
    _, source, _, _ = prepare(wide(x=range(10), y=range(10)))
    assert len(source) == 2 and source.names == {}


def test_targets_without_an_id_are_one_item(prepare):
    _, source, _, _ = prepare(wide(x=range(10), y=range(10)), "--target", "x", "y")
    assert len(source) == 1 and source[0].target.shape == (2, 10)


def test_rows_layout_with_short_series(prepare):
    text = '"V1","V2","V3","V4"\nH1,1,2,3\nH2,4,5,\n'
    code, _, _, output = prepare(text)
    assert code == 2 and "--layout rows" in output
    _, source, report, _ = prepare(text, "--layout", "rows", "--freq", "h")
    assert [item.target.tolist() for item in source.read(np.arange(2))] == [[[1, 2, 3]], [[4, 5]]]
    assert source.metadata(1) == {"item_id": "H2", "freq": "h"}
    assert any("H2: 1 empty cells" in note for note in report["notes"])


def test_sorted_by_time_and_said_so(prepare):
    _, source, report, _ = prepare(wide(x=range(10)).iloc[::-1])
    assert source[0].target[0].tolist() == list(range(10))
    assert any("sorted" in note for note in report["notes"])


def test_gaps(prepare, tmp_path):
    frame = wide(x=range(10)).drop(index=[4])
    code, _, _, output = prepare(frame)
    assert code == 2 and "x lacks 1 of 10" in output and "2024-01-05" in output
    assert "--gaps fill" in output and not (tmp_path / "out").exists()
    _, source, report, _ = prepare(frame, "--gaps", "fill")
    np.testing.assert_array_equal(source[0].target[0], [0, 1, 2, 3, np.nan, 5, 6, 7, 8, 9])
    assert report["summary"]["missing"] == 0.1


def test_gaps_can_be_ignored(prepare):
    frame = wide(x=range(10)).drop(index=[4])
    _, source, _, _ = prepare(frame, "--gaps", "ignore")
    assert source[0].target.shape == (1, 9)
    assert source.metadata(0)["timestamp"][4] == pd.Timestamp("2024-01-06")


@pytest.mark.parametrize(("how", "value"), [("first", 3), ("last", 30), ("mean", 16.5)])
def test_duplicates(prepare, how, value):
    frame = pd.concat([wide(x=range(10)), pd.DataFrame({"date": [DAYS[3]], "x": [30]})])
    code, _, _, output = prepare(frame)
    assert code == 2 and "occur twice" in output and "2024-01-04" in output
    _, source, _, _ = prepare(frame, "--duplicates", how)
    assert source[0].target[0, 3] == value


def test_what_is_dropped_is_reported(prepare):
    frame = wide(x=range(10), nothing=np.nan, place=["north"] * 10)
    _, source, report, output = prepare(frame)
    assert len(source) == 1
    assert report["dropped"] == [
        ["nothing", "all values are missing"],
        ["place", "the column holds text"],
    ]
    assert "Dropped nothing" in output


def test_day_first_dates_are_one_format(prepare):
    dates = pd.date_range("2024-01-01", periods=40).strftime("%d/%m/%Y")
    _, source, _, _ = prepare(pd.DataFrame({"date": dates, "x": range(40)}))
    assert source[0].target[0].tolist() == list(range(40))
    assert source.metadata(0)["freq"] == "D"


def test_years(prepare):
    _, source, _, _ = prepare("Year,flow\n1871,1\n1872,2\n1873,3\n", "--timestamp-column", "Year")
    assert source.metadata(0)["start"] == pd.Timestamp("1871-01-01")
    assert source.metadata(0)["freq"].startswith("YS")


def test_decimal_commas_missing_texts_and_compression(prepare, tmp_path):
    with gzip.open(tmp_path / "raw.csv.gz", "wt") as handle:
        handle.write("date;x\n01.02.2024;1,5\n02.02.2024;none\n03.02.2024;2,5\n")
    _, source, _, _ = prepare(
        None, "--decimal", ",", "--missing", "none", "--freq", "D", "--gaps", "ignore",
        name="raw.csv.gz",
    )  # fmt: skip
    np.testing.assert_array_equal(source[0].target, [[1.5, np.nan, 2.5]])


def test_parquet_tables(prepare, tmp_path):
    long().to_parquet(tmp_path / "raw.parquet")
    _, source, _, _ = prepare(None, "--target", "target", name="raw.parquet")
    assert len(source) == 2


def test_a_folder_of_files(prepare, tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("one", "two"):
        wide(x=range(10)).to_csv(tmp_path / "raw" / f"{name}.csv", index=False)
    _, source, _, _ = prepare(None, name="raw")
    assert [source.metadata(i)["item_id"] for i in range(2)] == ["one/x", "two/x"]


BAD_TIMES = pd.DataFrame({"date": [*DAYS[:9], "later"], "x": range(10)})
IRREGULAR = pd.DataFrame({"date": ["2024-01-01", "2024-01-02", "2024-02-09"], "x": range(3)})
BAD = {
    "text in numbers": (wide(x=[*range(9), "n/a?"]), [], ["'n/a?'", "line 11", "--missing 'n/a?'"]),
    "unknown column": (wide(sales=range(10)), ["--target", "sale"], ["did you mean 'sales'"]),
    "which target": (
        wide(item_id=["a"] * 10, x=range(10), z=range(10)),
        [],
        ["--target NAME", "x, z"],
    ),
    "two parts": (
        wide(x=range(10), z=range(10)),
        ["--target", "x", "--past-covariates", "x"],
        ["'x'", "two parts"],
    ),
    "bad times": (BAD_TIMES, [], ["'later'", "line 10"]),
    "numbers as times": ("time,x\n1,2\n2,3\n", [], ["'time'", "no years"]),
    "no spacing": (IRREGULAR, [], ["no regular spacing", "--gaps ignore"]),
    "off the grid": (wide(x=range(10)), ["--freq", "2D"], ["not on a grid", "2024-01-02"]),
    "unknown freq": (wide(x=range(10)), ["--freq", "fortnight"], ["'fortnight'", "pandas"]),
    "nothing usable": (wide(x=np.nan), [], ["No series", "all values are missing"]),
    "no header": ("0.5,1.5\n0.6,1.6\n", [], ["reads like data", "--header no"]),
    "empty": ("", [], ["raw.csv", "not a table"]),
    "only a header": ("date,x\n", [], ["no lines of data"]),
    "binary": (None, [], ["not a table of text"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(prepare, tmp_path, case):
    content, options, words = BAD[case]
    if content is None:
        (tmp_path / "raw.csv").write_bytes(bytes(range(256)) * 10)
    code, _, _, output = prepare(content, *options)
    assert code == 2
    assert all(word in output for word in words), output
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in output


def test_header_no(prepare):
    _, source, _, _ = prepare("0.5,1.5\n0.6,1.6\n", "--header", "no")
    assert source[1].target.tolist() == [[1.5, np.float32(1.6)]]


def test_a_full_destination_is_refused(prepare, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    code, _, _, output = prepare(wide(x=range(10)))
    assert code == 2 and "not empty" in output
    assert (tmp_path / "out" / "precious").exists()


def test_missing_source_and_unknown_kind(tmp_path, capsys):
    (tmp_path / "sales.csv").touch()
    assert main(["csv", "--src", str(tmp_path / "sale.csv"), "--dst", "x"]) == 2
    assert "did you mean 'sales.csv'" in capsys.readouterr().err
    assert main(["cvs", "--src", "a", "--dst", "b"]) == 2
    assert "did you mean 'csv'" in capsys.readouterr().err


def test_help_names_the_kinds_and_has_examples(capsys):
    assert main(["--help"]) == 0
    assert "csv" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["csv", "--help"])
    assert "python -m tsmjax.prepare csv --src" in capsys.readouterr().out


# ------------------------------------------------------------------------------------ real files

REAL = {
    "small/AirPassengers.csv": ([], 1, 144, "MS"),
    "small/us_gasoline.csv": ([], 1, 1578, "W-FRI"),
    "small/monthly-milk-incomplete.csv": (["--gaps", "fill"], 1, 168, "MS"),
    "small/australian_tourism.csv": ([], 96, 36, None),
    "ETTh1.csv.gz": ([], 7, 17_420, "h"),
    "exchange_rate.txt.gz": (["--header", "no", "--freq", "B"], 8, 7588, "B"),
    "m4_hourly_train.csv.gz": (["--layout", "rows", "--freq", "h"], 414, 960, "h"),
    "m4_monthly_sampled.csv.gz": ([], 80, 324, "MS"),
    "epf_NP.csv.gz": (
        ["--target", "OT", "--future-covariates", "Grid load forecast", "Wind power forecast"],
        1,
        52_416,
        "h",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(test_data, tmp_path, name):
    options, items, longest, freq = REAL[name]
    source = test_data / "data" / "forecasting" / name
    assert main(["csv", "--src", str(source), "--dst", str(tmp_path / "out"), *options]) == 0
    opened = ArrowSource(tmp_path / "out")
    assert (len(opened), opened.max_length) == (items, longest)
    assert opened.metadata(0).get("freq") == freq
    if name.startswith("epf"):
        assert opened[0].future.shape == (2, longest)
        assert opened[0].target[0, 0] == np.float32(31.05)
    if name.startswith("m4_hourly"):
        assert sorted(set(opened.rows["length"].tolist())) == [700, 960]
        assert opened[0].target[0, :2].tolist() == [605, 586]
