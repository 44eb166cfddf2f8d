"""The state of health of a run: every step is watched, and a report draws conclusions.

A step adds a few numbers that the host has anyway; what costs more happens once a report.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from tsmjax.monitor import line
from tsmjax.monitor.gpus import Gpus

_FAST, _SLOW, _NORM = 0.05, 0.01, 0.05  # weights of the newest value in running averages
_RECENT = 400  # steps that the trend of the loss looks at
_EXPLOSION = 10.0  # times the running average of the gradient norm
_SETTLED = 10  # steps before that average counts
_POINTS = 60  # of a sparkline
_NOISE = 2.0  # standard errors within which a change of the loss says nothing
# Dense bfloat16 FLOP/s of a device, from the makers' data sheets; the first name that fits.
_PEAKS = (
    *(("B200", 2250e12), ("H200", 989e12), ("H100 PCIe", 756e12), ("H100", 989e12)),
    *(("A100", 312e12), ("L40S", 362e12), ("L4", 121e12), ("V100", 125e12), ("T4", 65e12)),
    *(("TPU v6", 918e12), ("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v4", 275e12)),
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a report has to know of the run.

    Attributes:
      every: steps from one report to the next; 0 for none.
      clip: gradient norm that is clipped to; 0 for no clipping.
      metric: the score that decides what is best.
      mode: "min" or "max".
      drawn: (first step, step after the last) → rows drawn from each source; None when unknown.
      skipped: source → (series that are never drawn, all series).
    """

    every: int = 0
    clip: float = 0.0
    metric: str = ""
    mode: str = "min"
    drawn: Callable[[int, int], Mapping[str, float]] | None = None
    skipped: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Report:
    """What one report says. Rates and shares cover the steps since the report before, if any.

    Attributes:
      step: the newest finished step.
      total_steps: steps of the whole run.
      loss: newest, `fast` and `slow` running averages, `best`, `spread` (standard deviation),
        `change` (relative, over `over` steps), `per_1k` (change in 1,000 steps), `noise` (standard
        error of the change, relative).
      losses: means of the loss over equal parts of the run.
      gradients: `mean`, `max`, `clipped` (share of steps, NaN without clipping), `skipped` (steps
        that were not finite), `skipped_in_all`, `explosions`, and of the worst one `worst_step`
        and `worst_times` (the running average).
      rate: newest and `peak` learning rate.
      rates: learning rates over equal parts of the run.
      memory: of the fullest device; the host's where devices do not tell.
      host: resident memory of this process.
      speed: `steps`, `samples`, `tokens` and `flops` a second (`flops` a device), `mfu`, `p50` and
        `p95` of a step in seconds, `eta` in seconds.
      gpu: share of the time in which the GPUs were busy, by their driver; NaN when not known.
      reads: bytes a second read from storage, workers included.
      mixture: shares of the rows drawn, by source; empty when unknown.
      skipped: source → (series that are never drawn, all), where there are any.
      scores: the last evaluation: `step`, `score`, `best_step`, `best`; empty without any.
      shares: share of the wall time by kind since the last report.
      goodput: share of the wall time since the start that went into steps.
      disk_free: bytes left where the run folder is.
      failures: writers that are off, and why.
      findings: what is wrong; sentences.
      limit: what limits the speed; a sentence.
    """

    step: int
    total_steps: int
    loss: dict[str, float]
    losses: list[float]
    gradients: dict[str, float]
    rate: dict[str, float]
    rates: list[float]
    memory: line.Memory
    host: line.Memory
    speed: dict[str, float]
    gpu: float
    reads: float
    mixture: dict[str, float]
    skipped: dict[str, tuple[int, int]]
    scores: dict[str, float]
    shares: dict[str, float]
    goodput: float
    disk_free: float
    failures: list[str]
    findings: list[str] = dataclasses.field(default_factory=list)
    limit: str = ""

    def numbers(self) -> dict[str, float]:
        """Return the numbers that are worth a curve, by name."""
        speed, shares = self.speed, self.shares
        found = {
            "goodput": self.goodput,
            "loss_fast": self.loss["fast"],
            "loss_slow": self.loss["slow"],
            "grad_norm_mean": self.gradients["mean"],
            "grad_norm_max": self.gradients["max"],
            "clipped_share": self.gradients["clipped"],
            "explosions": self.gradients["explosions"],
            "step_p50_ms": 1e3 * speed["p50"],
            "step_p95_ms": 1e3 * speed["p95"],
            "tokens_per_second": speed["tokens"],
            "tflops_per_device": speed["flops"] / 1e12,
            "mfu": speed["mfu"],
            "gpu_busy": self.gpu,
            **{f"share_{kind}": share for kind, share in shares.items()},
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}


class Health:
    """Watches steps and makes reports of them."""

    def __init__(self, folder: str | Path, facts: Facts, total_steps: int, start_step: int = 0):
        """Begin after `start_step`; `folder` is where the disk is looked at."""
        self.facts = facts
        self._folder, self._total = Path(folder), total_steps
        self._fast, self._slow, self._norm = _Average(_FAST), _Average(_SLOW), _Average(_NORM)
        self._losses: collections.deque[float] = collections.deque(maxlen=_RECENT)
        self._loss_line, self._rate_line = Thinned(_POINTS), Thinned(_POINTS)
        self._loss = self._best_loss = self._rate = math.nan
        self._peak = -math.inf
        self._skipped_in_all = 0
        self._scores: dict[str, float] = {}
        self._last: dict[str, float] = {}  # the ledger at the last report
        self._reads = disk_reads()
        self._gpus = Gpus()
        self._begin(start_step)

    def step(self, step: int, loss: float, norm: float, busy: float) -> None:
        """Take in a finished step.

        Args:
          step: its number.
          loss: its loss.
          norm: its gradient norm before clipping.
          busy: seconds of this process that went into input and steps, up to now.
        """
        self._step, self._loss = step, loss
        if self._busy is not None:
            self._seconds.append(busy - self._busy)
        self._busy = busy
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._skipped += 1
            self._skipped_in_all += 1
            return
        self._best_loss = loss if math.isnan(self._best_loss) else min(self._best_loss, loss)
        self._fast.add(loss)
        self._slow.add(loss)
        self._losses.append(loss)
        self._loss_line.add(loss)
        if self._norm.count >= _SETTLED and norm > _EXPLOSION * self._norm.value:
            self._explosions += 1
            times = norm / self._norm.value
            if times > self._worst[1]:
                self._worst = step, times
        # An explosion must not raise the bar for the next one.
        settled = self._norm.count >= _SETTLED
        self._norm.add(min(norm, _EXPLOSION * self._norm.value) if settled else norm)
        self._norms.append(norm)

    def logged(self, metrics: Mapping[str, float]) -> None:
        """Take in what was logged of a step."""
        self._gpus.look()
        rate = metrics.get("learning_rate", math.nan)
        if math.isfinite(rate):
            self._rate, self._peak = rate, max(self._peak, rate)
            self._rate_line.add(rate)

    def work(self, flops: float | None, tokens: float | None = None) -> None:
        """Take in FLOPs of the forward pass and tokens of one global batch; None when unknown."""
        self._flops += 3.0 * (math.nan if flops is None else flops)
        self._tokens += math.nan if tokens is None else tokens

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """Take in the scores of an evaluation."""
        score = scores.get(self.facts.metric, math.nan)
        best = self._scores.get("best", math.nan)
        sign = 1.0 if self.facts.mode == "min" else -1.0
        if math.isfinite(score) and not sign * score >= sign * best:
            self._scores |= {"best_step": step, "best": score}
        self._scores |= {"step": step, "score": score}

    def report(self, rows: int, seconds: Mapping[str, float], failures: Sequence[str]) -> Report:
        """Draw up a report, and begin the next.

        Args:
          rows: samples of one global batch.
          seconds: the ledger.
          failures: writers that are off, and why.
        """
        spent = {kind: value - self._last.get(kind, 0.0) for kind, value in seconds.items()}
        wall = max(sum(spent.values()), 1e-9)
        steps = self._step - self._first
        durations = np.array(self._seconds or [math.nan])
        busy = max(float(durations.mean()), 1e-9)  # a clock may stand still
        # Compilation is over once it is done; evaluations and checkpoints go on coming.
        pace = (wall - spent.get("compile", 0.0)) / max(steps, 1)
        flops = self._flops / max(steps, 1) / busy / jax.device_count()
        read, self._reads = self._reads, disk_reads()
        drawn = self._drawn()
        report = Report(
            step=self._step,
            total_steps=self._total,
            loss=self._loss_facts(),
            losses=self._loss_line.values(),
            gradients=self._gradient_facts(steps),
            rate={"newest": self._rate, "peak": self._peak},
            rates=self._rate_line.values(),
            memory=line.memory(),
            host=line.host_memory(),
            speed={
                "steps": 1 / busy,
                "samples": rows / busy,
                "tokens": self._tokens / max(steps, 1) / busy,
                "flops": flops,
                "mfu": flops / peak_flops(),
                "p50": float(np.median(durations)),
                "p95": float(np.quantile(durations, 0.95)),
                "eta": pace * (self._total - self._step),
            },
            gpu=self._gpus.mean(),
            reads=max(self._reads - read, 0) / wall,
            mixture=drawn,
            skipped={name: counts for name, counts in self.facts.skipped.items() if counts[0]},
            scores=dict(self._scores),
            shares={kind: value / wall for kind, value in spent.items()},
            goodput=seconds.get("step", 0.0) / max(sum(seconds.values()), 1e-9),
            disk_free=_disk_free(self._folder),
            failures=list(failures),
        )
        self._last = dict(seconds)
        self._begin(self._step)
        return report

    def _begin(self, step: int) -> None:
        """Forget the steps of the last report."""
        self._first = self._step = step
        self._norms: list[float] = []
        self._seconds: list[float] = []
        self._busy: float | None = getattr(self, "_busy", None)
        self._skipped = self._explosions = 0
        self._worst = (0, 0.0)
        self._flops = self._tokens = 0.0

    def _loss_facts(self) -> dict[str, float]:
        facts = {
            "newest": self._loss,
            "fast": self._fast.value,
            "slow": self._slow.value,
            "best": self._best_loss,
            **dict.fromkeys(("spread", "change", "noise", "per_1k"), math.nan),
            "over": 0,
        }
        half = len(self._losses) // 2
        if half < 2:
            return facts
        values = np.array(self._losses)
        old, new = values[:half], values[-half:]
        scale = max(abs(old.mean()), 1e-12)
        change = new.mean() - old.mean()
        return facts | {
            "spread": float(new.std()),
            "change": float(change / scale),
            "noise": float(math.sqrt((old.var() + new.var()) / half) / scale),
            "per_1k": float(1000 * change / half),
            "over": half,
        }

    def _gradient_facts(self, steps: int) -> dict[str, float]:
        norms = np.array(self._norms or [math.nan])
        clip = self.facts.clip
        return {
            "mean": float(norms.mean()),
            "max": float(norms.max()),
            "clipped": float((norms > clip).mean()) if clip and self._norms else math.nan,
            "skipped": self._skipped,
            "skipped_in_all": self._skipped_in_all,
            "explosions": self._explosions,
            "worst_step": self._worst[0],
            "worst_times": self._worst[1],
        }

    def _drawn(self) -> dict[str, float]:
        if not self.facts.drawn or self._step <= self._first:
            return {}
        drawn = self.facts.drawn(self._first, self._step)
        total = sum(drawn.values())
        return {name: value / total for name, value in drawn.items()} if total else {}


def falls(loss: Mapping[str, float]) -> str:
    """Say in words where the loss goes: "falling", "flat", "RISING", or "" when too early."""
    change, noise = loss["change"], loss["noise"]
    if not (math.isfinite(change) and math.isfinite(noise)):
        return ""
    if abs(change) < max(_NOISE * noise, 1e-3):
        return "flat"
    return "falling" if change < 0 else "RISING"


def peak_flops() -> float:
    """FLOP/s that a device can reach at most, in bfloat16; NaN when not known."""
    kind = jax.local_devices()[0].device_kind
    return next((peak for name, peak in _PEAKS if name.lower() in kind.lower()), math.nan)


def disk_reads() -> int:
    """Bytes read from storage by this process and the workers it has started."""
    return line.disk_reads() + sum(
        line.disk_reads(child.pid) for child in multiprocessing.active_children() if child.pid
    )


class Thinned:
    """A series of any length as the means of at most 2 · `points` equal parts."""

    def __init__(self, points: int):
        self._points, self._stride = points, 1
        self._means: list[float] = []
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Append a value."""
        self._open.append(value)
        if len(self._open) < self._stride:
            return
        self._means.append(sum(self._open) / self._stride)
        self._open.clear()
        if len(self._means) == 2 * self._points:
            self._means = [(a + b) / 2 for a, b in zip(*[iter(self._means)] * 2, strict=True)]
            self._stride *= 2

    def values(self) -> list[float]:
        """Return the means, the unfinished part included."""
        rest = [sum(self._open) / len(self._open)] if self._open else []
        return self._means + rest


class _Average:
    """Exponential moving average without bias towards its start."""

    def __init__(self, rate: float):
        self._rate, self._sum, self.count = rate, 0.0, 0

    def add(self, value: float) -> None:
        self._sum += self._rate * (value - self._sum)
        self.count += 1

    @property
    def value(self) -> float:
        return self._sum / (1 - (1 - self._rate) ** self.count) if self.count else math.nan


def _disk_free(folder: Path) -> float:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:
        return math.nan
