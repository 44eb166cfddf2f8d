"""Northwestern-UCLA: a folder, or a .tar of any compression, of one JSON file a clip.

The form is that of CTR-GCN and its successors: ``aAA_sSS_eEE_vVV.json`` with file_name, skeletons
(frames × 20 × 3) and label (1 to 10). The protocol xview trains on views 1 and 2 and tests on 3.

For example:
  python -m tsmjax.prepare ucla --src all_sqe --dst data/ucla
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError
from tsmjax.prepare.archives import members
from tsmjax.prepare.columns import some
from tsmjax.prepare.report import Report
from tsmjax.prepare.skeletons import UCLA_ACTIONS, facts_of, row

_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)\.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    parser.add_argument("--float16", action="store_true", help="half the size, about 1 mm at 2 m")


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when there are no such files, or one is of another form.
    """
    report = Report(source=str(source), layout="Northwestern-UCLA, JSON of CTR-GCN")
    facts = facts_of("nw_ucla", "ucla20", UCLA_ACTIONS)

    def rows() -> Iterator[dict[str, Any]]:
        for name, content in members(source, ".json"):
            match = _NAME.fullmatch(name)
            if not match:
                report.dropped.append((name, "its name is not of the form a01_s01_e00_v01.json"))
                continue
            _, subject, repetition, view = map(int, match.groups())
            try:
                clip = json.loads(content)
                joints = np.asarray(clip["skeletons"], np.float32)
                label = int(clip["label"]) - 1
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{name} of {source} is damaged or of another form ({error}): it must hold "
                    "skeletons (frames × 20 × 3) and label."
                ) from error
            if joints.ndim != 3 or joints.shape[1:] != (20, 3) or not 0 <= label < 10:
                raise InputError(
                    f"{name} of {source} holds skeletons of shape {joints.shape} and label "
                    f"{label + 1}, but they must be (frames, 20, 3) and from 1 to 10."
                )
            if not len(joints):
                report.dropped.append((name, "it has no frame"))
                continue
            joints[~np.isfinite(joints)] = np.nan
            yield row(
                name.removesuffix(".json"),
                joints[None],
                label,
                facts,
                subject=subject,
                camera=view,
                repetition=repetition,
                half=options.float16,
            )

    return some(rows(), report), report
