"""Suites of data sets: built in, listed in a file, or a folder of one's own.

A suite file is YAML: a list of data sets, each a folder of Arrow data.

    - name: electricity            # default: the folder's name
      path: data/electricity       # relative to the suite file
      horizon: 24
      freq: h                      # or season_length: 24; default: the data's column freq
      offset: -24                  # where the test window begins; default: −horizon
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError, closest
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator
from tsmjax.evals.metrics import season_length as season_of

BUILT_IN = ("embedded",)
_FIELDS = {
    "name": str, "path": str, "horizon": int, "freq": str, "season_length": int, "offset": int,
}  # fmt: skip
_WORDS = {str: "text", int: "a whole number"}


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
) -> ForecastEvaluator:
    """Open a suite.

    Args:
      name_or_path: "embedded", a suite file (.yaml, .yml), or a folder of Arrow data.
      split: "validation" or "test".
      quantiles: ascending levels that the model predicts.
      context_length: longest past that the model sees.
      max_horizon: longest forecast of the model.
      patch: steps of one output patch.
      batch_size: series in one forward pass, on each host.
      horizon: steps to forecast when the suite is a folder; 0 for `max_horizon`.
      season_length: steps of one season when the suite is a folder; 0 reads its column `freq`.

    Raises:
      InputError: when there is no such suite, or its file or data are wrong.
    """
    path = Path(name_or_path)
    if name_or_path in BUILT_IN:
        name, datasets = name_or_path, embedded()
    elif path.suffix in (".yaml", ".yml"):
        name, datasets = path.stem, from_file(path)
    elif path.is_dir():
        name = path.name
        datasets = [from_folder(path, path.name, horizon or max_horizon, season_length)]
    else:
        raise InputError(
            f"There is no suite {name_or_path!r}{closest(name_or_path, BUILT_IN)}; "
            f"give {', '.join(BUILT_IN)}, a .yaml file, or an existing folder of Arrow data."
        )
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


def from_file(path: str | Path) -> list[EvalDataset]:
    """Read a suite file; see the top of this module for its form."""
    import yaml

    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"The suite file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" at line {place.line + 1}" if place else ""
        raise InputError(f"The suite file {path} is not valid YAML{line}.") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"The suite file {path} must be a list of data sets.")
    datasets = [_entry(entry, f"Entry {n} of {path}", path) for n, entry in enumerate(entries, 1)]
    names = [dataset.name for dataset in datasets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The suite file {path} has several data sets named {name!r}.")
    return datasets


def from_folder(
    path: str | Path, name: str, horizon: int, season: int = 0, offset: int = 0
) -> EvalDataset:
    """Open a folder of Arrow data; each variate of a multivariate target is a series.

    A `season` of 0 is looked up for the frequency that the first row names in its column `freq`,
    and is 1 when there is none.
    """
    from tsmjax.data.arrow import ArrowSource

    source = ArrowSource(path)
    if not season:
        freq = source.metadata(0).get("freq")
        season = season_of(freq) if freq else 1
    items = source.read(np.arange(len(source)))
    series = [values for item in items for values in item.target]
    return EvalDataset(name, series, horizon, season, offset)


def _entry(entry: Any, where: str, file: Path) -> EvalDataset:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {entry!r}, but must have fields such as path and horizon.")
    for key, value in entry.items():
        if key not in _FIELDS:
            raise InputError(f"{where} has an unknown field {key!r}{closest(str(key), _FIELDS)}.")
        kind = _FIELDS[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where} has {key}: {value!r}, but it must be {_WORDS[kind]}.")
    for key in ("path", "horizon"):
        if key not in entry:
            raise InputError(f"{where} has no {key} and needs one.")
    if "freq" in entry and "season_length" in entry:
        raise InputError(f"{where} has both freq and season_length: remove one of them.")
    folder = file.parent / entry["path"]
    if not folder.is_dir():
        raise InputError(f"{where} names the folder {folder}, which does not exist.")
    season = season_of(entry["freq"]) if "freq" in entry else entry.get("season_length", 0)
    name = entry.get("name", folder.name)
    return from_folder(folder, name, entry["horizon"], season, entry.get("offset", 0))
