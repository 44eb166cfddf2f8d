"""How busy the GPUs are, as their driver tells through NVML (``pip install "tsmjax[nvml]"``)."""

from __future__ import annotations

import math
import os
from typing import Any

import jax


class Gpus:
    """Looks at the GPUs of this process now and then; without GPUs, or NVML, it knows nothing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._busy: list[float] = []
        if jax.default_backend() == "gpu":
            self._open()

    def look(self) -> None:
        """Take in the share of the last second or so in which kernels ran, mean over the GPUs."""
        if not self._handles:
            return
        try:
            rates = [self._nvml.nvmlDeviceGetUtilizationRates(one).gpu for one in self._handles]
        except self._nvml.NVMLError:  # a part of a GPU (MIG) has no utilisation of its own
            self._handles = []
            return
        self._busy.append(sum(rates) / len(rates) / 100)

    def mean(self) -> float:
        """Return the mean share since the last call; NaN when it is not known."""
        busy, self._busy = self._busy, []
        return sum(busy) / len(busy) if busy else math.nan

    def _open(self) -> None:
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            self._handles = [
                _handle(pynvml, device.local_hardware_id) for device in jax.local_devices()
            ]
        except pynvml.NVMLError:
            return
        self._nvml = pynvml


def _handle(nvml: Any, number: int) -> Any:
    """Return NVML's handle of the GPU that CUDA, which may see a part of them, counts `number`."""
    visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    name = visible[number] if visible[0] and number < len(visible) else str(number)
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)
