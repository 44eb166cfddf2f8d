"""Items that are made during training: sources of the form ``generated:corpus?parameter=value&…``.

Item number i belongs to a block (`blocks.block`), which the device of this process makes when it is
first asked for: one call for about a thousand series, of which many steps live. Nothing is written,
and no item comes twice. `corpus` lists the parameters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from tsmjax.data import gather
from tsmjax.data.counter import below
from tsmjax.data.synthetic import corpus, embedded
from tsmjax.errors import InputError

PREFIX = "generated:"
_CUT = 1  # keeps the hash of cuts apart from other uses of the same seed


class GeneratedSource:
    """Items of a corpus by number, without end. Safe in threads.

    Attributes:
      path: as in the config.
      parameters: all parameters of the corpus.
      min_length: least length of an item.
      max_length: greatest length of an item.
      max_group: most variates of an item, covariates included.
      mean_group: their mean.
    """

    def __init__(self, path: str, rows: int = 0):
        """Read the parameters of `path`; nothing is generated yet.

        Args:
          path: ``generated:NAME?parameter=value&…``.
          rows: series that are read again and again before others are, and so are kept in memory.

        Raises:
          InputError: for an unknown generator or parameter.
        """
        self.path = path
        module, parameters = embedded.parse(path)
        if module != "corpus":
            names = ", ".join(["corpus", *corpus.SHARES])
            raise InputError(f"{path} cannot be made during training; these can: {names}.")
        self.parameters = {name: n for name, n in parameters.items() if name != "series"}
        self.min_length, self.max_length = parameters["min_length"], parameters["max_length"]
        self.max_group = parameters["variates"]
        # Groups have 2 … max_group variates, each number equally often.
        self.mean_group = (2 + self.max_group) / 2 if self.max_group > 1 else 1.0
        self._size = corpus.block_size(self.max_group)
        self._kept = 2 + 2 * -(-rows // corpus.BLOCK)
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._lock = threading.Lock()

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of the items with these numbers, int64."""
        return self._places(indices)[0].length

    def windows(
        self, indices: np.ndarray, cuts: np.ndarray, ends: np.ndarray, past: int, ahead: int
    ) -> gather.Windows:
        """Copy a window of each of the items with these numbers; see `gather.windows`."""
        places, blocks = self._places(indices)
        kind = np.dtype(np.float32)
        return gather.windows(
            places, lambda number, _: (blocks[number].values, kind), cuts, ends, past, ahead
        )

    def _places(self, indices: np.ndarray) -> tuple[gather.Places, dict[int, _Block]]:
        """Return where these items lie: in which block, and where in it; and the blocks."""
        numbers, rows = np.divmod(np.asarray(indices, np.int64), self._size)
        blocks = {number: self._block(number) for number in np.unique(numbers).tolist()}
        length = np.empty(len(rows), np.int64)
        variates, at = np.empty((2, len(rows), 3), np.int64)
        for number, block in blocks.items():
            mine = numbers == number
            length[mine] = block.length[rows[mine]]
            variates[mine], at[mine] = block.variates[rows[mine]], block.at[rows[mine]]
        return gather.Places(numbers, length, variates, at), blocks

    def _block(self, number: int) -> _Block:
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = _Block.of(corpus.items(number, **self.parameters))
            self._blocks.move_to_end(number)
            while len(self._blocks) > self._kept:
                self._blocks.popitem(last=False)
            return self._blocks[number]


class _Block(NamedTuple):
    """The items of a block, one after the other in one array; see `gather.Places`."""

    values: np.ndarray
    length: np.ndarray
    variates: np.ndarray
    at: np.ndarray

    @classmethod
    def of(cls, items: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> _Block:
        """Lay out items as `corpus.items` returns them."""
        values = np.concatenate([part.ravel() for item in items for part in item])
        length = np.asarray([item[0].shape[1] for item in items])
        variates = np.asarray([[len(part) for part in item] for item in items])
        sizes = variates * length[:, None]
        at = (np.cumsum(sizes).reshape(sizes.shape) - sizes) * values.itemsize
        return cls(values, length, variates, at)


class GeneratedWindows:
    """Draws of a generated source, by ordinal: every draw is an item of its own, cut at random.

    The cut is uniform in ``[min_past, L − h]`` with ``h = min(horizon, L − min_past)``, as that of
    `Windows` with sampling="series".

    Attributes:
      size: infinite; there is no epoch.
    """

    size = float("inf")

    def __init__(
        self,
        source: GeneratedSource,
        *,
        seed: int,
        min_past: int,
        min_future: int,
        holdout: int = 0,
    ):
        """Draw from `source`.

        Args:
          source: the items.
          seed: chooses the cuts.
          min_past: least number of steps before a cut.
          min_future: least number of steps after a cut.
          holdout: steps at the end of each item that are never used.

        Raises:
          InputError: when items may be too short.
        """
        needed = min_past + min_future + holdout
        if source.min_length < needed:
            raise InputError(
                f"{source.path} makes series from {source.min_length} steps, and {needed} are "
                f"needed (min_past + min_future + holdout): write min_length={needed} into it."
            )
        self._source, self._seed = source, seed
        self._min_past, self._holdout = min_past, holdout

    def locate(self, draw: np.ndarray, horizon: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Return (item, cut) of each draw.

        Args:
          draw: int64 ordinals, from 0 without end.
          horizon: steps to forecast, for all draws or for each.
        """
        usable = self._usable(draw)
        last = usable - np.minimum(horizon, usable - self._min_past)
        return draw, self._min_past + below(last - self._min_past + 1, self._seed, _CUT, draw)

    def share_of_long(self, steps: int) -> float:
        """Return the share of draws from items of at least `steps` steps, judged by one block."""
        first = np.arange(corpus.block_size(self._source.max_group))
        return float((self._usable(first) >= steps).mean())

    def _usable(self, draw: np.ndarray) -> np.ndarray:
        return self._source.lengths(draw) - self._holdout
