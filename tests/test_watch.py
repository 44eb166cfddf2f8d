"""SIGTERM, polls and agreement, without jax."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tsmjax import watch


class Others:
    """A channel whose other processes stand at given polls."""

    process = 0

    def __init__(self, *polls):
        self.polls, self.notices = polls, {}
        self.processes = 1 + len(polls)

    def post(self, name, value):
        self.notices[0] = value

    def read(self, name):
        return self.notices

    def gather(self, name, value, seconds):
        return [value, *self.polls]

    def describe(self, process):
        return f"process {process}"


def polls_until_stopped(most=1000):
    for done in range(1, most):
        try:
            watch.poll()
        except watch.Preempted as stop:
            assert stop.code == watch.RESTART == 75
            return done
        time.sleep(0.01)
    raise AssertionError("never stopped")


@pytest.fixture(autouse=True)
def restored():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_without_a_watch_nothing_happens():
    watch.poll()
    watch.progress()
    watch.limit(1)
    assert watch.give_up("why", 2) == 2


def test_sigterm_stops_at_the_next_poll():
    with watch.watching():
        watch.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        assert polls_until_stopped() < 500


def test_all_processes_stop_at_one_poll():
    with watch.watching():
        watch.follow(Others(3, 40))
        watch.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        assert 1 + polls_until_stopped() == 41  # after the farthest of them


def test_the_notice_of_another_process_stops_this_one():
    others = Others(2)
    with watch.watching():
        watch.follow(others)
        watch.poll()
        others.notices[1] = {"stop": True}
        polls_until_stopped()


def test_inside_another_watch_and_off_the_main_thread_nothing_is_watched():
    with watch.watching(), watch.watching():
        assert [thread.name for thread in threading.enumerate()].count("watch") == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def run():
        with watch.watching():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_a_program_that_handles_sigterm_itself_is_left_alone():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    with watch.watching():
        watch.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        watch.poll()
    assert seen == [1]


def ended(code):
    """Run Python code in a process; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tsmjax import watch\nimport os, signal, time\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_sigterm_before_the_first_poll_leaves_at_once():
    code, text = ended(
        "with watch.watching():\n  os.kill(os.getpid(), signal.SIGTERM)\n  time.sleep(50)"
    )
    assert code == 75
    assert "before the first step" in text


def test_preempted_ends_a_program_with_75():
    code, text = ended(
        "with watch.watching():\n"
        "  watch.poll()\n"
        "  os.kill(os.getpid(), signal.SIGTERM)\n"
        "  while True: time.sleep(0.01); watch.poll()"
    )
    assert (code, text) == (75, "")


def test_nothing_done_for_too_long_prints_the_stacks():
    code, text = ended(
        "def stuck(): time.sleep(50)\nwith watch.watching():\n  watch.limit(0.01)\n  stuck()"
    )
    assert code == 1
    assert "Nothing was done for 0.01 minutes" in text
    assert "in stuck" in text


def test_progress_begins_the_limit_anew():
    code, _ = ended(
        "with watch.watching():\n"
        "  watch.limit(0.03)\n"
        "  for _ in range(30): time.sleep(0.1); watch.progress()"
    )
    assert code == 0
