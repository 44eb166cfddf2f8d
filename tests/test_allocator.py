"""Freed memory stays with a process that asks for it."""

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from tsmjax import allocator
if sys.argv[1] == "keep":
    allocator.keep_freed()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, size=80_000_000, **extra):
    """Pages that a second block touches anew."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", _FAULTS, how, str(size)]
    done = subprocess.run(command, env=env | extra, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    assert faults("leave") > 5000
    assert faults("keep") < 500
    assert faults("keep", 1_500_000_000) < 500
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 5000
