"""What ends one process ends all of them, with a message; the run resumes."""

import signal
import socket

import pytest

pytestmark = pytest.mark.timeout(1200)
SLOW = {"task": {"step": 0.1}}


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_other_and_the_run_resumes(work, whole, victim):
    run = f"killed_{victim}"
    job = work.start(run, hosts=2, devices=2, **SLOW)
    job.until(lambda: len(work.losses(run)) >= 7)
    job.send(victim, signal.SIGKILL)
    codes = job.codes(60)  # the heartbeat is ten seconds
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, 2, 75), job.text()
    assert "error" in job.logs[1 - victim].read_text().lower()
    if victim == 1:
        work.run(run, hosts=2, devices=2)
        assert work.losses(run) == whole[0]


def test_wrong_data_on_one_host_end_both_with_its_sentence(work):
    job = work.start("wrong", hosts=2, devices=2, task={"wrong": 3})
    assert job.codes() == [2, 2], job.text()
    for log, who in zip(job.logs, (f"process 1 on {socket.gethostname()}: ", ""), strict=True):
        assert f"error: {who}row 7 is not a number.\n" in log.read_text(), job.text()


@pytest.mark.slow
def test_a_stuck_step_ends_with_the_stacks(work):
    job = work.start("stuck", task={"stuck": 5}, flags=["--watchdog=0.5"])
    assert job.codes() == [1], job.text()
    text = job.text()
    assert "Nothing was done for 0.5 minutes" in text
    assert text.count("most recent call first") > 1
    assert "in _train" in text


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_on_both_hosts(work):
    mesh = {"mesh": {"fsdp": 4, "replica": 1}, "model": {"width": 256}}  # shards in own files
    work.run("damaged", hosts=2, devices=2, **mesh)
    expected = work.losses("damaged")
    newest = work.folder / "damaged" / "checkpoints" / "20" / "weights"
    damaged = [path for path in newest.glob("ocdbt.process_1/d/*") if path.stat().st_size]
    assert damaged
    for path in damaged:
        path.write_bytes(b"")
    job = work.start("damaged", hosts=2, devices=2, **mesh)
    assert job.codes() == [0, 0], job.text()
    assert job.text().count("falling back to the one before") == 1
    assert work.losses("damaged") == expected
    assert [path.name for path in (work.folder / "damaged" / "damaged").iterdir()] == ["20"]
