"""Parquet, Hugging Face and Monash files to Arrow."""

import gzip
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.prepare.__main__ import main

HOURS = pd.date_range("2024-01-01", periods=48, freq="h")


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare a file or folder; return (exit code, source, report, output)."""

    def run(kind, source, *options):
        folder = tmp_path / "out"
        code = main([kind, "--src", str(source), "--dst", str(folder), *options])
        captured = capsys.readouterr()
        opened = ArrowSource(folder) if code == 0 else None
        report = json.loads((folder / "report.json").read_text()) if code == 0 else None
        assert code == 0 or not folder.exists()
        return code, opened, report, captured.out + captured.err

    return run


def rows(**changes):
    """Two items of 48 and 30 hours with a temperature."""
    return [
        {
            "id": name,
            "timestamp": HOURS[:length].to_numpy(),
            "load": np.arange(length) + offset,
            "temperature": np.arange(length) / 4,
            "place": "north",
            **{key: value(length) for key, value in changes.items()},
        }
        for name, length, offset in (("a", 48, 100.0), ("b", 30, 200.0))
    ]


def write(path, content):
    pq.write_table(pa.Table.from_pylist(content), path)
    return path


def targets(source):
    return [item.target.tolist() for item in source.read(np.arange(len(source)))]


# ---------------------------------------------------------------------------------------- parquet


def test_every_list_column_is_a_series(prepare, tmp_path):
    _, source, report, output = prepare("parquet", write(tmp_path / "raw.parquet", rows()))
    assert report["layout"] == "several series a row" and "4 of up to 1 variates" in output
    assert [source.metadata(i)["item_id"] for i in range(4)] == [
        "a/load", "a/temperature", "b/load", "b/temperature",
    ]  # fmt: skip
    assert targets(source)[2] == [[200.0 + n for n in range(30)]]
    assert source.metadata(3)["start"] == HOURS[0] and source.metadata(3)["freq"] == "h"


def test_columns_may_be_variates_and_covariates(prepare, tmp_path):
    path = write(tmp_path / "raw.parquet", rows(price=lambda n: np.arange(n) * 2.0))
    options = ["--target", "load", "temperature", "--future-covariates", "price"]
    _, source, report, _ = prepare("parquet", path, *options)
    assert len(source) == 2 and report["summary"]["variates"] == 2
    assert source[1].target.shape == (2, 30) and source[1].future[0, 3] == 6.0


def test_missing_values_are_nan_and_empty_series_are_dropped(prepare, tmp_path):
    content = rows(load=lambda n: [None, *range(1, n)], temperature=lambda n: [None] * n)
    content[0]["temperature"] = [1.0] * 48
    _, source, report, _ = prepare("parquet", write(tmp_path / "raw.parquet", content))
    assert np.isnan(source[0].target[0, 0]) and source[0].target[0, 1] == 1
    assert report["dropped"] == [["b/temperature", "all values are missing"]]


def test_gaps_in_lists_are_refused_filled_or_ignored(prepare, tmp_path):
    content = rows()
    for name in ("timestamp", "load", "temperature"):
        content[1][name] = np.delete(content[1][name], 4)
    path = write(tmp_path / "raw.parquet", content)
    code, _, _, output = prepare("parquet", path, "--target", "load")
    assert code == 2 and "b lacks 1 of 30 timestamps" in output and "--gaps fill" in output
    _, source, _, _ = prepare("parquet", path, "--target", "load", "--gaps", "fill")
    assert source[1].target.shape == (1, 30) and np.isnan(source[1].target[0, 4])


def test_gaps_in_lists_can_be_ignored(prepare, tmp_path):
    content = rows()
    content[1]["timestamp"] = np.r_[content[1]["timestamp"][:10], HOURS[18:38].to_numpy()]
    path = write(tmp_path / "raw.parquet", content)
    _, source, _, _ = prepare("parquet", path, "--target", "load", "--gaps", "ignore")
    assert source[1].target.shape == (1, 30) and source.metadata(1)["freq"] == "h"


def test_a_long_table_is_read_as_prepare_csv_does(prepare, tmp_path):
    frame = pd.DataFrame({"item_id": ["x"] * 48, "timestamp": HOURS, "value": np.arange(48.0)})
    frame.to_parquet(tmp_path / "raw.parquet")
    _, source, report, _ = prepare("parquet", tmp_path / "raw.parquet")
    assert report["layout"] == "long" and source.metadata(0)["freq"] == "h"


BAD_LISTS = {
    "unknown column": (rows(), ["--target", "laod"], ["'laod'", "did you mean 'load'"]),
    "lengths": (
        rows(load=lambda n: list(range(n - 1))),
        [],
        ["a/load has 47 values and 48 timestamps"],
    ),
    "variates": (
        rows(load=lambda n: list(range(n - 1))),
        ["--target", "load", "temperature"],
        ["differ in length", "load 47, temperature 48"],
    ),
    "texts": (rows(), ["--target", "place"], ["'place'", "list of numbers"]),
    "whose covariates": (
        rows(other=lambda n: np.ones(n)),
        ["--past-covariates", "other"],
        ["--target"],
    ),
    "empty cell": (
        rows(load=lambda n: None if n < 40 else list(range(n))),
        [],
        ["'load' of b", "empty"],
    ),
    "no lists of numbers": (
        [{"id": "a", "words": ["x", "y"]}],
        ["--layout", "lists"],
        ["no column that holds a list of numbers", "id, words"],
    ),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists(prepare, tmp_path, case):
    content, options, words = BAD_LISTS[case]
    code, _, _, output = prepare("parquet", write(tmp_path / "raw.parquet", content), *options)
    assert code == 2 and all(word in output for word in words), output
    assert output.count("\n") == 1


def test_a_damaged_file(prepare, tmp_path):
    path = write(tmp_path / "raw.parquet", rows())
    path.write_bytes(path.read_bytes()[:-100])
    code, _, _, output = prepare("parquet", path)
    assert code == 2 and "raw.parquet cannot be read" in output and output.count("\n") == 1


def test_a_folder_of_parquet_files(prepare, tmp_path):
    (tmp_path / "raw").mkdir()
    code, _, _, output = prepare("parquet", tmp_path / "raw")
    assert code == 2 and "no .parquet files" in output
    for number in range(2):
        write(tmp_path / "raw" / f"{number}.parquet", rows())
    _, source, _, _ = prepare("parquet", tmp_path / "raw", "--target", "load")
    assert len(source) == 4


def test_real_parquet(prepare, test_data):
    path = test_data / "data" / "forecasting" / "hospital.parquet"
    _, source, report, _ = prepare("parquet", path, "--freq", "MS")
    assert len(source) == 767 and report["summary"]["length_max"] == 84
    expected = pd.read_parquet(path)["target"]
    np.testing.assert_array_equal(source[700].target[0], expected[700].astype(np.float32))


# -------------------------------------------------------------------------------- hugging face


def test_a_saved_data_set(prepare, tmp_path):
    datasets.Dataset.from_list(rows()).save_to_disk(str(tmp_path / "saved"))
    _, source, _, _ = prepare("hf", tmp_path / "saved", "--target", "load", "temperature")
    assert len(source) == 2 and source[0].target.shape == (2, 48)
    assert source.metadata(1)["item_id"] == "b"


def test_splits(prepare, tmp_path):
    train = datasets.Dataset.from_list(rows())
    both = datasets.DatasetDict({"train": train, "test": train.select([0])})
    both.save_to_disk(str(tmp_path / "saved"))
    _, source, _, _ = prepare("hf", tmp_path / "saved", "--split", "test", "--target", "load")
    assert len(source) == 1
    (tmp_path / "out").rename(tmp_path / "first")
    code, _, _, output = prepare("hf", tmp_path / "saved", "--split", "tset")
    assert code == 2 and "did you mean 'test'" in output and "train, test" in output


def test_what_tsmjax_wrote_is_read_back(prepare, tmp_path):
    _, first, _, _ = prepare(
        "parquet", write(tmp_path / "raw.parquet", rows()), "--target", "load",
        "--past-covariates", "temperature",
    )  # fmt: skip
    values, metadata = [*map(str, first.read(np.arange(2)))], first.metadata(1)
    (tmp_path / "out").rename(tmp_path / "first")
    _, again, _, _ = prepare("hf", tmp_path / "first")
    assert [*map(str, again.read(np.arange(2)))] == values
    assert again.metadata(1) == metadata


def test_neither_a_folder_nor_a_hub_id(prepare, tmp_path):
    code, _, _, output = prepare("hf", tmp_path / "none")
    assert code == 2 and "neither a file or folder" in output


# ------------------------------------------------------------------------------------------ tsf

TSF = """# a comment
@relation rain
@attribute series_name string
@attribute start_timestamp date
@attribute station numeric
@frequency {frequency}
@horizon 8
@missing true
@equallength false
@data
T1:2020-01-01 00-00-00:7:1.5,2,?,4
T2:2020-01-06 12-30-00:8:5,6
T3:2020-01-01 00-00-00:9:?,?
"""


@pytest.mark.parametrize(
    ("frequency", "freq"),
    [
        ("half_hourly", "30min"),
        ("10_minutes", "10min"),
        ("4_seconds", "4s"),
        ("hourly", "h"),
        ("daily", "D"),
        ("weekly", "W-WED"),
        ("monthly", "MS"),
        ("quarterly", "QS"),
        ("yearly", "YS"),
    ],
)
def test_tsf(prepare, tmp_path, frequency, freq):
    path = tmp_path / "rain.tsf"
    path.write_text(TSF.format(frequency=frequency))
    _, source, report, output = prepare("tsf", path)
    np.testing.assert_array_equal(source[0].target, [[1.5, 2, np.nan, 4]])
    assert source.metadata(0) == {
        "item_id": "T1",
        "start": pd.Timestamp("2020-01-01"),
        "freq": freq,
        "station": 7.0,
    }
    assert source[0].target.dtype == np.float32
    assert source.metadata(1)["start"] == pd.Timestamp("2020-01-06 12:30")
    assert report["dropped"] == [["T3", "all values are missing"]]
    assert "forecasts of 8 steps" in output


def test_tsf_encodings_compression_and_unusual_headers(prepare, tmp_path):
    text = "@attribute name string\n@attribute city string\n@data\nZürich: west:Zürich:1,2,3\n"
    with gzip.open(tmp_path / "x.tsf.gz", "wb") as file:
        file.write(text.encode("cp1252"))
    _, source, report, _ = prepare("tsf", tmp_path / "x.tsf.gz", "--freq", "2h")
    assert source.metadata(0) == {"item_id": "Zürich: west", "city": "Zürich", "freq": "2h"}
    assert any("cp1252" in note for note in report["notes"])


BAD_TSF = {
    "no data": ("@relation x\n", ["no line @data"]),
    "no header": ("1,2,3\n@data\n", ["Line 1", "'1,2,3'"]),
    "attribute": ("@attribute name text\n@data\nT1:1\n", ["Line 1", "string, numeric, date"]),
    "frequency": ("@frequency dayly\n@data\n1\n", ["'dayly'", "did you mean 'daily'", "--freq"]),
    "attributes": ("@attribute a string\n@data\n1,2\n", ["Line 3", "0 attributes", "declares 1"]),
    "values": ("@data\n1,x\n", ["Line 2", "'x'"]),
    "numeric": ("@attribute a numeric\n@data\nb:1\n", ["Line 3", "'b'"]),
    "date": ("@attribute a date\n@data\n2020-13-01 00-00-00:1\n", ["Line 3", "'2020-13-01"]),
    "nothing": ("@data\n?,?\n", ["No series", "all values are missing"]),
    "no rows": ("@data\n", ["No series", "no rows"]),
}


@pytest.mark.parametrize("case", BAD_TSF)
def test_bad_tsf(prepare, tmp_path, case):
    text, words = BAD_TSF[case]
    (tmp_path / "x.tsf").write_text(text)
    code, _, _, output = prepare("tsf", tmp_path / "x.tsf")
    assert code == 2 and all(word in output for word in words), output
    assert output.count("\n") == 1
