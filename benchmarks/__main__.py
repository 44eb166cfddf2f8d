"""Measure speed, one question after the other, and keep the table of docs/benchmarks.md.

    python -m benchmarks                          # list the questions
    python -m benchmarks startup last_step        # measure two, and make the table anew
    python -m benchmarks all
    python -m benchmarks --table                  # make the table anew from what is there

Each question runs in a process of its own, and its JSON goes to docs/results. A machine that does
nothing else gives the best figures; its load stands in most of the files. Exit codes: 0 done, 1 when
a question failed (the others are measured all the same), 2 wrong input.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.questions import QUESTIONS
from tsmjax.data.cache import beside
from tsmjax.errors import InputError, closest, exit_code

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- speed: python -m benchmarks --table -->", "<!-- end of speed -->"
HEADINGS = ("question", "ours", "reference", "ratio", "bar", "machine", "commit")


def main() -> int:
    """Do what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="*", help="what to measure; all for everything")
    parser.add_argument("--table", action="store_true", help="make the table from stored results")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results", help="of the JSON")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/benchmarks.md")
    options = parser.parse_args()
    failed: list[str] = []
    return exit_code(lambda given: failed.extend(run(given)), options) or bool(failed)


def run(options: argparse.Namespace) -> list[str]:
    """Measure, make the table; return the questions that failed.

    Raises:
      InputError: when there is no such question, or the page has no place for the table.
    """
    asked = list(QUESTIONS) if options.question == ["all"] else options.question
    for name in asked:
        if name not in QUESTIONS:
            raise InputError(f"There is no question {name!r}{closest(name, QUESTIONS)}.")
    if not asked and not options.table:
        Console().print(listed(options.results))
        return []
    page = Page(options.page)
    failed = [name for name in asked if not measured(name, options.results)]
    page.write(table(options.results))
    for name in failed:
        print(f"error: {name} failed; what it printed is above.", file=sys.stderr)
    return failed


def listed(results: Path) -> Table:
    """What there is to ask."""
    drawn = Table()
    for heading in ("question", "command", "minutes on 2 cores", "measured"):
        drawn.add_column(heading)
    for name, question in QUESTIONS.items():
        command = f"python -m benchmarks.{question.module} {question.arguments}"
        when = read(results / f"{name}.json").get("measured", "yes") if known(name, results) else ""
        drawn.add_row(name, command, f"{question.minutes:g}", when)
    return drawn


def measured(name: str, results: Path) -> bool:
    """Ask one question in a process of its own, and keep its JSON; return whether it worked."""
    question = QUESTIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        command = [sys.executable, "-m", f"benchmarks.{question.module}"]
        command += [*question.arguments.split(), "--json", str(file)]
        print(f"{name}: {' '.join(command[1:])}", flush=True)
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT)
        print(f"{name}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
        if done.returncode or not file.exists():
            return False
        found = read(file)
    found = {
        **found,
        "machine": machine(found.get("device", "cpu")),
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "git_commit": found.get("git_commit") or commit(),
    }
    results.mkdir(parents=True, exist_ok=True)
    with beside(results / f"{name}.json") as unfinished:
        unfinished.write_text(json.dumps(found, indent=2) + "\n")
    return True


def known(name: str, results: Path) -> bool:
    """Whether a question has been answered."""
    return (results / f"{name}.json").exists()


def read(path: Path) -> dict[str, Any]:
    """Read a result."""
    return json.loads(path.read_text())


def table(results: Path) -> str:
    """Return the lines of the table, of all questions that have been answered."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    for name, question in QUESTIONS.items():
        if not known(name, results):
            continue
        found = read(results / f"{name}.json")
        where = found.get("machine", "not noted"), (found.get("git_commit") or "–")[:7]
        link = f"({results.name}/{name}.json)"
        for number, answer in enumerate(question.answers(found)):
            what = f"[{answer.what}]{link}" if number == 0 else answer.what
            rows.append((what, *answer[1:], *where))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class Page:
    """A page with a place for the table."""

    def __init__(self, path: Path):
        """Read the page.

        Raises:
          InputError: when it has no two comments with the table between them.
        """
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
            raise InputError(f"{path} must hold a line {BEGIN!r} and, below it, a line {END!r}.")

    def write(self, table: str) -> None:
        """Put the table between the comments; what was measured meanwhile stays."""
        text = self.path.read_text(encoding="utf-8")
        head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
        with beside(self.path) as unfinished:
            unfinished.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


def machine(device: str) -> str:
    """Name the processor, its vector unit if it is a wide one, and the accelerator in `device`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else 'a CPU'}"
    if any("avx512f" in line for line in lines):
        cores += " with AVX-512"
    return cores if device.startswith("cpu") else f"{device}, {cores}"


def commit() -> str | None:
    """Return the commit of this folder, or None when git does not tell."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
