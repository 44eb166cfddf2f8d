"""What becomes of a model on small devices: size, accuracy and time of each variant beside JAX."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Group
from rich.table import Table

from tsmjax.errors import InputError
from tsmjax.export.head import Arrays, Head, metadata
from tsmjax.nn.functional import flatten

Call = Callable[[Arrays], np.ndarray]  # inputs of one row → logits (1, classes)
_TIMED = 50  # calls whose median is told


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form of a model, on the examples of the test part.

    Attributes:
      name: of the form.
      bytes: size of its file; 0 where there is none.
      top1: share of the examples whose class it names.
      agreement: share of the examples of which it says what JAX says.
      error: largest |logit − JAX's| / max(1, |JAX's|).
      milliseconds: median time of a call on one example, on one thread where the library lets us.
      cpu_milliseconds: the same in CPU time of all threads, the fairer figure on a busy machine.
    """

    name: str
    bytes: int
    top1: float
    agreement: float
    error: float
    milliseconds: float
    cpu_milliseconds: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a model.

    Attributes:
      file: name of the file.
      format: "int8" or "litert".
      quantise: what is quantised: "none", "weights" or "static".
      source: where the weights are from.
      parameters: numbers in the model's weights.
      examples: of the test part that were scored.
      calibration: method, and number of training examples, that ranges of activations are from.
      drop: points of top-1 that the file loses against JAX.
      allowed: drop from which on no file is kept.
      variants: JAX, the file before it was quantised, and the file.
      machine: what computed.
      facts: what users of the file must know: inputs, outputs, labels, preprocessing.
    """

    file: str
    format: str
    quantise: str
    source: str
    parameters: int
    examples: int
    calibration: dict[str, Any]
    drop: float
    allowed: float
    variants: tuple[Variant, ...]
    machine: str
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return dataclasses.asdict(self)


class Examples:
    """The test part of a head's data, what JAX says of it, and how others are scored beside.

    Attributes:
      inputs: of each example.
      labels: (N,) classes.
      jax: the score of JAX in float32.
    """

    def __init__(self, head: Head):
        """Read the examples and run JAX over them.

        Raises:
          InputError: when the head has no classes, or its data are gone.
        """
        found = list(labelled(head, "test"))
        self.inputs = [inputs for inputs, _ in found]
        self.labels = np.array([label for _, label in found])
        weights = jax.tree.map(jax.numpy.asarray, head.weights)
        compiled = jax.jit(lambda weights, batch: head.function(weights, batch)["logits"])

        def call(batch: Arrays) -> np.ndarray:
            with jax.default_matmul_precision("highest"):
                return np.asarray(compiled(weights, batch))

        self._logits = np.concatenate([call(inputs) for inputs in self.inputs])
        self.jax = self._scored("jax fp32", 0, self._logits, call)

    def score(self, name: str, call: Call, size: int = 0) -> Variant:
        """Score a form of the model, which takes one example at a time."""
        logits = np.concatenate([call(inputs) for inputs in self.inputs])
        return self._scored(name, size, logits, call)

    def _scored(self, name: str, size: int, logits: np.ndarray, call: Call) -> Variant:
        said, wanted = logits.argmax(axis=1), self._logits.argmax(axis=1)
        apart = np.abs(logits - self._logits) / np.maximum(1.0, np.abs(self._logits))
        return Variant(
            *(name, size, float((said == self.labels).mean()), float((said == wanted).mean())),
            *(float(apart.max()), *milliseconds(lambda: call(self.inputs[0]))),
        )


def labelled(head: Head, part: str) -> Any:
    """Iterate over the labelled examples of a part of a head's data.

    Raises:
      InputError: when the head has no classes.
    """
    if head.labelled is None:
        raise InputError(f"A model of the family {head.family} names no classes to be scored by.")
    return head.labelled(part)


def calibration(head: Head, count: int) -> list[Arrays]:
    """Inputs of training examples that ranges of activations are measured on, at most `count`.

    Raises:
      InputError: when the head has no classes, its data are gone, or none of them can be read.
    """
    found = []
    for inputs, _ in labelled(head, "train"):
        found.append(inputs)
        if len(found) == count:
            break
    if not found:
        raise InputError("The training part has no example to calibrate with.")
    return found


def check(path: Path, reference: Variant, found: Variant, allowed: float) -> float:
    """Return how many points of top-1 a variant loses.

    Raises:
      InputError: when these are `allowed` or more, or its outputs are no numbers.
    """
    drop = round(100 * (reference.top1 - found.top1), 4)
    if not np.isfinite(found.error) or drop >= allowed:
        raise InputError(
            f"{path} was not written: quantised, the model names {100 * found.top1:.2f} % of the "
            f"test examples instead of {100 * reference.top1:.2f} %, and {drop:.2f} points are "
            f"not below --max-drop {allowed:g}; calibrate with more clips or another method, or "
            "quantise weights only."
        )
    return drop


def describe(
    head: Head,
    path: Path,
    variants: Sequence[Variant],
    *,
    form: tuple[str, str],
    calibration: dict[str, Any],
    allowed: float,
    library: str,
    source: str,
    examples: int,
) -> Report:
    """Describe a file that is about to be kept.

    Args:
      head: what it computes.
      path: its place.
      variants: JAX first, the file last.
      form: `Report.format` and `Report.quantise`.
      calibration: as in `Report`.
      allowed: points of top-1 from which on a loss is too large.
      library: what ran the file, with its version.
      source: where the weights are from.
      examples: number of the test examples.

    Raises:
      InputError: of `check`.
    """
    return Report(
        *(path.name, *form, source),
        parameters=sum(leaf.size for leaf in flatten(head.weights).values()),
        examples=examples,
        calibration=calibration,
        drop=check(path, variants[0], variants[-1], allowed),
        allowed=allowed,
        variants=tuple(variants),
        machine=f"{library}, one of {os.cpu_count()} CPU threads; jax {jax.__version__} on "
        f"{jax.default_backend()}",
        facts=metadata(head, source),
    )


def milliseconds(call: Callable[[], Any], calls: int = _TIMED) -> tuple[float, float]:
    """Median wall time and CPU time of a call."""
    wall, cpu = [], []
    for _ in range(calls):
        start, busy = time.perf_counter(), time.process_time()
        call()
        cpu.append(time.process_time() - busy)
        wall.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(wall), 4), round(1e3 * statistics.median(cpu), 4)


def table(variants: Sequence[Variant], title: str) -> Table:
    """One row a variant."""
    drawn = Table(title=title, title_justify="left")
    columns = ("variant", "bytes", "top-1, %", "as jax, %", "error", "ms", "CPU ms")
    for column in columns:
        drawn.add_column(column, justify="left" if column == "variant" else "right")
    for each in variants:
        drawn.add_row(
            *(each.name, f"{each.bytes:,}" if each.bytes else "–", f"{100 * each.top1:.2f}"),
            *(f"{100 * each.agreement:.2f}", f"{each.error:.1e}", f"{each.milliseconds:.2f}"),
            f"{each.cpu_milliseconds:.2f}",
        )
    return drawn


def text(report: Report) -> Group:
    """Return the report for the terminal."""
    return Group(
        table(report.variants, f"{report.file}: {report.examples:,} test examples"),
        f"{report.parameters:,} parameters; top-1 drops by {report.drop:.2f} points (below "
        f"{report.allowed:g} is kept); {report.machine}",
    )
