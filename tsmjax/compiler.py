"""How programs are compiled: options that XLA does not choose by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

# Fusion around YNNPACK; "" leaves products to Eigen and reductions to XLA.
_WITHOUT_YNNPACK = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Matrix products by Triton kernels; False leaves them to cuBLAS.
_WITHOUT_TRITON = {"xla_gpu_enable_triton_gemm": False}


def jit(function: Callable, *, training: bool = False, **options: Any) -> Callable:
    """`jax.jit` with the compiler options that suit the device.

    Args:
      function: a forward pass, or a training step.
      training: whether it has a backward pass.
      **options: of `jax.jit`.
    """
    return jax.jit(function, compiler_options=_options(training), **options)


@functools.cache
def _options(training: bool) -> dict[str, Any]:
    """Options of the default backend.

    On CPUs forward passes run up to 1.7 times as fast in Eigen, as YNNPACK is slow where it fuses
    large products with what follows them; backward passes, which sum over rows, do not. On GPUs,
    choosing among Triton kernels can take minutes for small nets too, and XLA of jax 0.11.2 aborts
    on products of LAST-E ("Check failed: subdim_size_accumulator == dim_size").
    """
    if jax.default_backend() == "gpu":
        return _known(_WITHOUT_TRITON)
    return _known(_WITHOUT_YNNPACK) if jax.default_backend() == "cpu" and not training else {}


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options, or none where this version of XLA does not have them."""
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
