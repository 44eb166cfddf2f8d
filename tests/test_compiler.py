"""Which compiler options a program gets, by backend."""

import jax
import pytest

from tsmjax import compiler


@pytest.fixture
def machine(monkeypatch):
    """Return a function that pretends to be on another machine."""

    def pretend(backend: str) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        compiler._options.cache_clear()

    yield pretend
    compiler._options.cache_clear()


@pytest.mark.parametrize("training", (False, True))
def test_products_on_gpus_are_left_to_cublas(machine, training):
    machine("gpu")
    assert compiler._options(training) == {"xla_gpu_enable_triton_gemm": False}
    assert float(compiler.jit(lambda x: x + 1, training=training)(1.0)) == 2.0


@pytest.mark.parametrize("training", (False, True))
def test_only_forward_passes_on_cpus_do_without_ynnpack(machine, training):
    machine("cpu")
    assert bool(compiler._options(training)) != training


def test_an_option_that_xla_does_not_know_is_left_out():
    assert compiler._known({"xla_gpu_there_is_no_such_option": True}) == {}
