import dataclasses
import math
import os

import numpy as np
import pytest

from tsmjax.monitor import diagnosis, health, line, panel
from tsmjax.monitor.health import Facts, Health
from tsmjax.monitor.logs import as_text

GIB = 2**30
STEPPING = {"step": 95.0, "input": 1.0, "other": 4.0}


def watched(folder, losses, norms=None, *, facts=None, seconds=0.1, start=0):
    ours = Health(folder, facts or Facts(every=100, clip=1.0), 1000, start)
    norms = norms if norms is not None else [0.5] * len(losses)
    for number, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        ours.step(start + number, float(loss), float(norm), busy=seconds * number)
        ours.work(1e9, 5e4)
    return ours


def healthy(folder, **changes):
    """A report of a run that does well, with single fields replaced."""
    rng = np.random.default_rng(0)
    ours = watched(folder, np.linspace(3, 2, 100) + 0.01 * rng.normal(size=100))
    ours.logged({"learning_rate": 1e-3})
    report = dataclasses.replace(
        ours.report(32, STEPPING, []),
        disk_free=500 * GIB,
        memory=line.Memory(42.1 * GIB, 80 * GIB, 61 * GIB),
    )
    return dataclasses.replace(report, **changes)


def test_a_report_sums_up_the_steps_since_the_last(tmp_path):
    ours = watched(tmp_path, [4.0, 2.0, 3.0], [0.5, 2.0, 1.5])
    ours.logged({"learning_rate": 1e-3})
    ours.logged({"learning_rate": 5e-4})
    first = ours.report(32, {"step": 0.3, "input": 0.1, "compile": 0.6}, [])
    assert first.loss["newest"] == 3.0 and first.loss["best"] == 2.0
    assert first.gradients["mean"] == pytest.approx(4 / 3) and first.gradients["max"] == 2.0
    assert first.gradients["clipped"] == pytest.approx(2 / 3)
    assert first.speed["steps"] == pytest.approx(10) and first.speed["samples"] == pytest.approx(
        320
    )
    assert first.speed["flops"] == pytest.approx(3e9 / 0.1 / 8)  # forward and backward, 8 devices
    assert first.speed["tokens"] == pytest.approx(5e5)
    assert first.speed["p50"] == pytest.approx(0.1)
    # 0.4 s for 3 steps without the compilation, and 997 to go
    assert first.speed["eta"] == pytest.approx(0.4 / 3 * 997)
    assert first.rate == {"newest": 5e-4, "peak": 1e-3}
    assert first.shares["compile"] == pytest.approx(0.6) and first.goodput == pytest.approx(0.3)
    ours.step(4, 1.0, 0.5, busy=1.3)
    second = ours.report(32, {"step": 1.3, "input": 0.1, "compile": 0.6}, [])
    assert second.gradients["max"] == 0.5 and second.speed["p50"] == pytest.approx(1.0)
    assert second.shares == {"step": pytest.approx(1.0), "input": 0.0, "compile": 0.0}
    assert second.goodput == pytest.approx(1.3 / 2.0)


def test_running_averages_are_unbiased_and_the_trend_minds_the_noise(tmp_path):
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.normal(size=300)
    flat = watched(tmp_path, 2 + noise).report(1, STEPPING, []).loss
    assert health.falls(flat) == "flat"
    assert flat["fast"] == pytest.approx(2, abs=0.1) and flat["spread"] == pytest.approx(
        0.1, rel=0.3
    )
    falling = watched(tmp_path, np.linspace(3, 2, 300) + noise).report(1, STEPPING, []).loss
    assert health.falls(falling) == "falling"
    assert falling["per_1k"] == pytest.approx(-1000 / 300, rel=0.1)
    rising = watched(tmp_path, np.linspace(2, 3, 300) + noise).report(1, STEPPING, []).loss
    assert health.falls(rising) == "RISING"
    one = watched(tmp_path, [2.0]).report(1, STEPPING, []).loss
    assert one["fast"] == pytest.approx(2) == one["slow"] and health.falls(one) == ""


def test_an_explosion_is_named_with_its_step_and_does_not_raise_the_bar(tmp_path):
    norms = [1.0] * 50 + [200.0] + [1.0] * 5 + [150.0]
    report = watched(tmp_path, [1.0] * 57, norms, start=1000).report(1, STEPPING, [])
    assert report.gradients["explosions"] == 2 and report.gradients["worst_step"] == 1051
    (found,) = diagnosis.findings(dataclasses.replace(report, disk_free=500 * GIB))
    assert "exploded 2 times: at step 1,051 its norm was 200 times" in found
    steady = watched(tmp_path, [1.0] * 57, [1.0] * 50 + [9.0] * 7).report(1, STEPPING, [])
    assert steady.gradients["explosions"] == 0


def test_steps_that_are_not_finite_are_counted_and_kept_out_of_the_averages(tmp_path):
    losses = [1.0, math.nan, 1.0, 1.0]
    report = watched(tmp_path, losses, [1.0, 1.0, math.inf, 1.0]).report(1, STEPPING, [])
    assert report.gradients["skipped"] == 2 and report.loss["fast"] == pytest.approx(1.0)
    found = diagnosis.findings(dataclasses.replace(report, disk_free=500 * GIB))
    assert found == [
        "2 steps were skipped because the loss or the gradient was not finite: lower optim.lr, "
        "or look for huge values in the data."
    ]


def test_a_healthy_run_has_no_findings_and_is_limited_by_the_device(tmp_path):
    report = healthy(tmp_path)
    assert diagnosis.findings(report) == []
    assert diagnosis.limit(report) == "the device: 95 % of the time is steps"


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"step": 0.3, "input": 0.6}, "the data: steps waited 67 % of their time for a batch"),
        ({"step": 0.2, "input": 0.1, "compile": 0.7}, "compilation, which later steps do not pay"),
        ({"step": 0.3, "evaluation": 0.6}, "evaluation: raise evals.every"),
        ({"step": 0.6, "checkpoint": 0.3}, "saving checkpoints: raise checkpoint.every"),
        ({"step": 0.1, "other": 0.8}, "work outside of steps"),
        ({"step": 0.7, "input": 0.25, "evaluation": 0.05}, "the data: steps waited 26 %"),
    ],
)
def test_what_limits_the_run_is_named(tmp_path, shares, sentence):
    assert diagnosis.limit(healthy(tmp_path, shares=shares)).startswith(sentence)


def test_full_disks_and_memories_are_named(tmp_path):
    failure = "metrics.jsonl is off from here on: OSError: [Errno 28] No space left on device"
    report = healthy(
        tmp_path,
        failures=[failure],
        disk_free=500_000.0,
        memory=line.Memory(79 * GIB, 80 * GIB),
    )
    first, second, third = diagnosis.findings(report)
    assert first == f"{failure}. Free the disk of the run folder."
    assert second.startswith("The disk of the run folder is full: 0 MB")
    assert third.startswith("Memory is nearly full (79.0/80GB)")


def test_a_rising_loss_is_found(tmp_path):
    ours = watched(tmp_path, np.linspace(2, 3, 100))
    report = dataclasses.replace(ours.report(1, STEPPING, []), disk_free=500 * GIB)
    assert diagnosis.findings(report)[0].startswith("The loss rises: by 22")


def test_the_panel_shows_all_of_it_in_a_box(tmp_path):
    report = healthy(
        tmp_path,
        mixture={"tsmixup": 0.9, "kernel_synth": 0.1},
        skipped={"sales": (12, 3049)},
        gpu=0.87,
        scores={"step": 80, "score": 0.25, "best_step": 50, "best": 0.2},
        findings=["The loss rises: by 22.5 % within 50 steps."],
        limit="the device: 95 % of the time is steps",
    )
    text = as_text(panel.panel(report))
    lines = text.splitlines()
    assert "health · step 100 of 1,000 (10.0 %)" in lines[0]
    assert all(len(one) == 120 and one[0] in "╭│╰" for one in lines)
    for part in (
        "falling -18",
        "clipped 0.0 %",
        "device 42.1/80GB  ████████████▋",
        "52.6 % · peak 61.0GB",
        "p50 100.0ms · p95 100.0ms",
        "10.0 steps/s · 320 samples/s · 500,000 tokens/s",
        "GPU busy 87.0 %",
        "drawn: tsmixup 90.0 % · kernel_synth 10.0 %",
        "too short to be drawn: sales 12 of 3,049",
        "0.25000 at step 80 · best 0.20000 at step 50",
        "step 95.0 % · input 1.0 % · other 4.0 %",
        "! The loss rises",
        "limited by the device",
    ):
        assert part in text, part


def test_a_panel_of_a_run_that_only_failed_still_shows(tmp_path):
    report = watched(tmp_path, [math.nan], [math.nan]).report(1, {"step": 1.0}, [])
    assert "1 steps not finite" in as_text(panel.panel(report))


def test_steps_that_take_no_time_divide_nothing(tmp_path):
    report = watched(tmp_path, [1.0, 1.0], seconds=0.0).report(1, {"step": 0.0}, [])
    assert math.isfinite(report.speed["steps"]) and diagnosis.limit(report)


def test_what_is_not_known_is_not_shown(tmp_path):
    ours = watched(tmp_path, [2.0, 2.0])
    ours.work(None, None)
    text = as_text(panel.panel(ours.report(32, STEPPING, [])))
    assert "samples/s" in text
    for unknown in ("tokens/s", "FLOP/s", "GPU", "too short", "nan"):
        assert unknown not in text, unknown


def test_sparklines_and_bars():
    assert panel.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert panel.sparkline([1.0, math.nan, 2.0]) == "▁ █"
    assert panel.sparkline([3.0, 3.0]) == "▁▁" and panel.sparkline([]) == ""
    assert len(panel.sparkline(list(range(1000)), 40)) == 40
    assert panel.bar(0.5, 4) == "██░░" and panel.bar(2.0, 4) == "████"


def test_a_thinned_series_keeps_the_means():
    ours = health.Thinned(4)
    for value in range(17):
        ours.add(value)
    assert ours.values() == [1.5, 5.5, 9.5, 13.5, 16.0]


def test_peaks_of_known_devices(monkeypatch):
    class Device:
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(health.jax, "local_devices", lambda: [Device])
    assert health.peak_flops() == 989e12
    Device.device_kind = "cpu"
    assert math.isnan(health.peak_flops())


def test_reads_of_workers_count(monkeypatch):
    class Child:
        pid = os.getpid()

    alone = health.disk_reads()
    monkeypatch.setattr(health.multiprocessing, "active_children", lambda: [Child, Child])
    assert health.disk_reads() >= 3 * alone
    monkeypatch.setattr(health.line, "disk_reads", lambda process="self": 5)
    assert health.disk_reads() == 15
