"""Scores of a classifier of clips: top-1, top-5, mean over classes, macro-F1, confusion."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsmjax.data.cache import beside
from tsmjax.data.skeleton import Reader
from tsmjax.evals.classification import classification_scores
from tsmjax.evals.evaluator import Batch, Predict, Sums


class ClipEvaluator:
    """Scores ``NAME/top1``, ``top5``, ``mean_class_accuracy``, ``macro_f1`` and ``log_loss``.

    Attributes:
      name: prefix of every score.
      split: "validation" or "test".
      labels: names of the actions.
      clips: numbers of the clips.
    """

    def __init__(
        self, name: str, reader: Reader, clips: np.ndarray, batch_size: int, split: str = "test"
    ):
        """Take clips.

        Args:
          name: prefix of every score.
          reader: reads them.
          clips: their numbers.
          batch_size: clips of one forward pass, on each host.
          split: what the pictures are called after.
        """
        self.name, self.split = name, split
        self.labels = reader.data.facts.labels
        self.clips = clips
        self._reader, self._batch_size = reader, batch_size
        self._counts: np.ndarray | None = None

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches; ``weight`` is zero for padding."""
        rows = min(self._batch_size, -(-len(self.clips) // hosts))
        starts = range(host * rows, len(self.clips) + host * rows, rows * hosts)
        return _Lazy(self, list(starts), rows)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Count by label and prediction, and add up what else there is."""
        return sums(np.asarray(predict(batch)), batch["label"], batch["weight"])

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into scores; NaN when no clip counts."""
        self._counts = sums["confusion"]
        return scores(self.name, sums)

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the confusion matrix of the last evaluation, and write scores of each class."""
        if self._counts is None:
            return []
        stem = f"{self.name}_{self.split}"
        picture = draw_confusion(self._counts, self.labels, Path(folder) / f"confusion_{stem}.png")
        table = Path(folder) / f"classes_{stem}.csv"
        write_classes(self._counts, self.labels, table)
        return [picture, table]

    def _batch(self, start: int, rows: int) -> Batch:
        wanted = start + np.arange(rows)
        batch = self._reader.read(self.clips[np.minimum(wanted, len(self.clips) - 1)])
        batch["weight"] = batch["weight"] * (wanted < len(self.clips))
        return batch


class _Lazy(Sequence[Batch]):
    """Batches that are read when they are asked for."""

    def __init__(self, evaluator: ClipEvaluator, starts: list[int], rows: int):
        self._evaluator, self._starts, self._rows = evaluator, starts, rows

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Batch:
        return self._evaluator._batch(self._starts[index], self._rows)


def sums(chances: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Sums:
    """Sum up predictions of clips.

    Args:
      chances: (B, classes).
      labels: (B,).
      weight: (B,) 1, or 0 for clips that count nothing.
    """
    classes = chances.shape[1]
    chances = np.nan_to_num(chances.astype(np.float64))  # a broken model is wrong, not a crash
    best = chances.argmax(axis=1)
    own = chances[np.arange(len(labels)), labels]
    places = labels * classes + best
    confusion = np.bincount(places, weight, classes * classes).reshape(classes, classes)
    above = (chances > own[:, None]).sum(axis=1)
    return {
        "confusion": confusion,
        "top5": (weight * (above < 5)).sum(dtype=np.float64),
        "log_loss": -(weight * np.log(np.maximum(own, 1e-12))).sum(dtype=np.float64),
    }


def scores(name: str, sums: Sums) -> dict[str, float]:
    """Turn total sums into ``{"NAME/score": value}``."""
    counts = sums["confusion"]
    total = counts.sum()
    if not total:
        return {f"{name}/{score}": float("nan") for score in SCORES}
    found = classification_scores(counts)
    values = (
        found["accuracy"],
        float(sums["top5"] / total),
        found["balanced_accuracy"],
        found["f1_macro"],
        float(sums["log_loss"] / total),
    )
    return {f"{name}/{score}": value for score, value in zip(SCORES, values, strict=True)}


SCORES = ("top1", "top5", "mean_class_accuracy", "macro_f1", "log_loss")


def write_classes(counts: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Write recall, precision, F1 and the most frequent mistake of each class as CSV."""
    found = classification_scores(counts)
    wrong = counts - np.diag(np.diag(counts))
    with beside(path) as unfinished:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["class", "clips", "recall", "precision", "f1", "mistaken_for", "times"]
            )
            for number, label in enumerate(labels):
                other = int(wrong[number].argmax())
                times = int(wrong[number, other])
                values = [
                    f"{found[f'{score}_class_{number}']:.4f}"
                    for score in ("recall", "precision", "f1")
                ]
                mistake = labels[other] if times else ""
                row = [label, int(counts[number].sum()), *values, mistake, times]
                writer.writerow(row)


def draw_confusion(counts: np.ndarray, labels: Sequence[str], path: Path) -> Path:
    """Draw a confusion matrix, each row as shares of its label, into a PNG."""
    from tsmjax.monitor import plots

    classes = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3.0 + 0.32 * classes, 18.0)
    figure = plots.new_figure(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = labels if classes <= 60 else [str(number) for number in range(classes)]
    size = 8 if classes <= 30 else 5
    axes.set_xticks(range(classes), shown, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), shown, fontsize=size)
    if classes <= 30:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.6 else plots.INK
                text = f"{100 * share:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("action")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{int(counts.sum()):,} clips, {right:.1%} right (per cent of each row)")
    figure.colorbar(image, ax=axes, shrink=0.7)
    return plots.save(figure, path)
