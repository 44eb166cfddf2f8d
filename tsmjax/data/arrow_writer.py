"""Writing of Arrow data sets: folders that `ArrowSource` and ``datasets.load_from_disk`` open."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tsmjax.data.arrow import NAMES, SENSOR, VALUE_COLUMNS, digest
from tsmjax.data.cache import beside
from tsmjax.errors import InputError


def write_dataset(
    rows: Iterable[Mapping[str, Any]], folder: str | os.PathLike, shard_bytes: int = 500_000_000
) -> int:
    """Write rows as a folder that `ArrowSource` and ``datasets.load_from_disk`` open.

    Args:
      rows: mappings with `target` (a 1-D array, or 2-D of shape (variates, length)) and optionally
        the other columns of `tsmjax.data.arrow`; all rows have the columns of the first. Floats
        are stored as float32 (float64 when the first row's target is float64), `start` as a
        timestamp. `names` of the first row, value column → names of its variates, is no column:
        see `ArrowSource.names`; nor is `sensor`: see `tsmjax.data.sensor`.
      folder: where to write; must not exist, or be empty. It appears when it is complete.
      shard_bytes: size at which a new file is begun.

    Returns:
      The number of rows.

    Raises:
      InputError: when there are no rows.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    batches = _record_batches(rows)
    first = next(batches, None)
    if first is None:
        raise InputError(f"There are no rows to write to {folder}.")
    with beside(folder) as unfinished:
        unfinished.mkdir()
        shards, count, size, writer = [], 0, 0, None
        for batch in itertools.chain([first], batches):
            if writer is None:
                shards.append(unfinished / f"shard-{len(shards)}")
                writer, size = pa.ipc.new_stream(str(shards[-1]), batch.schema), 0
            writer.write_batch(batch)
            count, size = count + batch.num_rows, size + batch.nbytes
            if size >= shard_bytes:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        names = file_names(len(shards))
        for shard, name in zip(shards, names, strict=True):
            shard.rename(unfinished / name)
        write_state(unfinished, names, digest([folder.name, count]))
    return count


def write_file(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows as one file of a data set, as `write_dataset` does; it appears when complete.

    Returns:
      The number of rows.
    """
    batches = _record_batches(rows)
    first = next(batches)
    with beside(path) as unfinished, pa.ipc.new_stream(str(unfinished), first.schema) as writer:
        count = 0
        for batch in itertools.chain([first], batches):
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def file_names(files: int) -> list[str]:
    """Return the names of the files of a data set."""
    return [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]


def write_state(folder: Path, names: Sequence[str], fingerprint: str) -> None:
    """Write the two JSON files that list the files of a data set, as ``datasets`` does."""
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    contents = {
        "state.json": json.dumps(state, indent=2),
        "dataset_info.json": '{"description": ""}',
    }
    for name, content in contents.items():
        with beside(folder / name) as unfinished:
            unfinished.write_text(content)


def _record_batches(
    rows: Iterable[Mapping[str, Any]], size: int = 1000
) -> Iterator[pa.RecordBatch]:
    """Yield rows in batches of the schema of the first row."""
    iterator = iter(rows)
    schema = None
    while chunk := list(itertools.islice(iterator, size)):
        schema = schema or _schema(chunk[0])
        columns = {name: [_cell(row[name]) for row in chunk] for name in schema.names}
        yield pa.RecordBatch.from_pydict(columns, schema=schema)


def _schema(row: Mapping[str, Any]) -> pa.Schema:
    fields = []
    for name, value in row.items():
        if name in (NAMES, SENSOR):
            continue
        if name in VALUE_COLUMNS:
            array = np.asarray(value)
            number = pa.float64() if array.dtype == np.float64 else pa.float32()
            kind = pa.list_(number) if array.ndim == 1 else pa.list_(pa.list_(number))
        elif name == "start":
            kind = pa.timestamp("ns")
        elif name == "timestamp":
            kind = pa.list_(pa.timestamp("ns"))
        else:
            kind = pa.scalar(value).type
        fields.append((name, kind))
    common = {name: json.dumps(row[name]) for name in (NAMES, SENSOR) if name in row}
    return pa.schema(fields, common or None)


def _cell(value: Any) -> Any:
    return list(value) if isinstance(value, np.ndarray) and value.ndim == 2 else value
