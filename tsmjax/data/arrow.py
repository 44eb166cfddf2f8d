"""Random access to series in Arrow files: memory-mapped, zero copy, no decoding.

One row is one item: a series, or several variates of one item with their covariates. Hugging Face
``save_to_disk`` folders, folders of ``.arrow`` files, single ``.arrow`` files (stream and file
format) and ``.parquet`` files are read. Parquet, compressed Arrow and columns with nulls are
rewritten once, in the cache folder.

At first open an index is written next to the data (or in the cache folder): for each row the byte
positions of its values. Later opens map the index, so they cost the same for ten rows and ten
million, and reading a row is a slice of a mapped file.

Columns:
  target: numbers, ``list`` (one series) or ``list of list`` (variates of equal length).
  past_feat_dynamic_real: covariates known in the past only, ``list of list``, as long as `target`.
  feat_dynamic_real: covariates known in the future too, ``list of list``, as long as `target`.
  item_id, start, timestamp, freq, …: anything else is kept for `ArrowSource.metadata`.

What the variates are called is the same for all rows and stands once, in the metadata of the Arrow
schema: `ArrowSource.names`. So do the facts about a sensor data set (`tsmjax.data.sensor`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsmjax.data import gather
from tsmjax.data.cache import beside, cache_folder, make_once
from tsmjax.errors import InputError, closest

# Column name and the field of an index record that counts its variates; in the order of `gather`.
VALUE_COLUMNS = {
    "target": "targets",
    "past_feat_dynamic_real": "past",
    "feat_dynamic_real": "future",
}
# Keys of a row to write that are the same for all rows, and of the schema's metadata:
NAMES, SENSOR = "names", "sensor"
_VERSION = 1
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_NATIVE = {  # leaf types whose buffers NumPy reads as they are
    pa.from_numpy_dtype(kind): np.dtype(kind)
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
}


class Item(NamedTuple):
    """One row: read-only views into the mapped file, each of shape (variates, length).

    Attributes:
      target: what is forecast.
      past: covariates known in the past only; zero variates when there are none.
      future: covariates known in the future too; zero variates when there are none.
    """

    target: np.ndarray
    past: np.ndarray
    future: np.ndarray


class ArrowSource:
    """Rows of an Arrow data set by number. Pickles as a path.

    Attributes:
      path: the folder or file that was opened.
      rows: index records, a structured array of shape (rows,), memory-mapped. Fields: `file`,
        `length`, and for each value column the number of variates and `<name>_at`, the byte
        position of its values in the file.
      min_length: length of the shortest series.
      max_length: length of the longest series.
      max_group: largest number of variates of a row, covariates included.
      mean_group: their mean.
    """

    def __init__(self, path: str | os.PathLike):
        """Open `path`.

        Raises:
          InputError: when there are no Arrow files, one is truncated, `target` is missing or not
            numeric, lengths within a row differ, or there are no rows.
        """
        self.path = Path(path).expanduser().absolute()
        files = _find_files(self.path)
        header, rows_path = _open_index(self.path, files)
        self.rows = np.load(rows_path, mmap_mode="r")
        self.min_length: int = header["min_length"]
        self.max_length: int = header["max_length"]
        self.max_group: int = header["max_group"]
        self.mean_group: float = header["mean_group"]
        self._files = header["files"]
        self._first_rows = np.cumsum([0] + [file["rows"] for file in self._files])
        self._maps: dict[int, pa.Buffer] = {}
        self._tables: dict[int, pa.Table] = {}
        self._fields = [
            (count, f"{count}_at", name)
            for name, count in VALUE_COLUMNS.items()
            if count in self.rows.dtype.names
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        """Return row `index` without copying its values."""
        return next(self.read(np.asarray([index])))

    def read(self, indices: np.ndarray) -> Iterator[Item]:
        """Yield the rows `indices` without copying their values."""
        records = self.rows[indices]
        names = records.dtype.names
        files, lengths = names.index("file"), names.index("length")
        columns = [(names.index(count), names.index(at), name) for count, at, name in self._fields]
        for record in records.tolist():
            length = record[lengths]
            parts = [
                self._view(record[files], name, record[count], length, record[at])
                for count, at, name in columns
            ]
            empty = parts[0][:0]
            found = dict(zip((name for *_, name in columns), parts, strict=True))
            yield Item(*(found.get(name, empty) for name in VALUE_COLUMNS))

    @functools.cached_property
    def names(self) -> dict[str, list[str]]:
        """Value column → the names of its variates; empty when the data set does not tell."""
        return self.common(NAMES)

    def common(self, key: str) -> dict[str, Any]:
        """Return what the schema's metadata hold under `key`; empty when there is nothing."""
        with pa.memory_map(self._files[0]["path"]) as source:
            schema = next(_batches(Path(self._files[0]["path"]), source)).schema
        return json.loads((schema.metadata or {}).get(key.encode(), b"{}"))

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column that holds no values (`item_id`, …) for all rows, memory-mapped.

        Raises:
          InputError: when there is none of that name.
        """
        chunks = []
        for number, file in enumerate(self._files):
            table = self._others(number)
            if name not in table.column_names:
                known = table.column_names
                raise InputError(
                    f"{file['path']} has no column {name!r}{closest(name, known)}; beside values "
                    f"it has {', '.join(known) or 'none'}."
                )
            chunks += table.column(name).chunks
        return pa.chunked_array(chunks)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of the rows `indices`, int64."""
        return self.rows["length"][indices].astype(np.int64)

    def windows(
        self, indices: np.ndarray, cuts: np.ndarray, ends: np.ndarray, past: int, ahead: int
    ) -> gather.Windows:
        """Copy a window of each of the rows `indices`; see `gather.windows`."""
        records = self.rows[indices]
        variates, at = np.zeros((2, len(records), len(VALUE_COLUMNS)), np.int64)
        kinds = list(VALUE_COLUMNS)
        for count, position, name in self._fields:
            kind = kinds.index(name)
            variates[:, kind], at[:, kind] = records[count], records[position]
        places = gather.Places(records["file"], records["length"].astype(np.int64), variates, at)

        def buffers(file: int, kind: int) -> tuple[pa.Buffer, np.dtype]:
            return self._map(file), np.dtype(self._files[file]["dtypes"][kinds[kind]])

        return gather.windows(places, buffers, cuts, ends, past, ahead)

    def metadata(self, index: int) -> dict[str, Any]:
        """Return the columns of row `index` that are not values (item_id, start, freq, …)."""
        file = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        return self._others(file).slice(index - self._first_rows[file], 1).to_pylist()[0]

    def _others(self, file: int) -> pa.Table:
        """Return the columns of a file that are not values."""
        if file not in self._tables:
            table = _read_table(Path(self._files[file]["path"]))
            self._tables[file] = table.drop_columns(
                [name for name in VALUE_COLUMNS if name in table.column_names]
            )
        return self._tables[file]

    def _view(self, file: int, column: str, variates: int, length: int, at: int) -> np.ndarray:
        values = np.frombuffer(
            self._map(file), self._files[file]["dtypes"][column], variates * length, at
        )
        return values.reshape(variates, length)

    def _map(self, file: int) -> pa.Buffer:
        try:
            return self._maps[file]
        except KeyError:
            # The map outlives the file handle, so that thousands of files need no open handles.
            with pa.memory_map(self._files[file]["path"]) as handle:
                mapped = self._maps[file] = handle.read_buffer()
            return mapped


# ---------------------------------------------------------------------------- finding the files


def _find_files(path: Path) -> list[Path]:
    """Return the Arrow and Parquet files of a data set, in order."""
    if not path.exists():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"There is no data set at {path}{closest(path.name, names)}.")
    if path.is_file():
        if path.suffix not in (".arrow", ".parquet"):
            raise InputError(
                f"{path} is neither .arrow nor .parquet; "
                "python -m tsmjax.prepare --help lists the formats that can be converted."
            )
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
        raise InputError(f"{path} holds the splits {', '.join(splits)}: name one, as {path}/NAME.")
    if (path / "state.json").exists():
        listed = json.loads((path / "state.json").read_text())["_data_files"]
        files = [path / entry["filename"] for entry in listed]
        if missing := [file.name for file in files if not file.exists()]:
            raise InputError(
                f"{path} lacks {missing[0]}, which its state.json lists: copy it again."
            )
        return files
    for suffix in (".arrow", ".parquet"):
        if files := sorted(path.glob(f"*{suffix}")):
            return files
    raise InputError(
        f"The folder {path} holds no .arrow and no .parquet files; "
        "python -m tsmjax.prepare makes such a folder from raw files."
    )


# ------------------------------------------------------------------------------------- the index


def _open_index(path: Path, files: list[Path]) -> tuple[dict[str, Any], Path]:
    """Return the index header and the path of its rows, building both when they are out of date."""
    stats = [file.stat() for file in files]
    name = digest([str(path), *(file.name for file in files)])
    state = digest([_VERSION, *((stat.st_size, stat.st_mtime_ns) for stat in stats)])
    stem = f"index-{name}-{state}"
    folders = [(path if path.is_dir() else path.parent) / ".tsmjax", cache_folder() / "index"]
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            header = json.loads((folder / f"{stem}.json").read_text())
            if all(Path(file["path"]).exists() for file in header["files"]):
                return header, folder / f"{stem}.npy"

    header, rows = _build_index(path, files)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with beside(folder / f"{stem}.npy") as unfinished, open(unfinished, "wb") as handle:
                np.save(handle, rows)
            # The header is written last: where it exists, the rows do.
            with beside(folder / f"{stem}.json") as unfinished:
                unfinished.write_text(json.dumps(header))
        except OSError:
            continue  # read-only data: the cache folder takes it
        for stale in folder.glob(f"index-{name}-*"):
            if not stale.name.startswith(stem):
                stale.unlink(missing_ok=True)
        return header, folder / f"{stem}.npy"
    raise InputError(
        f"Neither {folders[0]} nor {folders[1]} can be written, and the index of {path} must go "
        "somewhere: set TSMJAX_CACHE to a folder with space."
    )


def digest(values: list[Any]) -> str:
    """Return 16 hexadecimal digits that tell lists of JSON values apart."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _build_index(path: Path, files: list[Path]) -> tuple[dict[str, Any], np.ndarray]:
    """Read the offsets of all rows and return the header and the index records."""
    parts, described = [], []
    for number, file in enumerate(files):
        try:
            data, records, dtypes = file, *_scan(file)
        except _NotMappableError:
            data = _rewritten(file)
            records, dtypes = _scan(data)
        records["file"] = number
        parts.append(records)
        described.append({"path": str(data), "rows": len(records), "dtypes": dtypes})
    fields = {name: kind for part in parts for name, kind in part.dtype.descr}
    rows = np.zeros(sum(map(len, parts)), list(fields.items()))
    if not len(rows):
        raise InputError(f"{path} has zero rows.")
    first = 0
    for part in parts:
        for name in part.dtype.names:
            rows[name][first : first + len(part)] = part[name]
        first += len(part)
    groups = sum(rows[name].astype(np.int64) for name in VALUE_COLUMNS.values() if name in fields)
    header = {
        "files": described,
        "min_length": int(rows["length"].min()),
        "max_length": int(rows["length"].max()),
        "max_group": int(groups.max()),
        "mean_group": float(groups.mean()),
    }
    return header, rows


class _NotMappableError(Exception):
    """The values are not in the file as plain numbers: Parquet, compression, nulls, booleans."""


def _scan(file: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Return the index records of one file, and the NumPy type of each value column."""
    if file.suffix == ".parquet":
        raise _NotMappableError
    with pa.memory_map(str(file)) as source:
        base = source.read_buffer().address if source.size() else 0
        source.seek(0)
        parts, dtypes, first = [], {}, 0
        with _arrow_errors(file):
            for batch in _batches(file, source):
                dtypes = _check_schema(batch.schema, file)
                if any(dtype is None for dtype in dtypes.values()):
                    raise _NotMappableError
                parts.append(_locate(batch, base, source.size(), file, first))
                first += batch.num_rows
    if not parts:
        return np.zeros(0, [("file", "u4"), ("length", "u4")]), {}
    return np.concatenate(parts), {name: dtype.str for name, dtype in dtypes.items()}


def _batches(file: Path, source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a mapped file, in either of Arrow's two formats."""
    if source.size() == 0:
        raise InputError(f"{file} is an empty file: copy or write it again.")
    if source.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(source)
        _check_schema(reader.schema, file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        return
    # A stream that was cut between two messages would read as a shorter stream.
    source.seek(max(0, source.size() - 8))
    if source.read(8) != _END_OF_STREAM:
        raise pa.ArrowInvalid("no end-of-stream mark")
    source.seek(0)
    reader = pa.ipc.open_stream(source)
    _check_schema(reader.schema, file)
    yield from reader


@contextlib.contextmanager
def _arrow_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{file} is truncated or is no Arrow file ({error}): copy or write it again."
        ) from error


def _check_schema(schema: pa.Schema, file: Path) -> dict[str, np.dtype | None]:
    """Return the NumPy type of each value column (None when NumPy has none), or raise."""
    if "target" not in schema.names:
        raise InputError(
            f"{file} has no column 'target'{closest('target', schema.names)}; "
            f"its columns are {', '.join(schema.names)}."
        )
    dtypes = {}
    for name in VALUE_COLUMNS:
        if name not in schema.names:
            continue
        leaf, depth = schema.field(name).type, 0
        while _is_list(leaf):
            leaf, depth = leaf.value_type, depth + 1
        numeric = leaf in _NATIVE or pa.types.is_boolean(leaf) or pa.types.is_decimal(leaf)
        if depth not in (1, 2) or not (numeric or pa.types.is_null(leaf)):
            advice = (
                "; one row must hold one whole series: python -m tsmjax.prepare csv converts long "
                "tables"
                if depth == 0 and numeric
                else ""
            )
            raise InputError(
                f"Column {name!r} of {file} is of type {schema.field(name).type}, "
                f"but must be a list of numbers or a list of such lists{advice}."
            )
        dtypes[name] = _NATIVE.get(leaf)
    return dtypes


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _locate(batch: pa.RecordBatch, base: int, size: int, file: Path, first: int) -> np.ndarray:
    """Return the index records of one record batch; `first` is the number of its first row."""
    names = [name for name in VALUE_COLUMNS if name in batch.schema.names]
    kinds = [("file", "u4"), ("length", "u4")]
    for name in names:
        kinds += [(VALUE_COLUMNS[name], "u4"), (f"{VALUE_COLUMNS[name]}_at", "i8")]
    records = np.zeros(batch.num_rows, kinds)
    for name in names:
        variates, lengths, at = _layout(
            batch.column(name), base, size, f"{name!r} of {file}", first
        )
        count = VALUE_COLUMNS[name]
        records[count], records[f"{count}_at"] = variates, at
        if name == "target":
            records["length"] = lengths
        elif (wrong := np.flatnonzero((variates > 0) & (lengths != records["length"]))).size:
            row = wrong[0]
            raise InputError(
                f"In row {first + row} of {file}, {name!r} has {lengths[row]} steps and 'target' "
                f"has {records['length'][row]}: covariates must be as long as the target."
            )
    return records


def _layout(
    array: pa.Array, base: int, size: int, where: str, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (variates, length, byte position of the first value) of each row of a column."""
    starts, lengths = _ranges(array)
    variates = np.ones(len(array), np.int64)
    variates[array.is_null().to_numpy(zero_copy_only=False)] = 0
    values = array.values
    if _is_list(values.type):
        inner_starts, inner_lengths = _ranges(values)
        variates, rows = lengths, np.repeat(np.arange(len(array)), lengths)
        inner = np.arange(len(rows)) + np.repeat(
            starts - (np.cumsum(variates) - variates), variates
        )
        some = np.flatnonzero(variates)
        lengths, starts = np.zeros_like(variates), np.zeros_like(variates)
        lengths[some] = inner_lengths[np.append(inner, 0)[np.cumsum(variates)[some] - 1]]
        ragged = np.flatnonzero(inner_lengths[inner] != lengths[rows])
        if ragged.size:
            raise InputError(
                f"The variates in row {first + rows[ragged[0]]} of {where} differ in length: "
                "pad the shorter ones with NaN."
            )
        starts[some] = inner_starts[inner[(np.cumsum(variates) - variates)[some]]]
        values = values.values
    buffer = values.buffers()[1]
    if values.null_count:
        raise _NotMappableError
    if not len(values):
        return variates, lengths, np.zeros_like(starts)
    if not base <= buffer.address < base + size:
        raise _NotMappableError  # decompressed into memory
    position = buffer.address - base + starts * _NATIVE[values.type].itemsize
    return variates, lengths, position


def _ranges(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return where each list of `array` starts in ``array.values``, and its length."""
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        starts = (array.offset + np.arange(len(array))) * width
        lengths = np.full(len(array), width)
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    if array.null_count:
        lengths = np.where(array.is_null().to_numpy(zero_copy_only=False), 0, lengths)
    return starts, lengths


# ------------------------------------------------------------------------ rewriting what cannot map


def _rewritten(file: Path) -> Path:
    """Return a mappable copy of `file` in the cache folder: plain floats, NaN for nulls."""
    stat = file.stat()
    key = digest([str(file.absolute()), stat.st_size, stat.st_mtime_ns])

    def make(unfinished: Path) -> None:
        with _arrow_errors(file), contextlib.ExitStack() as stack:
            if file.suffix == ".parquet":
                parquet = stack.enter_context(pq.ParquetFile(file))
                schema, batches = parquet.schema_arrow, parquet.iter_batches(batch_size=1024)
                _check_schema(schema, file)
            else:
                batches = _batches(file, stack.enter_context(pa.memory_map(str(file))))
            writer = None
            for batch in batches:
                plain = pa.RecordBatch.from_pydict(
                    {
                        name: _plain(batch.column(name)) if name in VALUE_COLUMNS else batch[name]
                        for name in batch.schema.names
                    },
                    metadata=batch.schema.metadata,
                )
                if writer is None:
                    writer = stack.enter_context(pa.ipc.new_stream(str(unfinished), plain.schema))
                writer.write_batch(plain)
            if writer is None:
                raise InputError(f"{file} has zero rows.")

    return make_once(cache_folder() / "converted" / f"{file.stem}-{key}.arrow", make)


def _plain(array: pa.Array) -> pa.Array:
    """Return lists of floats without nulls: NaN for null numbers, empty lists for null lists."""
    if not _is_list(array.type):
        if array.type in (pa.float32(), pa.float64()):
            return array.fill_null(float("nan"))
        return array.cast(pa.float64()).fill_null(float("nan"))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(offsets, _plain(array.flatten()))


def _read_table(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        return pa.Table.from_batches(list(_batches(file, source)))
