"""Metrics, and evaluators that own their data: how good is the model now?"""

from __future__ import annotations

import dataclasses
from typing import Literal

from tsmjax.config import Duration
from tsmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class EvalsConfig:
    """What to score during training.

    Attributes:
      every: distance between evaluations; 0 for none.
      suites: names of built-in suites (embedded, lite, zero_shot, in_domain), suite files (.yaml),
        or folders of one's own Arrow data.
      metric: the score that decides what is best: early stopping, kept checkpoints, best run.
      mode: whether a smaller ("min") or a larger ("max") metric is better.
      patience: stop when the metric has not improved for so long; 0 for never.
      batch_size: series in one forward pass, on each host.
      use_average: score the running average of the parameters when there is one.
      data: folder of the downloaded data sets that suites such as "lite" need.
      horizon: steps to forecast for suites that are folders; 0 for the model's longest.
      season_length: steps of one season for suites that are folders; 0 reads their column `freq`.
      grouped: forecast each item from all its variates and covariates, for suites that are folders;
        otherwise each variate on its own.
      custom: metrics of one's own, as ``package.module:function``; each becomes a score
        ``SUITE/function``. `evals.custom` says what they are called with.
    """

    every: Duration = "1000 steps"
    suites: tuple[str, ...] = ("embedded",)
    metric: str = "embedded/wql"
    mode: Literal["min", "max"] = "min"
    patience: Duration = 0
    batch_size: int = 256
    use_average: bool = True
    data: str = ""
    horizon: int = 0
    season_length: int = 0
    grouped: bool = False
    custom: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("horizon", 0), ("season_length", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"The config field evals.{name} is {getattr(self, name)}, "
                    f"but must be at least {least}."
                )
