"""Eight virtual CPU devices for every test, set before jax is imported anywhere."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# Tests compile more than they compute: half of their time. Set it to 0 for what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's thread pool follows the core count; a sharded step on a small machine then deadlocks.
os.environ["NPROC"] = "32"

from pathlib import Path

import jax
import numpy as np
import pytest
import toy
from absl import flags

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.monitor.line import host_memory

jax.config.update("jax_default_matmul_precision", "highest")
# Grain reads absl flags in the parent when it starts worker processes.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Forget compiled functions before they fill the memory of a small machine."""
    yield
    if host_memory().used > 3e9:
        jax.clear_caches()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of public data and weights that docs/test_data.md describes."""
    folder = os.environ.get("TSMJAX_TEST_DATA")
    if not folder:
        pytest.skip("TSMJAX_TEST_DATA is not set; docs/test_data.md says what belongs there")
    return Path(folder)


@pytest.fixture(scope="session")
def walks(tmp_path_factory) -> str:
    """Folder of 24 seasonal random walks, half of them bivariate, some values missing."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        t = np.arange(rng.integers(120, 200))
        x = np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=(2, len(t))).cumsum(axis=1)
        x[:, rng.random(len(t)) < 0.05] = np.nan
        rows.append({"item_id": str(number), "target": x.astype(np.float32)[: 1 + number % 2]})
    folder = tmp_path_factory.mktemp("corpus") / "walks"
    write_dataset(rows, folder)
    return str(folder)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """Folder of the rows of the toy family, which can be imported from then on."""
    folder = tmp_path_factory.mktemp("toy")
    toy.install(folder)
    toy.write_rows(folder / "rows")
    return folder / "rows"
