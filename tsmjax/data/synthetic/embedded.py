"""Data sets that tsmjax makes itself at first use: paths of the form ``embedded:NAME``.

``embedded:corpus`` (series of all kinds) and its generators alone, as ``embedded:ets``;
``embedded:tsi``, ``embedded:kernel_synth``, ``embedded:tsmixup`` and ``embedded:real``; optionally
with parameters: ``embedded:kernel_synth?series=256&length=1024&seed=0``. A module of this package
makes the rows, in blocks, in worker processes; their number changes no bit. The result is an
ordinary Arrow folder in the cache folder. ``embedded:capture24`` is a data set of wearable sensors
(`tsmjax.data.sensor`).
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from urllib.parse import parse_qsl

from rich.console import Console
from rich.progress import track

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.cache import cache_folder, make_once
from tsmjax.data.synthetic import corpus, workers
from tsmjax.errors import InputError, closest

PREFIX = "embedded:"
OTHERS = (
    "tsi",
    "kernel_synth",
    "tsmixup",
    "real",
    "capture24",
)  # modules of this package beside `corpus`
NAMES = ("corpus", *corpus.SHARES, *OTHERS)


def resolve(path: str, processes: int | None = None) -> str:
    """Return the folder of an ``embedded:`` path, generating it at first use; others as given.

    Args:
      path: a path, or ``embedded:NAME?parameter=value&…``.
      processes: worker processes; None for one a core.

    Raises:
      InputError: for an unknown name or parameter, or a value that is no positive number.
    """
    if not path.startswith(PREFIX):
        return path
    module, parameters = parse(path)
    name = path.removeprefix(PREFIX).partition("?")[0]
    generator = importlib.import_module(f"{__package__}.{module}")
    version = getattr(generator, "VERSION", 1)
    label = "-".join([f"{name}-v{version}", *(f"{k}{v}" for k, v in parameters.items())])
    if hasattr(generator, "make"):  # a folder at once, not rows
        return str(
            make_once(
                cache_folder() / "embedded" / label,
                lambda folder: generator.make(folder, **parameters),
            )
        )
    total = generator.count(**parameters)
    ranges = [
        (first, min(total, first + generator.BLOCK)) for first in range(0, total, generator.BLOCK)
    ]

    def make(folder: Path) -> None:
        parts = track(
            workers.make(module, parameters, ranges, processes),
            f"Generating {name} (once)",
            total=len(ranges),
            console=Console(stderr=True),
            transient=True,
        )
        write_dataset(itertools.chain.from_iterable(parts), folder)

    return str(make_once(cache_folder() / "embedded" / label, make))


def parse(path: str) -> tuple[str, dict[str, int]]:
    """Split an ``embedded:`` path into the generator's module and all of its parameters."""
    name, _, query = path.partition(":")[2].partition("?")
    if name not in NAMES:
        raise InputError(
            f"There is no embedded data set {name!r}{closest(name, NAMES)}; "
            f"there are {', '.join(NAMES)}."
        )
    module = "corpus" if name in corpus.SHARES else name
    generator = importlib.import_module(f"{__package__}.{module}")
    parameters = dict(generator.DEFAULTS)
    known = [key for key in parameters if name == "corpus" or key not in corpus.SHARES]
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise InputError(
                f"{path} has no parameter {key!r}{closest(key, known)}; "
                f"it has {', '.join(known) or 'none'}."
            )
        zero_allowed = key in getattr(generator, "MAY_BE_ZERO", ("missing", "seed"))
        if not value.isdecimal() or (int(value) == 0 and not zero_allowed):
            raise InputError(f"In {path}, {key} is {value!r}, but must be a positive whole number.")
        parameters[key] = int(value)
    if module == "corpus":
        if name != "corpus":
            parameters |= {share: int(share == name) for share in corpus.SHARES}
        corpus.check(path, parameters)
        if not any(parameters[share] for share in corpus.SHARES):
            raise InputError(f"In {path} the share of every generator is 0.")
    elif parameters.get("min_length", 0) > parameters.get("max_length", sys.maxsize):
        raise InputError(f"In {path}, min_length is greater than max_length.")
    return module, parameters
