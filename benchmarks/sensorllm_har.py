"""SensorLLM on public activity sets, beside simpler classifiers.

    TSMJAX_TEST_DATA=FOLDER python -m benchmarks.sensorllm_har --set basic_motions --json out.json

Reads data/har and weights of FOLDER (docs/test_data.md). Each row of the table is one training
whose best checkpoint on the validation part is scored once on the test part. Two pairs of
backbones, each with stage 2 alone and with stage 1 before it:

- "small real weights": stories260K, a Llama of 260,000 parameters that tells stories, and the
  random Chronos-T5 of chronos-forecasting's tests, both frozen;
- "all trained": a Llama of 2 layers and an encoder of one, random, and no part of them frozen; they
  are not asked the question, which is the same for all windows.

The last line printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

import tsmjax
from benchmarks import har_baselines
from convert import llama2c
from tsmjax import checkpoint, pretrained, weights
from tsmjax.data.sensor import SensorData
from tsmjax.evals import classifiers
from tsmjax.prepare.__main__ import run as prepare

COLUMNS = ("accuracy", "f1_macro", "balanced_accuracy")


class Set(NamedTuple):
    """A data set and what a training on it takes.

    Attributes:
      format: of `prepare har`.
      folder: under data/har.
      options: of `prepare har`.
      patch: states of the encoder that make a vector.
      batch: windows of a step.
      steps: of a stage-2 training: of all parts, and beside frozen backbones.
      align: of a stage-1 training, likewise.
      average: decay of the average of the weights, where all train; 0 for none.
      metric: score of the validation part that chooses a checkpoint, and which end of it is best.
      bar: what the best row should reach: (score, value).
    """

    format: str
    folder: str
    options: tuple[str, ...]
    patch: int
    batch: int
    steps: tuple[int, int]
    align: tuple[int, int]
    average: float
    metric: tuple[str, str]
    bar: tuple[str, float] | None


SETS = {
    # Its eight validation cases are soon all right: only their loss goes on telling.
    "basic_motions": Set(
        *("ts", ".", ("--validation-share", "0.2"), 8, 16, (60, 100), (60, 240), 0.0),
        *(("log_loss", "min"), ("accuracy", 0.95)),
    ),
    "uci_har": Set(
        *("ucihar", "uci_har_subset", (), 16, 32, (2000, 600), (300, 300), 0.99),
        *(("f1_macro", "max"), ("accuracy", 0.90)),
    ),
    "wisdm": Set(
        *("wisdm", "wisdm51_watch", (), 10, 32, (1500, 600), (300, 300), 0.99),
        *(("f1_macro", "max"), None),
    ),
}
LLM = {
    **{"vocab_size": 512, "d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    **{"num_kv_heads": 2, "d_kv": 16, "rope_theta": 10000.0, "rope_scaling": {"kind": "none"}},
    **{"bos_token": 1, "eos_tokens": (2,), "initializer_range": 0.1},
}
ENCODER = {
    **{"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "initializer_factor": 1.0,
    # A standardised channel seldom leaves ±4 deviations: 61 bins there, learned from little data.
    "tokenizer": {
        **{"kind": "StanNormalizeUniformBins", "n_tokens": 64},
        **{"low_limit": -4.0, "high_limit": 4.0},
    },
}
# Against learning few windows by heart, where everything trains.
CHANNEL_DROPOUT = 0.3
AUGMENT = {"rotation": 5.0, "scale": 0.1, "stretch": 0.1, "jitter": 0.1}


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      real: small real weights that stay frozen, or random ones that train.
      aligned: whether stage 1 comes first.
      statistics: whether summaries of the channels are told in numbers.
    """

    real: bool
    aligned: bool
    statistics: bool = True

    @property
    def name(self) -> str:
        """What the table calls it."""
        return ", ".join(
            [
                "SensorLLM",
                "small real weights" if self.real else "all trained",
                *([] if self.statistics else ["no numbers"]),
                "stages 1 + 2" if self.aligned else "stage 2",
            ]
        )


ROWS = {
    "real": Row(True, False),
    "real_aligned": Row(True, True),
    "trained": Row(False, False),
    "trained_aligned": Row(False, True),
    "trained_no_numbers": Row(False, False, False),
}


def main() -> None:
    """Prepare, train, score, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=tuple(SETS), default="basic_motions")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorter", type=float, default=1.0, help="divisor of all step counts")
    parser.add_argument("--workdir", type=Path, default=Path("experiments/sensorllm/har_benchmark"))
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    raw = os.environ.get("TSMJAX_TEST_DATA")
    if not raw:
        raise SystemExit("TSMJAX_TEST_DATA is not set; docs/test_data.md says what belongs there.")
    bench = Benchmark(SETS[options.set], Path(raw), options.workdir / options.set, options)
    baselines = bench.baselines()
    result: dict[str, Any] = {
        "benchmark": "sensorllm_har",
        "set": options.set,
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores",
        "seed": options.seed,
        "bar": SETS[options.set].bar,
        **baselines,
        "steps": {},
    }
    result["git_commit"] = checkpoint.versions()["git_commit"]
    for row in (ROWS[name] for name in options.rows):
        started = time.process_time()
        found = bench.train(row)
        result["scores"][row.name] = found["scores"]
        # Of all cores, evaluations and compilation included; what else runs does not count.
        result["seconds"][row.name] = round(time.process_time() - started, 1)
        result["steps"][row.name] = found["steps"]
        if options.json:
            checkpoint.write_json(options.json, result)
        print(f"\n{options.set}: {result['rows']}")
        print(classifiers.table(result["scores"], COLUMNS), flush=True)
    print(json.dumps(result))


class Benchmark:
    """Trains the rows on one set; what is finished in its folder is not made again."""

    def __init__(self, of: Set, raw: Path, workdir: Path, options: argparse.Namespace):
        self.set, self.raw, self.workdir, self.options = of, raw, workdir, options
        self.tokenizer = str(raw / "weights/stories260K/tok512.bin")

    def data(self, stage: int) -> Path:
        """Return the prepared set; stage 1 asks for summaries and single facts."""
        folder = self.workdir / f"data_stage{stage}"
        if not folder.exists():
            arguments = ["--format", self.set.format, "--dst", str(folder), "--workers", "1"]
            arguments += ["--src", str(self.raw / "data/har" / self.set.folder), *self.set.options]
            if stage == 1:
                longest = str(SensorData(str(self.data(2))).facts.window)
                arguments += ["--stage", "1", "--lengths", "20", longest, "--qa", "question"]
                arguments += ["--max-rows", "4000", "--cuttings", "1"]
            prepare("har", arguments)
        return folder

    def baselines(self) -> dict[str, Any]:
        """Return the scores of simpler classifiers."""
        saved = self.workdir / "baselines.json"
        if not saved.exists():
            encoder = str(self.raw / "weights/dummy-chronos-model")
            found = har_baselines.measure(SensorData(str(self.data(2))), 1, 20, encoder)
            checkpoint.write_json(saved, found)
        return json.loads(saved.read_text())

    def train(self, row: Row) -> dict[str, Any]:
        """Return the test scores of a row, and how many steps its stages took."""
        steps = {"stage 2": self._steps(self.set.steps[row.real])}
        start = ""
        if row.aligned:
            steps = {"stage 1": self._steps(self.set.align[row.real]), **steps}
            start = str(self.workdir / f"stage1_{'real' if row.real else 'trained'}")
            self._trained(self._config(row, 1, steps["stage 1"], ""), start)
            start += "@final"
        name = f"stage2_{'real' if row.real else 'trained'}{'_aligned' * row.aligned}"
        outcome = self._trained(
            self._config(row, 2, steps["stage 2"], start),
            str(self.workdir / f"{name}{'' if row.statistics else '_no_numbers'}"),
        )
        prefix = SensorData(str(self.data(2))).facts.dataset + "/"
        scores = {
            key.removeprefix(prefix): value
            for key, value in outcome["test"].items()
            if key.startswith(prefix)
        }
        return {"scores": scores, "steps": steps}

    def _trained(self, config: dict[str, Any], run: str) -> dict[str, Any]:
        """Train, unless the run folder is complete."""
        results = Path(run, "results.json")
        return json.loads(results.read_text()) if results.exists() else tsmjax.train(config, run)

    def _steps(self, count: int) -> int:
        return max(int(count / self.options.shorter), 2)

    def _config(self, row: Row, stage: int, steps: int, start: str) -> dict[str, Any]:
        """Config values of one stage of a row."""
        path = str(self.data(stage))
        facts = SensorData(path).facts
        llm, encoder, parts = LLM, ENCODER, {}
        if row.real:
            parts = {
                "llm": str(self.workdir / "stories260K"),
                "encoder": str(self.raw / "weights/dummy-chronos-model"),
            }
            if not Path(parts["llm"]).exists():
                found = llama2c.read(self.raw / "weights/stories260K/stories260K.bin")
                weights.write(parts["llm"], "llama", found.config_values, found.params)
            llm, encoder = ({**pretrained.model_values(parts[name])} for name in parts)
            del llm["family"], encoder["family"]
            standard = {"kind": "StanNormalizeUniformBins"}
            encoder["tokenizer"] = {**encoder["tokenizer"], **standard}
        classify = stage == 2
        every = max(steps // 5, 1)
        metric, mode = self.set.metric if classify else ("loss", "min")
        return {
            "name": f"stage{stage}",
            "seed": self.options.seed,
            "model": {
                **{"family": "sensorllm", "channels": facts.channels, "labels": facts.labels},
                "window": SensorData(str(self.data(2))).facts.window,
                "model_type": "classification" if classify else "causal_lm",
                **{"proj_hidden": (128,), "proj_patch": self.set.patch},
                **{"statistics": row.statistics, "llm": llm, "encoder": encoder},
            },
            "task": {
                **{"kind": "classify" if classify else "align", "tokenizer": self.tokenizer},
                **({} if start else parts),
                **({"preprocess_type": "Q" if row.real else "none"} if classify else {}),
                **({"channel_dropout": CHANNEL_DROPOUT} if classify and not row.real else {}),
                **{"fix_llm": row.real, "fix_ts_encoder": row.real},
            },
            "data": {
                "path": path,
                **({"batch_size": self.set.batch} if classify else {"batch_size": 4}),
                **({} if classify else {"pack_length": 512}),
                **({"augment": AUGMENT} if classify and not row.real else {}),
            },
            "optim": {
                **{"length": steps, "schedule": "cosine", "warmup": "5%"},
                **{"lr": 5e-3 if row.real else 2e-3, "weight_decay": 0.0 if row.real else 0.05},
                "average": self.set.average if classify and not row.real else 0.0,
            },
            "checkpoint": {
                **{"every": every, "keep_latest": 1, "keep_best": 1, "init_from": start},
                "init_skip": ("head/",) if start else (),
            },
            "evals": {
                **{"every": every, "suites": (), "batch_size": self.set.batch if classify else 4},
                **{"metric": f"{facts.dataset}/{metric}", "mode": mode},
            },
            "log": {"every": every, "tensorboard": False, "plots": False},
        }


if __name__ == "__main__":
    main()
