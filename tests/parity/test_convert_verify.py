"""The list of models that are set beside their references, and what is said about each."""

import json

import pytest

pytest.importorskip("tsfm_public", reason="granite-tsfm is not installed")
pytest.importorskip("chronos", reason="chronos-forecasting is not installed")

import sys

from benchmarks import convert_verify, llama_import
from convert.verify import Row


def test_a_summary_has_the_worst_of_each_kind():
    rows = [
        Row("tokens", 1.0, 1.0),
        Row("block 0", 2e-5, 1e-3, 10.0),
        Row("loss", 3e-6, 1e-5, 1.0),
        Row("gradient a", 1e-5, 1e-4, 1.0, detail=True),
        Row("gradient b", 9e-6, 1e-5, 0.02, detail=True),
    ]
    found = convert_verify.measure(lambda: rows)
    assert (found["agrees"], found["first_difference"]) == (True, None)
    assert found["forward"] == pytest.approx(3e-6)
    assert found["gradient"] == pytest.approx(9e-6 / 0.02)
    assert found["share"] == pytest.approx(0.9)
    assert (found["gradients"], found["strict"]) == (2, 1)
    assert found["hardest_gradient"] == "b"
    bad = convert_verify.measure(lambda: [*rows, Row("gradient c", 1.0, 0.1, 1.0, detail=True)])
    assert (bad["agrees"], bad["first_difference"]) == (False, "gradient c")


def test_a_random_source_has_the_files_that_were_asked_for(tmp_path):
    parameters = llama_import.write_random(tmp_path / "m", "tiny", 3)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == 3
    assert parameters == 260_032
    assert llama_import.same(tmp_path / "m", tmp_path / "m")


@pytest.mark.slow
def test_every_model_agrees_with_its_reference(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["convert_verify", "--json", str(tmp_path / "all.json")])
    assert convert_verify.main() == 0
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["cases"].keys() | set(found["skipped"]) == set(convert_verify.CASES)
    assert all(case["agrees"] for case in found["cases"].values())
    assert found.get("story", "Once upon a time, there was").startswith("Once upon a time")


@pytest.mark.slow
def test_a_small_import_is_measured(tmp_path):
    found = llama_import.measure(tmp_path, "tiny", 3)
    assert found["folder"]["identical"] is True
    assert found["checkpoint"]["written_mb"] > 0.1
    assert found["program"]["peak_mb"] > 50
