"""What one process can check of `tsmjax.distributed`; tests/multiprocess has the rest."""

import jax
import numpy as np
import pytest

from tsmjax import distributed, sharding


def test_with_one_process_everything_returns_at_once():
    assert distributed.channel() is None
    assert distributed.gather({"a": 1}, "here") == [{"a": 1}]
    assert distributed.broadcast([2], "there") == [2]
    distributed.barrier("everywhere")
    sums = {"a": np.float64(1)}
    assert distributed.add(sums, (0,)) is sums
    assert len(distributed.table().rows) == 1


@pytest.mark.parametrize(
    ("backend", "before", "after"),
    [("gpu", None, "compiled"), ("gpu", "/mine", "/mine"), ("cpu", None, None)],
)
def test_compiled_programs_are_kept_on_accelerators(tmp_path, monkeypatch, backend, before, after):
    monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kept = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", before)
        distributed.start({})
        expected = str(tmp_path / after) if after == "compiled" else after
        assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)


def test_processes_that_share_rows_feed_the_same_part(monkeypatch):
    class Device:
        def __init__(self, process):
            self.process_index = process

    class Mesh:
        def __init__(self, processes, tensor):
            self.devices = np.array([Device(process) for process in processes])
            self.shape = {"tensor": tensor}

    parts = sharding.batch_parts.__wrapped__
    assert parts(Mesh([0, 0, 1, 1], 1)) == (0, 1)
    assert parts(Mesh([0, 0, 1, 1], 2)) == (0, 1)
    assert parts(Mesh([0, 0, 1, 1], 4)) == (0, 0)  # tensor parallel across hosts
    assert parts(Mesh([0, 1, 2, 3], 2)) == (0, 0, 1, 1)
