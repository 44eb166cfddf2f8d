"""JAX programs as ONNX graphs: every primitive beside JAX, and what has no counterpart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import lax

from tsmjax.errors import InputError
from tsmjax.export.onnx import program

ROWS = 5
rng = np.random.default_rng(0)
TABLE = rng.normal(size=(6, 4)).astype(np.float32)
NAN = np.float32(np.nan)


def elementwise(x, z, **_):
    there = jnp.isfinite(x)
    return {
        "nan_stays_in_clip": jnp.clip(x, -0.5, 0.5),
        "nan_stays_in_clamp": lax.clamp(-0.5, x, 0.5),
        "nan_stays_in_max": jnp.maximum(x, 0.2),
        "nan_stays_in_min": jnp.minimum(x, z),
        "nan_stays_in_relu": jax.nn.relu(x),
        "nan_is_not_equal": x != x,
        "compare": (x < z) | (x >= 1) & ~(z <= 0) ^ (z == x),
        "select_bool": jnp.where(there, z > 0, x > 0),
        "rounding": jnp.floor(z) + jnp.ceil(3 * z) + jnp.sign(z),
        "exponentials": jnp.exp(z) + jnp.log1p(z * z) + jnp.expm1(z) + jnp.log(z * z + 1),
        "hyperbolic": jnp.arcsinh(40 * z) + jnp.sinh(z) + jnp.tanh(z) + jnp.cosh(z),
        "trigonometric": jnp.sin(z) * jnp.cos(z),
        "gelu": jax.nn.gelu(z, approximate=False) + jax.nn.gelu(z, approximate=True),
        "powers": z**2 + (z + 9) ** -1 + jnp.abs(z) ** 1.5 + lax.rsqrt(z * z + 1) + z**3,
        "softplus": jax.nn.softplus(z) + jax.nn.sigmoid(z),
        "to_int_and_back": (10 * z).astype(jnp.int32).astype(jnp.float32),
        "integers": (10 * z).astype(jnp.int32) // 3,
    }


def shapes(x, z, index, **_):
    B, C, T = z.shape
    constant = jnp.arange(T, dtype=jnp.float32)
    wide = jnp.broadcast_to(constant, (B, C, T))
    return {
        "merged_axes": z.reshape(B * C, T) @ TABLE,
        "split_axes": z.reshape(B, C, 2, T // 2).swapaxes(1, 2),
        "there_and_back": jnp.moveaxis(jnp.moveaxis(z, 2, 0) + 1, 0, 2),
        "slices": z[:, ::2, 1:-1] * 2 + z[:, -1:, 2:],
        "one_place": z[:, 1, None] - z[..., -1][..., None],
        "reversed": z[:, ::-1] + z[..., ::-1],
        "padded": jnp.pad(z, ((0, 0), (1, 0), (0, 2)), constant_values=NAN),
        "reflected": jnp.pad(z, ((0, 0), (0, 0), (2, 1)), mode="reflect"),
        "cut_by_padding": lax.pad(z, jnp.float32(0), ((0, 0, 0), (-1, 0, 0), (1, -2, 0))),
        "joined": jnp.concatenate([wide[:, :1], z, jnp.zeros((B, 1, T))], axis=1),
        "stacked": jnp.stack([z, wide], axis=2),
        "repeated": jnp.repeat(z, 2, axis=1) + jnp.tile(z, (1, 2, 1)),
        "repeats_in_a_sum": wide.sum(axis=(1, 2)) + wide.mean(axis=2).max(axis=1),
        "repeats_in_a_row": wide.reshape(B, -1),
        "parts": jnp.split(z, [1, 4], axis=2)[1],
        "known_only": jnp.cumsum(constant)[None] + jnp.zeros((B, 1)),
        "rows": jnp.take(TABLE, index, axis=0),
        "rows_or_nothing": jnp.take(TABLE, index + 3, axis=0),
        "rows_clipped": jnp.take(TABLE, index + 3, axis=0, mode="clip"),
        "columns": jnp.take(z, np.array([3, 0, 3]), axis=2),
        "rows_of_each": jnp.take_along_axis(z, index[:, :2, None] % 3, axis=1),
        "rows_of_each_or_nothing": jnp.take_along_axis(z, index[:, :2, None], axis=1),
    }


def products(x, z, index, **_):
    B, C, T = z.shape
    square = TABLE[:3, :3]
    rows = jnp.concatenate([z, z], axis=2)
    return {
        "last_axis": z @ TABLE,
        "first_axis": lax.dot_general(square, jnp.moveaxis(z, 1, 0), (((0,), (0,)), ((), ()))),
        "inner_axis": jnp.einsum("st,btc->bsc", square, z),
        "vector": z @ TABLE[:, 0],
        "scalar_of_each": jnp.einsum("bct,bct->b", z, z),
        "attention": jnp.einsum("bqt,bkt->bqk", jax.nn.softmax(z), z),
        "two_summed": jnp.einsum("bct,dct->bd", z, rng_tensor()),
        "repeated_operand": jnp.einsum("bct,btd->bcd", z, jnp.broadcast_to(TABLE, (B, 6, 4))),
        "smoothed": lax.conv_general_dilated(
            *(rows.reshape(B * C, 1, 2 * T), TABLE[None, :1, :3], (2,), [(1, 1)]),
            rhs_dilation=(2,),
        ),
        "reductions": z.max(axis=1) * z.min(axis=(1, 2))[:, None] + z.prod(axis=1),
        "any_and_all": jnp.stack([(z > 0).any(axis=2), (z > -1).all(axis=2)]),
        "places": z.argmax(axis=2) + z.argmin(axis=2),
        "sorted": jnp.sort(z, axis=1),
        "largest": lax.top_k(z, 2)[0],
        "where_largest": lax.top_k(z, 2)[1],
        "running": jnp.cumsum(z, axis=1) + jnp.cumsum(z, axis=2)[..., ::-1],
        "scanned": lax.scan(lambda c, k: (c * k, c.sum(-1)), z, TABLE[:3, 0])[0],
        "scanned_outputs": lax.scan(lambda c, k: (c * k, c.sum(-1)), z, TABLE[:3, 0])[1],
        "scanned_backwards": lax.scan(
            lambda c, k: (c + k, c), z[:, 0], jnp.moveaxis(z, 1, 0), reverse=True
        )[1],
    }


def rng_tensor():
    return np.random.default_rng(3).normal(size=(2, 3, 6)).astype(np.float32)


def inputs(rows):
    draw = np.random.default_rng(rows)
    z = draw.normal(size=(rows, 3, 6)).astype(np.float32)
    x = np.where(draw.random(z.shape) < 0.3, NAN, z[:, ::-1])
    return {"x": x, "z": z, "index": draw.integers(0, 6, (rows, 3)).astype(np.int32)}


def converted(function, params, given, opset=17):
    specs = {name: ((None, *x.shape[1:]), x.dtype) for name, x in given.items()}
    graph, outputs = program.convert(function, params, specs, opset)
    return graph.finish(outputs, "test", {})


@functools.cache
def own(function, rows):
    """What JAX computes."""
    return jax.jit(lambda given: function(**given))(inputs(rows))


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("function", [elementwise, shapes, products])
def test_primitives_compute_what_jax_does(function, opset):
    model = converted(lambda _, given: function(**given), {}, inputs(ROWS), opset)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    for rows in (ROWS, 1) if opset == 17 else (ROWS,):
        given = inputs(rows)
        wanted = own(function, rows)
        assert sorted(names) == sorted(wanted)
        for name, found in zip(names, session.run(None, given), strict=True):
            assert found.dtype == wanted[name].dtype, name
            np.testing.assert_allclose(found, wanted[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_what_depends_on_parameters_alone_is_computed_once_and_stored():
    params = {"norm": {"scale": np.arange(1, 5, dtype=np.float32)}, "kernel": TABLE[:4]}

    def function(params, given):
        scale = params["norm"]["scale"] * lax.rsqrt(params["norm"]["scale"] + 1e-5)
        return {"y": given["x"] @ params["kernel"] * scale}

    model = converted(function, params, {"x": np.zeros((2, 4), np.float32)})
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Mul", "Identity"]
    stored = {tensor.name for tensor in model.graph.initializer}
    assert "kernel" in stored
    assert len(stored) == 2


def test_a_turn_and_its_return_leave_no_transpose():
    def function(_, given):
        return {"y": jnp.moveaxis(jnp.moveaxis(given["x"], 2, 0), 0, 2) + 1}

    model = converted(function, {}, {"x": np.zeros((2, 3, 4), np.float32)})
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity"]


def test_one_row_is_convolved_without_copies_and_with_its_bias():
    def function(params, given):
        x, axes = given["x"], ("CHWN", "HWIO", "CHWN")  # (C, H, W, 1)
        padding = [(0, 0), (2, 1)]
        y = lax.conv_general_dilated(x, params["kernel"], (1, 2), padding, None, None, axes)
        y = jax.nn.hard_swish(y + params["bias"][:, None, None, None])
        return {"y": (y + 3.0) * params["gate"][:, None, :, None] + x[:3, :, ::2]}

    params = {
        "kernel": rng.normal(size=(1, 4, 4, 3)).astype(np.float32),
        "bias": np.arange(1, 4, dtype=np.float32),
        "gate": rng.normal(size=(3, 4)).astype(np.float32),
    }
    x = rng.normal(size=(4, 5, 8, 1)).astype(np.float32)
    graph, outputs = program.convert(function, params, {"x": (x.shape, "float32")}, 13)
    model = graph.finish(outputs, "test", {})
    onnx.checker.check_model(model, full_check=True)
    nodes = [node for node in model.graph.node if node.op_type not in ("Reshape", "Slice")]
    kinds = [node.op_type for node in nodes]
    assert kinds == ["Conv", "HardSigmoid", "Mul", "Add", "Mul", "Add", "Identity"]
    assert len(nodes[0].input) == 3
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = jax.jit(function)(params, {"x": x})["y"]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=2e-5, atol=2e-6)
    infos = onnx.shape_inference.infer_shapes(model).graph.value_info
    sizes = {one.name: one.type.tensor_type.shape.dim for one in infos}
    combined = [sizes[node.output[0]] for node in nodes if node.op_type in ("Add", "Mul")]
    assert all(dims[len(dims) - 1].dim_value != 1 for dims in combined)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: jnp.fft.rfft(x).real, "'fft', which has no counterpart in ONNX"),
        (lambda x: x + jnp.arange(x.shape[0])[:, None], "counts the rows of a batch"),
        (lambda x: x[:, :2].astype(jnp.int32) & 1, "combines bits of int32"),
        (lambda x: x.astype(jnp.bfloat16), "computes in bfloat16"),
    ],
)
def test_what_has_no_counterpart_is_named(function, words):
    with pytest.raises(InputError, match=words):
        converted(lambda _, given: {"y": function(**given)}, {}, {"x": np.zeros((2, 4), "f4")})
