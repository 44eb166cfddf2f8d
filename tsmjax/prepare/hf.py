r"""Hugging Face data sets: a folder of save_to_disk or of Parquet or Arrow files, or a hub id.

A row holds one series or several: every list of numbers is a series of its own unless the options
say otherwise; a list of timestamps gives start and frequency. A hub id is downloaded first, into
the cache of huggingface_hub, which decides about tokens, mirrors, proxies and offline mode.

For example:
  python -m tsmjax.prepare hf --src saved/my_dataset --dst data/mine --target load temperature
  python -m tsmjax.prepare hf --src autogluon/chronos_datasets --config m4_hourly --dst data/m4_hourly
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsmjax.errors import InputError, closest
from tsmjax.prepare import columns, hub, lists
from tsmjax.prepare.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    columns.add_arguments(parser)
    parser.add_argument("--config", default="", help="folder of the hub repository to take")
    parser.add_argument("--split", default="train", help="split to take (default: %(default)s)")
    parser.add_argument("--revision", help="branch, tag or commit of the hub repository")


def locate(source: str, options: argparse.Namespace) -> Path | list[Path]:
    """Return a local path, or the files that were downloaded for a hub id."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        near = [entry.name for entry in path.parent.glob("*")]
        raise InputError(
            f"{source} is neither a file or folder{closest(path.name, near)}, nor a hub id of the "
            "form OWNER/NAME."
        )
    return hub.fetch(source, options.config, options.revision)[0]


def prepare(
    source: Path | list[Path], options: argparse.Namespace
) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when there is nothing to read, a column is missing, or values are refused.
    """
    files = source if isinstance(source, list) else _files(source, options.split)
    if isinstance(source, list):
        files = _split(files, options.split)
    name = options.src + (f" ({options.config})" if options.config else "")
    report = Report(source=name, layout="")
    found = lists.rows(name, lists.batches(files), options, report)
    return columns.some(found, report), report


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").exists():
        splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
        if split not in splits:
            raise InputError(
                f"{path} has no split {split!r}{closest(split, splits)}; it has "
                f"{', '.join(splits)}: say --split."
            )
        path /= split
    if (path / "state.json").exists():
        listed = json.loads((path / "state.json").read_text())["_data_files"]
        return [path / entry["filename"] for entry in listed]
    files = sorted(entry for entry in path.rglob("*") if entry.suffix in (".parquet", ".arrow"))
    if not files:
        raise InputError(f"The folder {path} holds no .parquet and no .arrow files.")
    return _split(files, split)


def _split(files: list[Path], split: str) -> list[Path]:
    """Select the files of a split: by name (train-00000-of-00001) or folder (train/0000)."""
    named = [
        file for file in files if split in (file.parent.name, re.split(r"[-_.]", file.name)[0])
    ]
    return named or files
