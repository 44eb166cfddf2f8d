"""What a health report concludes: sentences that name a cause and a remedy."""

from __future__ import annotations

import math

from tsmjax.monitor.health import Report, falls

_MUCH = 0.2  # share of the time that something other than steps may take
_FULL = 0.95  # of a memory
_DISK = 2**30  # bytes; the next checkpoint may not fit any more


def findings(report: Report) -> list[str]:
    """Return what is wrong, worst first."""
    found = []
    gradients = report.gradients
    if gradients["skipped"]:
        found.append(
            f"{gradients['skipped']:,} steps were skipped because the loss or the gradient was "
            "not finite: lower optim.lr, or look for huge values in the data."
        )
    if gradients["explosions"]:
        clip = "" if math.isfinite(gradients["clipped"]) else ", or set optim.clip"
        found.append(
            f"The gradient exploded {_times(gradients['explosions'])}: at step "
            f"{gradients['worst_step']:,} its norm was {gradients['worst_times']:.0f} times its "
            f"running average. Lower optim.lr{clip}, or look for outliers in the data."
        )
    loss = report.loss
    if falls(loss) == "RISING" and loss["change"] > 0.01:
        found.append(
            f"The loss rises: by {100 * loss['change']:.1f} % within {loss['over']:,} steps."
        )
    for failure in report.failures:
        full = "No space left" in failure
        found.append(f"{failure}.{' Free the disk of the run folder.' if full else ''}")
    if report.disk_free < _DISK:
        found.append(
            f"The disk of the run folder is {'full' if report.disk_free < 2**20 else 'nearly full'}"
            f": {report.disk_free / 2**20:,.0f} MB are left, and the next checkpoint may not fit."
        )
    if report.memory.used > _FULL * report.memory.total:
        found.append(
            f"Memory is nearly full ({report.memory}): lower data.batch_size or raise "
            "optim.accumulate."
        )
    return found


def limit(report: Report) -> str:
    """Return the one thing that limits the speed since the last report."""
    shares = report.shares
    stepping = shares.get("step", 0.0) + shares.get("input", 0.0)
    waits = shares.get("input", 0.0) / stepping if stepping else 0.0
    # Compilation first: it passes, and hides what comes after it.
    others = {
        "compile": "compilation, which later steps do not pay",
        "evaluation": "evaluation: raise evals.every, or score fewer suites",
        "checkpoint": "saving checkpoints: raise checkpoint.every, or save to a faster disk",
        "monitor": "reporting: raise log.every and log.health",
        "other": "work outside of steps on the host",
    }
    most = max(others, key=lambda kind: shares.get(kind, 0.0))
    if shares.get(most, 0.0) > max(_MUCH, shares.get("input", 0.0), 0.5 * shares.get("step", 0.0)):
        return f"{others[most]} ({_percent(shares[most])} of the time)"
    if waits > _MUCH:
        return (
            f"the data: steps waited {_percent(waits)} of their time for a batch. Raise "
            "data.workers or data.prefetch, or move the data to a faster disk"
        )
    if shares.get(most, 0.0) > _MUCH:
        return f"{others[most]} ({_percent(shares[most])} of the time)"
    mfu = report.speed["mfu"]
    reached = f", at {_percent(mfu)} of the peak" if math.isfinite(mfu) else ""
    return f"the device: {_percent(shares.get('step', 0.0))} of the time is steps{reached}"


def _times(count: float) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
