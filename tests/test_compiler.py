"""Which compiler options a program gets, by backend and processor."""

import jax
import pytest

from tsmjax import compiler


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends to be on another machine."""

    def pretend(backend: str, avx512: bool = True) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(compiler, "_has_avx512", lambda: avx512)
        compiler._options.cache_clear()

    yield pretend
    compiler._options.cache_clear()


@pytest.mark.parametrize("training", (False, True))
def test_products_on_gpus_are_left_to_cublas(machine, training):
    machine("gpu")
    assert compiler._options(training) == {"xla_gpu_enable_triton_gemm": False}
    assert float(compiler.jit(lambda x: x + 1, training=training)(1.0)) == 2.0


@pytest.mark.parametrize(
    "training, avx512, changed", ((False, False, True), (True, False, False), (False, True, False))
)
def test_only_forward_passes_on_old_cpus_do_without_ynnpack(machine, training, avx512, changed):
    machine("cpu", avx512)
    assert bool(compiler._options(training)) == changed


def test_an_option_that_xla_does_not_know_is_left_out():
    assert compiler._known({"xla_gpu_there_is_no_such_option": True}) == {}
