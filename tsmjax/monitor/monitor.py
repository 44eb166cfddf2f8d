"""What the training loop reports to: log line, health report, metrics files, plots."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax

from tsmjax.config import Duration, find_object
from tsmjax.monitor import diagnosis, line, panel, plots
from tsmjax.monitor.health import Facts, Health
from tsmjax.monitor.ledger import Ledger
from tsmjax.monitor.logs import show
from tsmjax.monitor.writers import JsonLines, Shielded, TensorBoard, WandB, custom, read

log = logging.getLogger(__name__)

_KEPT = 50  # findings that the results repeat


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What to report.

    Attributes:
      every: distance between log lines.
      health: distance between health reports; 0 for none.
      tensorboard: whether to write TensorBoard files.
      wandb: project of Weights & Biases to report to; "" for none. ``WANDB_MODE=offline`` keeps
        the files here.
      writers: writers of one's own, as ``package.module:Class``. The class is called with the run
        folder; it has ``write(step, values)`` and ``close()``, like those of `monitor.writers`.
      callbacks: what to call on the way, as ``package.module:Class``; a `monitor.Callback`.
      profile_steps: first and last step to profile, such as "100:105"; "" for none.
      plots: whether to draw the loss curve and example forecasts when training ends.
    """

    every: Duration = "100 steps"
    health: Duration = "10%"
    tensorboard: bool = True
    wandb: str = ""
    writers: tuple[str, ...] = ()
    callbacks: tuple[str, ...] = ()
    profile_steps: str = ""
    plots: bool = True


class Monitor:
    """Turns the numbers of steps into lines, health reports, `metrics.jsonl` and TensorBoard.

    Only the main process writes; on the others every call returns at once, callbacks aside.

    Attributes:
      ledger: where the time of the run goes; the loop tells it.
    """

    def __init__(
        self,
        folder: str | Path,
        config: LogConfig,
        total_steps: int,
        rows_per_step: int,
        start_step: int = 0,
        state: dict[str, Any] | None = None,
        facts: Facts | None = None,
        run_config: dict[str, Any] | None = None,
    ):
        """Open the run's files.

        Args:
          folder: the run folder.
          config: what to write.
          total_steps: steps of the whole run.
          rows_per_step: samples of one global batch.
          start_step: the step after which training continues; later records are dropped.
          state: what `state()` returned when that step was saved.
          facts: what health reports have to know; None makes none.
          run_config: the resolved config, for writers that keep it.
        """
        self.ledger = Ledger()
        self._folder = Path(folder)
        self._total_steps = total_steps
        self._rows = rows_per_step
        self._losses = line.LossTracker.from_state(state)
        self._main = jax.process_index() == 0
        self._facts = facts or Facts()
        self._health = Health(folder, self._facts, total_steps, start_step)
        self._findings: list[dict[str, Any]] = []
        self._writers: list[Shielded] = []
        self._disk_reads = line.disk_reads()
        if self._main:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open(start_step, config, run_config)
        self._callbacks = [
            find_object(name, "log.callbacks")(self._folder, run_config or {})
            for name in config.callbacks
        ]
        self._restart_clock(start_step)

    def step(self, step: int, metrics: dict[str, float], wait_ms: float = 0.0) -> None:
        """Report one logged step.

        Args:
          step: number of the step.
          metrics: its values on the host: `loss`, `grad_norm`, `learning_rate`, `bad`, and any
            other, which goes to the files only.
          wait_ms: how long the step waited for its batch.
        """
        self._losses.update(metrics.get("loss", float("nan")))
        for callback in self._callbacks:
            callback.step(step, metrics)
        if not self._main:
            return
        with self.ledger.spend("monitor"):
            self._health.logged(metrics)
            self._log(step, metrics, wait_ms)

    def watch(self, step: int, loss: float, grad_norm: float) -> None:
        """Take in a finished step, logged or not; makes the health report when it is due."""
        if not self._main or not self._facts.every:
            return
        spent = self.ledger.settle()
        self._health.step(step, loss, grad_norm, spent["input"] + spent["step"])
        if step % self._facts.every == 0 or step == self._total_steps:
            with self.ledger.spend("monitor"):
                began = time.perf_counter()
                self._report(step)
                self._clock += time.perf_counter() - began  # counts in no rate

    def work(self, flops: float | None, tokens: float | None = None) -> None:
        """Take in FLOPs of the forward pass and tokens of a step's global batch; None = unknown."""
        self._health.work(flops, tokens)

    def _report(self, step: int) -> None:
        """Print a health report, and write its numbers."""
        failures = [writer.failure for writer in self._writers if writer.failure]
        report = self._health.report(self._rows, self.ledger.settle(), failures)
        report = dataclasses.replace(
            report, findings=diagnosis.findings(report), limit=diagnosis.limit(report)
        )
        show(panel.panel(report), self._folder)
        self._write(step, "health", report.numbers())
        self._findings += [{"step": step, "finding": one} for one in report.findings]

    def _log(self, step: int, metrics: dict[str, float], wait_ms: float) -> None:
        seconds = time.perf_counter() - self._clock
        rate = (step - self._clock_step) / seconds if seconds > 0 else 0.0
        self._restart_clock(step)
        used, reads = line.memory(), line.disk_reads()
        log.info(
            line.format_line(
                step, self._total_steps, metrics, self._losses, used, rate, self._rows, wait_ms
            )
        )
        self._write(
            step,
            "train",
            {
                **metrics,
                "loss_ema": self._losses.ema,
                "steps_per_second": rate,
                "samples_per_second": rate * self._rows,
                "data_wait_ms": wait_ms,
                "disk_read_mb": (reads - self._disk_reads) / 2**20,
                "memory_gb": used.used / 2**30,
            },
        )
        self._disk_reads = reads

    def scores(self, step: int, scores: dict[str, float]) -> str:
        """Report the scores of one evaluation; the time it took counts in no rate.

        Returns:
          Why a callback wants to stop here; "" to go on.
        """
        if self._main:
            with self.ledger.spend("monitor"):
                self._health.evaluated(step, scores)
                self._log_scores(step, scores)
            self._restart_clock(step)
        reasons = [callback.scores(step, scores) for callback in self._callbacks]
        return next(filter(None, reasons), "")

    def _log_scores(self, step: int, scores: dict[str, float]) -> None:
        # Aggregates are SUITE/METRIC; the log names those, the files hold every data set.
        short = {name: value for name, value in scores.items() if name.count("/") == 1} or scores
        text = " | ".join(f"{name}={value:.4f}" for name, value in short.items())
        log.info("Scores at step %s: %s", f"{step:,}", text)
        self._write(step, "benchmark", scores)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to report the same numbers, as JSON values."""
        return self._losses.state()

    def outcome(self) -> dict[str, Any]:
        """Return what belongs into the results: seconds by kind, goodput, what was found wrong."""
        seconds = self.ledger.settle()
        return {
            "time": {kind: round(spent, 3) for kind, spent in seconds.items()},
            "goodput": round(seconds["step"] / max(sum(seconds.values()), 1e-9), 4),
            "findings": self._findings[-_KEPT:],
        }

    def end(self, outcome: dict[str, Any]) -> None:
        """Tell the callbacks what training came to."""
        for callback in self._callbacks:
            callback.end(outcome)

    def plot(self, folder: str | Path) -> Path | None:
        """Draw the loss curve of the whole run into `folder`; None when nothing was logged."""
        path = self._folder / "metrics.jsonl"
        if not self._main or not path.exists():
            return None
        return plots.loss_curve(read(path), Path(folder) / "loss.png")

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()

    def _open(self, start_step: int, config: LogConfig, run_config: dict[str, Any] | None) -> None:
        folder = self._folder
        path, events = folder / "metrics.jsonl", folder / "tensorboard"
        self._writers.append(Shielded("metrics.jsonl", lambda: JsonLines(path, start_step)))
        if config.tensorboard:
            self._writers.append(Shielded("TensorBoard", lambda: TensorBoard(events, start_step)))
        if config.wandb:
            self._writers.append(Shielded("W&B", lambda: WandB(folder, config.wandb, run_config)))
        for name in config.writers:
            writer = custom(name, folder)  # a name that is wrong ends the run at once
            self._writers.append(Shielded(name, lambda writer=writer: writer))

    def _write(self, step: int, group: str, values: dict[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        for writer in self._writers:
            writer.write(step, named)

    def _restart_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.perf_counter(), step
