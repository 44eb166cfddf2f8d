import json
import logging
import math
import re
import time

import pytest

from tsmjax.monitor import LogConfig, Monitor, monitor, writers


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def metrics(loss):
    return {"loss": loss, "loss_padded": loss / 2, "grad_norm": 1.0, "learning_rate": 1e-3}


def scalars(folder):
    """{tag: [(step, value)]} of all event files, in the order they were written."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # TFRecord: length, its checksum, payload, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture
def info(caplog):
    caplog.set_level(logging.INFO, "tsmjax")
    return caplog


def test_a_logged_step_becomes_a_line_a_row_and_scalars(tmp_path, info):
    with_rate = Monitor(tmp_path, LogConfig(), total_steps=100, rows_per_step=32)
    time.sleep(0.05)
    with_rate.step(10, metrics(2.0), wait_ms=4.0)
    with_rate.scores(10, {"embedded/wql": 0.5, "embedded/nile/wql": 0.25})
    with_rate.close()
    assert re.match(
        r"Step 10/100 \| loss=2\.0000 \| ema=2\.0000 \| .* \| wait=4ms", info.messages[0]
    )
    assert info.messages[1] == "Scores at step 10: embedded/wql=0.5000"
    first, second = rows(tmp_path)
    assert next(iter(first)) == "step"
    assert first["loss"] == 2.0 and first["loss_padded"] == 1.0 and first["data_wait_ms"] == 4.0
    assert 0 < first["steps_per_second"] < 10 / 0.05
    assert first["samples_per_second"] == pytest.approx(32 * first["steps_per_second"])
    assert second == {"step": 10, "embedded/wql": 0.5, "embedded/nile/wql": 0.25}
    written = scalars(tmp_path)
    assert written["train/loss"] == [(10, 2.0)]
    assert written["train/learning_rate"] == [(10, pytest.approx(1e-3))]
    assert {"train/grad_norm", "train/steps_per_second"} <= set(written)
    assert written["benchmark/embedded/nile/wql"] == [(10, 0.25)]


def test_rates_cover_the_window_since_the_last_line_without_evaluations(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 500.0, 502.0, 502.0])
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: next(clock))
    ours = Monitor(tmp_path, LogConfig(tensorboard=False), 100, 8, start_step=20)
    ours.step(30, metrics(1.0))  # 10 steps in 10 s
    ours.scores(36, {"a/b": 1.0})  # the evaluation ended at 500 s
    ours.step(40, metrics(1.0))  # 4 steps in 2 s
    assert [row.get("steps_per_second") for row in rows(tmp_path)] == [1.0, None, 2.0]


def test_a_resumed_run_writes_what_an_uninterrupted_one_writes(tmp_path):
    losses = {step: 10 / step for step in range(1, 9)}

    def run(folder, first, last, start=0, state=None):
        ours = Monitor(folder, LogConfig(tensorboard=False), 8, 4, start_step=start, state=state)
        states = {}
        for step in range(first, last + 1):
            ours.step(step, metrics(losses[step]))
            states[step] = json.loads(json.dumps(ours.state()))
        ours.close()
        return states

    run(tmp_path / "whole", 1, 8)
    states = run(tmp_path / "cut", 1, 6)  # killed after step 6, saved at step 4
    run(tmp_path / "cut", 5, 8, start=4, state=states[4])
    wanted = ("step", "loss", "loss_ema")
    whole, cut = (
        [[row[name] for name in wanted] for row in rows(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert cut == whole


def test_tensorboard_hides_steps_after_the_resumed_one(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    Monitor(tmp_path, LogConfig(), 8, 4, start_step=4).close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, at, purged = file.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 16 + size
        if event.session_log.status == SessionLog.START:
            purged.append(event.step)
    assert purged == [5]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    ours = Monitor(tmp_path, LogConfig(tensorboard=False), 8, 4)
    ours.step(1, metrics(math.nan))
    ours.scores(1, {"a/b": math.inf})
    ours.close()
    first, second = rows(tmp_path)
    assert first["loss"] is None and first["loss_ema"] is None and second["a/b"] is None


def test_reopening_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3}\n{"step": 2, "lo'
    )
    writer = writers.JsonLines(path, start_step=2)
    writer.write(3, {"train/loss": 1.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [*tmp_path.iterdir()] == [path]


def test_without_tensorboard_there_are_no_event_files(tmp_path):
    Monitor(tmp_path, LogConfig(tensorboard=False), 8, 4).close()
    assert not (tmp_path / "tensorboard").exists()


def test_a_writer_that_fails_warns_once_and_the_others_go_on(tmp_path, info):
    (tmp_path / "tensorboard").write_text("a file where a folder must be")
    ours = Monitor(tmp_path, LogConfig(), 8, 4)
    ours.step(1, metrics(1.0))
    ours.step(2, metrics(1.0))
    ours.close()
    warnings = [one.getMessage() for one in info.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1 and warnings[0].startswith("TensorBoard is off from here on")
    assert len(rows(tmp_path)) == 2


def test_a_writer_that_fails_later_is_dropped(info):
    class Full:
        calls = 0

        def write(self, step, values):
            Full.calls += 1
            raise OSError(28, "No space left on device")

        def close(self):
            raise AssertionError("closed after it failed")

    shielded = writers.Shielded("metrics.jsonl", Full)
    for step in range(3):
        shielded.write(step, {})
    shielded.close()
    assert Full.calls == 1 and len(info.messages) == 1
    assert "No space left on device" in info.messages[0]


def test_other_processes_write_nothing_and_keep_the_same_state(tmp_path, monkeypatch, info):
    main = Monitor(tmp_path / "main", LogConfig(tensorboard=False), 8, 4)
    monkeypatch.setattr(monitor.jax, "process_index", lambda: 1)
    other = Monitor(tmp_path / "other", LogConfig(), 8, 4)
    for one in (main, other):
        one.step(1, metrics(3.0))
        one.step(2, metrics(2.0))
    other.scores(2, {"a/b": 1.0})
    other.close()
    assert other.plot(tmp_path / "other") is None
    assert not (tmp_path / "other").exists() and len(info.messages) == 2
    assert other.state() == main.state()


def test_plot_draws_the_whole_run(tmp_path):
    ours = Monitor(tmp_path, LogConfig(tensorboard=False), 8, 4)
    assert ours.plot(tmp_path / "plots") is None
    ours.step(1, metrics(3.0))
    ours.step(2, metrics(math.nan))
    ours.scores(2, {"a/b": 1.0})
    path = ours.plot(tmp_path / "plots")
    assert path.name == "loss.png" and path.read_bytes().startswith(b"\x89PNG")
