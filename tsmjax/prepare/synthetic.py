r"""Write a corpus of generated series: nothing is read, nothing downloaded.

The corpus is cut into files, and each file is the same whoever makes it: with --shard i/n (i from
0) n jobs write one corpus into one folder, each every n-th file. Run again after an interruption:
finished files are kept. manifest.json says what the corpus was made with; the folder can be opened
when all of its files are there.

For example:
  python -m tsmjax.prepare synthetic --dst data/corpus --series 1000000 --length 2048
  srun --array=0-7 python -m tsmjax.prepare synthetic --dst data/corpus --series 10000000 \
      --shard $SLURM_ARRAY_TASK_ID/8
  python -m tsmjax.prepare synthetic --dst data/groups --series 100000 --variates 8
  python -m tsmjax.prepare synthetic --dst data/mixed --series 100000 --shares tsmixup=90 \
      kernel_synth=10 --sources data/electricity data/traffic
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.arrow_writer import file_names, write_file, write_state
from tsmjax.data.cache import beside
from tsmjax.data.synthetic import corpus, workers
from tsmjax.errors import InputError, closest

# A worker makes a piece at a time. A piece begins inside a block, which two workers then make.
SERIES_OF_A_PIECE = 8 * corpus.BLOCK
SERIES_OF_A_FILE = 2 * SERIES_OF_A_PIECE
EXACT = {"kernel_synth": 7, "tsmixup": 0}  # host-made parts beside the generators of the corpus
_DEFAULT_SHARES = {**corpus.SHARES, "kernels": 0, **EXACT}


def run(arguments: list[str]) -> None:
    """Write this job's files of the corpus that the command line asks for.

    Raises:
      InputError: when a parameter is wrong, or the folder holds something else.
    """
    options = _parse(arguments)
    index, shards = _shard(options.shard)
    manifest = _manifest(options)
    _begin(options.dst, manifest)
    names = file_names(len(manifest["files"]))
    mine = [
        (name, entry)
        for number, (name, entry) in enumerate(zip(names, manifest["files"], strict=True))
        if number % shards == index
    ]
    todo = [(name, entry) for name, entry in mine if not (options.dst / name).exists()]
    started = time.perf_counter()
    made = _write(options, manifest, todo)
    _tell(options.dst, manifest, names, len(mine) - len(todo), made, time.perf_counter() - started)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.prepare synthetic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dst", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--series", type=int, required=True, help="how many items")
    parser.add_argument("--length", type=int, default=2048, help="greatest length (2048)")
    parser.add_argument("--min-length", type=int, default=64, help="least length (64)")
    parser.add_argument("--variates", type=int, default=1, help="most variates of an item (1)")
    parser.add_argument("--missing", type=int, default=10, help="per cent with missing values (10)")
    parser.add_argument("--seed", type=int, default=0)
    shares = " ".join(f"{name}={share}" for name, share in _DEFAULT_SHARES.items())
    parser.add_argument(
        "--shares",
        nargs="+",
        metavar="GENERATOR=SHARE",
        help=f"which generators, and how much of each; those not named are left out ({shares})",
    )
    parser.add_argument(
        "--sources", nargs="+", default=[], metavar="DIR", help="Arrow data that tsmixup mixes"
    )
    parser.add_argument(
        "--shard", default="0/1", metavar="i/n", help="write every n-th file from i"
    )
    parser.add_argument("--workers", type=int, help="processes (one a core)")
    return parser.parse_args(arguments)


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--shard is {text!r}, but must be i/n with i from 0 to n − 1, as 0/4.")
    return int(match[1]), int(match[2])


def _shares(options: argparse.Namespace) -> dict[str, int]:
    """Return the share of every generator, 0 for those left out."""
    if options.shares is None:
        shares = dict(_DEFAULT_SHARES)
        if options.variates > 1:  # what is made on the host makes single series
            shares |= dict.fromkeys(EXACT, 0) | {"kernels": corpus.SHARES["kernels"]}
        return shares
    shares = dict.fromkeys(_DEFAULT_SHARES, 0)
    for text in options.shares:
        name, _, value = text.partition("=")
        if name not in shares:
            raise InputError(
                f"There is no generator {name!r}{closest(name, shares)}; "
                f"there are {', '.join(shares)}."
            )
        if not value.isdecimal():
            raise InputError(f"--shares {text}: write a whole number, as {name}=10.")
        shares[name] = int(value)
    return shares


def _manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that the corpus depends on, and its files."""
    shares = _shares(options)
    parameters = {
        "min_length": options.min_length,
        "max_length": options.length,
        "missing": options.missing,
        "variates": options.variates,
        "seed": options.seed,
        **{name: shares[name] for name in corpus.SHARES},
    }
    weights = {"corpus": sum(shares[name] for name in corpus.SHARES)}
    weights |= {name: shares[name] for name in EXACT}
    weights = {name: weight for name, weight in weights.items() if weight}
    for name, value, least in (
        ("series", options.series, 1),
        ("length", options.length, 2),
        ("min-length", options.min_length, 1),
        ("variates", options.variates, 1),
        ("missing", options.missing, 0),
        ("seed", options.seed, 0),
    ):
        if value < least:
            raise InputError(f"--{name} is {value}, but must be at least {least}.")
    corpus.check("the command", parameters)
    if not weights:
        raise InputError("The share of every generator is 0.")
    if options.variates > 1 and set(weights) - {"corpus"}:
        raise InputError(
            "--variates is above 1, and kernel_synth and tsmixup make single series: leave them "
            "out of --shares."
        )
    if ("tsmixup" in weights) != bool(options.sources):
        raise InputError(
            "tsmixup mixes series of other data: give both --shares tsmixup=… and --sources DIR …."
        )
    sources = [str(Path(source).expanduser().absolute()) for source in options.sources]
    return {
        "version": corpus.VERSION,
        "series": options.series,
        "weights": weights,
        "parameters": parameters,
        "sources": {path: len(ArrowSource(path)) for path in sources},
        "files": [
            [first, min(first + SERIES_OF_A_FILE, options.series)]
            for first in range(0, options.series, SERIES_OF_A_FILE)
        ],
    }


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, or find the same one there."""
    path = folder / "manifest.json"
    if path.exists():
        found = json.loads(path.read_text())
        for name, value in manifest.items():
            if found.get(name) != value:
                old, new = _difference(found.get(name), value)
                raise InputError(
                    f"{folder} holds another corpus ({name}: {old} there, {new} here): choose "
                    "another --dst, or give the options it was begun with."
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another --dst.")
    folder.mkdir(parents=True, exist_ok=True)
    names = file_names(len(manifest["files"]))
    write_state(folder, names, f"tsmjax-{manifest['parameters']['seed']}-{manifest['series']}")
    with beside(path) as unfinished:
        unfinished.write_text(json.dumps(manifest, indent=1))


def _difference(old: Any, new: Any) -> tuple[Any, Any]:
    """Return the entries of two values that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return {key: old.get(key) for key in keys}, {key: new.get(key) for key in keys}
    if isinstance(new, list):
        return f"{len(old or ())} files", f"{len(new)} files"
    return old, new


def _write(
    options: argparse.Namespace, manifest: dict[str, Any], todo: list[tuple[str, list[int]]]
) -> int:
    """Write the files that are missing; return how many rows they have."""
    if not todo:
        return 0
    parameters = {name: manifest[name] for name in ("weights", "parameters")}
    parameters["sources"] = list(manifest["sources"])
    step = SERIES_OF_A_PIECE
    pieces = [
        (first, min(first + step, end))
        for _, (begin, end) in todo
        for first in range(begin, end, step)
    ]
    made = workers.make("collection", parameters, pieces, options.workers)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}, {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    total = sum(end - begin for _, (begin, end) in todo)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Series", total=total, rate="starting")
        started, done = time.perf_counter(), 0

        def rows_of(begin: int, end: int):
            nonlocal done
            for _ in range(begin, end, step):
                rows = next(made)
                yield from rows
                done += len(rows)
                rate = f"{done / (time.perf_counter() - started):,.0f}/s"
                progress.update(task, completed=done, rate=rate)

        for name, (begin, end) in todo:
            for stale in options.dst.glob(f".{name}.*"):
                stale.unlink(missing_ok=True)
            write_file(rows_of(begin, end), options.dst / name)
    return done


def _tell(
    folder: Path, manifest: dict[str, Any], names: list[str], kept: int, made: int, seconds: float
) -> None:
    """Print what was done and what is missing yet."""
    console = Console()
    rate = f" in {seconds:,.0f} s ({made / seconds:,.0f}/s)" if made else ""
    console.print(f"{folder}: {made:,} series written{rate}, {kept} files kept.", markup=False)
    if missing := sum(not (folder / name).exists() for name in names):
        console.print(f"{missing} of its {len(names)} files are missing yet: other shards.")
        return
    source = ArrowSource(folder)
    console.print(
        f"Complete: {len(source):,} items of {source.min_length:,} to {source.max_length:,} steps, "
        f"{len(names)} files."
    )
