"""Scores of an evaluation as files: the layouts of public result tables, and a report to read."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tsmjax.data.cache import beside
from tsmjax.evals import metrics

REFERENCE = "seasonal-naive"
LAYOUTS = ("chronos", "gift_eval")
# Columns of the GIFT-Eval leaderboard; a quantile forecast's mean is its median.
_GIFT_EVAL = {
    "MSE[mean]": "MSE",
    "MSE[0.5]": "MSE",
    "MAE[0.5]": "MAE",
    "MASE[0.5]": "mase",
    "MAPE[0.5]": "MAPE",
    "sMAPE[0.5]": "sMAPE",
    "MSIS": "MSIS",
    "RMSE[mean]": "RMSE",
    "NRMSE[mean]": "NRMSE",
    "ND[0.5]": "ND",
    "mean_weighted_sum_quantile_loss": "wql",
}


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores of one model on one data set.

    Attributes:
      suite: name of the suite.
      dataset: name of the data set.
      model: name of the model.
      wql: see `tsmjax.evals.metrics.weighted_quantile_loss`.
      mase: see `tsmjax.evals.metrics.mean_absolute_scaled_error`.
      details: see `tsmjax.evals.details.figures`.
    """

    suite: str
    dataset: str
    model: str
    wql: float
    mase: float
    details: dict[str, float]


def write_csv(scores: Sequence[Score], path: Path, layout: str = "chronos") -> None:
    """Write a line for each score.

    Args:
      scores: what to write.
      path: file to write.
      layout: "chronos" has the columns ``dataset,model,MASE,WQL`` in which Chronos results are
        published, "gift_eval" those of the GIFT-Eval leaderboard; a data set's name there is
        ``NAME/FREQUENCY/TERM``, as the suite file says it, and its domain is left empty.
    """
    if layout == "chronos":
        header = ["dataset", "model", "MASE", "WQL"]
        rows = [[s.dataset, s.model, s.mase, s.wql] for s in scores]
    else:
        header = ["dataset", "model", *(f"eval_metrics/{name}" for name in _GIFT_EVAL)]
        header += ["domain", "num_variates"]
        rows = []
        for s in scores:
            values = {"wql": s.wql, "mase": s.mase, **s.details}
            figures = [values[name] for name in _GIFT_EVAL.values()]
            rows.append([s.dataset, s.model, *figures, "", 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as unfinished, unfinished.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *dict.fromkeys(map(tuple, rows))])


def picture(suite: str, dataset: str, model: str) -> str:
    """Name of the picture of a data set's best, median and worst forecast."""
    return re.sub(r"[^\w.-]+", "_", f"{suite}_{dataset}_{model}") + ".png"


def write_report(scores: Sequence[Score], folder: Path) -> None:
    """Write ``report.md``: each model on each data set, beside seasonal naive, with its pictures.

    Args:
      scores: those of all models, seasonal naive among them.
      folder: folder with the pictures, which the report shows.
    """
    naive = {(s.suite, s.dataset): s for s in scores if s.model == REFERENCE}
    lines = [
        "# Evaluation",
        "",
        "WQL and MASE as GluonTS computes them; × is the score relative to seasonal naive, below 1 "
        "is better than it.",
        "80 % interval: share of the truths between the levels 0.1 and 0.9, ideally 0.8. "
        "Calibration error: mean distance between a level and the share of truths below it, "
        "ideally 0. Crossing: share of steps at which a higher level lies below a lower one.",
    ]
    for suite, model in dict.fromkeys((s.suite, s.model) for s in scores):
        chosen = [s for s in scores if (s.suite, s.model) == (suite, model)]
        heads = "data set | WQL | × | MASE | × | 80 % interval | calibration error | crossing"
        lines += ["", f"## {suite}: {model}", "", f"| {heads} |", "|---" + "|---:" * 7 + "|"]
        for s in chosen:
            base = naive[suite, s.dataset]
            cells = [s.wql, _ratio(s.wql, base.wql), s.mase, _ratio(s.mase, base.mase)]
            cells += [s.details[key] for key in ("interval_80", "calibration_error", "crossing")]
            lines.append(f"| {s.dataset} | " + " | ".join(map(_number, cells)) + " |")
        means = [
            metrics.geometric_mean(
                [getattr(s, name) for s in chosen],
                [getattr(naive[suite, s.dataset], name) for s in chosen],
            )
            for name in ("wql", "mase")
        ]
        wql, mase = map(_number, means)
        lines.append(f"| geometric mean |  | {wql} |  | {mase} |  |  |  |")
        for s in chosen:
            if (folder / (name := picture(suite, s.dataset, model))).exists():
                lines += ["", f"![Best, median and worst forecast of {s.dataset}]({name})"]
    folder.mkdir(parents=True, exist_ok=True)
    with beside(folder / "report.md") as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")


def _ratio(score: float, baseline: float) -> float:
    return score / baseline if np.isfinite(baseline) and baseline > 0 else np.nan


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"
