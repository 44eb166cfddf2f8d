"""Metrics of one's own, beside those that an evaluator has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tsmjax.config import find_object
from tsmjax.errors import InputError
from tsmjax.evals.evaluator import Batch, Evaluator, Predict, Sums

# (batch, prediction) → (sum, weight); the score is the quotient of their totals.
Metric = Callable[[Batch, np.ndarray], tuple[float, float]]


def extended(evaluators: Sequence[Evaluator], paths: Sequence[str]) -> Sequence[Evaluator]:
    """Let evaluators score the functions that `paths` name, as ``package.module:function``.

    Raises:
      InputError: when there is no such module or function.
    """
    if not paths:
        return evaluators
    found = {path.partition(":")[2]: find_object(path, "evals.custom") for path in paths}
    return [Extended(evaluator, found) for evaluator in evaluators]


class Extended:
    """An evaluator that scores ``NAME/function`` too.

    A metric is called with every batch of the evaluator and the model's prediction for it, both on
    the host, and returns a sum and a weight; sums and weights are added over batches and hosts. A
    batch holds what the evaluator's `batches` gives (`target` or `label` or `truth`, and `weight`,
    0 for rows that only fill up), a prediction is what the task's `predict` returns.
    """

    def __init__(self, evaluator: Evaluator, metrics: dict[str, Metric]):
        self.name = evaluator.name
        self._evaluator, self._metrics = evaluator, metrics

    def batches(self, host: int, hosts: int) -> Sequence[Batch]:
        """Return those of the evaluator."""
        return self._evaluator.batches(host, hosts)

    def sums(self, predict: Predict, batch: Batch) -> Sums:
        """Add up the evaluator's sums, and those of the metrics."""
        seen: list[np.ndarray] = []

        def watched(inputs: Batch) -> np.ndarray:
            seen.append(np.asarray(predict(inputs)))
            return seen[-1]

        sums = dict(self._evaluator.sums(watched, batch))
        for name, metric in self._metrics.items():
            pairs = [np.asarray(metric(batch, one), np.float64) for one in seen]
            if any(pair.shape != (2,) for pair in pairs):
                raise InputError(
                    f"The metric {name} of evals.custom must return two numbers: a sum, a weight."
                )
            sums[_key(name)] = np.sum(pairs, axis=0)
        return sums

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into all scores; a metric without any weight is NaN."""
        own = {_key(name) for name in self._metrics}
        scores = self._evaluator.scores({k: v for k, v in sums.items() if k not in own})
        for name in self._metrics:
            total, weight = sums[_key(name)]
            scores[f"{self.name}/{name}"] = float(total / weight) if weight else float("nan")
        return scores

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw what the evaluator draws."""
        return self._evaluator.plot(folder)


def _key(name: str) -> str:
    return f"custom:{name}"
