"""`prepare --report`: what is counted, what is found, and what is not taken for leakage."""

import json

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.prepare.__main__ import main

RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(6, 200)).cumsum(axis=1).astype(np.float32)


@pytest.fixture
def report(tmp_path, capsys):
    """Write data sets (name → rows), report on "train"; return (facts, output)."""

    def run(*options, **datasets):
        for name, rows in datasets.items():
            rows = [
                {"item_id": f"{name}-{number}", "freq": "h", "target": np.float32(values)}
                for number, values in enumerate(rows)
            ]
            write_dataset(rows, tmp_path / name)
        facts = tmp_path / "facts.json"
        arguments = [str(tmp_path / "train"), "--json", str(facts), *options]
        if "test" in datasets:
            arguments += ["--against", str(tmp_path / "test")]
        code = main(["--report", *arguments])
        captured = capsys.readouterr()
        output = " ".join((captured.out + captured.err).split())
        assert code == 0, output
        return json.loads(facts.read_text())[str(tmp_path / "train")], output

    return run


def test_what_there_is(report):
    holed = SERIES[1].copy()
    holed[:20] = np.nan
    facts, output = report(train=[SERIES[0], holed, SERIES[2][:50], np.full(30, 7.0)])
    assert (facts["items"], facts["series"], facts["values"]) == (4, 4, 480)
    assert (facts["length_min"], facts["length_median"], facts["length_max"]) == (30, 125, 200)
    assert facts["missing"] == pytest.approx(20 / 480) and facts["freq"] == {"h": 4}
    assert facts["constant"] == ["train-3"] and facts["duplicates"] == []
    assert "constant" in output and "train-3" in output and "leakage" not in output


def test_duplicates_in_any_units(report):
    facts, _ = report(train=[SERIES[0], SERIES[1], 5 * SERIES[0] + 3, np.full(9, np.nan)])
    assert facts["duplicates"] == [["train-2", "train-0"]] and facts["constant"] == ["train-3"]


@pytest.mark.parametrize(
    "copy",
    {
        "whole": lambda values: values,
        "before the test window": lambda values: values[:-24],
        "before the validation window": lambda values: values[:-48],
        "longer than the benchmark's": lambda values: np.r_[RNG.normal(size=50), values, 1, 2, 3],
        "in other units": lambda values: -0.0 + 1000 * values + 12,
        "with holes in other places": lambda values: np.r_[np.nan, values, np.nan],
    }.items(),
    ids=lambda pair: pair[0],
)
def test_leakage_is_found(report, copy):
    train = [SERIES[3], copy[1](SERIES[0])]
    facts, output = report("--horizon", "24", train=train, test=[SERIES[0], SERIES[1]])
    assert facts["leaking"] == ["train-1"] and set(facts["leaks"]) == {"test"}
    assert "Warning" in output and "say nothing about unseen data" in output


def test_what_is_no_leakage(report):
    """Other series, earlier values, and windows that are alike by chance."""
    rare = np.zeros(200)
    rare[[20, 90, 150]] = 1
    early = SERIES[0][:100]
    facts, output = report(
        "--horizon", "24", train=[SERIES[3], early, rare, np.arange(200)], test=[*SERIES[:2], rare]
    )
    assert facts["leaking"] == [] and "Warning" not in output and "leakage" in output


def test_bad_arguments(tmp_path, capsys):
    write_dataset([{"target": SERIES[0]}], tmp_path / "train")
    assert main(["--report", str(tmp_path / "trian")]) == 2
    assert "no data set" in capsys.readouterr().err
    assert main(["--report", str(tmp_path / "train"), "--against", "lit"]) == 2
    assert "did you mean 'lite'" in capsys.readouterr().err
