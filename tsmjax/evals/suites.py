"""Suites of data sets: built in, listed in a file, or a folder of one's own.

A suite file is YAML: a list of data sets, each a folder of Arrow data.

    - name: electricity            # default: the folder's name
      path: data/electricity       # relative to the suite file
      horizon: 24
      freq: h                      # or season_length: 24; default: the data's column freq
      offset: -48                  # where the first test window begins; default: −horizon · rolls
      rolls: 2                     # test windows, one horizon apart; default: 1
      grouped: true                # forecast each item from all its variates and covariates

Data sets of the Hugging Face hub have `hf_repo` and `name` instead of `path`, and lie in the folder
that ``python -m tsmjax.prepare benchmark`` wrote; `prediction_length` and `num_rolls` are accepted
for `horizon` and `rolls`, so that the suite files of chronos-forecasting are read as they are. The
built-in suites lite, zero_shot and in_domain are such files beside this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError, closest
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator
from tsmjax.evals.metrics import season_length as season_of

DOWNLOADED = ("lite", "zero_shot", "in_domain")
BUILT_IN = ("embedded", *DOWNLOADED)
_FIELDS = {
    "name": str, "path": str, "hf_repo": str, "horizon": int, "freq": str, "season_length": int,
    "offset": int, "rolls": int, "grouped": bool,
}  # fmt: skip
_ALIASES = {"prediction_length": "horizon", "num_rolls": "rolls"}
_WORDS = {str: "text", int: "a whole number", bool: "true or false"}


def suite(
    name_or_path: str,
    split: str,
    *,
    quantiles: Sequence[float],
    context_length: int,
    max_horizon: int,
    patch: int,
    batch_size: int,
    horizon: int = 0,
    season_length: int = 0,
    data: str | Path = "",
    grouped: bool = False,
) -> ForecastEvaluator:
    """Open a suite and cut its windows.

    Args:
      name_or_path: see `open_suite`.
      split: "validation" or "test".
      quantiles: ascending levels that the model predicts.
      context_length: longest past that the model sees.
      max_horizon: longest forecast of the model.
      patch: steps of one output patch.
      batch_size: series in one forward pass, on each host.
      horizon: steps to forecast when the suite is a folder; 0 for `max_horizon`.
      season_length: steps of one season when the suite is a folder; 0 reads its column `freq`.
      data: folder of the downloaded data sets.
      grouped: see `from_folder`, when the suite is a folder.

    Raises:
      InputError: when there is no such suite, or its file or data are wrong.
    """
    name, datasets = open_suite(name_or_path, horizon or max_horizon, season_length, data, grouped)
    return ForecastEvaluator(
        name,
        datasets,
        split,
        quantiles=quantiles,
        context_length=context_length,
        max_horizon=max_horizon,
        patch=patch,
        batch_size=batch_size,
    )


def open_suite(
    name_or_path: str,
    horizon: int,
    season_length: int = 0,
    data: str | Path = "",
    grouped: bool = False,
) -> tuple[str, list[EvalDataset]]:
    """Return the name and the data sets of a suite.

    Args:
      name_or_path: a built-in suite, a suite file (.yaml, .yml), or a folder of Arrow data.
      horizon: steps to forecast when the suite is a folder.
      season_length: steps of one season when the suite is a folder; 0 reads its column `freq`.
      data: folder of the downloaded data sets.
      grouped: see `from_folder`, when the suite is a folder.

    Raises:
      InputError: when there is no such suite, or its file or data are wrong.
    """
    path = Path(name_or_path)
    if name_or_path == "embedded":
        return name_or_path, embedded()
    if name_or_path in DOWNLOADED or path.suffix in (".yaml", ".yml"):
        path = suite_file(name_or_path)
        return path.stem, from_file(path, data)
    if path.is_dir():
        name = path.resolve().name
        return name, [from_folder(path, name, horizon, season_length, grouped=grouped)]
    raise InputError(
        f"There is no suite {name_or_path!r}{closest(name_or_path, BUILT_IN)}; "
        f"give {', '.join(BUILT_IN)}, a .yaml file, or an existing folder of Arrow data."
    )


def suite_file(name_or_path: str) -> Path:
    """Return the file of a built-in suite, or the path itself."""
    if name_or_path in DOWNLOADED:
        return Path(__file__).with_name(f"{name_or_path}.yaml")
    return Path(name_or_path)


def embedded() -> list[EvalDataset]:
    """Real series that come with statsmodels, one data set for each of its data sets."""
    from tsmjax.data.synthetic import real

    groups: dict[str, list[real.RealSeries]] = {}
    for one in real.series():
        groups.setdefault(one.dataset, []).append(one)
    return [
        EvalDataset(
            name, [one.values for one in members], members[0].horizon, members[0].season_length
        )
        for name, members in groups.items()
    ]


def from_file(path: str | Path, data: str | Path = "") -> list[EvalDataset]:
    """Read a suite file and open its data sets, downloaded ones in the folder `data`."""
    path = Path(path)
    datasets = []
    for number, entry in enumerate(read_entries(path), 1):
        where = f"Entry {number} of {path}"
        folder = _folder(entry, where, path, data)
        season = season_of(entry["freq"]) if "freq" in entry else entry.get("season_length", 0)
        name, rest = entry.get("name", folder.name), (entry.get("offset", 0), entry.get("rolls", 1))
        grouped = entry.get("grouped", False)
        datasets.append(from_folder(folder, name, entry["horizon"], season, *rest, grouped=grouped))
    names = [dataset.name for dataset in datasets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The suite file {path} has several data sets named {name!r}.")
    return datasets


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Read a suite file: a checked dict for each data set; see the top of this module.

    Raises:
      InputError: when the file cannot be read, a field is unknown or of the wrong type, or one is
        missing.
    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"The suite file {path} cannot be read: {reason}.") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" at line {place.line + 1}" if place else ""
        raise InputError(f"The suite file {path} is not valid YAML{line}.") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"The suite file {path} must be a list of data sets.")
    return [_checked(entry, f"Entry {n} of {path}") for n, entry in enumerate(entries, 1)]


def from_folder(
    path: str | Path,
    name: str,
    horizon: int,
    season: int = 0,
    offset: int = 0,
    rolls: int = 1,
    *,
    grouped: bool = False,
) -> EvalDataset:
    """Open a folder of Arrow data.

    Args:
      path: the folder.
      name: name of the data set.
      horizon: steps to forecast.
      season: steps of one season; 0 looks up the frequency that the first row names in its column
        `freq`, and takes 1 when there is none.
      offset: see `EvalDataset`.
      rolls: see `EvalDataset`.
      grouped: forecast each item from all its variates and covariates; otherwise each variate of a
        target is a series of its own and covariates are not looked at, as in the published results.
    """
    from tsmjax.data.arrow import ArrowSource

    source = ArrowSource(path)
    if not season:
        freq = source.metadata(0).get("freq")
        season = season_of(freq) if freq else 1
    items = list(source.read(np.arange(len(source))))
    series = items if grouped else [values for item in items for values in item.target]
    return EvalDataset(name, series, horizon, season, offset, rolls)


def _checked(entry: Any, where: str) -> dict[str, Any]:
    """Return the entry with the names of this module, or raise."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {entry!r}, but must have fields such as path and horizon.")
    checked: dict[str, Any] = {}
    for key, value in entry.items():
        name = _ALIASES.get(key, key)
        if name not in _FIELDS:
            hint = closest(str(key), (*_FIELDS, *_ALIASES))
            raise InputError(f"{where} has an unknown field {key!r}{hint}.")
        kind = _FIELDS[name]
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise InputError(f"{where} has {key}: {value!r}, but it must be {_WORDS[kind]}.")
        if name in checked:
            raise InputError(f"{where} has both {name} and {key}: remove one of them.")
        checked[name] = value
    for key in ("name" if "hf_repo" in checked else "path", "horizon"):
        if key not in checked:
            raise InputError(f"{where} has no {key} and needs one.")
    for pair in (("freq", "season_length"), ("path", "hf_repo")):
        if all(key in checked for key in pair):
            raise InputError(f"{where} has both {' and '.join(pair)}: remove one of them.")
    return checked


def _folder(entry: dict[str, Any], where: str, file: Path, data: str | Path) -> Path:
    """Return the folder of a data set's Arrow files, or raise."""
    if "path" in entry:
        folder = file.parent / entry["path"]
        if not folder.is_dir():
            raise InputError(f"{where} names the folder {folder}, which does not exist.")
        return folder
    shipped = file.parent == Path(__file__).parent
    command = f"python -m tsmjax.prepare benchmark --suite {file.stem if shipped else file}"
    if not data:
        raise InputError(
            f"The data sets of suite {file.stem!r} are on the Hugging Face hub: run "
            f"{command} --dst DIR once, then say --data DIR (in a config, evals.data)."
        )
    folder = Path(data) / entry["name"]
    if not folder.is_dir():
        raise InputError(
            f"The data set {entry['name']!r} of suite {file.stem!r} is not in {data}: run "
            f"{command} --dst {data}, which goes on where it stopped."
        )
    return folder
