"""UTD-MHAD: a folder, or a .tar of any compression, of aA_sS_tT_skeleton.mat files.

Each holds d_skel, 20 joints × 3 × frames (Kinect v1, head first). The protocol xsub trains on
subjects 1, 3, 5, 7 and tests on 2, 4, 6, 8. Needs SciPy: pip install "tsmjax[data]".

For example:
  python -m tsmjax.prepare utd_mhad --src Skeleton --dst data/utd
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax.errors import InputError
from tsmjax.prepare.archives import members
from tsmjax.prepare.columns import some
from tsmjax.prepare.report import Report
from tsmjax.prepare.skeletons import UTD_ACTIONS, facts_of, row

_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton\.mat")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this kind."""
    parser.add_argument("--float16", action="store_true", help="half the size, about 1 mm at 2 m")


def prepare(source: Path, options: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], Report]:
    """Return the rows of the data set and the report, which is complete after the last row.

    Raises:
      InputError: when SciPy is missing, there are no such files, or one is of another form.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InputError('.mat files need SciPy: pip install "tsmjax[data]".') from error
    report = Report(source=str(source), layout="UTD-MHAD, skeletons")
    facts = facts_of("utd_mhad", "utd20", UTD_ACTIONS)

    def rows() -> Iterator[dict[str, Any]]:
        for name, content in members(source, ".mat"):
            match = _NAME.fullmatch(name)
            if not match:
                why = "its name is not of the form a1_s1_t1_skeleton.mat"
                report.dropped.append((name, why))
                continue
            action, subject, trial = map(int, match.groups())
            try:
                joints = np.asarray(loadmat(io.BytesIO(content))["d_skel"], np.float32)
            except Exception as error:  # whatever damaged bytes lead to
                raise InputError(f"{name} of {source} is damaged ({error!r}).") from error
            if joints.ndim != 3 or joints.shape[:2] != (20, 3) or not 1 <= action <= 27:
                raise InputError(
                    f"{name} of {source} holds d_skel of shape {joints.shape}, but it must be "
                    "(20, 3, frames), and actions are 1 to 27."
                )
            joints[~np.isfinite(joints)] = np.nan
            yield row(
                name.removesuffix("_skeleton.mat"),
                joints.transpose(2, 0, 1)[None],
                action - 1,
                facts,
                subject=subject,
                repetition=trial,
                half=options.float16,
            )

    return some(rows(), report), report
