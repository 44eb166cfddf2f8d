"""What an encoder of clips has learned without labels: do neighbours show the same action?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tsmjax.evals.clips import ClipEvaluator
from tsmjax.evals.evaluator import Batch, Predict, Sums

_ROWS = 1024  # of the matrix of similarities at a time


class NeighbourEvaluator(ClipEvaluator):
    """Scores ``NAME/nearest``: share of the clips whose nearest other clip has the same action.

    Nearest is the largest inner product of what `predict` returns, (B, D). Labels are read for this
    score alone.
    """

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Put the vectors of a batch where they belong among those of all clips."""
        found = np.asarray(predict({k: v for k, v in batch.items() if k != "place"}))
        vectors = np.zeros((len(self.clips), found.shape[1]))
        counted = np.zeros(len(self.clips))
        rows = np.flatnonzero(batch["weight"])
        vectors[batch["place"][rows]], counted[batch["place"][rows]] = found[rows], 1.0
        return {"vectors": vectors, "counted": counted}

    def scores(self, sums: Sums) -> dict[str, float]:
        """Compare all clips that counted with each other."""
        counted = np.flatnonzero(sums["counted"])
        vectors, labels = sums["vectors"][counted], self._labels[counted]
        right = 0
        for start in range(0, len(counted), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(counted)))
            similar = vectors[rows] @ vectors.T
            similar[np.arange(len(rows)), rows] = -np.inf
            right += int((labels[similar.argmax(axis=1)] == labels[rows]).sum())
        share = right / len(counted) if len(counted) > 1 else float("nan")
        return {f"{self.name}/nearest": share}

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw nothing."""
        return []

    def _batch(self, start: int, rows: int) -> Batch:
        batch = super()._batch(start, rows)
        return batch | {"place": np.minimum(start + np.arange(rows), len(self.clips) - 1)}

    @property
    def _labels(self) -> np.ndarray:
        return self._reader.data.labels[self.clips]
