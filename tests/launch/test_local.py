"""Several processes on this machine, and what the launcher does when one ends."""

import signal
import subprocess
import sys
import time

import pytest

from launch import local


@pytest.fixture(autouse=True)
def sigterm():
    """The launcher takes SIGTERM over; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def start(code, processes=2, devices=None):
    return local.Group([sys.executable, "-c", f"import os, sys, time\n{code}"], processes, devices)


def test_processes_learn_their_places_and_devices(tmp_path):
    code = f"""
place = [os.environ["TSMJAX_" + name] for name in ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")]
rest = [os.environ[name] for name in ("JAX_PLATFORMS", "XLA_FLAGS", "NPROC")]
open({str(tmp_path)!r} + "/" + place[-1], "w").write(" ".join(place + rest))
"""
    assert start(code, processes=3, devices=16).wait(10) == 0
    told = [(tmp_path / str(number)).read_text().split() for number in range(3)]
    assert len({words[0] for words in told}) == 1 and told[0][0].startswith("127.0.0.1:")
    assert [words[1:3] for words in told] == [["3", str(number)] for number in range(3)]
    for words in told:
        assert "cpu" in words and "--xla_force_host_platform_device_count=16" in words
        assert int(words[-1]) >= 32  # threads, more than devices


def test_one_process_is_told_nothing(monkeypatch):
    monkeypatch.delenv("TSMJAX_PROCESS_ID", raising=False)
    assert start("sys.exit('TSMJAX_PROCESS_ID' in os.environ)", processes=1).wait(10) == 0


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("sys.exit(75)", 75)]
)
def test_the_others_are_killed_when_one_fails(end, code):
    group = start(f"time.sleep(60) if os.environ['TSMJAX_PROCESS_ID'] == '0' else {end}")
    began = time.monotonic()
    assert group.wait(grace=0.5) == code
    assert time.monotonic() - began < 20


def test_the_others_may_say_why_they_end(tmp_path):
    """Within the grace they end by themselves, and the code is that of the first."""
    code = f"""
if os.environ["TSMJAX_PROCESS_ID"] == "1":
    sys.exit(2)
time.sleep(1)
open({str(tmp_path / "said")!r}, "w")
sys.exit(1)
"""
    assert start(code).wait(grace=30) == 2
    assert (tmp_path / "said").exists()


COMMAND = """
import sys
from launch import local
sys.executable = {interpreter!r}
sys.exit(local.main(sys.argv[1:]))
"""


def launcher(tmp_path, body, *options):
    """`launch.local` with a stand-in for the training command."""
    stub = tmp_path / "python"
    stub.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{body}")
    stub.chmod(0o755)
    command = COMMAND.format(interpreter=str(stub))
    return subprocess.Popen([sys.executable, "-c", command, *options, "--", "--config=x"])


def test_sigterm_goes_to_all_and_75_comes_back(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    body = f"""
def stop(*_):
    open({str(tmp_path)!r} + "/stopped" + os.environ["TSMJAX_PROCESS_ID"], "w")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
open({str(tmp_path)!r} + "/up" + os.environ["TSMJAX_PROCESS_ID"], "w")
time.sleep(60)
"""
    # Told to stop from outside, it does not restart.
    process = launcher(tmp_path, body, "--processes", "2", "--restarts", "5")
    deadline = time.monotonic() + 30
    while not all((tmp_path / f"up{number}").exists() for number in range(2)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 75
    assert all((tmp_path / f"stopped{number}").exists() for number in range(2))


def test_75_starts_again_as_often_as_allowed(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    body = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\nsys.exit(75)"
    assert launcher(tmp_path, body, "--restarts", "2").wait(60) == 75
    assert (tmp_path / "starts").read_text() == "xxx"


def test_the_test_config_trains_on_two_processes(root, environment, run):
    command = [sys.executable, "-m", "launch.local", "--processes", "2", "--", *run.arguments]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run.check(processes=2)
