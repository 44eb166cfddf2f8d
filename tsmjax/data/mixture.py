"""A weighted mixture of sources that can be asked for its n-th draw."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tsmjax.data.counter import permute
from tsmjax.errors import InputError

_LEAST_SHARE = 1e-5  # bounds the block, and so the memory for the orders of a few blocks


class Mixture:
    """Tells, for the n-th draw, which source it comes from and the how-manieth of it that is.

    Draws come in blocks. The number a source has in the blocks 0 … b is a difference of rounded
    cumulative weights: the counts of all sources add up exactly, and at the end of a block each
    differs from its share by less than one, however long the run. Inside a block the order is a
    seeded permutation. A block is a pure function of its number, so any process can start anywhere.

    Attributes:
      block: draws of a block.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        """Mix sources in proportion to `weights`.

        Raises:
          InputError: when a weight is not positive, or too small to be kept to.
        """
        shares = np.asarray(weights, np.float64)
        if not (shares > 0).all() or not np.isfinite(shares.sum()):
            raise InputError(f"The weights {weights} of a mixture must be positive.")
        shares = shares / shares.sum()
        if shares.min() < _LEAST_SHARE:
            raise InputError(
                f"A source has a share of {shares.min():.1e} in its mixture, and the least that "
                f"can be kept to is {_LEAST_SHARE}: raise its weight or leave it out."
            )
        self._edges = np.concatenate([[0.0], np.cumsum(shares)])
        self._edges[-1] = 1.0
        self._seed = seed
        # Counts differ from shares by less than one at both ends of a block, so with a share of two
        # or more in each block no count is negative.
        self.block = 1 << int(np.ceil(np.log2(max(64.0, 2.0 / shares.min()))))
        self._order = functools.lru_cache(maxsize=4)(self._order_of_block)

    def locate(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (source, ordinal within the source) of the draws `n`, a 1-D int64 array.

        The ordinals of a source count up from 0 without a hole, in the order of `n`.
        """
        n = np.asarray(n, np.int64)
        blocks, inside = np.divmod(n, self.block)
        source, ordinal = np.empty_like(n), np.empty_like(n)
        for block in np.unique(blocks):
            mine = blocks == block
            sources, ordinals = self._order(int(block))
            source[mine], ordinal[mine] = sources[inside[mine]], ordinals[inside[mine]]
        return source, ordinal

    def counts(self, blocks: int) -> np.ndarray:
        """Return how many of the first ``blocks · block`` draws each source has."""
        return np.diff(self._rounded(blocks))

    def _order_of_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the source and the ordinal of every draw of a block."""
        first, counts = self.counts(block), self.counts(block + 1) - self.counts(block)
        shuffled = permute(np.arange(self.block), self.block, self._seed, block)
        source = np.repeat(np.arange(len(counts)), counts)[shuffled]
        ordinal = np.empty_like(source)
        for number, start in enumerate(first):
            ordinal[source == number] = start + np.arange(counts[number])
        return source, ordinal

    def _rounded(self, blocks: int) -> np.ndarray:
        return np.floor(blocks * self.block * self._edges + 0.5).astype(np.int64)
