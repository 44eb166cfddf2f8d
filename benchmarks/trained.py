"""The trainings that benchmarks score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tsmjax import checkpoint
from tsmjax.errors import InputError
from tsmjax.trainer import train


def trained(config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Return the outcome of the run in `workdir`, after training what is left of it.

    Its `seconds` are those of the last uninterrupted stretch.
    """
    try:
        checkpoint.find(f"{workdir}@final")
        return json.loads((Path(workdir) / "results.json").read_text())
    except (InputError, FileNotFoundError):
        return train(config, workdir)
