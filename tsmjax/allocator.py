"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def keep_freed() -> None:
    """Let freed memory stay with the process, where the C library is glibc.

    XLA allocates the temporaries of a step on the CPU anew each time. glibc takes large blocks from
    the kernel and gives them back at once, so that every step touches, and the kernel zeroes, all
    of their pages again: up to two fifths of a step. There is one arena then, as those of threads
    cannot hold large blocks; to be called before threads start. MALLOC_… in the environment wins.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, 2**31 - 1)  # the largest there is; beyond it blocks are given back
    mallopt(_TRIM_THRESHOLD, -1)  # never
