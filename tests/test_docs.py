"""Pages that promise a working example are followed to the letter; the navigation is complete."""

import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tsmjax.prepare import __main__ as prepare

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.fixture
def follow(tmp_path):
    """Write the files and run the commands of a page, in their order, in an empty folder."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",  # one device, as in a terminal
    }

    def run(page):
        printed = ""
        for kind, title, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
            if kind == "python" and title:
                (tmp_path / title).write_text(text, encoding="utf-8")
            if kind == "bash":
                command = ["bash", "-ec", text]
                done = subprocess.run(
                    command, cwd=tmp_path, env=env, capture_output=True, text=True
                )
                assert done.returncode == 0, text + done.stdout[-2000:] + done.stderr[-2000:]
                printed += done.stdout
        return tmp_path, printed

    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_new_experiment_as_the_page_tells(follow):
    folder, printed = follow("new_experiment.md")
    assert "d_model" in printed and "run_wide" in printed
    runs = folder / "experiments" / "ttm" / "sales"
    scores = {
        name: json.loads((runs / name / "results.json").read_text())["best"]["sales/mse"]
        for name in ("run_narrow", "run_wide")
    }
    assert (runs / "best_run").resolve().name == min(scores, key=scores.get)
    assert (runs / "report.html").exists()
    assert len((folder / "all.csv").read_text().splitlines()) == 3
    lines = (folder / "forecast.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 7


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_new_data_source_as_the_page_tells(follow):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    folder, _ = follow("new_data_source.md")
    opened = datasets.load_from_disk(str(folder / "data" / "stations"))
    assert sorted(opened["item_id"]) == ["pier", "roof", "yard"]
    report = json.loads((folder / "data" / "stations" / "report.json").read_text())
    assert report["dropped"] == [["broken.log", "no header, or too few readings"]]
    assert 0.01 < report["summary"]["missing"] < 0.04
    assert (folder / "runs" / "stations" / "results.json").exists()


def test_modules_that_prepare_nothing_are_no_kinds(tmp_path, capsys):
    for kind in ("json", "no_such_kind", "../etc"):
        assert prepare.main([kind, "--src", "x", "--dst", str(tmp_path / "y")]) == 2
        assert f"There is no kind {kind!r}" in capsys.readouterr().err


def test_every_page_is_in_the_navigation_and_names_what_exists():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entries):
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else (entry,):
                yield from pages(value) if isinstance(value, list) else (value,)

    listed = sorted(pages(settings["nav"]))
    assert listed == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    for page in sorted((DOCS / "api").glob("*.md")):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            found = pkgutil.resolve_name(name)
            assert found.__doc__, name


def test_lists_and_tables_stand_apart_from_the_text_before_them():
    """What GitHub renders as a list or table may be running text on the site."""
    for page in sorted(DOCS.rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        before = ""
        for line in text.splitlines():
            starts = re.match(r"([-*] |\d+\. |\|)", line)
            joined = re.match(r"([-*] |\d+\. |\||\s|$)", before)
            assert not starts or joined, f"{page.name}: {line}"
            before = line
