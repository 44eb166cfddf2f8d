"""What the training loop reports to: log line, metrics files, plots."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax

from tsmjax.config import Duration
from tsmjax.monitor import line, plots
from tsmjax.monitor.writers import JsonLines, Shielded, TensorBoard, read

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What to report.

    Attributes:
      every: distance between log lines.
      tensorboard: whether to write TensorBoard files.
      plots: whether to draw the loss curve and example forecasts when training ends.
    """

    every: Duration = "100 steps"
    tensorboard: bool = True
    plots: bool = True


class Monitor:
    """Turns the numbers of logged steps into a line, `metrics.jsonl` and TensorBoard.

    Only the main process writes; on the others every call returns at once.
    """

    def __init__(
        self,
        folder: str | Path,
        config: LogConfig,
        total_steps: int,
        rows_per_step: int,
        start_step: int = 0,
        state: dict[str, Any] | None = None,
    ):
        """Open the run's files.

        Args:
          folder: the run folder.
          config: what to write.
          total_steps: steps of the whole run.
          rows_per_step: samples of one global batch.
          start_step: the step after which training continues; later records are dropped.
          state: what `state()` returned when that step was saved.
        """
        self._folder = Path(folder)
        self._total_steps = total_steps
        self._rows = rows_per_step
        self._losses = line.LossTracker.from_state(state)
        self._main = jax.process_index() == 0
        self._writers: list[Shielded] = []
        self._disk_reads = line.disk_reads()
        if self._main:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open(start_step, config.tensorboard)
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
        if not self._main:
            return
        seconds = time.perf_counter() - self._clock
        rate = (step - self._clock_step) / seconds if seconds > 0 else 0.0
        self._restart_clock(step)
        used = line.memory()
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
                "disk_read_mb": (line.disk_reads() - self._disk_reads) / 2**20,
                "memory_gb": used.used / 2**30,
            },
        )
        self._disk_reads = line.disk_reads()

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Report the scores of one evaluation; the time it took counts in no rate."""
        if not self._main:
            return
        # Aggregates are SUITE/METRIC; the log names those, the files hold every data set.
        short = {name: value for name, value in scores.items() if name.count("/") == 1} or scores
        text = " | ".join(f"{name}={value:.4f}" for name, value in short.items())
        log.info("Scores at step %s: %s", f"{step:,}", text)
        self._write(step, "benchmark", scores)
        self._restart_clock(step)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to report the same numbers, as JSON values."""
        return self._losses.state()

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

    def _open(self, start_step: int, tensorboard: bool) -> None:
        path = self._folder / "metrics.jsonl"
        self._writers.append(Shielded("metrics.jsonl", lambda: JsonLines(path, start_step)))
        if tensorboard:
            events = self._folder / "tensorboard"
            self._writers.append(Shielded("TensorBoard", lambda: TensorBoard(events, start_step)))

    def _write(self, step: int, group: str, values: dict[str, float]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        for writer in self._writers:
            writer.write(step, named)

    def _restart_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.perf_counter(), step
