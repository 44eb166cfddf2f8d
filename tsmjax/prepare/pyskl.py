"""Pickles of pyskl and MMAction2: a dict of split and annotations; nothing in them is run.

Each annotation holds frame_dir, label and keypoint, (bodies, frames, joints, 3 or 2); two
coordinates (images) get a third one of zero. A body of zeros is away. --split names the split whose
parts train and test are kept: xsub for xsub_train and xsub_val.

For example:
  python -m tsmjax.prepare pyskl --src ntu60_3danno.pkl --split xsub --dst data/ntu60_xsub
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError, closest
from tsmjax.models.last.skeletons import SKELETONS
from tsmjax.prepare.columns import some
from tsmjax.prepare.ctrgcn import bodies_of
from tsmjax.prepare.report import Report
from tsmjax.prepare.skeleton_file import parse_name
from tsmjax.prepare.skeletons import facts_of, row
from tsmjax.wearables.pickles import load

_OF_SIZE = {25: "ntu25", 20: "kinect20", 17: "coco17"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    add = parser.add_argument
    add("--split", required=True, help="as xsub: keeps xsub_train, and xsub_val or xsub_test")
    add("--skeleton", choices=tuple(SKELETONS), help="default: by the number of joints")
    add("--float16", action="store_true", help="half the size, about 1 mm at 2 m")


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when the pickle is damaged, asks to run something, has no such split, or holds
        something else.
    """
    content = load(source)
    if not isinstance(content, dict) or not {"split", "annotations"} <= content.keys():
        raise InputError(f"{source} is no dict with split and annotations, as pyskl writes it.")
    part_of = _parts(source, content["split"], options.split)
    clips = content["annotations"]
    try:
        sizes = {int(np.shape(clip["keypoint"])[2]) for clip in clips}
        actions = 1 + max(int(clip["label"]) for clip in clips)
        names = [str(clip["frame_dir"]) for clip in clips]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} has annotations without frame_dir, label or keypoint (bodies, frames, "
            f"joints, coordinates): {error!r}."
        ) from error
    skeleton = options.skeleton or _OF_SIZE.get(next(iter(sizes)))
    if len(sizes) != 1 or skeleton is None or SKELETONS[skeleton].size not in sizes:
        raise InputError(
            f"{source} has clips of {', '.join(map(str, sorted(sizes)))} joints: name a skeleton "
            "of as many with --skeleton."
        )
    actions = next(
        (known for known in (60, 120) if skeleton == "ntu25" and actions <= known), actions
    )
    labels = tuple(f"A{action + 1:03d}" for action in range(actions))
    dataset = {60: "ntu60", 120: "ntu120"}.get(actions, source.stem)
    facts, report = facts_of(dataset, skeleton, labels), Report(str(source), "pickle of pyskl")

    def rows() -> Iterator[dict[str, Any]]:
        for name, clip in zip(names, clips, strict=True):
            if name not in part_of:
                report.dropped.append((name, f"the split {options.split} has it in no part"))
                continue
            joints = np.asarray(clip["keypoint"], np.float32)
            joints = np.pad(joints, ((0, 0), (0, 0), (0, 0), (0, 3 - joints.shape[3])))
            joints = bodies_of(joints)
            if not len(joints):
                report.dropped.append((name, "there is nobody in it"))
                continue
            told = parse_name(name)
            fields = told._asdict() if told else {}
            fields.pop("action", None)
            label, part = int(clip["label"]), part_of[name]
            yield row(name, joints, label, facts, split=part, half=options.float16, **fields)

    return some(rows(), report), report


def _parts(source: Path, splits: dict[str, Any], wanted: str) -> dict[str, str]:
    """Return clip → "train" or "test"."""
    train = splits.get(f"{wanted}_train")
    test = splits.get(f"{wanted}_val", splits.get(f"{wanted}_test"))
    if train is None or test is None:
        known = sorted({name.rpartition("_")[0] for name in splits})
        raise InputError(
            f"{source} has no split {wanted!r}{closest(wanted, known)}; it has {', '.join(known)}."
        )
    return dict.fromkeys(map(str, train), "train") | dict.fromkeys(map(str, test), "test")
