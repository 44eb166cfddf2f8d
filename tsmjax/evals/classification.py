"""Scores of classifiers, from a confusion matrix over all classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tsmjax.errors import InputError
from tsmjax.evals.evaluator import Batch, Predict, Sums


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count rows by (label, predicted class): (classes, classes) int64, which add over batches."""
    places = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def classification_scores(counts: np.ndarray) -> dict[str, float]:
    """Return scores of a confusion matrix.

    Precision without predictions, recall without rows and F1 without either are 0. Macro scores are
    means over all classes; `f1_macro_present` is the mean over classes that are in the labels or in
    the predictions, which other programs call macro-F1 too.

    Args:
      counts: (classes, classes) rows by label and predicted class.

    Returns:
      ``accuracy``, ``balanced_accuracy`` (over classes with rows), ``precision_macro``,
      ``recall_macro``, ``f1_macro``, ``f1_macro_present``, ``kappa`` (Cohen's), and for each class
      i ``precision_class_i``, ``recall_class_i`` and ``f1_class_i``.
    """
    counts = np.asarray(counts, np.float64)
    right, rows, guesses = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    precision, recall = share(right, guesses), share(right, rows)
    f1 = share(2 * right, rows + guesses)
    total = counts.sum()
    accuracy = right.sum() / total
    chance = float(rows @ guesses) / total**2
    scores = {
        "accuracy": accuracy,
        "balanced_accuracy": recall[rows > 0].mean(),
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "f1_macro": f1.mean(),
        "f1_macro_present": f1[rows + guesses > 0].mean(),
        "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else 0.0,
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        scores |= {f"{name}_class_{i}": value for i, value in enumerate(values)}
    return {name: float(value) for name, value in scores.items()}


class ClassificationEvaluator:
    """Scores predicted chances of each class: ``NAME/`` and each of `classification_scores`.

    ``NAME/log_loss`` is the mean negative log of the chance that the true class was given.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[np.ndarray], Batch],
        rows: np.ndarray,
        truth: np.ndarray,
        labels: Sequence[str],
        *,
        batch_size: int,
        split: str = "validation",
    ):
        """List what to score.

        Args:
          name: prefix of the scores.
          read: row numbers → batch of the model.
          rows: (N,) row numbers.
          truth: (N,) int, class of each.
          labels: names of all classes by id.
          batch_size: rows of one forward pass, on each host.
          split: what the rows are, for the title of the picture.

        Raises:
          InputError: when there are no rows.
        """
        if not len(rows):
            raise InputError(f"The {split} part of {name} has no rows to score.")
        self.name, self._read, self._split = name, read, split
        self._rows, self._truth, self._labels = np.asarray(rows), np.asarray(truth), tuple(labels)
        self._batch_size = batch_size
        self._counts: np.ndarray | None = None

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return this host's batches, with ``truth`` and ``weight``, zero for padding."""
        size = min(self._batch_size, -(-len(self._rows) // hosts))
        starts = range(host * size, len(self._rows) + host * size, size * hosts)
        return _Lazy([start + np.arange(size) for start in starts], self._batch)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Count rows by class and prediction, and sum log losses."""
        inputs = {name: x for name, x in batch.items() if name not in ("truth", "weight")}
        chances = np.asarray(predict(inputs), np.float64)
        real, truth = batch["weight"] > 0, batch["truth"]
        given = np.clip(chances[np.arange(len(truth)), truth], 1e-12, 1.0)
        # A broken model is not right about class 0.
        given = np.where(np.isfinite(chances).all(axis=1), given, np.nan)
        classes = len(self._labels)
        return {
            "counts": confusion(truth[real], chances[real].argmax(axis=1), classes),
            "log_loss": -np.log(given[real]).sum(),
            "rows": np.float64(real.sum()),
        }

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into scores; all are NaN when a prediction was not finite."""
        self._counts = np.asarray(sums["counts"])
        log_loss = float(sums["log_loss"] / sums["rows"])
        scores = {**classification_scores(self._counts), "log_loss": log_loss}
        broken = not np.isfinite(log_loss)
        return {f"{self.name}/{key}": np.nan if broken else x for key, x in scores.items()}

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the confusion matrix of the last evaluation; nothing before the first."""
        from tsmjax.monitor import plots

        if self._counts is None:
            return []
        path = Path(folder) / f"confusion_{self.name}_{self._split}.png"
        title = f"{self.name}, {self._split} part"
        return [plots.confusion_matrix(self._counts, self._labels, path, title=title)]

    def _batch(self, wanted: np.ndarray) -> Batch:
        """Read the rows at the places `wanted`; those past the end repeat the last one."""
        place = np.minimum(wanted, len(self._rows) - 1)
        weight = np.float32(wanted < len(self._rows))
        return {
            **self._read(self._rows[place]),
            "truth": self._truth[place],
            "weight": weight,
        }


class _Lazy(Sequence[Batch]):
    """Batches that are read when they are asked for."""

    def __init__(self, places: list[np.ndarray], read: Callable[[np.ndarray], Batch]):
        self._places, self._read = places, read

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Batch:
        return self._read(self._places[index])
