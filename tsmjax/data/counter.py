"""Counter-based randomness: every number is a pure function of a key and a counter.

Nothing is stored, so any draw can be computed again by any process: what step-addressed data need.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 8


def mix(*words: int | np.ndarray) -> np.ndarray:
    """Hash integers to uint64, broadcasting them against each other."""
    state = np.zeros(1, np.uint64)
    for word in words:
        state = _scramble((state ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)
    return state.reshape(np.broadcast_shapes(*map(np.shape, words)))


def _scramble(state: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), a bijection of uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def below(limit: int | np.ndarray, *words: int | np.ndarray) -> np.ndarray:
    """Return int64 uniform in ``[0, limit)`` for each hash of `words`; limits up to 2**53."""
    uniform = (mix(*words) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (uniform * limit).astype(np.int64)


def permute(index: np.ndarray, size: int, *key: int | np.ndarray) -> np.ndarray:
    """Apply a keyed permutation of ``range(size)`` to `index`, in constant memory.

    A Feistel network permutes the next power of four; values outside the range walk along
    their cycle until they fall inside (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002).

    Args:
      index: int64, any shape, in ``[0, size)``.
      size: number of elements.
      *key: words that choose the permutation; arrays must broadcast against `index`.
    """
    half = np.uint64(max(2, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    values, keys = np.broadcast_arrays(np.asarray(index).astype(np.uint64), mix(*key))
    shape = values.shape
    values, keys = values.ravel().copy(), keys.ravel()
    todo = np.arange(values.size)
    while todo.size:
        left, right, key_of = values[todo] >> half, values[todo] & mask, keys[todo]
        for _ in range(_ROUNDS):
            key_of = key_of + _GOLDEN
            left, right = right, left ^ (_scramble(key_of ^ right) & mask)
        walked = (left << half) | right
        values[todo] = walked
        todo = todo[walked >= size]
    return values.reshape(shape).astype(np.int64)
