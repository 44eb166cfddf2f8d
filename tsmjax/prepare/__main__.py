"""``python -m tsmjax.prepare KIND --src PATH --dst DIR``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path

from rich.console import Console

import tsmjax.prepare
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.errors import InputError, closest
from tsmjax.prepare.report import Report

# Kinds that are commands of their own:
_COMMANDS = ("benchmark", "gallery", "ntu", "synthetic")
# Modules that are no kinds:
_SHARED = (
    *("__main__", "cached", "columns", "hub", "lists", "quality", "report"),
    *("har_formats", "sensor_quality", "sensor_reading", "sensor_sets"),
    *("archives", "denoise", "skeleton_file", "skeletons"),
)


def kinds() -> list[str]:
    """Return the names of the modules of this package that prepare something."""
    names = [module.name for module in pkgutil.iter_modules(tsmjax.prepare.__path__)]
    return [name for name in names if name not in _SHARED]


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print("usage: python -m tsmjax.prepare KIND --src PATH --dst DIR [options]\n")
            print("Convert raw files to an Arrow data set that tsmjax and Hugging Face open.\n")
            for name in kinds():
                print(f"  {name:<12}{_module(name).__doc__.splitlines()[0]}")
            print("\npython -m tsmjax.prepare KIND --help tells the options of a kind.")
            print("python -m tsmjax.prepare --report DIR … looks at finished data sets.")
            return 0
        kind, rest = arguments[0], arguments[1:]
        if kind == "--report":
            _module("quality").run(rest)
            return 0
        if kind in _COMMANDS:
            _module(kind).run(rest)
            return 0
        report, folder = run(kind, rest)
        report.show(Console(), folder)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run(kind: str, arguments: list[str]) -> tuple[Report, Path]:
    """Prepare one data set; returns what was found and the folder it is in.

    Raises:
      InputError: for an unknown kind, a missing source, a destination that is in use, or data that
        the kind refuses.
    """
    module = _module(kind) if kind in kinds() else _own(kind)
    parser = argparse.ArgumentParser(
        prog=f"python -m tsmjax.prepare {kind}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    required = getattr(module, "SRC_REQUIRED", True)
    parser.add_argument("--src", required=required, help="raw file, or a folder of them")
    parser.add_argument("--dst", type=Path, required=True, help="folder to write; must be empty")
    module.add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.dst.exists() and (not options.dst.is_dir() or any(options.dst.iterdir())):
        raise InputError(f"{options.dst} exists and is not empty: choose another --dst.")
    locate = getattr(module, "locate", _local)
    rows, report = module.prepare(locate(options.src, options), options)
    write_dataset(rows, options.dst)
    report.save(options.dst)
    return report, options.dst


def _local(source: str, options: argparse.Namespace) -> Path:
    """Return the path of a source that must exist."""
    path = Path(source)
    if not path.exists():
        near = [entry.name for entry in path.parent.glob("*")]
        raise InputError(f"There is no file or folder {path}{closest(path.name, near)}.")
    return path


def _own(kind: str):
    """Import a kind that is not part of tsmjax: a module with `add_arguments` and `prepare`."""
    try:
        known = re.fullmatch(r"\w+(\.\w+)*", kind) and importlib.util.find_spec(kind)
    except ModuleNotFoundError:
        known = None
    module = importlib.import_module(kind) if known else None
    if not (hasattr(module, "prepare") and hasattr(module, "add_arguments")):
        raise InputError(
            f"There is no kind {kind!r} of raw data{closest(kind, kinds())}; "
            f"there are {', '.join(kinds())}, and modules of one's own on the Python path."
        )
    return module


def _module(kind: str):
    return importlib.import_module(f"tsmjax.prepare.{kind}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
