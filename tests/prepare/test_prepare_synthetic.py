"""`prepare synthetic`: one corpus for any workers and shards, resumed, and refused when wrong."""

import hashlib
import json

import numpy as np
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.synthetic import tsmixup
from tsmjax.errors import InputError
from tsmjax.prepare import synthetic
from tsmjax.prepare.__main__ import main


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Files of 40 series, made 16 at a time."""
    monkeypatch.setattr(synthetic, "SERIES_OF_A_FILE", 40)
    monkeypatch.setattr(synthetic, "SERIES_OF_A_PIECE", 16)
    monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def prepare(tmp_path, capsys):
    """Write 100 exact Gaussian processes of 48 steps; return the exit code, folder and output."""

    def run(*options, dst="corpus", series=100, shares=("kernel_synth=1",)):
        arguments = ["--dst", str(tmp_path / dst), "--series", str(series), "--length", "48"]
        arguments += ["--min-length", "16", "--workers", "1"]
        arguments += ["--shares", *shares] if shares else []
        code = main(["synthetic", *arguments, *map(str, options)])
        captured = capsys.readouterr()
        return code, tmp_path / dst, " ".join((captured.out + captured.err).split())

    return run


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("data-*.arrow")}


def test_a_corpus_is_written_with_its_manifest(prepare):
    code, folder, output = prepare()
    assert code == 0 and "100 series written" in output and "Complete: 100 items" in output
    source = ArrowSource(folder)
    found = [item.target[0].tobytes() for item in source.read(np.arange(100))]
    assert len(set(found)) == 100 and source.metadata(99)["item_id"] == "kernel_synth/99"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["weights"] == {"kernel_synth": 1}
    assert manifest["files"] == [[0, 40], [40, 80], [80, 100]]
    assert manifest["parameters"]["max_length"] == 48


def test_workers_and_shards_change_no_bit(prepare):
    _, whole, _ = prepare()
    assert len(digests(whole)) == 3
    _, folder, _ = prepare("--workers", 2, dst="two_workers")
    assert digests(folder) == digests(whole)
    for shard in (1, 0):
        code, folder, output = prepare("--shard", f"{shard}/2", dst="shards")
        assert code == 0
        if shard:
            assert "2 of its 3 files are missing yet" in output
            with pytest.raises(InputError, match="lacks data-00000-of-00003"):
                ArrowSource(folder)
    assert digests(folder) == digests(whole)


def test_finished_files_are_kept_and_missing_ones_made(prepare):
    _, folder, _ = prepare()
    wanted = digests(folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("data-*.arrow")}
    lost = folder / "data-00001-of-00003.arrow"
    lost.unlink()
    (folder / f".{lost.name}.0123abcd").write_text("what a killed job leaves")
    code, _, output = prepare()
    assert code == 0 and "40 series written" in output and "2 files kept" in output
    assert digests(folder) == wanted and not list(folder.glob(".data-*"))
    kept = folder / "data-00002-of-00003.arrow"
    assert kept.stat().st_mtime_ns == times[kept.name]


def test_other_options_are_refused_in_the_same_folder(prepare):
    prepare()
    code, folder, output = prepare("--seed", 3)
    assert (
        code == 2 and "holds another corpus (parameters: {'seed': 0} there, {'seed': 3}" in output
    )
    code, _, output = prepare(series=110)
    assert code == 2 and "(series: 100 there, 110 here)" in output
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "notes.txt").write_text("mine")
    code, _, output = prepare(dst="other")
    assert code == 2 and "is not empty" in output


def test_mixtures_of_other_data(prepare, tmp_path):
    base = [{"target": np.full(60, value, np.float32)} for value in (3.0, 7.0, 9.0)]
    write_dataset(base, tmp_path / "base")
    shares = ("tsmixup=3", "kernel_synth=1")
    _, folder, _ = prepare("--sources", tmp_path / "base", shares=shares)
    source = ArrowSource(folder)
    names = [source.metadata(i)["item_id"].split("/")[0] for i in range(100)]
    assert 70 <= names.count("tsmixup") <= 80 and "kernel_synth" in names
    mixed = [item.target[0] for item, name in zip(source.read(np.arange(100)), names, strict=True)
             if name == "tsmixup"]  # fmt: skip
    assert all(np.allclose(values, 1.0) and 16 <= len(values) <= 48 for values in mixed)
    random = np.random.default_rng([0, 5])
    series = [row["target"] for row in base]
    np.testing.assert_array_equal(mixed[5], tsmixup.mix(series, random, 16, 48))


def test_generators_of_blocks(prepare):
    _, folder, _ = prepare(shares=("arima=3", "kernel_synth=1"))
    source = ArrowSource(folder)
    ids = [source.metadata(i)["item_id"] for i in range(100)]
    made = [name for name in ids if name.startswith("corpus")]
    assert 70 <= len(made) <= 80 and made == [f"corpus/{n}" for n in range(len(made))]
    assert source.max_length == 48 and source.min_length >= 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "2/2"], ["--shard is '2/2'", "0 to n − 1"]),
        (["--shares", "etz=3"], ["'etz'", "did you mean 'ets'"]),
        (["--shares", "ets=much"], ["ets=much", "ets=10"]),
        (["--shares", "ets=0"], ["share of every generator is 0"]),
        (["--length", "0"], ["--length is 0"]),
        (["--min-length", "90"], ["min_length is greater than max_length"]),
        (["--shares", "tsmixup=1"], ["--sources"]),
        (["--variates", "3"], ["single series"]),
        (["--missing", "200", "--shares", "ets=1"], ["missing is 200 per cent"]),
    ],
)
def test_bad_options(prepare, options, words):
    code, folder, output = prepare(*options)
    assert code == 2 and all(word in output for word in words), output
    assert not folder.exists()
