"""States of a frozen encoder, computed once and kept on disk in bfloat16."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from tsmjax.data.cache import cache_folder, make_once

_CHUNK = 64  # rows that are encoded at once


class Features:
    """Rows of a memory-mapped array; pickles as its path.

    Attributes:
      path: the file.
      shape: of the whole array, rows first.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self.shape = path, shape

    @functools.cached_property
    def _array(self) -> np.ndarray:
        return np.memmap(self.path, np.uint16, "r", shape=self.shape).view(ml_dtypes.bfloat16)

    def __getstate__(self) -> dict:
        return {"path": self.path, "shape": self.shape}

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return rows as an array in memory, bfloat16."""
        return np.asarray(self._array[rows])


def make_features(
    encode: Callable[[dict[str, np.ndarray]], np.ndarray],
    read: Callable[[np.ndarray], dict[str, np.ndarray]],
    rows: int,
    encoder: str,
) -> Features:
    """Encode all rows of a data set, or find the file that did so before.

    The file's name is a hash of the encoder's digest and of all that it reads: other weights, data
    or tokenizer settings make another file.

    Args:
      encode: inputs of some rows → states (rows, …).
      read: row numbers → inputs of the encoder.
      rows: number of rows.
      encoder: digest of the encoder's weights and of how it computes.
    """
    chunks = [np.arange(at, min(at + _CHUNK, rows)) for at in range(0, rows, _CHUNK)]
    sha = hashlib.sha256(encoder.encode())
    for chunk in chunks:
        for name, array in sorted(read(chunk).items()):
            sha.update(f"{name} {array.dtype} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)

    def encoded(chunk: np.ndarray) -> np.ndarray:
        # The last chunk has the shape of the others: one compilation.
        full = np.concatenate([chunk, np.repeat(chunk[-1:], min(rows, _CHUNK) - len(chunk))])
        return np.asarray(encode(read(full)))[: len(chunk)].astype(ml_dtypes.bfloat16)

    def make(path: Path) -> None:
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(np.ascontiguousarray(encoded(chunk)).view(np.uint16).data)

    path = make_once(cache_folder() / "features" / f"{sha.hexdigest()[:32]}.bf16", make)
    each = encoded(chunks[0][:1]).shape[1:]
    return Features(path, (rows, *each))
