"""Data sets from a hub on loopback: downloads, resumption, checksums, proxy, offline mode."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsmjax.evals import suites

COMMIT = "c0ffee" * 6 + "c0ff"
HOURS = pd.date_range("2024-01-01", periods=60, freq="h")


class Hub(http.server.ThreadingHTTPServer):
    """Serves {(repository, branch): {path: bytes}} as huggingface.co does, as far as needed."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {}
        self.requests = []  # (method, path, Range header)
        self.cut_next = False  # send half of the next file and hang up
        self.fail = ""  # answer 500 for files whose path contains this

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        # A proxy is asked for whole addresses.
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(revision|tree)/(.+?)/?", path):
            repository, what, revision = match.groups()
            files = self._files(repository, revision)
            if files is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif what == "revision":
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": repository, "sha": self._commit(revision), "siblings": siblings})
            else:
                self._json([self._entry(name, content) for name, content in files.items()])
        elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(self._files(match[1], match[2])[match[3]], match[2], body, match[3])
        else:
            self.send_error(404)

    def _files(self, repository, revision):
        branch = "refs/convert/parquet" if revision.startswith(("refs", "dddd")) else "main"
        return self.server.repositories.get((repository, branch))

    def _commit(self, revision):
        return "d" * 40 if revision.startswith(("refs", "dddd")) else COMMIT

    def _entry(self, name, content):
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 9}
        return {"type": "file", "path": name, "size": len(content), "oid": "0" * 40, "lfs": lfs}

    def _json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, content, commit, body, name):
        if self.server.fail and self.server.fail in name:
            self.send_error(403)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            half = self.server.cut_next
            self.server.cut_next = False
            self.wfile.write(content[start : len(content) // 2 if half else None])
            if half:
                self.wfile.flush()
                self.connection.close()


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
    server = Hub()
    noise = np.random.default_rng(0).normal(size=(3, 60))
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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(hub, tmp_path):
    """Run `prepare` against the hub; return (exit code, output)."""
    (tmp_path / "mine.yaml").write_text(SUITE)

    def call(*arguments, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        found = subprocess.run(
            [sys.executable, "-m", "tsmjax.prepare", *map(str, arguments)],
            env={
                **clean,
                "HF_ENDPOINT": hub.address,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                **environment,
            },
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return found.returncode, found.stdout + found.stderr

    return call


def files_asked_for(hub):
    return [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


def test_a_suite_is_fetched_checked_and_evaluated(hub, run, tmp_path):
    arguments = ("benchmark", "--suite", tmp_path / "mine.yaml", "--dst", tmp_path / "data")
    hub.cut_next = True
    code, output = run(*arguments)
    assert code == 0, output
    assert "1/2 hourly: 3 series, fetched" in output and "2/2 scripted: 2 series" in output
    # The file that was cut off was asked for again.
    assert len(files_asked_for(hub)) == len(set(files_asked_for(hub))) + 1 == 4
    assert not any("other" in path for path in files_asked_for(hub))

    manifest = json.loads((tmp_path / "data" / "hourly" / "manifest.json").read_text())
    content = hub.repositories[MAIN, "main"]["hourly/train-00001-of-00002.parquet"]
    assert manifest["commit"] == COMMIT and manifest["rows"] == 3
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
    assert all("scripted" in path for path in files_asked_for(hub))


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
