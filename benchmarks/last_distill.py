"""A ShiftFuse student on NW-UCLA: alone, distilled, averaged, pretrained, with causal convolutions.

    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.last_distill --json last_distill.json
    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.last_distill --seeds 0 --only alone distilled

All rows train the same net on joints for the same number of epochs. The teachers are four such nets,
one a stream, of seed 0; their chances are weighed as in `benchmarks.last_accuracy`, together they have
at most 0.2 GMAC. Runs that are done below `--workdir` are not repeated, so that several processes may
share the rows between them. Told are scores of the last checkpoint (`@final`) on view 3: the test part
chooses nothing. The last line printed is JSON; ``--json FILE`` writes it too.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks.last_accuracy import STREAMS, prepared
from benchmarks.trained import trained
from configs import last_distill, last_pretrain, shiftfuse
from tsmjax import allocator, checkpoint
from tsmjax.config import resolve
from tsmjax.evals import clip_models
from tsmjax.models import last

SET = "ucla"
WANTED = 0.01  # top-1 that distillation should add


class Runs:
    """The trainings below a folder, made when they are asked for.

    Attributes:
      words: of the configs: size, data set and folder of clips.
      epochs: of every training.
    """

    def __init__(self, workdir: Path, size: str, epochs: int):
        self.workdir, self.epochs = workdir, epochs
        self.words = f"{size},{SET},{prepared(SET, workdir)}"

    def run(self, name: str, config: ConfigDict, seed: int) -> str:
        """Train a config unless it is trained; return the path of its last checkpoint."""
        config.seed = seed
        config.optim.length = f"{self.epochs} epochs"
        folder = self.workdir / f"{name}_{seed}"
        trained(config, str(folder))
        return f"{folder}@final"

    def alone(self, seed: int, stream: str = "joint") -> str:
        """From labels."""
        return self.run(stream, shiftfuse.get_config(f"{self.words},{stream}"), seed)

    def distilled(self, seed: int) -> str:
        """From labels and the four teachers."""
        words = [f"teacher={self.alone(0, stream)}" for stream in STREAMS]
        config = last_distill.get_config(",".join([self.words, "joint", *words]))
        weighed = zip(config.task.teachers, STREAMS.values(), strict=True)
        config.task.teachers = tuple({**teacher, "weight": weight} for teacher, weight in weighed)
        return self.run("distilled", config, seed)

    def averaged(self, seed: int) -> str:
        """From labels; the mean of the weights over the last quarter of the epochs."""
        config = shiftfuse.get_config(f"{self.words},joint")
        config.optim.swa = {"start": "75%"}
        return self.run("averaged", config, seed)

    def causal(self, seed: int) -> str:
        """From labels; in half of the steps convolutions see the past only."""
        config = shiftfuse.get_config(f"{self.words},joint")
        config.task.causal = 0.5
        return self.run("causal", config, seed)

    def encoder(self, seed: int) -> str:
        """Without labels."""
        return self.run("encoder", last_pretrain.get_config(f"{self.words},joint"), seed)

    def pretrained(self, seed: int) -> str:
        """From labels, from the weights of the encoder of the same seed."""
        words = f"{self.words},joint,init={self.encoder(seed)}"
        return self.run("pretrained", shiftfuse.get_config(words), seed)


ROWS: dict[str, Callable[[Runs, int], str]] = {
    "alone": Runs.alone,
    "distilled": Runs.distilled,
    "averaged": Runs.averaged,
    "pretrained": Runs.pretrained,
    "causal": Runs.causal,
}


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--size", default="nano", help="of ShiftFuse")
    parser.add_argument("--epochs", type=int, default=60, help="of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--once", nargs="+", choices=ROWS, default=[], help="first seed alone")
    parser.add_argument("--workdir", type=Path, default=Path("runs/last_distill"))
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    runs = Runs(options.workdir, options.size, options.epochs)
    rows = {
        name: [top1(ROWS[name](runs, seed), name) for seed in seeds]
        for names, seeds in ((options.only, options.seeds), (options.once, options.seeds[:1]))
        for name in names
    }
    teachers = [clip_models.predict(runs.alone(0, stream), stream) for stream in STREAMS]
    together = clip_models.ensemble(teachers, list(STREAMS.values()))
    config = resolve(shiftfuse.get_config(f"{runs.words},joint"))
    result: dict[str, Any] = {
        "benchmark": "last_distill",
        "net": f"shiftfuse {options.size}",
        "gmac": round(last.flops(config.model, 1) / 2e9, 4),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "teachers": {model.name: model.scores()["top1"] for model in [*teachers, together]},
        "rows": rows,
        "wanted": WANTED,
        "git_commit": checkpoint.versions()["git_commit"],
    }
    show(result)
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def top1(path: str, name: str) -> float:
    """Share of the test clips whose action a checkpoint finds."""
    return clip_models.predict(path, name).scores()["top1"]


def show(result: dict[str, Any]) -> None:
    """Print top-1 of every row, its mean, and what it adds to the student alone."""
    table = Table(title=f"NW-UCLA, joints: top-1 of {result['net']}, per cent")
    table.add_column("")
    for column in (*(f"seed {seed}" for seed in result["seeds"]), "mean", "beside alone"):
        table.add_column(column, justify="right")
    alone = result["rows"].get("alone", [])
    for name, scores in result["rows"].items():
        told = [f"{100 * score:.2f}" for score in scores]
        told += [""] * (len(result["seeds"]) - len(scores)) + [f"{100 * mean(scores):.2f}"]
        if alone:  # of the same seeds
            told.append(f"{100 * (mean(scores) - mean(alone[: len(scores)])):+.2f}")
        table.add_row(name, *told)
    table.add_section()
    for name, score in result["teachers"].items():
        table.add_row(f"teacher: {name}", f"{100 * score:.2f}")
    Console().print(table)
    print(f"Distillation should add {100 * result['wanted']:.0f} point.")


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of the module's text."""


if __name__ == "__main__":
    allocator.keep_freed()
    main()
