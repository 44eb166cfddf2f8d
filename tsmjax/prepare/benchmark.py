r"""Fetch the data sets of a suite from the hub, for evaluation offline.

Each data set becomes an Arrow folder DIR/NAME with a report and a manifest (repository, commit,
SHA-256 of what was downloaded and of what was written). Run again after an interruption: finished
data sets are checked against their manifest and kept, downloads go on where they stopped. Proxies,
mirrors, tokens and offline mode are those of huggingface_hub (HTTPS_PROXY, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE=1).

For example:
  python -m tsmjax.prepare benchmark --suite lite --dst data/chronos
  python -m tsmjax.evaluate --checkpoint amazon/chronos-2 --suite lite --data data/chronos
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.cache import beside
from tsmjax.errors import InputError, closest
from tsmjax.evals import suites
from tsmjax.prepare import columns, hub, lists
from tsmjax.prepare.report import Report


def run(arguments: list[str]) -> None:
    """Fetch what the command line asks for.

    Raises:
      InputError: when the suite is unknown, the hub does not deliver, or files were changed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.prepare benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", required=True, help=f"{', '.join(suites.DOWNLOADED)}, or a file")
    parser.add_argument("--dst", type=Path, required=True, help="folder of all data sets")
    options = parser.parse_args(arguments)
    file = suites.suite_file(options.suite)
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"There is no suite {options.suite!r}{closest(options.suite, suites.DOWNLOADED)}; "
            f"give {', '.join(suites.DOWNLOADED)}, or a .yaml file."
        )
    entries = [entry for entry in suites.read_entries(file) if "hf_repo" in entry]
    if not entries:
        raise InputError(f"The suite file {file} has no data sets with hf_repo: all are local.")
    console = Console()
    for number, entry in enumerate(entries, 1):
        folder = options.dst / entry["name"]
        if folder.exists():
            done, manifest = "kept", _verified(folder)
        else:
            done, manifest = "fetched", _fetch(entry["hf_repo"], entry["name"], folder)
        console.print(
            f"{number}/{len(entries)} {entry['name']}: {manifest['rows']:,} series, {done}",
            highlight=False,
        )


def _fetch(repo: str, name: str, folder: Path) -> dict[str, Any]:
    """Download one data set and write its folder, which appears when it is complete."""
    files, commit = hub.fetch(repo, name)
    # Benchmarks take the values in their order, every list column for a series of its own.
    options = argparse.Namespace(
        id_column=None, timestamp_column=None, target=None, past_covariates=[],
        future_covariates=[], freq=None, duplicates="first", gaps="ignore",
    )  # fmt: skip
    report = Report(source=f"{repo}/{name}", layout="")
    rows = columns.some(lists.rows(report.source, lists.batches(files), options, report), report)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with beside(folder) as unfinished:
        count = write_dataset(rows, unfinished)
        report.save(unfinished)
        manifest = {
            "repository": repo,
            "name": name,
            "commit": commit,
            "rows": count,
            "downloaded": _listed(files),
            "written": _listed(sorted(unfinished.glob("*.arrow"))),
        }
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def _listed(files: list[Path]) -> list[dict[str, Any]]:
    return [
        {"file": file.name, "bytes": file.stat().st_size, "sha256": hub.digest(file)}
        for file in files
    ]


def _verified(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished data set after comparing its files."""
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            f"{folder} was not written by this command (it has no manifest.json): choose another "
            "--dst, or move it away."
        )
    manifest = json.loads(path.read_text())
    for entry in manifest["written"]:
        file = folder / entry["file"]
        if not file.exists() or hub.digest(file) != entry["sha256"]:
            raise InputError(
                f"{file} is missing or differs from {path}: delete the folder and run again."
            )
    return manifest
