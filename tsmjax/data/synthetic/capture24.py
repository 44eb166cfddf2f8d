"""Wearable sensors that nobody wore: ``embedded:capture24``, in two stages.

Files in the format of Capture-24 are generated (`tsmjax.wearables.generator`) and prepared as
``python -m tsmjax.prepare capture24`` prepares the real ones. Scores on them say nothing about
Capture-24.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tsmjax.wearables.generator import write_recordings

VERSION = 1
DEFAULTS = {
    "participants": 12,
    "minutes": 25,  # of each person
    "rate": 20,  # Hz of the raw files
    "factor": 2,  # raw steps that become one
    "seconds": 6,  # of a window
    "stage": 2,
    "seed": 0,
}


def make(folder: Path, **parameters: int) -> None:
    """Write the data set into `folder`.

    Raises:
      InputError: when the parameters leave no window.
    """
    from tsmjax.prepare.__main__ import run  # reads data sets by this package

    p = {**DEFAULTS, **parameters}
    with tempfile.TemporaryDirectory(prefix="tsmjax-") as raw:
        write_recordings(Path(raw), p["participants"], p["minutes"] * 60, p["rate"], p["seed"])
        options = {
            "--original-sampling-rate": p["rate"],
            "--downsample-factor": p["factor"],
            "--window-size-seconds": p["seconds"],
            "--overlap": 0,
            "--antialias": "mean",
            "--balance-ratio": 0.5,
            "--train-test-split": 75,
            "--validation-share": 0.23,
            "--stage": p["stage"],
            "--workers": 1,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        lengths = ["--lengths", "8", str(max(9, p["seconds"] * p["rate"] // p["factor"]))]
        qa = ["--qa", "trend", "question", "--max-rows", "2000"]
        run("capture24", ["--src", raw, "--dst", str(folder), *arguments, *lengths, *qa])
