"""Data sets from a hub on loopback: downloads, resumption, checksums, proxy, offline mode."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import fake_hub
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsmjax.evals import suites

HOURS = pd.date_range("2024-01-01", periods=60, freq="h")


def parquet(series, **columns):
    """Bytes of a file with one row for each of `series`."""
    rows = [
        {"id": f"T{n}", "timestamp": HOURS[: len(one)].to_numpy(), "target": one, **columns}
        for n, one in enumerate(series)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


MAIN, EXTRA = ("autogluon/chronos_datasets", "autogluon/chronos_datasets_extra")
SUITE = f"""
- {{name: hourly, hf_repo: {MAIN}, offset: -12, prediction_length: 6, num_rolls: 2}}
- {{name: scripted, hf_repo: {EXTRA}, offset: -4, prediction_length: 4, num_rolls: 1}}
"""


@pytest.fixture
def hub():
    noise = np.random.default_rng(0).normal(size=(3, 60))
    with fake_hub.serve() as server:
        fill(server, noise)
        yield server


def fill(server, noise):
    server.repositories[MAIN, "main"] = {
        "README.md": b"hello",
        "hourly/train-00000-of-00002.parquet": parquet(noise[:2]),
        "hourly/train-00001-of-00002.parquet": parquet(noise[2:]),
        "other/train-00000-of-00001.parquet": b"not asked for",
    }
    server.repositories[EXTRA, "main"] = {"make.py": b"print()"}
    server.repositories[EXTRA, "refs/convert/parquet"] = {
        "scripted/train/0000.parquet": parquet(noise[:1, :30], HUFL=noise[0, 30:])
    }


@pytest.fixture
def run(hub, tmp_path):
    """Run `prepare` against the hub; return (exit code, output)."""
    (tmp_path / "mine.yaml").write_text(SUITE)

    def call(*arguments, **environment):
        found = subprocess.run(
            [sys.executable, "-m", "tsmjax.prepare", *map(str, arguments)],
            env=fake_hub.environment(hub, tmp_path / "home", **environment),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return found.returncode, found.stdout + found.stderr

    return call


def test_a_suite_is_fetched_checked_and_evaluated(hub, run, tmp_path):
    arguments = ("benchmark", "--suite", tmp_path / "mine.yaml", "--dst", tmp_path / "data")
    hub.cut_next = True
    code, output = run(*arguments)
    assert code == 0, output
    assert "1/2 hourly: 3 series, fetched" in output and "2/2 scripted: 2 series" in output
    # The file that was cut off was asked for again.
    assert len(hub.files_asked_for()) == len(set(hub.files_asked_for())) + 1 == 4
    assert not any("other" in path for path in hub.files_asked_for())

    manifest = json.loads((tmp_path / "data" / "hourly" / "manifest.json").read_text())
    content = hub.repositories[MAIN, "main"]["hourly/train-00001-of-00002.parquet"]
    assert manifest["commit"] == fake_hub.COMMIT and manifest["rows"] == 3
    assert manifest["downloaded"][1] == {
        "file": "train-00001-of-00002.parquet",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    hourly, scripted = suites.from_file(tmp_path / "mine.yaml", tmp_path / "data")
    assert (hourly.season_length, hourly.horizon, hourly.offset, hourly.rolls) == (24, 6, -12, 2)
    assert [len(one) for one in hourly.series] == [60, 60, 60]
    assert [len(one) for one in scripted.series] == [30, 30]

    # Run again: nothing is downloaded, and a changed file is noticed.
    before = len(hub.requests)
    code, output = run(*arguments)
    assert code == 0 and "hourly: 3 series, kept" in output and len(hub.requests) == before
    (file,) = (tmp_path / "data" / "hourly").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-8] + b"12345678")
    code, output = run(*arguments)
    assert code == 2 and "differs from" in output and "delete the folder" in output


def test_an_interrupted_run_goes_on(hub, run, tmp_path):
    arguments = ("benchmark", "--suite", tmp_path / "mine.yaml", "--dst", tmp_path / "data")
    hub.fail = "scripted"
    code, output = run(*arguments)
    assert code == 2 and "scripted" in output and "Traceback" not in output
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["hourly"]
    with pytest.raises(ValueError, match=r"'scripted' of suite 'mine' is not in .*benchmark"):
        suites.from_file(tmp_path / "mine.yaml", tmp_path / "data")
    hub.fail, hub.requests = "", []
    code, output = run(*arguments)
    assert code == 0 and "hourly: 3 series, kept" in output
    assert all("scripted" in path for path in hub.files_asked_for())


def test_a_proxy_and_a_hub_id(hub, run, tmp_path):
    arguments = ("hf", "--src", MAIN, "--config", "hourly", "--dst")
    code, output = run(
        *arguments, tmp_path / "out", HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=hub.address
    )
    assert code == 0, output
    assert all(path.startswith("http://hub.invalid/") for _, path, _ in hub.requests)
    # What is in the cache needs no connection.
    hub.requests = []
    code, output = run(*arguments, tmp_path / "again", HF_HUB_OFFLINE="1")
    assert code == 0 and not hub.requests, output
    code, output = run("hf", "--src", EXTRA, "--dst", tmp_path / "third", HF_HUB_OFFLINE="1")
    assert code == 2 and "The hub did not deliver" in output and "Traceback" not in output
    code, output = run("hf", "--src", MAIN, "--config", "huorly", "--dst", tmp_path / "fourth")
    assert code == 2 and "no .parquet and no .arrow files in the folder 'huorly'" in output


def test_wrong_suites(run, tmp_path):
    (tmp_path / "local.yaml").write_text("- {path: x, horizon: 3}")
    for suite, words in (("liet", "did you mean 'lite'"), (tmp_path / "local.yaml", "hf_repo")):
        code, output = run("benchmark", "--suite", suite, "--dst", tmp_path / "data")
        assert code == 2 and words in output, output
