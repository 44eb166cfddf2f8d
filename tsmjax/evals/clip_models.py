"""Trained classifiers of clips on the test part of their data: alone, and several together."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from tsmjax import compiler, pretrained
from tsmjax.data.cache import beside
from tsmjax.errors import InputError
from tsmjax.evals import clips
from tsmjax.evals.evaluator import read_ahead, tracked
from tsmjax.nn import functional


class Model(NamedTuple):
    """What a trained model says of the test clips.

    Attributes:
      name: heading.
      suite: name of the data set.
      clips: (N,) numbers of the clips.
      labels: names of the actions.
      label: (N,) their actions.
      weight: (N,) 0 for clips that cannot be read, else 1.
      chances: (N, actions).
    """

    name: str
    suite: str
    clips: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    weight: np.ndarray
    chances: np.ndarray

    def sums(self) -> clips.Sums:
        """Sums over the clips, see `tsmjax.evals.clips.sums`."""
        return clips.sums(self.chances, self.label, self.weight)

    def scores(self) -> dict[str, float]:
        """Scores by name, without the data set's."""
        return {
            name.partition("/")[2]: value
            for name, value in clips.scores(self.suite, self.sums()).items()
        }


def predict(path: str, name: str, data: str = "", batch_size: int = 64) -> Model:
    """Load a checkpoint and run it over the test clips.

    Args:
      path: of the checkpoint.
      name: heading.
      data: data set that replaces the one it was trained on; "" for that.
      batch_size: clips of one forward pass.

    Raises:
      InputError: when there is no model at the path, or its data are gone.
    """
    loaded = pretrained.from_pretrained(path)
    config = loaded.task.config
    values = {"data": config.data, "evals": config.evals}
    if data:
        values["data"] = dataclasses.replace(config.data, path=data)
    values["evals"] = dataclasses.replace(config.evals, batch_size=batch_size)
    task = dataclasses.replace(config, **values).build_task()
    evaluator = task.evaluator("test")
    graph, params, stats = functional.split(loaded.model)
    forward = compiler.jit(
        lambda params, batch: task.predict(functional.merge(graph, params, stats), batch)
    )
    found: dict[str, list[np.ndarray]] = {"label": [], "weight": [], "chances": []}
    batches = evaluator.batches(0, 1)
    for batch in tracked(read_ahead(batches), f"evaluating {name}", len(batches)):
        found["chances"].append(np.asarray(forward(params, batch)))
        for key in ("label", "weight"):
            found[key].append(batch[key])
    count = len(evaluator.clips)
    arrays = {key: np.concatenate(parts)[:count] for key, parts in found.items()}
    return Model(name, evaluator.name, evaluator.clips, evaluator.labels, **arrays)


def ensemble(models: Sequence[Model], weights: Sequence[float] | None = None) -> Model:
    """Average the chances that several models give to the actions.

    Args:
      models: at least two, of the same test clips.
      weights: how much each counts; None for all alike.

    Raises:
      InputError: when there are fewer, their clips or actions differ, or weights are not as many
        positive numbers.
    """
    if len(models) < 2:
        raise InputError("--ensemble needs at least two checkpoints.")
    first = models[0]
    for other in models[1:]:
        if other.labels != first.labels or not np.array_equal(other.clips, first.clips):
            raise InputError(
                f"--ensemble needs models of the same clips and actions, but {first.name} was "
                f"tested on {len(first.clips)} clips of {first.suite} and {other.name} on "
                f"{len(other.clips)} of {other.suite}, or others of them."
            )
    weights = [1.0] * len(models) if weights is None else list(weights)
    if len(weights) != len(models) or min(weights) < 0 or not sum(weights) > 0:
        raise InputError(
            f"--weights are {weights}, but must be {len(models)} numbers from 0 on, one for each "
            "checkpoint, not all 0."
        )
    chances = sum(w * model.chances for w, model in zip(weights, models, strict=True))
    weight = np.min([model.weight for model in models], axis=0)
    return first._replace(name="ensemble", chances=chances / sum(weights), weight=weight)


def table(models: Sequence[Model]) -> Table:
    """One row a model, one column a score; the gain of an ensemble over the best of its models."""
    rows = {model.name: model.scores() for model in models}
    drawn = Table(title=f"{models[0].suite}: {len(models[0].clips):,} clips", title_justify="left")
    drawn.add_column("model")
    for name in clips.SCORES:
        drawn.add_column(name, justify="right")
    for name, row in rows.items():
        drawn.add_row(name, *(f"{row[score]:.4f}" for score in clips.SCORES))
    if "ensemble" in rows:
        alone = max(row["top1"] for name, row in rows.items() if name != "ensemble")
        gain = 100 * (rows["ensemble"]["top1"] - alone)
        drawn.add_section()
        drawn.add_row("ensemble gain", f"{gain:+.2f} points")
    return drawn


def write_csv(models: Sequence[Model], path: Path) -> None:
    """Write the scores of all models."""
    with beside(path) as unfinished, open(unfinished, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "model", *clips.SCORES])
        for model in models:
            row = model.scores()
            writer.writerow([model.suite, model.name, *(row[score] for score in clips.SCORES)])


def draw(model: Model, folder: Path) -> None:
    """Draw the confusion matrix, and write the scores of each action."""
    counts, stem = model.sums()["confusion"], f"{model.suite}_{model.name.replace('/', '_')}"
    clips.draw_confusion(counts, model.labels, folder / f"confusion_{stem}.png")
    clips.write_classes(counts, model.labels, folder / f"classes_{stem}.csv")
