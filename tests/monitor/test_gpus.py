import math
import sys
import types

import pytest

from tsmjax.monitor import gpus


@pytest.fixture
def nvml(monkeypatch):
    """A driver of four GPUs, and two devices of this process among them."""
    module = types.ModuleType("pynvml")
    module.asked, module.broken = [], False
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.nvmlInit = lambda: None

    def handle(name):
        if name == "GPU-gone":
            raise module.NVMLError("not found")
        module.asked.append(name)
        return name

    def rates(handle):
        if module.broken:
            raise module.NVMLError("not supported")
        return types.SimpleNamespace(gpu={0: 10, 1: 20, 2: 30, 3: 60}.get(handle, 90))

    module.nvmlDeviceGetHandleByIndex = module.nvmlDeviceGetHandleByUUID = handle
    module.nvmlDeviceGetUtilizationRates = rates
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(gpus.jax, "default_backend", lambda: "gpu")
    devices = [types.SimpleNamespace(local_hardware_id=number) for number in range(2)]
    monkeypatch.setattr(gpus.jax, "local_devices", lambda: devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return module


def test_the_mean_over_looks_and_devices_begins_anew_with_each_report(nvml):
    ours = gpus.Gpus()
    ours.look()
    ours.look()
    assert ours.mean() == pytest.approx(0.15) and math.isnan(ours.mean())
    ours.look()
    assert ours.mean() == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("visible", "asked"), [("", [0, 1]), ("2,3", [2, 3]), ("GPU-ab, 3", ["GPU-ab", 3])]
)
def test_devices_are_those_that_cuda_sees(nvml, monkeypatch, visible, asked):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus.Gpus()
    assert nvml.asked == asked


def test_without_a_driver_its_package_or_a_gpu_nothing_is_known(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-gone")
    gone = gpus.Gpus()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    mig = gpus.Gpus()
    nvml.broken = True
    monkeypatch.setitem(sys.modules, "pynvml", None)
    missing = gpus.Gpus()
    monkeypatch.setattr(gpus.jax, "default_backend", lambda: "cpu")
    for one in (gone, mig, missing, gpus.Gpus()):
        one.look()
        assert math.isnan(one.mean())
