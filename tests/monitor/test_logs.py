import io
import logging

import pytest
from rich.console import Console
from rich.table import Table

from tsmjax.errors import InputError
from tsmjax.monitor import logs

log = logging.getLogger("tsmjax.somewhere")


@pytest.fixture
def terminal(monkeypatch):
    buffer = io.StringIO()
    monkeypatch.setattr(logs, "console", Console(file=buffer, width=60))
    return buffer


def test_messages_reach_the_terminal_unwrapped_and_the_file_with_a_time(tmp_path, terminal):
    message = "Step 1 | [x] " + "| loss=1.0000 " * 10
    with logs.run_logs(tmp_path):
        log.info(message)
        log.debug("too much")
    log.info("after the run")
    assert terminal.getvalue() == message + "\n"
    (line,) = (tmp_path / "logs" / "training.log").read_text().splitlines()
    assert line.endswith(f" INFO {message}") and line.startswith("20")
    assert not (tmp_path / "logs" / "error.log").exists()


def test_the_file_is_continued_and_handlers_are_taken_off(tmp_path, terminal):
    logger = logging.getLogger("tsmjax")
    before = logger.handlers[:], logger.level, logger.propagate
    for n in range(2):
        with logs.run_logs(tmp_path):
            log.info("run %d", n)
    assert (logger.handlers, logger.level, logger.propagate) == before
    lines = (tmp_path / "logs" / "training.log").read_text().splitlines()
    assert [line[-5:] for line in lines] == ["run 0", "run 1"]


def test_a_fault_leaves_its_traceback_and_the_last_lines(tmp_path, terminal):
    with pytest.raises(ZeroDivisionError), logs.run_logs(tmp_path):
        for n in range(200):
            log.info("line %d.", n)
        n / 0
    text = (tmp_path / "logs" / "error.log").read_text()
    assert "Traceback (most recent call last)" in text and "ZeroDivisionError" in text
    assert "test_logs.py" in text
    assert "line 199." in text and "line 150." in text and "line 149." not in text


def test_wrong_input_leaves_its_sentence_without_a_traceback(tmp_path, terminal):
    with pytest.raises(InputError), logs.run_logs(tmp_path):
        raise InputError("The file x is empty.")
    text = (tmp_path / "logs" / "error.log").read_text()
    assert "InputError: The file x is empty." in text and "Traceback" not in text


def test_other_processes_are_silent_but_report_their_faults(tmp_path, terminal, monkeypatch):
    monkeypatch.setattr(logs.jax, "process_index", lambda: 3)
    with pytest.raises(RuntimeError), logs.run_logs(tmp_path):
        log.info("not printed")
        logs.show("not shown", tmp_path)
        raise RuntimeError("host 3 fails")
    assert terminal.getvalue() == ""
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name == "error_3.log"
    assert "host 3 fails" in file.read_text() and "not printed" in file.read_text()


def test_show_prints_a_table_and_keeps_it_in_the_file(tmp_path, terminal):
    table = Table("parameter", title="[red]3 parameters")
    table.add_row("dense/kernel")
    with logs.run_logs(tmp_path):
        log.info("before")
        logs.show(table, tmp_path)
        log.info("after")
    assert "dense/kernel" in terminal.getvalue()
    text = (tmp_path / "logs" / "training.log").read_text()
    assert (
        text.index("before")
        < text.index("3 parameters")
        < text.index("dense")
        < text.index("after")
    )
    assert "\x1b" not in text and " \n" not in text
