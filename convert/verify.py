"""Compare our model with its reference implementation, stage by stage."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from tsmjax import weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError, closest
from tsmjax.nn.functional import Tree, abstract, merge
from tsmjax.weights import tables

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = (1e-4, 1e-6)  # relative to the tensor's norm and to the whole gradient's
RANDOM = "random:"  # before the name of a preset, in place of a source


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity computed by both implementations.

    Attributes:
      name: what it is, such as ``block 3`` or ``gradient encoder.block.0…``.
      error: how far the two are apart.
      tolerance: how far they may be.
      size: how large the quantity is: its largest value, or the norm of a gradient.
      detail: one gradient of many, listed only when it differs.
    """

    name: str
    error: float
    tolerance: float
    size: float = 1.0
    detail: bool = False

    @property
    def ok(self) -> bool:
        """Whether the two agree; NaN never does."""
        return self.error <= self.tolerance


@dataclasses.dataclass
class Trace:
    """What a forward and backward pass computed; everything in the reference's layout and names.

    Attributes:
      states: stage → hidden states, in the order of computation.
      outputs: name → what the model returns.
      gradients: tensor name → gradient.
      loss: the loss that was differentiated; None when it is no training loss.
      lost: tensors that the reference missed or did not know when it loaded the weights.
    """

    states: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    loss: float | None = None
    lost: int = 0


def compare(
    mine: Trace,
    theirs: Trace,
    tolerance: float = 1e-4,
    at_least: float = 0.0,
    again: Trace | None = None,
    kinks: bool = False,
) -> list[Row]:
    """Set what both computed side by side.

    Args:
      mine: our trace.
      theirs: that of the reference.
      tolerance: of states and outputs, relative to their largest value.
      at_least: least size of states and outputs that the tolerance is relative to.
      again: a trace of the reference by another way of its own: three times the distance between
        the two is allowed where that is more than the tolerance.
      kinks: rounding moves units across kinks of their activation, in whichever layer: gradients
        are allowed three times the largest distance of any of them, relative to its norm.
    """

    def apart(name: str, error: Callable[[Trace], float], allowed: float, size: float) -> Row:
        noise = 0.0 if again is None else 3 * error(again)
        detail = name.startswith("gradient ")
        return Row(name, error(mine), max(allowed, noise), size, detail)

    rows = [Row("tensors that the reference did not load", float(theirs.lost), 0.0)]
    for kind in ("states", "outputs"):
        for name, expected in getattr(theirs, kind).items():
            size = max(at_least, float(np.abs(expected).max()))
            error = lambda x, n=name, e=expected, k=kind: max_error(getattr(x, k)[n], e)  # noqa: E731
            rows.append(apart(name, error, tolerance * size, size))
    if theirs.loss is not None:
        size = abs(theirs.loss)
        rows.append(apart("loss", lambda x: abs(x.loss - theirs.loss), LOSS_TOLERANCE * size, size))
    norms = {name: float(np.linalg.norm(g)) for name, g in theirs.gradients.items()}
    whole = float(np.sqrt(sum(norm**2 for norm in norms.values())))
    relative, absolute = GRADIENT_TOLERANCE
    if kinks and again is not None:
        floor = max(
            float(np.linalg.norm(again.gradients[name] - g)) / norms[name]
            for name, g in theirs.gradients.items()
            if norms[name] > 1e-3 * whole
        )
        relative = max(relative, 3 * floor)
    for name, expected in theirs.gradients.items():
        error = lambda x, n=name, e=expected: float(np.linalg.norm(x.gradients[n] - e))  # noqa: E731
        allowed = relative * norms[name] + absolute * whole
        rows.append(apart(f"gradient {name}", error, allowed, norms[name]))
    return rows


def max_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; arrays of different shapes are infinitely far apart."""
    if np.shape(ours) != np.shape(theirs):
        return float("inf")
    return float(np.max(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))))


@contextlib.contextmanager
def recording(layer: type, keep: Callable[[Any], None]) -> Iterator[None]:
    """Give what each call of a layer of ours returns to `keep`."""
    run = layer.__call__

    def call(*arguments):
        output = run(*arguments)
        keep(output)
        return output

    with mock.patch.object(layer, "__call__", call):
        yield


def unrolled(module: ModuleType, config: Any, params: Tree) -> nnx.Module:
    """Return a model of ours whose blocks are called one by one, so that `recording` sees them."""
    config = dataclasses.replace(config, scan_layers=False)
    graph, layout, _ = abstract(lambda rngs: module.Model(config, rngs=rngs))
    return merge(graph, weights.relayout(params, layout), {})


def run(found: weights.Imported) -> int:
    """Compare `found` with the reference on its family's test case, and print a table.

    Returns:
      0 when everything agrees, 1 otherwise.

    Raises:
      InputError: when the family has no verifier, or the reference is not installed.
    """
    return report(rows(found), found.source)


def rows(found: weights.Imported) -> list[Row]:
    """Compare `found` with the reference on its family's test case.

    Both run in fp32 on the CPU. The weights travel through `weights.write`, so that the export is
    verified as well.

    Raises:
      InputError: when the family has no verifier, or the reference is not installed.
    """
    family = verifier(found.family)
    with (
        tempfile.TemporaryDirectory() as folder,
        jax.default_device(jax.devices("cpu")[0]),
        jax.default_matmul_precision("highest"),
    ):
        exported = Path(folder) / "export"
        params = jax.tree.map(lambda x: np.asarray(x, np.float32), found.params)
        weights.write(exported, found.family, found.config_values, params, stats=found.stats)
        return family.verify(exported)


def random(
    family: str, preset: str, changes: Mapping[str, Any] | None = None, seed: int = 0
) -> weights.Imported:
    """Draw the weights of a reference model of one of our presets' size.

    Args:
      family: its family.
      preset: one of the family's presets.
      changes: values of the family's `Config` beside those of the preset.
      seed: of the weights.

    Raises:
      InputError: when there is no such preset, or the reference is not installed.
    """
    module = find_module("models", family)
    if preset not in module.PRESETS:
        raise InputError(
            f"{family} has no preset {preset!r}{closest(preset, module.PRESETS)}; known are "
            f"{', '.join(module.PRESETS)}."
        )
    values = {**module.PRESETS[preset], **(changes or {})}
    config = build(module.Config, values, "model")
    hf = tables.table(family).from_config(dataclasses.asdict(config))
    if "initializer_factor" in hf:
        hf["initializer_factor"] = verifier(family).INITIALIZER_FACTOR
    from convert import reference

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        reference.save_random(verifier(family).reference_class(hf), hf, folder, seed)
        found = weights.read(folder, family, model_overrides=changes)
    return dataclasses.replace(found, source=f"random weights, {family} {preset}")


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


def verifier(family: str) -> ModuleType:
    """Return the module that runs a family's reference.

    Raises:
      InputError: when there is none, or the reference is not installed.
    """
    name = f"convert.verify_{family}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            known = ", ".join(sorted(_verifiers()))
            raise InputError(
                f"There is no reference implementation to verify family {family!r} with; there is "
                f"one for {known}."
            ) from None
        raise InputError(
            f"convert verify needs {error.name}: pip install 'tsmjax[convert]'"
            f"{' and granite-tsfm, see docs/ttm.md' if family == 'ttm' else ''}."
        ) from error


def _verifiers() -> list[str]:
    return [path.stem.removeprefix("verify_") for path in Path(__file__).parent.glob("verify_*.py")]
