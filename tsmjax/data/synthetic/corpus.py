"""A corpus of generated series of all kinds: ``embedded:corpus``, ``generated:corpus``.

A config selects it as one of its sources, alone or beside others:

    "sources": ({"path": "embedded:corpus?series=300000&max_length=1024", "weight": 1.0},)

``embedded:`` writes the series to the cache folder once, with worker processes; ``generated:``
makes them during training and never repeats one. Parameters, all whole numbers:

* `series` (embedded only): how many items.
* `min_length`, `max_length`: of the series; within them lengths depend on the frequency.
* `missing`: per cent of the series that miss some values.
* `variates`: most variates of an item. With 1 every item is a series; above it every item is a
  group of two or more, targets and covariates.
* `seed`.
* the shares of the generators, `structural` (TSI), `arima`, `ets`, `kernels`, `tcm` and `growth`; 0
  leaves one out. ``embedded:ets`` is the corpus of that generator alone, and so on.

Items come in blocks; block number n is a function of the seed and n. This module imports no jax:
`blocks` has the generators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tsmjax.errors import InputError

# Shares of the generators, and (of groups) of the kinds of dependence.
SHARES = {"structural": 64, "arima": 12, "ets": 10, "kernels": 7, "tcm": 3, "growth": 4}
DEPENDENCES = {"linear": 25, "nonlinear": 20, "lead_lag": 25, "cointegrated": 10, "sequential": 20}
DEFAULTS = {
    "series": 100_000,
    "min_length": 32,
    "max_length": 1024,
    "missing": 10,
    "variates": 1,
    "seed": 0,
    **SHARES,
}
MAY_BE_ZERO = ("missing", "seed", *SHARES)
VERSION = 3  # of the series; to be raised when the same parameters make others
LARGEST_GROUP = 64
BLOCK = 1024  # series that are generated together; items of several variates are fewer


def check(path: str, parameters: Mapping[str, int]) -> None:
    """Refuse parameters that make no corpus.

    Raises:
      InputError: naming `path`.
    """
    if parameters["min_length"] > parameters["max_length"]:
        raise InputError(f"In {path}, min_length is greater than max_length.")
    if parameters["missing"] > 100:
        raise InputError(f"In {path}, missing is {parameters['missing']} per cent.")
    if parameters["variates"] > LARGEST_GROUP:
        raise InputError(
            f"In {path}, variates is {parameters['variates']}, and {LARGEST_GROUP} is the most."
        )


def count(series: int, **_: int) -> int:
    """Return the number of rows that `rows` can make."""
    return series


def block_size(variates: int) -> int:
    """Return the items of a block."""
    return max(1, BLOCK // variates)


def rows(first: int, last: int, **parameters: int) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1 of the data set."""
    size = block_size(parameters["variates"])
    for number in range(first // size, -(-last // size)):
        begin = number * size
        found = items(number, **parameters)
        for index in range(max(first, begin), min(last, begin + size)):
            target, past, known = found[index - begin]
            row = {"item_id": f"corpus/{index}", "target": target}
            if parameters["variates"] == 1:
                row["target"] = target[0]
            else:
                row |= {"past_feat_dynamic_real": past, "feat_dynamic_real": known}
            yield row


def items(
    number: int,
    *,
    min_length: int,
    max_length: int,
    missing: int,
    variates: int,
    seed: int,
    series: int = 0,
    **shares: int,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Generate block `number`: the targets, past covariates and known covariates of each item.

    Args:
      number: of the block.
      min_length: least length of a series.
      max_length: greatest length.
      missing: per cent of the series that miss values.
      variates: most variates of an item.
      seed: of the corpus.
      series: not used; the number of items of a corpus changes none of them.
      **shares: of the generators.

    Returns:
      For each item three float32 arrays of shape (variates, length), NaN where values are missing.
    """
    import jax  # here, because whoever asks for parameters alone must not load it

    from tsmjax.data.synthetic import blocks, multivariate

    made = blocks.block(
        jax.random.fold_in(jax.random.key(seed), number),
        shares=tuple(shares[name] for name in SHARES),
        variates=variates,
        length=max_length,
        min_length=min_length,
        missing=missing / 100,
        size=block_size(variates),
    )
    values, roles, used = jax.device_get(made)
    kinds = multivariate.TARGET, multivariate.PAST, multivariate.KNOWN
    ends = np.cumsum([(roles == kind).sum(axis=1) for kind in kinds], axis=0).T
    return [
        (series[:targets, -steps:], series[targets:past, -steps:], series[past:known, -steps:])
        for series, steps, (targets, past, known) in zip(
            values, used.tolist(), ends.tolist(), strict=True
        )
    ]
