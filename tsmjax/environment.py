"""Where a training runs: on a machine of one's own, on Kaggle, or on Lambda.

    local    nothing is changed
    kaggle   data that are not where the config says are looked for under /kaggle/input
    lambda   the same under the mounted file systems, /lambda/nfs/NAME

``--env`` decides; without it Kaggle is told by the variable that its kernels set and Lambda by its
mount, and what was found is printed. Independent of that, a GPU that has no bfloat16 computes in
float16 with a scaled loss.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmjax.errors import InputError, closest

if TYPE_CHECKING:
    from tsmjax.optim import OptimConfig

log = logging.getLogger(__name__)
PLACES = {"local": "", "kaggle": "kaggle/input", "lambda": "lambda/nfs/*"}
_BFLOAT16 = 8.0  # first compute capability of NVIDIA with it


def detect(variables: Mapping[str, str] | None = None, root: Path = Path("/")) -> str:
    """Name the environment, judging by variables and mounts."""
    if "KAGGLE_KERNEL_RUN_TYPE" in (os.environ if variables is None else variables):
        return "kaggle"
    return "lambda" if (root / "lambda" / "nfs").is_dir() else "local"


def locate(config: dict[str, Any], name: str, root: Path = Path("/")) -> dict[str, Any]:
    """Return config values with ``data.path`` where the data are in the environment `name`.

    Raises:
      InputError: when there is no such environment.
    """
    if name not in PLACES:
        raise InputError(f"--env={name} is none of {', '.join(PLACES)}{closest(name, PLACES)}.")
    path = (config.get("data") or {}).get("path", "")
    if not PLACES[name] or not path or ":" in path or Path(path).exists():
        return config
    for folder in sorted(root.glob(PLACES[name])):
        for found in (folder / path, folder / Path(path).name):
            if found.exists():
                log.info("Environment %s: data.path is %s.", name, found)
                return {**config, "data": {**config["data"], "path": str(found)}}
    return config


def supported(config: OptimConfig, devices: Iterable[Any] | None = None) -> OptimConfig:
    """Return `config` with a precision that all devices have."""
    if devices is None:
        import jax  # not before the processes of a run have found each other

        devices = jax.devices()
    if config.precision != "bfloat16" or all(_has_bfloat16(device) for device in devices):
        return config
    log.warning("These GPUs have no bfloat16: optim.precision is float16, with a scaled loss.")
    return dataclasses.replace(config, precision="float16")


def _has_bfloat16(device: Any) -> bool:
    try:
        return device.platform != "gpu" or float(device.compute_capability) >= _BFLOAT16
    except (AttributeError, ValueError):  # not NVIDIA's
        return True
