"""Score a checkpoint on tasks of the benchmark library fev, into a file that its leaderboard reads.

    pip install fev
    python -m benchmarks.fev_tasks --checkpoint runs/a --tasks tasks.yaml --output results.csv

The file of tasks is fev's own (`tasks:` with `dataset_path`, `horizon`, …); fev cuts the windows,
computes the scores and names the columns. The file grows task by task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from tsmjax import Forecaster
from tsmjax.data.cache import beside


def main(arguments: list[str] | None = None) -> None:
    """Forecast and score every task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="run folder, HF folder or hub id")
    parser.add_argument("--tasks", required=True, help="YAML file or URL of the tasks")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--name", help="name of the model; the checkpoint's by default")
    parser.add_argument("--batch_size", type=int, default=256, help="series in one pass")
    parser.add_argument("--as_univariate", action="store_true", help="each target by itself")
    options = parser.parse_args(arguments)
    import fev

    forecaster = Forecaster.from_pretrained(options.checkpoint)
    name = options.name or Path(options.checkpoint).name
    rows = []
    for task in fev.Benchmark.from_yaml(options.tasks).tasks:
        predictions, seconds = forecaster.predict_fev(
            task, options.batch_size, options.as_univariate
        )
        summary = task.evaluation_summary(predictions, model_name=name, inference_time_s=seconds)
        rows.append(summary)
        print(f"{task.task_name}: {summary['eval_metric']} {summary['test_error']:.4f}")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with beside(options.output) as unfinished:
            pd.DataFrame(rows).to_csv(unfinished, index=False)


if __name__ == "__main__":
    main()
