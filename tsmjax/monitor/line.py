"""The log line of a training step.

Step 1,000/200,000 | loss=9.6887 | ema=9.7102 | best=9.6432 | lr=4.99e-05 | mem=42.1/80GB |
9.3 stp/s | 7131 smp/s | eta=5h 52m | gnorm=1.243 | wait=3ms        (one line in the log)
"""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import sys
from typing import Any

import jax

_EMA_RATE = 0.1  # weight of the newest logged loss in the running average
_GIB = 2**30


@dataclasses.dataclass
class LossTracker:
    """Running average and minimum of the logged losses; losses that are not finite are ignored.

    Attributes:
      ema: exponential moving average over logged steps; NaN before the first finite loss.
      best: smallest loss; NaN before the first finite loss.
    """

    ema: float = math.nan
    best: float = math.nan

    def update(self, loss: float) -> None:
        """Take in the loss of one logged step."""
        if not math.isfinite(loss):
            return
        first = math.isnan(self.ema)
        self.ema = loss if first else self.ema + _EMA_RATE * (loss - self.ema)
        self.best = loss if first else min(self.best, loss)

    def state(self) -> dict[str, float | None]:
        """Return what a resumed run continues with, as JSON values."""
        return {
            name: None if math.isnan(value) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> LossTracker:
        """Rebuild from `state`; None starts afresh."""
        names = ("ema", "best")
        return cls(**{k: v for k, v in (state or {}).items() if k in names and v is not None})


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory in bytes: of the fullest local device, on CPU of the host.

    Attributes:
      used: in use now.
      total: available in all.
      peak: most that was ever in use; 0 when not known.
    """

    used: float
    total: float
    peak: float = 0.0

    def __str__(self) -> str:
        return f"{self.used / _GIB:.1f}/{self.total / _GIB:.0f}GB"


def memory() -> Memory:
    """Measure memory now; the pages of the whole process on a backend that does not tell."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    known = [
        Memory(s["bytes_in_use"], s["bytes_limit"], s.get("peak_bytes_in_use", 0.0))
        for s in stats
        if "bytes_limit" in s
    ]
    return max(known, key=lambda one: one.used / one.total) if known else host_memory()


def host_memory() -> Memory:
    """Measure the pages that this process holds, of the memory of the machine."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[1]) * page
    except OSError:  # no /proc: the peak is what the system tells (bytes on macOS, else KiB)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = peak if sys.platform == "darwin" else peak * 1024
    return Memory(used, os.sysconf("SC_PHYS_PAGES") * page)


def disk_reads(process: int | str = "self") -> int:
    """Bytes a process has caused to be read from storage; pages found in the cache are free.

    Returns 0 where the system does not tell.
    """
    try:
        with open(f"/proc/{process}/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))
    except (OSError, StopIteration):
        return 0


def format_line(
    step: int,
    total_steps: int,
    metrics: dict[str, float],
    losses: LossTracker,
    mem: Memory,
    steps_per_second: float,
    rows_per_step: int,
    wait_ms: float,
) -> str:
    """Return the log line.

    Args:
      step: the step the metrics belong to.
      total_steps: steps of the whole run.
      metrics: `loss`, `learning_rate`, `grad_norm` and `bad` (count of skipped steps) are shown.
      losses: running average and minimum, this step included.
      mem: memory in use.
      steps_per_second: rate since the last line.
      rows_per_step: samples of one global batch.
      wait_ms: time the last step waited for its data.
    """
    nan = math.nan
    remaining = (total_steps - step) / steps_per_second if steps_per_second > 0 else nan
    parts = [
        f"Step {step:,}/{total_steps:,}",
        f"loss={loss(metrics.get('loss', nan))}",
        f"ema={loss(losses.ema)}",
        f"best={loss(losses.best)}",
        f"lr={metrics.get('learning_rate', nan):.2e}",
        f"mem={mem}",
        f"{rate(steps_per_second)} stp/s",
        f"{steps_per_second * rows_per_step:.0f} smp/s",
        f"eta={duration(remaining)}",
        f"gnorm={metrics.get('grad_norm', nan):.3f}",
        f"wait={wait_ms:.0f}ms",
    ]
    if metrics.get("bad"):
        parts.append(f"bad={metrics['bad']:.0f}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """Write seconds in their two largest units: ``45s``, ``3m 20s``, ``5h 52m``, ``2d 7h``."""
    if not math.isfinite(seconds):
        return "?"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {seconds}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h"


def loss(value: float) -> str:
    """Four decimals, or three significant digits where those would show nothing."""
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def rate(value: float) -> str:
    """Write a rate with one decimal, or two significant digits below 1."""
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"
