"""python -m tsmjax.predict: files in, files out, and one sentence for each mistake."""

import numpy as np
import pandas as pd
import pytest

from tsmjax import Forecaster
from tsmjax.predict import main


@pytest.fixture(scope="module")
def checkpoint(test_data):
    return str(test_data / "weights/dummy-chronos2-model")


def table(items=2, length=40):
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=length, freq="D")
    parts = [
        pd.DataFrame({"shop": n, "day": days, "sold": rng.normal(size=length).cumsum()})
        for n in range(items)
    ]
    return pd.concat(parts, ignore_index=True).assign(price=1.5)


def command(checkpoint, source, target, *options):
    files = ["--checkpoint", checkpoint, "--input", str(source), "--output", str(target)]
    return main([*files, *options])


NAMES = ("--id-column", "shop", "--timestamp-column", "day", "--target", "sold")


def test_csv_with_known_covariates_and_plot(checkpoint, tmp_path, capsys):
    df = table()
    df.loc[5:9, "sold"] = np.nan
    df.to_csv(tmp_path / "in.csv", index=False)
    days = pd.date_range("2024-02-10", periods=7, freq="D")
    future = pd.concat(
        pd.DataFrame({"shop": n, "day": days, "price": [1.0, 2.0] * 3 + [1.0]}) for n in range(2)
    )
    future.to_parquet(tmp_path / "future.parquet")
    code = command(
        *(checkpoint, tmp_path / "in.csv", tmp_path / "new/out.csv", *NAMES),
        *("--future", str(tmp_path / "future.parquet"), "--quantiles", "0.9,0.1"),
        *("--plot", str(tmp_path / "fan.png")),
    )
    assert code == 0 and "2 series × 7 steps" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "new/out.csv", parse_dates=["day"])
    assert list(found.columns) == ["shop", "day", "target_name", "predictions", "0.9", "0.1"]
    expected = Forecaster.from_pretrained(checkpoint).predict_df(
        df, future, "shop", "day", "sold", prediction_length=7, quantile_levels=[0.9, 0.1]
    )
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-4)
    assert (tmp_path / "fan.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.csv"]


def test_one_series_needs_no_id(checkpoint, tmp_path):
    table(1).drop(columns="shop").to_parquet(tmp_path / "in.parquet")
    options = ("--timestamp-column", "day", "--target", "sold", "price", "--horizon", "3")
    assert command(checkpoint, tmp_path / "in.parquet", tmp_path / "out.parquet", *options) == 0
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert list(found.columns)[:3] == ["day", "target_name", "predictions"]
    assert found["target_name"].tolist() == ["sold"] * 3 + ["price"] * 3


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("inn.csv", "out.csv", NAMES, "There is no file"),
        ("in.xls", "out.csv", NAMES, "must end in .csv or .parquet"),
        ("in.csv", "out.txt", NAMES, "must end in .csv or .parquet"),
        ("in.csv", "out.csv", (*NAMES, "--plot", "fan.gif"), "must end in .png"),
        ("in.csv", "out.csv", (*NAMES, "--quantiles", "0.1;0.9"), "--quantiles is '0.1;0.9'"),
        ("in.csv", "out.csv", (*NAMES, "--quantiles", "10,90"), "levels are numbers between"),
        ("in.csv", "out.csv", (*NAMES, "--horizon", "0"), "prediction_length is 0"),
        ("in.csv", "out.csv", ("--id-column", "shops", *NAMES[2:]), "did you mean 'shop'"),
        ("in.csv", "out.csv", (*NAMES[:4], "--target", "sale"), "no column 'sale'"),
        ("broken.parquet", "out.csv", NAMES, "cannot be read as parquet"),
        ("in.csv", "in.csv/out.csv", NAMES, "cannot be written"),
    ],
)
def test_mistakes_leave_with_code_2_and_no_file(
    checkpoint, tmp_path, capsys, monkeypatch, source, target, options, message
):
    monkeypatch.chdir(tmp_path)
    table().to_csv("in.csv", index=False)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    before = sorted(tmp_path.iterdir())
    assert command(checkpoint, source, target, "--horizon", "4", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "--input sales.csv" in capsys.readouterr().out
