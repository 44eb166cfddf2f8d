"""Where numbers go: `metrics.jsonl`, TensorBoard, Weights & Biases, and writers of one's own."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from pathlib import Path
from typing import Any, Protocol

from tsmjax.config import find_object
from tsmjax.errors import InputError

log = logging.getLogger(__name__)

_FLUSH = 20  # seconds until TensorBoard sees what was written


class Writer(Protocol):
    """One place that numbers are written to."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the values of one step; names carry their group (`train/loss`)."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class JsonLines:
    """`metrics.jsonl`: one JSON object a logged step, `step` first.

    Training values stand under their own name (`loss`), scores under theirs (`embedded/wql`);
    numbers that are not finite become null. Opening the file for a run that continues after
    `start_step` drops later lines, which that run will write again, and a line cut short.
    """

    def __init__(self, path: str | Path, start_step: int = 0):
        self._path = Path(path)
        if self._path.exists():
            kept = "".join(json.dumps(row) + "\n" for row in read(self._path, start_step))
            beside = self._path.with_name(f".{self._path.name}.partial")
            beside.write_text(kept)
            os.replace(beside, self._path)
        self._file = self._path.open("a")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line."""
        row: dict[str, Any] = {"step": step}
        for name, value in values.items():
            short = name.removeprefix("train/").removeprefix("benchmark/")
            row[short] = value if math.isfinite(value) else None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: str | Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Read the rows of a `metrics.jsonl` up to `last_step`; unreadable lines are skipped."""
    rows = []
    with Path(path).open() as file:
        for line in file:
            try:
                row = json.loads(line)
                if last_step is None or row["step"] <= last_step:
                    rows.append(row)
            except (ValueError, KeyError, TypeError):  # cut short when the process was killed
                continue
    return rows


class TensorBoard:
    """Event files under `folder`; a run that continues hides what lies after `start_step`."""

    def __init__(self, folder: str | Path, start_step: int = 0):
        from tensorboardX import SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary

        purge = start_step + 1 if start_step else None
        self._summary = Summary
        self._writer = SummaryWriter(
            str(folder), purge_step=purge, flush_secs=_FLUSH, write_to_disk=True
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write one scalar for each value, under its name."""
        # One event for all of them: events wait for each other in a short queue.
        value = self._summary.Value
        scalars = [value(tag=name, simple_value=number) for name, number in values.items()]
        self._writer.file_writer.add_summary(self._summary(value=scalars), step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; its files are under `folder`/wandb.

    ``WANDB_MODE=offline`` needs no network: ``wandb sync`` uploads later. A run that continues goes
    on under the same id, from where W&B's own history ends.
    """

    def __init__(self, folder: str | Path, project: str, config: dict[str, Any] | None = None):
        try:
            import wandb
        except ImportError as error:
            raise InputError('log.wandb needs wandb: pip install "tsmjax[wandb]"') from error
        folder = Path(folder).absolute()
        self._run = wandb.init(
            project=project,
            dir=str(folder),
            # The id is a property of the folder, so that a resumed run finds it again.
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
            name=folder.name,
            group=folder.parent.name,
            config=config,
            resume="allow",
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log the values of one step; several calls for a step become one row."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Upload what is left, and end the run."""
        self._run.finish()


def custom(path: str, run: Path) -> Writer:
    """Build a writer of one's own: ``package.module:Class`` is called with the run folder.

    Raises:
      InputError: when there is no such module or class.
    """
    return find_object(path, "log.writers")(run)


class Shielded:
    """Passes calls on until one fails; then warns once and stays silent.

    A full disk or a broken event file must not end a training run.

    Attributes:
      failure: the warning, once the writer has failed; until then empty.
    """

    def __init__(self, name: str, build: Any):
        """Open the writer that `build()` returns; `name` is used in the warning."""
        self._name, self.failure = name, ""
        self._writer: Writer | None = None
        self._try(lambda: setattr(self, "_writer", build()))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write, unless the writer has failed before."""
        if self._writer:
            self._try(lambda: self._writer.write(step, values))

    def close(self) -> None:
        """Close, unless the writer has failed before."""
        if self._writer:
            self._try(self._writer.close)

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            self._writer = None
            self.failure = f"{self._name} is off from here on: {type(error).__name__}: {error}"
            log.warning("%s", self.failure)
