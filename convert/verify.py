"""Compare our model with its reference implementation, stage by stage."""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from tsmjax import weights
from tsmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity computed by both implementations.

    Attributes:
      name: what it is, such as ``block 3`` or ``gradient encoder.block.0…``.
      error: how far the two are apart.
      tolerance: how far they may be.
      detail: one gradient of many, listed only when it differs.
    """

    name: str
    error: float
    tolerance: float
    detail: bool = False

    @property
    def ok(self) -> bool:
        """Whether the two agree; NaN never does."""
        return self.error <= self.tolerance


def max_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; arrays of different shapes are infinitely far apart."""
    if np.shape(ours) != np.shape(theirs):
        return float("inf")
    return float(np.max(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))))


def run(found: weights.Imported) -> int:
    """Compare `found` with the reference on its family's test case, and print a table.

    Both run in fp32 on the CPU. The weights travel through `weights.write`, so that the export is
    verified as well.

    Returns:
      0 when everything agrees, 1 otherwise.

    Raises:
      InputError: when the family has no verifier, or the reference is not installed.
    """
    name = f"convert.verify_{found.family}"
    try:
        family = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise InputError(f"There is no verifier for family {found.family!r}.") from None
        raise InputError(
            f"convert verify needs {error.name}: pip install 'tsmjax[convert]'."
        ) from error
    with (
        tempfile.TemporaryDirectory() as folder,
        jax.default_device(jax.devices("cpu")[0]),
        jax.default_matmul_precision("highest"),
    ):
        exported = Path(folder) / "export"
        weights.write(exported, found.family, found.config_values, found.params, stats=found.stats)
        rows = family.verify(exported)
    return report(rows, found.source)


def report(rows: Sequence[Row], title: str) -> int:
    """Print `rows` as a table with a verdict below; returns 0 when all agree, else 1."""
    table = Table(title=title)
    for heading in ("stage", "difference", "tolerance", ""):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for row in rows:
        if row.detail and row.ok:
            continue
        verdict = "[green]ok[/]" if row.ok else "[red]differs[/]"
        table.add_row(row.name, f"{row.error:.2e}", f"{row.tolerance:.2e}", verdict)
    console = Console()
    console.print(table)
    if details := [row for row in rows if row.detail]:
        agree = sum(row.ok for row in details)
        console.print(f"{agree} of {len(details)} gradients agree.")
    first = next((row for row in rows if not row.ok), None)
    if first is None:
        console.print("Both implementations agree.")
        return 0
    console.print(f"The first stage that differs is: {first.name}.")
    return 1
