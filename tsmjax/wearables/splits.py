"""Which person is trained on, validated on and tested on: nobody is in two parts."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from tsmjax.data.sensor import SPLITS
from tsmjax.errors import InputError, closest


def natural(name: str) -> tuple:
    """Return a key that sorts P9 before P10."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)
    )


def draw(subjects: Sequence[str], number: int | None, seed: int) -> list[str]:
    """Return `number` of the subjects in an order that depends on the seed alone.

    Args:
      subjects: names; their order does not matter.
      number: how many; None for all.
      seed: 42 draws as the published preprocessing does from a sorted folder.

    Raises:
      InputError: when there are fewer.
    """
    ordered = sorted(subjects, key=natural)
    if number is None:
        number = len(ordered)
    if not 1 <= number <= len(ordered):
        raise InputError(
            f"{number} participants are asked for, but there are {len(ordered)} "
            f"({', '.join(ordered[:5])}{' …' if len(ordered) > 5 else ''})."
        )
    return random.Random(seed).sample(ordered, number)


def by_share(subjects: Sequence[str], train_percent: float, validation: float) -> dict[str, str]:
    """Split subjects in their order: the first are trained on, the last of these validate.

    Args:
      subjects: names in the order of `draw`.
      train_percent: share of the training and validation part together, in per cent.
      validation: share of that part that validates; one at least when it has two, 0 for none.

    Returns:
      Subject → split.
    """
    if not 0 < train_percent <= 100:
        raise InputError(
            f"The train/test split is {train_percent:g}, but must be the per cent of the "
            "participants to train on, above 0 and at most 100."
        )
    if not 0 <= validation < 1:
        raise InputError(f"The validation share is {validation:g}, but must be from 0 to below 1.")
    first = max(1, int(len(subjects) * train_percent / 100 + 1e-9))
    held = min(first - 1, max(1, round(first * validation))) if validation else 0
    names = ["train"] * (first - held) + ["validation"] * held
    names += ["test"] * (len(subjects) - first)
    return dict(zip(subjects, names, strict=True))


def by_name(subjects: Sequence[str], parts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Split subjects as named; those not named are trained on.

    Args:
      subjects: all names.
      parts: split → names.

    Raises:
      InputError: for an unknown subject, or one that is named twice.
    """
    found: dict[str, str] = {}
    for split in SPLITS:
        for name in parts.get(split, ()):
            if name not in subjects:
                raise InputError(
                    f"There is no participant {name!r}{closest(name, subjects)} to put into "
                    f"{split}; there are {', '.join(sorted(subjects, key=natural)[:20])}."
                )
            if name in found:
                raise InputError(
                    f"Participant {name!r} is put into {found[name]} and into {split}: a person "
                    "who is tested on must not be trained on."
                )
            found[name] = split
    return {name: found.get(name, "train") for name in subjects}
