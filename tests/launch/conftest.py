"""Where the launch files are, and a run that is short enough for tests."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Environment of processes with two virtual devices each, which compile once for all tests."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OMPI_")},
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TSMJAX_CACHE": str(cache),
    }


class Run:
    """configs/chronos2_test.py, shortened to four steps of a smaller model on less data."""

    def __init__(self, folder):
        self.folder = folder
        self.arguments = [
            "--config=configs/chronos2_test.py",
            f"--workdir={folder}",
            "--config.data.sources[0].path=embedded:tsmixup?series=64&max_length=256",
            "--config.data.sources[1].path=embedded:kernel_synth?series=16&length=256",
            "--config.model.context_length=128",
            "--config.model.d_model=64",
            "--config.model.d_ff=128",
            "--config.optim.length=4 steps",
            "--config.checkpoint.every=2 steps",
            "--config.evals.every=4 steps",
            "--config.log.every=1 steps",
            "--config.log.plots=False",
        ]

    def check(self, processes):
        """It is complete, and came from `processes` processes with two devices each."""
        results = json.loads((self.folder / "results.json").read_text())
        assert results["step"] == 4
        assert results["test"]["embedded/wql"] > 0
        log = (self.folder / "logs" / "training.log").read_text()
        assert f"{2 * processes} devices on {processes} processes" in log
        assert sorted(path.name for path in (self.folder / "checkpoints").iterdir())[-1] == "4"


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")
