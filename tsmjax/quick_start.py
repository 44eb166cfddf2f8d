"""What lets a short command start quickly; it imports no jax."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path

from tsmjax.data.cache import cache_folder


def prepare() -> None:
    """Keep compiled programs between runs, and look for garbage rarely.

    To be called before jax is imported. Imports and loading make many objects and hardly any
    garbage, and looking for it takes a tenth of the start. Code that was compiled for one kind of
    processor may not run on another, so each kind has a folder of its own, below that of
    `tsmjax.distributed`; JAX_COMPILATION_CACHE_DIR wins.
    """
    gc.set_threshold(100_000)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or (kind := _processor()) is None:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder() / "compiled" / kind)
    # One that compiled in less than a second would not be kept; it still takes longer than reading.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _processor() -> str | None:
    """Return a name of this kind of processor, or None where the system does not tell."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return None
    wanted = ("vendor_id", "model name", "flags", "Features", "CPU part")  # the last two of ARM
    facts = [line for line in first.splitlines() if line.split("\t")[0].strip() in wanted]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
