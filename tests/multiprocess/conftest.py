"""Runs of several processes; what is left of them ends with the test."""

import pytest
from processes import Toy


@pytest.fixture(scope="session")
def session_work(tmp_path_factory):
    with Toy(tmp_path_factory.mktemp("toy")) as work:
        yield work


@pytest.fixture
def work(session_work):
    """One folder of toy data for all tests; run folders must have different names."""
    yield session_work
    session_work.kill()


@pytest.fixture(scope="session")
def whole(session_work):
    """Losses and results of two processes with two devices each, which nothing interrupts."""
    session_work.run("whole", hosts=2, devices=2)
    return session_work.losses("whole"), session_work.results("whole")


@pytest.fixture(scope="session")
def alone(session_work):
    """The same of one process with one device."""
    session_work.run("alone")
    return session_work.losses("alone"), session_work.results("alone")
