"""A weighted mixture of sources that can be asked for its n-th draw."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tsmjax.data.counter import permute
from tsmjax.errors import InputError

_SPAN = 4096  # draws whose order is computed at once, at least
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
        self._blocks = max(1, _SPAN // self.block)
        self._order = functools.lru_cache(maxsize=4)(self._order_of_span)

    def locate(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (source, ordinal within the source) of the draws `n`, a 1-D int64 array.

        The ordinals of a source count up from 0 without a hole, in the order of `n`.
        """
        n = np.asarray(n, np.int64)
        spans, inside = np.divmod(n, self.block * self._blocks)
        source, ordinal = np.empty_like(n), np.empty_like(n)
        for span in np.unique(spans):
            mine = spans == span
            sources, ordinals = self._order(int(span))
            source[mine], ordinal[mine] = sources[inside[mine]], ordinals[inside[mine]]
        return source, ordinal

    def counts(self, blocks: int | np.ndarray) -> np.ndarray:
        """Return how many of the first ``blocks · block`` draws each source has, (…, sources)."""
        edges = np.asarray(blocks)[..., None] * self.block * self._edges
        return np.diff(np.floor(edges + 0.5).astype(np.int64))

    def drawn(self, first: int, last: int) -> np.ndarray:
        """Return how many of the draws first … last − 1 each source has, (sources,) int64."""
        return self._drawn_before(last) - self._drawn_before(first)

    def _drawn_before(self, n: int) -> np.ndarray:
        blocks, rest = divmod(n, self.block)
        source, _ = self.locate(np.arange(n - rest, n))
        return self.counts(blocks) + np.bincount(source, minlength=len(self._edges) - 1)

    def _order_of_span(self, span: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the source and the ordinal of every draw of a span of blocks."""
        blocks = span * self._blocks + np.arange(self._blocks)
        first, counts = self.counts(blocks), self.counts(blocks + 1) - self.counts(blocks)
        shuffled = permute(np.arange(self.block), self.block, self._seed, blocks[:, None])
        numbers = np.broadcast_to(np.arange(counts.shape[1]), counts.shape)
        sources = np.repeat(numbers.ravel(), counts.ravel()).reshape(shuffled.shape)
        source = np.take_along_axis(sources, shuffled, axis=1).ravel()
        ordinal = np.empty_like(source)
        for number, start in enumerate(first[0]):
            mine = np.flatnonzero(source == number)
            ordinal[mine] = start + np.arange(len(mine))
        return source, ordinal
