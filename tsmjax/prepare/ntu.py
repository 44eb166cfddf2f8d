r"""NTU RGB+D 60 and 120: a folder of .skeleton files.

Files are read in parallel, bodies that are no people left out, and two tracks kept with all of
their frames; lengths, centring and scaling are chosen when the data are loaded. The data set is
written in files of 500 clips: run again after an interruption, and finished ones are kept. Listed
samples without a skeleton (--missing, the lists published with the data) are left out. SHA256SUMS
holds a checksum of every file that was written.

For example:
  python -m tsmjax.prepare ntu --src nturgb+d_skeletons --dst data/ntu60 --dry-run
  python -m tsmjax.prepare ntu --src nturgb+d_skeletons --dst data/ntu60 \
      --missing NTU_RGBD_samples_with_missing_skeletons.txt
  python -m tsmjax.prepare ntu --src s001_to_s017 s018_to_s032 --dst data/ntu120 --float16
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from tsmjax.data.arrow import digest
from tsmjax.data.arrow_writer import file_names, write_file, write_state
from tsmjax.data.cache import beside
from tsmjax.data.skeleton import PROTOCOLS
from tsmjax.errors import InputError
from tsmjax.prepare.denoise import people, tracks
from tsmjax.prepare.report import Report
from tsmjax.prepare.skeleton_file import Name, parse, parse_name
from tsmjax.prepare.skeletons import facts_of, row

CLIPS_OF_A_FILE = 500
_LISTED = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}")


def run(arguments: list[str]) -> None:
    """Do what the command line asks for.

    Raises:
      InputError: when there are no files, one is damaged, or the folder holds something else.
    """
    options = _parse(arguments)
    report = Report(source=" ".join(map(str, options.src)), layout="NTU RGB+D, .skeleton")
    files = _files(options.src, options.missing, report)
    dataset = options.dataset or _dataset([name for name, _ in files])
    console = Console()
    if options.dry_run:
        _tell_names(console, files, report, dataset)
        return
    manifest = {
        "dataset": dataset,
        "float16": options.float16,
        "denoise": not options.no_denoise,
        "clips": digest([path.name for _, path in files]),
    }
    _begin(options.dst, manifest)
    step = CLIPS_OF_A_FILE
    parts = [files[first : first + step] for first in range(0, len(files), step)]
    names = file_names(len(parts))
    todo = [n for n, name in enumerate(names) if not (options.dst / f"{name}.json").exists()]
    make = functools.partial(_write_part, options.dst, manifest, options.skip_damaged)
    jobs = [(names[n], [str(path) for _, path in parts[n]]) for n in todo]
    if jobs:
        count = min(options.workers or os.cpu_count() or 1, len(jobs))
        # Spawned: this process may have started threads that a forked one would wait for.
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            done = pool.map(make, jobs) if count > 1 else map(make, jobs)
            stderr = Console(stderr=True)
            for _ in track(done, "Clips", total=len(jobs), console=stderr, transient=True):
                pass
    _finish(options.dst, names, dataset, report)
    report.show(console, options.dst)
    _tell_splits(console, _clips(report), dataset)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.prepare ntu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--src", type=Path, nargs="+", required=True, help="folders of .skeleton files")
    add("--dst", type=Path, help="folder of the data set")
    add("--missing", type=Path, nargs="+", default=[], help="lists of samples to leave out")
    add("--dataset", choices=("ntu60", "ntu120"), help="default: what the names say")
    add("--no-denoise", action="store_true", help="keep the first two bodies, whatever they are")
    add("--skip-damaged", action="store_true", help="leave damaged files out, and report them")
    add("--float16", action="store_true", help="half the size, about 1 mm at 2 m")
    add("--workers", type=int, help="processes (one a core)")
    add("--dry-run", action="store_true", help="read names and lists only, and report")
    options = parser.parse_args(arguments)
    if not options.dry_run and options.dst is None:
        raise InputError("Say where to write: --dst DIR (or only look with --dry-run).")
    return options


def _files(folders: list[Path], lists: list[Path], report: Report) -> list[tuple[Name, Path]]:
    """Find the files to read, in the order of their names."""
    listed = set()
    for path in lists:
        names = read_list(path)
        report.notes.append(f"{path.name} lists {len(names)} samples without a skeleton.")
        listed |= names
    found: dict[str, tuple[Name, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}.")
        for path in folder.rglob("*.skeleton"):
            name = parse_name(path.name)
            if name is None:
                why = "its name is not of the form S001C001P001R001A001.skeleton"
                report.dropped.append((path.name, why))
            elif path.stem in listed:
                report.dropped.append((path.stem, "it is listed as without a skeleton"))
            elif path.stem in found:
                report.dropped.append((str(path), f"{found[path.stem][1]} is the same sample"))
            else:
                found[path.stem] = (name, path)
    if not found:
        raise InputError(
            f"{' '.join(map(str, folders))} holds no .skeleton file that could be read: unpack the "
            "archive of skeletons there."
        )
    return [found[stem] for stem in sorted(found)]


def read_list(path: Path) -> set[str]:
    """Return the names of a list of samples (text, or .gz); lines that are no names are prose."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
            lines = [line.strip().removesuffix(".skeleton") for line in file]
    except OSError as error:
        raise InputError(f"The list {path} cannot be read ({error}).") from error
    return {line for line in lines if _LISTED.fullmatch(line)}


def _dataset(names: list[Name]) -> str:
    large = any(name.action > 60 or name.setup > 17 for name in names)
    return "ntu120" if large else "ntu60"


def _write_part(
    folder: Path, manifest: dict[str, Any], skip_damaged: bool, job: tuple[str, list[str]]
) -> None:
    """Write one file of the data set, and its part of the report."""
    file_name, paths = job
    part = Report(source=file_name, layout="")
    actions = 60 if manifest["dataset"] == "ntu60" else 120
    labels = tuple(f"A{action + 1:03d}" for action in range(actions))
    facts = facts_of(manifest["dataset"], "ntu25", labels)

    def rows() -> Iterator[dict[str, Any]]:
        for path in map(Path, paths):
            clip = _clip(path, manifest, skip_damaged, part)
            if clip is None:
                continue
            name = parse_name(path.name)
            made = row(
                path.stem,
                clip,
                name.action - 1,
                facts,
                subject=name.subject,
                camera=name.camera,
                setup=name.setup,
                repetition=name.repetition,
                half=manifest["float16"],
            )
            part.add(made)
            part.items[-1] |= name._asdict()
            yield made

    target = folder / file_name
    made = list(rows())
    summary: dict[str, Any] = {"items": part.items, "dropped": part.dropped, "notes": part.notes}
    if made:
        write_file(made, target)
        summary["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    with beside(folder / f"{file_name}.json") as unfinished:  # last: where it is, the file is
        unfinished.write_text(json.dumps(summary))


def _clip(
    path: Path, manifest: dict[str, Any], skip_damaged: bool, report: Report
) -> np.ndarray | None:
    """Read a file: (bodies, frames, 25, 3), None when nothing of it is kept."""
    try:
        bodies, frames = parse(path)
    except InputError as error:
        if not skip_damaged:
            raise InputError(f"{error} Or leave damaged files out: --skip-damaged.") from error
        report.dropped.append((path.stem, str(error).removesuffix(".")))
        return None
    bodies = [body for body in bodies if np.isfinite(body.joints).any()]
    if not bodies:
        report.dropped.append((path.stem, f"there is nobody in any of its {frames} frames"))
        return None
    notes = []
    if manifest["denoise"]:
        bodies, notes = people(bodies)
    clip, more = tracks(bodies, frames)
    if notes + more:
        report.notes.append(f"{path.stem}: {', '.join(notes + more)}.")
    somebody = np.isfinite(clip).any(axis=(0, 2, 3))
    return clip[:, somebody]


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, or find the same one there."""
    path = folder / "manifest.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != manifest:
            changed = [key for key in manifest if found.get(key) != manifest[key]]
            raise InputError(
                f"{folder} was begun with other {' and '.join(changed)}: choose another --dst, or "
                "the files and options it was begun with."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another --dst.")
    folder.mkdir(parents=True, exist_ok=True)
    with beside(path) as unfinished:
        unfinished.write_text(json.dumps(manifest))


def _finish(folder: Path, names: list[str], dataset: str, report: Report) -> None:
    """Gather the parts of the report and list the files of the data set."""
    sums, kept = [], []
    for name in names:
        part = json.loads((folder / f"{name}.json").read_text())
        report.items += part["items"]
        report.dropped += [tuple(pair) for pair in part["dropped"]]
        report.notes += part["notes"]
        if part["items"]:
            kept.append(name)
            sums.append(f"{part['sha256']}  {name}\n")
    if not report.items:
        why = "; ".join(f"{what}: {reason}" for what, reason in report.dropped[:3])
        raise InputError(f"No clip of {report.source} is usable ({why}).")
    with beside(folder / "SHA256SUMS") as unfinished:
        unfinished.write_text("".join(sums))
    report.save(folder)
    write_state(folder, kept, digest([dataset, *sums]))


def _clips(report: Report) -> list[Name]:
    return [Name(*(item[field] for field in Name._fields)) for item in report.items]


def _tell_names(
    console: Console, files: list[tuple[Name, Path]], report: Report, dataset: str
) -> None:
    """Print what a run would read."""
    names = [name for name, _ in files]
    size = sum(path.stat().st_size for _, path in files)
    console.print(f"{report.source}: {len(files):,} files, {size / 1e9:.2f} GB, {dataset}.")
    for field in ("setup", "camera", "subject", "action"):
        counts = Counter(getattr(name, field) for name in names)
        console.print(
            f"• {len(counts)} {field}s, {min(counts)} to {max(counts)}, "
            f"{min(counts.values()):,} to {max(counts.values()):,} clips each"
        )
    _tell_splits(console, names, dataset)
    report.tell(console, Path("the report of a run"))


def _tell_splits(console: Console, names: list[Name], dataset: str) -> None:
    for protocol, (train, test) in split_sizes(names, dataset).items():
        console.print(f"• {protocol}: {train:,} to train on, {test:,} to test on")


def split_sizes(names: list[Name], dataset: str) -> dict[str, tuple[int, int]]:
    """Return protocol → clips to train on and to test on."""
    fields = dict(zip(Name._fields, np.asarray(names).reshape(-1, 5).T, strict=True))
    sizes = {}
    for (owner, protocol), rule in PROTOCOLS.items():
        if owner == dataset:
            trained = int(rule(fields).sum())
            sizes[protocol] = (trained, len(names) - trained)
    return sizes
