"""Matrix products over the last or the first axis, with gradients in the layout of their operands.

Automatic differentiation writes the same gradients as products whose results are transposed
afterwards; on a CPU those transposes cost up to a third of a token mixer of TTM, and two fifths of
a step of LAST-E.
"""

from __future__ import annotations

import functools

import jax

from tsmjax.nn import layout


def trailing(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Map `x` (…, inputs) to (…, outputs) by `kernel` (inputs, outputs)."""
    return _trailing(x, kernel, layout.devices() == 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _trailing(x: jax.Array, kernel: jax.Array, whole: bool) -> jax.Array:
    return x @ kernel


def _trailing_backward(
    whole: bool, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    by_input = _contract(gradient, kernel, (x.ndim - 1,), (1,))
    if whole:  # flat, which needs no transpose, but would gather rows that are on several devices
        x, gradient = (operand.reshape(-1, operand.shape[-1]) for operand in (x, gradient))
    rows = tuple(range(x.ndim - 1))
    return by_input, _contract(x, gradient, rows, rows)


_trailing.defvjp(lambda x, kernel, whole: (x @ kernel, (x, kernel)), _trailing_backward)


def leading(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Map `x` (inputs, …) to (outputs, …) by `kernel` (inputs, outputs)."""
    return _leading(x, kernel, layout.devices() == 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _leading(x: jax.Array, kernel: jax.Array, whole: bool) -> jax.Array:
    return _contract(kernel, x, (0,), (0,))


def _leading_backward(
    whole: bool, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    by_input = _contract(kernel, gradient, (1,), (0,))
    if whole:  # see `_trailing_backward`
        x, gradient = (operand.reshape(operand.shape[0], -1) for operand in (x, gradient))
    rest = tuple(range(1, x.ndim))
    return by_input, _contract(x, gradient, rest, rest)


_leading.defvjp(
    lambda x, kernel, whole: (_leading(x, kernel, whole), (x, kernel)), _leading_backward
)


def _contract(
    left: jax.Array, right: jax.Array, left_axes: tuple[int, ...], right_axes: tuple[int, ...]
) -> jax.Array:
    return jax.lax.dot_general(left, right, ((left_axes, right_axes), ((), ())))
