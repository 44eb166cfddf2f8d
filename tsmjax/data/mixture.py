"""A weighted mixture of sources that can be asked for its n-th draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsmjax.data.counter import permute


class Mixture:
    """Tells, for the n-th draw, which source it comes from and the how-manieth of it that is.

    Draws come in blocks. The number a source has in the blocks 0 … b is a difference of rounded
    cumulative weights: the counts of all sources add up exactly, and at the end of a block each
    differs from its share by less than one, however long the run. Inside a block the order is a
    seeded permutation. Everything is closed form, so any process can start anywhere.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        """Mix sources in proportion to `weights`, which must be positive."""
        shares = np.asarray(weights, np.float64)
        shares = shares / shares.sum()
        self._edges = np.concatenate([[0.0], np.cumsum(shares)])
        self._edges[-1] = 1.0
        self._seed = seed
        # Counts differ from shares by less than one at both ends of a block, so with a share of two
        # or more in each block no count is negative.
        self.block = 1 << int(np.ceil(np.log2(max(64.0, 2.0 / shares.min()))))

    def locate(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (source, ordinal within the source) of the draws `n`, an int64 array."""
        n = np.asarray(n, np.int64)
        block, inside = np.divmod(n, self.block)
        inside = permute(inside, self.block, self._seed, block)
        before, after = self._rounded(block), self._rounded(block + 1)
        # Inside the block source s holds the places [starts[s], starts[s + 1]).
        starts = after - before
        source = (inside[..., None] >= starts[..., 1:-1]).sum(-1)
        at = source[..., None]
        place = inside - np.take_along_axis(starts, at, -1)[..., 0]
        counted = np.diff(before, axis=-1)
        return source, np.take_along_axis(counted, at, -1)[..., 0] + place

    def counts(self, blocks: int) -> np.ndarray:
        """Return how many of the first ``blocks · block`` draws each source has."""
        return np.diff(self._rounded(np.asarray(blocks)), axis=-1)

    def _rounded(self, blocks: np.ndarray) -> np.ndarray:
        draws = (blocks * self.block)[..., None]
        return np.floor(draws * self._edges + 0.5).astype(np.int64)
