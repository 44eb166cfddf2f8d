"""What the speed benchmarks ask, at the size that is published, and what their JSON answers."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

Result = dict[str, Any]


class Answer(NamedTuple):
    """A line of the table.

    Attributes:
      what: what was measured.
      ours: our figure with its unit.
      reference: the other figure, or "–" when there is none.
      ratio: how much better ours is than the reference, or how it stands to the bar.
      bar: what the ratio, or our figure, should reach.
    """

    what: str
    ours: str
    reference: str = "–"
    ratio: str = "–"
    bar: str = "–"


@dataclasses.dataclass(frozen=True)
class Question:
    """A benchmark at one size.

    Attributes:
      module: module of this package that measures.
      arguments: its command line.
      minutes: roughly, on two idle CPU cores.
      answers: lines of the table, from the JSON.
    """

    module: str
    arguments: str
    minutes: float
    answers: Callable[[Result], Iterable[Answer]]


def _step(found: Result) -> Iterable[Answer]:
    what = f"training step of Chronos-2 {found['size']}, {found['batch']} series of"
    what += f" {found['context']:,} steps, {_name(found['precision'])}"
    bar = {"tiny": "1.6", "small": "1.8", "base": "1.8"}.get(found["size"], "–")
    if found["reference_precision"] != found["precision"]:
        what, bar = f"{what}, beside {_name(found['reference_precision'])}", "–"
    if found["compile"]:
        what, bar = f"{what}, beside torch.compile", "–"
    yield Answer(what, *_times(found), f"{found['ratio']:.2f}", bar)


def _groups(found: Result) -> Iterable[Answer]:
    for case in found["cases"]:
        what = f"training step of Chronos-2 {found['size']}, {case['batch']:,} series of "
        what += f"{found['context']:,} steps in groups of {case['group']}"
        what += f", ours in parts of {found['rows']}" if found.get("rows") else ""
        what += "; memory that it adds"
        sides = [case[side] for side in ("ours", "reference")]
        texts = [x.get("failed") or f"{x['ms']:,.0f} ms; {x['mb']:,.0f} MB" for x in sides]
        ratio = "–"
        if not any("failed" in x for x in sides):
            ours, theirs = sides
            ratio = "; ".join(f"{theirs[name] / max(ours[name], 1):.2f}" for name in ("ms", "mb"))
        bars = {256: "2; 2", 512: "3.5; 2"} if found["size"] == "small" else {}
        yield Answer(what, *texts, ratio, bars.get(case["batch"], "–"))


def _ttm(found: Result) -> Iterable[Answer]:
    for channels, case in found["channels"].items():
        for kind, name, bar in (("train", "training step", 1.3), ("predict", "prediction", 1.5)):
            what = f"{name} of TTM 512-96, {found['batch']} windows of {channels} channels"
            yield Answer(what, *_times(case[kind]), f"{case[kind]['ratio']:.2f}", f"{bar}")


def _last(found: Result) -> Iterable[Answer]:
    net = {"last_e": "LAST-E", "shiftfuse": "ShiftFuse"}[found["net"]]
    what = f"training step of {net} {found['size']}, {found['batch']} clips, beside PyTorch"
    yield Answer(what, *_times(found), f"{found['ratio']:.2f}", "1")


def _sensorllm(found: Result) -> Iterable[Answer]:
    wall = found["wall_ms"]
    for name, text in (("cached", "states of the encoder kept"), ("uncached", "nothing kept")):
        what = f"training step of SensorLLM, {found['layers']} layers of {found['width']}, {text}"
        ratio = found["wall_ratio_to_pytorch"][name]
        times = [f"{wall[side]:,.0f} ms" for side in (name, "pytorch")]
        yield Answer(what, *times, f"{ratio:.2f}", "1.5" if name == "cached" else "–")


def _inference(found: Result) -> Iterable[Answer]:
    for case in found["cases"]:
        what = f"forecasts of Chronos-2 {found['size']}, {case['batch']} series, "
        what += f"context {case['context']:,}, horizon {case['horizon']:,}"
        rates = [f"{case[f'{side}_series_per_second']:,}/s" for side in ("ours", "reference")]
        bar = "1.8" if case["batch"] == 256 else "–"
        yield Answer(what, *rates, f"{case['ratio']:.2f}", bar)


def _startup(found: Result) -> Iterable[Answer]:
    texts = {
        "import": "import",
        "predict": f"a forecast of a CSV file by Chronos-2 {found['size']}",
    }
    for part, what in texts.items():
        ours, theirs = (found[part][side]["seconds"] for side in ("ours", "reference"))
        bar = "2" if part == "predict" else "–"
        what = f"start-up: {what}, in a fresh process"
        yield Answer(what, f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.2f}", bar)
    cached, cold = (found["first_step"][side]["seconds"] for side in ("cached", "cold"))
    what = "start-up: until the first training step (chronos2_test), compile cache warm and cold"
    yield Answer(what, f"{cached:.2f} s", f"{cold:.2f} s", f"{cold / cached:.2f}")


def _arrow(found: Result) -> Iterable[Answer]:
    rate = statistics.median(run["per_second"] for run in found["windows"]["pipeline"])
    what = f"reading windows of {found['context']:,} steps from Arrow, warm"
    yield Answer(what, f"{rate:,.0f}/s", bar="100,000/s")
    for folder in found["series"]:
        again = folder["reopen"]
        what = f"opening a folder of {again['series']:,} series again; first batch; memory then"
        times = f"{again['open_seconds']:.3f} s; {1e3 * again['batch_seconds']:.1f} ms"
        ours = f"{times}; {again['anonymous_mb_after_batch']:.0f} MB"
        yield Answer(what, ours, bar="1 s; –; 200 MB")


def _scaling(found: Result) -> Iterable[Answer]:
    for name, axis in found["axes"].items():
        sizes = f"{axis['sizes'][0]:,} to {axis['sizes'][-1]:,}"
        what = f"exponent of a step of Chronos-2 {found['size']} by {name}, {sizes}"
        yield Answer(what, f"{axis['exponent']:.2f}")
    none, *rest = found["temporaries_mb"].items()
    for remat, size in rest:
        what = f"temporaries of a step with model.remat={remat}, beside none"
        yield Answer(what, f"{size:,.0f} MB", f"{none[1]:,.0f} MB", f"{none[1] / size:.2f}")


def _second_process(found: Result) -> Iterable[Answer]:
    times = [f"{found[f'{side}_ms']:,.0f} ms" for side in ("together", "alone")]
    ratio = f"{found['alone_ms'] / found['together_ms']:.2f}"
    yield Answer("step of two processes, beside one process with half the work", *times, ratio)


def _evaluation(found: Result) -> Iterable[Answer]:
    what = f"evaluation of Chronos-2 {found['size']} on six sets, warm"
    times = [f"{found[f'{side}_seconds']:,.0f} s" for side in ("ours", "reference")]
    yield Answer(what, *times, f"{found['ratio']:.2f}", "2.5")


def _monitoring(found: Result) -> Iterable[Answer]:
    yield Answer("share of training that monitoring takes", f"{100 * found['share']:.2f} %")


def _times(found: Result) -> list[str]:
    return [f"{found[f'{side}_ms']:,.0f} ms" for side in ("ours", "reference")]


def _name(precision: str) -> str:
    return {"float32": "fp32", "bfloat16": "bf16"}[precision]


# Name of the result file → question.
QUESTIONS = {
    "chronos2_step_tiny": Question(
        "chronos2_train_step", "--size tiny --context 512 --batch 64 --repeats 15", 1, _step
    ),
    "chronos2_step_small": Question(
        "chronos2_train_step", "--size small --context 512 --batch 32 --repeats 10", 3, _step
    ),
    "chronos2_step_base": Question(
        "chronos2_train_step", "--size base --context 2048 --batch 8 --repeats 5", 6, _step
    ),
    "chronos2_step_small_compiled": Question(
        "chronos2_train_step",
        "--size small --context 512 --batch 32 --repeats 10 --compile",
        4,
        _step,
    ),
    "chronos2_step_small_best": Question(
        "chronos2_train_step",
        "--size small --context 512 --batch 32 --repeats 10 --reference_precision bfloat16",
        3,
        _step,
    ),
    "group_attention": Question(
        "group_attention",
        "--batch 64 256 1024 --group 1 4 16 --context 128 --memory_gb 12 --seconds 90",
        5,
        _groups,
    ),
    "group_memory": Question(
        "group_attention",
        "--size small --context 512 --batch 256 512 1024 --group 16 --rows 128 --repeats 1 "
        "--memory_gb 19 --seconds 900",
        30,
        _groups,
    ),
    "ttm_train_step": Question("ttm_train_step", "--rounds 3 --steps 8", 4, _ttm),
    "last_step": Question("last_step", "", 2, _last),
    "last_step_shiftfuse": Question("last_step", "--net shiftfuse --size small", 1, _last),
    "sensorllm_step": Question("sensorllm_step", "", 2, _sensorllm),
    "chronos2_inference_small": Question("chronos2_inference", "--size small", 16, _inference),
    "chronos2_inference_base": Question(
        "chronos2_inference", "--size base --batch 1 32 --horizon 64", 5, _inference
    ),
    "startup": Question("startup", "--size small", 5, _startup),
    "arrow_reading": Question(
        "arrow_reading", "--long 20000 --repeats 3 --many 1000 100000 5000000 10000000", 8, _arrow
    ),
    "scaling": Question("scaling", "--plot docs/results/scaling.png", 8, _scaling),
    "weak_scaling": Question("weak_scaling", "", 4, _second_process),
    "monitoring": Question("monitoring", "", 3, _monitoring),
    "chronos2_evaluation": Question("chronos2_evaluation", "--size base", 12, _evaluation),
}
