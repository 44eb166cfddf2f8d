"""Eight virtual CPU devices for every test, set before jax is imported anywhere."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
# XLA's thread pool follows the core count; a sharded step on a small machine then deadlocks.
os.environ["NPROC"] = "32"

from pathlib import Path

import jax
import pytest
from absl import flags

jax.config.update("jax_default_matmul_precision", "highest")
# Grain reads absl flags in the parent when it starts worker processes.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of public data and weights that docs/test_data.md describes."""
    folder = os.environ.get("TSMJAX_TEST_DATA")
    if not folder:
        pytest.skip("TSMJAX_TEST_DATA is not set; docs/test_data.md says what belongs there")
    return Path(folder)
