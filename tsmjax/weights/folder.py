"""Folders of config.json and safetensors files, read and written one tensor at a time.

Source of the format: https://huggingface.co/docs/safetensors. A file is eight bytes with the length
of a header, the header, JSON with type, shape and place of each tensor, and the tensors. The
library that defines it maps files into memory, where each page that was touched counts, and writes
only what is in memory as a whole; here one tensor is in memory at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from tsmjax.errors import InputError

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SHARD_BYTES = 5_000_000_000  # largest file, unless a single tensor is larger
DTYPES = {  # of weights; other types are those of quantised models
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file, not read yet.

    Attributes:
      name: its name.
      file: the file.
      code: its type, as safetensors names it.
      shape: its shape.
      start: first byte in the file.
    """

    name: str
    file: Path
    code: str
    shape: tuple[int, ...]
    start: int

    @property
    def dtype(self) -> np.dtype:
        """Its type.

        Raises:
          InputError: when it holds no floating-point numbers that we know.
        """
        if self.code not in DTYPES:
            raise InputError(
                f"{self.file} stores {self.name} as {self.code}; only {', '.join(DTYPES)} are "
                "read: convert a checkpoint that is not quantised."
            )
        return DTYPES[self.code]

    def read(self) -> np.ndarray:
        """Read it from the disk.

        Raises:
          InputError: when its type is unknown, or a value is NaN or infinite.
        """
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        raw = np.fromfile(self.file, np.uint8, size, offset=self.start)
        values = raw.view(self.dtype)
        for start in range(0, values.size, _CHUNK):
            if bad := int((~np.isfinite(values[start : start + _CHUNK])).sum()):
                raise InputError(
                    f"{self.file} stores {bad} values of {self.name} that are NaN or infinite; "
                    "take an earlier checkpoint, or download the file again."
                )
        return values.reshape(self.shape)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model folder.

    Raises:
      InputError: when there is none, or it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {path.name}: not a model folder.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from None


def files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: one, or the shards that the index names.

    Raises:
      InputError: when one is missing.
    """
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        if not isinstance(index.get("weight_map"), Mapping):
            raise InputError(f"{folder / INDEX} has no object 'weight_map'; download it again.")
        names = sorted(set(index["weight_map"].values()))
    else:
        names = [WEIGHTS]
        if not (folder / WEIGHTS).exists() and any((folder / name).exists() for name in PICKLES):
            raise InputError(
                f"{folder} holds PyTorch pickles and no safetensors: python -m convert reads it, "
                "with pip install 'tsmjax[convert]'."
            )
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}; download the whole folder.")
    return [folder / name for name in names]


def tensors(paths: list[Path]) -> dict[str, Tensor]:
    """List what safetensors files hold, by name.

    Raises:
      InputError: when a file is damaged, or two hold the same tensor.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="numpy"):
                pass  # the library checks that the header is sound and the file complete
        except SafetensorError as error:
            raise InputError(
                f"{path} is a damaged safetensors file ({error}); download it again."
            ) from error
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if name in found:
                raise InputError(f"{path} and {found[name].file} both store the tensor {name}.")
            start = 8 + length + entry["data_offsets"][0]
            found[name] = Tensor(name, path, entry["dtype"], tuple(entry["shape"]), start)
    return found


def digest(paths: list[Path]) -> str:
    """SHA-256 of files, one behind the other."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
    return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor to write.

    Attributes:
      dtype: its type, one of `DTYPES`.
      shape: its shape.
      make: returns it.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def write(folder: Path, config: Mapping[str, Any], entries: Mapping[str, Entry]) -> None:
    """Write config.json and the weights, in several files with an index when they are large.

    Args:
      folder: an existing folder.
      config: what config.json holds.
      entries: name → tensor; each is made when its turn has come, and not kept.
    """
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    entries = dict(sorted(entries.items()))  # whatever the layout they come from
    shards: list[list[str]] = [[]]
    filled = 0
    for name, entry in entries.items():
        if shards[-1] and filled + entry.size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += entry.size
    if len(shards) == 1:
        _write_file(folder / WEIGHTS, entries)
        return
    places = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / file, {name: entries[name] for name in names})
        places |= dict.fromkeys(names, file)
    total = sum(entry.size for entry in entries.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_file(path: Path, entries: Mapping[str, Entry]) -> None:
    # Types of many bytes first: each tensor then begins at a multiple of its type's size.
    ordered = sorted(entries.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry in ordered:
        place = [end, end + entry.size]
        header[name] = {"dtype": _CODES[entry.dtype], "shape": entry.shape, "data_offsets": place}
        end += entry.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, entry in ordered:
            _write_array(file, entry)


def _write_array(file: BinaryIO, entry: Entry) -> None:
    array = np.asarray(entry.make(), order="C")
    if array.dtype != entry.dtype or array.shape != entry.shape:
        raise AssertionError(f"made {array.dtype}{array.shape} instead of {entry}")
    file.write(array.reshape(-1).view(np.uint8).data)
