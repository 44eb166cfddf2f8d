"""NTU RGB+D as CTR-GCN and its successors store it: NTU60_CS.npz, NTU120_CSet.npz and the like.

x_train and x_test are (clips, frames, 150): two bodies of 25 joints, padded with zeros; y_train and
y_test one-hot. Frames of zeros are left out, a body of zeros is away; bodies 1 and 2 that are equal
(the NTU-120 script copies a single body) become one. The split is the file's: protocol "given".

For example:
  python -m tsmjax.prepare ctrgcn --src NTU60_CS.npz --dst data/ntu60_xsub
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError
from tsmjax.prepare.columns import some
from tsmjax.prepare.report import Report
from tsmjax.prepare.skeletons import facts_of, row

_PARTS = ("train", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    parser.add_argument("--float16", action="store_true", help="half the size, about 1 mm at 2 m")


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when the file is damaged, or holds arrays of other names or shapes.
    """
    arrays = _read(source)
    classes = arrays["y_train"].shape[1]
    dataset = {60: "ntu60", 120: "ntu120"}.get(classes)
    if dataset is None:
        raise InputError(f"{source} has {classes} actions, but NTU RGB+D has 60 or 120.")
    labels = tuple(f"A{action + 1:03d}" for action in range(classes))
    facts, report = facts_of(dataset, "ntu25", labels), Report(str(source), "npz of CTR-GCN")

    def rows() -> Iterator[dict[str, Any]]:
        for part in _PARTS:
            for number, (x, y) in enumerate(
                zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)
            ):
                name = f"{source.stem}/{part}/{number}"
                joints = bodies_of(x.reshape(len(x), 2, 25, 3).transpose(1, 0, 2, 3))
                if not len(joints):
                    report.dropped.append((name, "there is nobody in it"))
                    continue
                label = int(y.argmax())
                yield row(name, joints, label, facts, split=part, half=options.float16)

    return some(rows(), report), report


def bodies_of(joints: np.ndarray) -> np.ndarray:
    """Take padding out of (bodies, frames, joints, 3): zeros become NaN, empty ones disappear."""
    joints = np.where(np.isfinite(joints), joints, np.nan).astype(np.float32)
    away = ~np.nan_to_num(joints, nan=1.0).any(axis=(2, 3))
    joints = joints[:, ~away.all(axis=0)]
    joints[away[:, ~away.all(axis=0)]] = np.nan
    joints = joints[~away.all(axis=1)]
    if len(joints) == 2 and np.array_equal(joints[0], joints[1], equal_nan=True):
        joints = joints[:1]
    return joints


def _read(source: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} is damaged or no .npz of plain arrays ({error}).") from error
    for part in _PARTS:
        x, y = (arrays.get(f"{name}_{part}") for name in "xy")
        good = x is not None and y is not None and x.ndim == 3 and y.ndim == 2
        if not good or x.shape[2] != 150 or len(x) != len(y):
            raise InputError(
                f"{source} must hold x_{part} (clips, frames, 150) and y_{part} (clips, actions), "
                f"but holds {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'nothing'}."
            )
    return arrays
