"""Scores of classifiers, from a confusion matrix over all classes."""

from __future__ import annotations

import numpy as np


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
