"""Reading Arrow data sets: formats, zero copy, the index, and every kind of bad input."""

import json
import os
import pickle
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError


def write_stream(path, table, **options):
    with pa.ipc.new_stream(str(path), table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def targets(source):
    return [item.target for item in source.read(np.arange(len(source)))]


SERIES = [[1.0, 2.0, 3.0], [4.0, 5.0], [], [6.0], [7.0, 8.0, 9.0, 10.0]]


@pytest.mark.parametrize("list_type", [pa.list_, pa.large_list])
@pytest.mark.parametrize(
    "number", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64()]
)
def test_every_number_type_and_list_type(tmp_path, list_type, number):
    array = pa.array(SERIES, pa.list_(pa.float64())).cast(list_type(number))
    source = ArrowSource(write_stream(tmp_path / "a.arrow", pa.table({"target": array})))
    assert [found.ravel().tolist() for found in targets(source)] == SERIES
    assert source[0].target.dtype == number.to_pandas_dtype()
    assert (source.min_length, source.max_length) == (0, 4)


def test_fixed_size_lists_of_variates(tmp_path):
    values = np.arange(24.0).reshape(4, 2, 3)
    kind = pa.list_(pa.list_(pa.float64(), 3), 2)
    table = pa.table({"target": pa.array(values.tolist(), kind)})
    source = ArrowSource(write_stream(tmp_path / "a.arrow", table))
    assert source.max_group == 2
    np.testing.assert_array_equal(targets(source), values)


def test_file_format_parquet_and_compression_read_the_same(tmp_path):
    table = pa.table({"target": pa.array(SERIES), "item_id": list("abcde")})
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    write_stream(tmp_path / "zstd.arrow", table, options=options)
    for name in ("file.arrow", "a.parquet", "zstd.arrow"):
        source = ArrowSource(tmp_path / name)
        assert [found.ravel().tolist() for found in targets(source)] == SERIES, name
        assert source.metadata(3) == {"item_id": "d"}


def test_names_stand_once_for_all_rows_and_survive_a_rewrite(tmp_path):
    names = {"target": ["a", "b"], "feat_dynamic_real": ["price"]}
    row = {"target": np.ones((2, 5)), "feat_dynamic_real": np.ones((1, 5)), "names": names}
    write_dataset([row, row], tmp_path / "d")
    assert ArrowSource(tmp_path / "d").names == names
    table = pa.ipc.open_stream(tmp_path / "d" / "data-00000-of-00001.arrow").read_all()
    assert "names" not in table.column_names
    pq.write_table(table, tmp_path / "d.parquet")
    assert ArrowSource(tmp_path / "d.parquet").names == names


def test_nulls_are_missing_values(tmp_path):
    rows = [[1.0, None, 3.0], None, [4.0]]
    source = ArrowSource(write_stream(tmp_path / "a.arrow", pa.table({"target": pa.array(rows)})))
    np.testing.assert_array_equal(source[0].target, [[1.0, np.nan, 3.0]])
    assert [found.size for found in targets(source)] == [3, 0, 1]


def test_conversion_is_kept_until_the_file_changes(tmp_path, cache):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"target": [[1.0, 2.0]]}), path)
    ArrowSource(path)
    (converted,) = (cache / "converted").glob("*.arrow")
    before = converted.stat().st_mtime_ns
    ArrowSource(path)
    assert converted.stat().st_mtime_ns == before
    pq.write_table(pa.table({"target": [[3.0, 4.0, 5.0]]}), path)
    assert ArrowSource(path)[0].target.tolist() == [[3.0, 4.0, 5.0]]


def test_covariates(dataset):
    source = ArrowSource(dataset("a", [5, 7], targets=2, past=1, future=3))
    item = source[1]
    assert [part.shape for part in item] == [(2, 7), (1, 7), (3, 7)]
    assert item.past[0, 0] == 12_000 and item.future[2, 6] == 15_006
    assert (source.max_group, source.mean_group) == (6, 6.0)


def test_rows_are_views_of_the_file(dataset):
    item = ArrowSource(dataset("a", [50]))[0]
    assert not item.target.flags.writeable and not item.target.flags.owndata


def test_mapped_files_hold_no_handles(tmp_path):
    for number in range(50):
        write_stream(tmp_path / f"{number:02d}.arrow", pa.table({"target": [[float(number)]]}))
    source = ArrowSource(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    items = list(source.read(np.arange(50)))
    assert len(os.listdir("/proc/self/fd")) == before
    assert [item.target[0, 0] for item in items] == list(range(50))


def test_hugging_face_reads_what_we_write(dataset):
    loaded = datasets.load_from_disk(dataset("a", [3, 4], targets=2, future=1))
    assert loaded.num_rows == 2
    assert loaded[1]["target"][1] == [11_000.0, 11_001.0, 11_002.0, 11_003.0]
    assert loaded["item_id"][:] == ["item-0", "item-1"]


def test_we_read_what_hugging_face_writes(tmp_path):
    rows = {"target": [[1.0, 2.0], [3.0]] * 10, "start": ["2020-01-01"] * 20}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "hf", num_shards=3)
    source = ArrowSource(tmp_path / "hf")
    assert [found.ravel().tolist() for found in targets(source)] == rows["target"]
    assert source.metadata(19) == {"start": "2020-01-01"}


def test_shards_keep_the_order(tmp_path):
    rows = ({"target": np.full(3, i, np.float32), "n": i} for i in range(3500))
    assert write_dataset(rows, tmp_path / "a", shard_bytes=10_000) == 3500
    assert len(list((tmp_path / "a").glob("data-*-of-00004.arrow"))) == 4
    source = ArrowSource(tmp_path / "a")
    assert [found[0, 0] for found in targets(source)] == list(range(3500))
    assert source.metadata(2999) == {"n": 2999}


def test_a_source_pickles_as_its_path(dataset):
    source = ArrowSource(dataset("a", [1000] * 500))
    packed = pickle.dumps(source)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)[7].target, source[7].target)


def test_the_index_is_reused(dataset, monkeypatch):
    path = dataset("a", [5, 6])
    ArrowSource(path)

    def scan(file):
        raise AssertionError("the files were scanned again")

    monkeypatch.setattr("tsmjax.data.arrow._scan", scan)
    assert ArrowSource(path)[1].target.shape == (1, 6)


def test_the_index_follows_the_file(tmp_path):
    path = tmp_path / "a.arrow"
    write_stream(path, pa.table({"target": [[1.0, 2.0], [3.0, 4.0]]}))
    ArrowSource(path)
    write_stream(path, pa.table({"target": [[5.0], [6.0], [7.0]]}))
    assert [found.tolist() for found in targets(ArrowSource(path))] == [[[5.0]], [[6.0]], [[7.0]]]
    assert len(list((tmp_path / ".tsmjax").iterdir())) == 2  # the old index is gone


def test_the_index_follows_a_file_of_equal_size(tmp_path):
    path = tmp_path / "a.arrow"
    write_stream(path, pa.table({"target": [[1.0, 2.0, 3.0], [4.0]]}))
    ArrowSource(path)
    size = path.stat().st_size
    write_stream(path, pa.table({"target": [[1.0], [2.0, 3.0, 4.0]]}))
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size == size
    assert [found.size for found in targets(ArrowSource(path))] == [1, 3]


def test_a_read_only_folder_has_its_index_in_the_cache(dataset, cache, monkeypatch):
    path = dataset("a", [5])
    made = os.mkdir

    def mkdir(folder, *arguments, **options):
        if str(folder).startswith(path):
            raise PermissionError(folder)
        made(folder, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert len(ArrowSource(path)) == 1
    assert len(list((cache / "index").iterdir())) == 2


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def rows():
        yield {"target": np.ones(3)}
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        write_dataset(rows(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_data_package_imports_no_jax():
    code = (
        "import sys, tsmjax.data.arrow, tsmjax.data.packing, tsmjax.data.synthetic.embedded;"
        "assert 'jax' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------- bad input


def stream(rows, column="target"):
    return lambda folder: write_stream(folder / "a.arrow", pa.table({column: rows}))


def truncated(at):
    def make(folder):
        path = write_stream(folder / "cut.arrow", pa.table({"target": [[1.0] * 100] * 4}))
        path.write_bytes(path.read_bytes()[:at])
        return path

    return make


def cut_between_messages(folder):
    table = pa.table({"target": [[1.0] * 100] * 4})
    path = folder / "cut.arrow"
    with open(path, "wb") as handle:
        writer = pa.ipc.new_stream(handle, table.schema)
        writer.write_table(table, max_chunksize=2)
        handle.flush()
        size = handle.tell()
        writer.close()
    path.write_bytes(path.read_bytes()[:size])
    return path


def truncated_file_format(folder):
    table = pa.table({"target": [[1.0] * 100] * 4})
    with pa.ipc.new_file(str(folder / "cut.arrow"), table.schema) as writer:
        writer.write_table(table)
    content = (folder / "cut.arrow").read_bytes()
    (folder / "cut.arrow").write_bytes(content[:-20])
    return folder / "cut.arrow"


def broken_parquet(folder):
    (folder / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    return folder / "cut.parquet"


def empty_file(folder):
    (folder / "none.arrow").touch()
    return folder / "none.arrow"


def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def misspelt(folder):
    (folder / "electricity").mkdir()
    return folder / "electrcity"


def splits(folder):
    part = datasets.Dataset.from_dict({"target": [[1.0]]})
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(folder / "d")
    return folder / "d"


def lost_shard(folder):
    datasets.Dataset.from_dict({"target": [[1.0]] * 4}).save_to_disk(folder / "d", num_shards=2)
    (folder / "d" / "data-00001-of-00002.arrow").unlink()
    return folder / "d"


def zero_rows(folder):
    empty = pa.table({"target": pa.array([], pa.list_(pa.float32()))})
    return write_stream(folder / "a.arrow", empty)


def short_covariate(folder):
    rows = {"target": [[1.0], [1.0, 2.0]], "feat_dynamic_real": [[[1.0]], [[1.0]]]}
    return write_stream(folder / "a.arrow", pa.table(rows))


def table_of_values(folder):
    pq.write_table(pa.table({"target": [1.0, 2.0]}), folder / "long.parquet")
    return folder / "long.parquet"


def text_file(folder):
    (folder / "a.csv").write_text("1,2")
    return folder / "a.csv"


BAD = {
    "missing": (misspelt, ["no data set at", "electrcity", "did you mean 'electricity'"]),
    "no files": (empty_folder, ["empty", "no .arrow", "tsmjax.prepare"]),
    "other file": (text_file, ["a.csv", "neither .arrow nor .parquet", "prepare"]),
    "empty file": (empty_file, ["none.arrow", "empty file"]),
    "cut inside": (truncated(900), ["cut.arrow", "truncated"]),
    "cut in the schema": (truncated(40), ["cut.arrow", "truncated"]),
    "cut between messages": (cut_between_messages, ["cut.arrow", "truncated"]),
    "cut file format": (truncated_file_format, ["cut.arrow", "truncated"]),
    "broken parquet": (broken_parquet, ["cut.parquet", "truncated"]),
    "splits": (splits, ["train, test", "name one"]),
    "lost shard": (lost_shard, ["data-00001-of-00002.arrow", "state.json"]),
    "no target": (stream([[1.0]], "targets"), ["no column 'target'", "did you mean 'targets'"]),
    "text": (stream([["a", "b"]]), ["'target'", "list<item: string>", "list of numbers"]),
    "scalars": (stream([1.0, 2.0]), ["'target'", "double", "tsmjax.prepare csv"]),
    "scalars in parquet": (table_of_values, ["long.parquet", "double", "tsmjax.prepare csv"]),
    "too deep": (stream([[[[1.0]]]]), ["'target'", "list of such lists"]),
    "ragged": (stream([[[1.0], [1.0]], [[1.0, 2.0], [3.0]]]), ["row 1", "differ in length", "NaN"]),
    "short covariate": (short_covariate, ["row 1", "feat_dynamic_real", "1 steps", "2"]),
    "zero rows": (zero_rows, ["a.arrow", "zero rows"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path, case):
    make, words = BAD[case]
    with pytest.raises(InputError) as caught:
        ArrowSource(make(tmp_path))
    message = str(caught.value)
    assert all(word in message for word in words), message


def test_a_full_folder_is_not_written_over(dataset, tmp_path):
    path = dataset("a", [3])
    with pytest.raises(OSError):
        write_dataset([{"target": np.ones(3)}], path)
    assert len(ArrowSource(path)) == 1
    assert json.loads((tmp_path / "a" / "state.json").read_text())["_data_files"]
