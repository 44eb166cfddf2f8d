"""What a program of one's own does at points of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Callback:
    """Called by the training loop; override what is needed.

    Every process of a run calls its own, with the same numbers: write files on process 0 alone.
    A callback that raises ends the run.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]):
        """Begin.

        Args:
          run: the run folder.
          config: the resolved config, nested plain values.
        """

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the numbers of a logged step (`log.every`)."""

    def scores(self, step: int, scores: Mapping[str, float]) -> str | None:
        """Take in the scores of an evaluation.

        Returns:
          Why training should stop here, as a sentence without its full stop; None to go on.
        """

    def end(self, results: Mapping[str, Any]) -> None:
        """Take in what `results.json` holds, once training has ended well."""
