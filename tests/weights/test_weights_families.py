"""Every family's weights go out and come in unchanged, and what does not fit is named."""

import dataclasses
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from test_weights_ttm import CONFIGS as TTM
from test_weights_ttm import SMALL as TTM_SIZE

from tsmjax import weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError
from tsmjax.nn.functional import abstract, flatten, unflatten
from tsmjax.weights import folder as folders
from tsmjax.weights import tables

_NET = {"num_classes": 5, "channels": (8, 16, 24), "blocks": (1, 1, 1), "frames": 8}
LAST = [
    {**_NET, "net": net, "size": size}
    for net, size in (
        *(("last_e", "base"), ("last_v2", "base"), ("last_e_v3", "nano")),
        *(("last_base", "base"), ("shiftfuse", "nano")),
    )
]


@st.composite
def llama(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    stretched = {
        **{"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_positions": 16,
    }
    kinds = [{"kind": "none"}, {"kind": "linear", "factor": 2.0}, stretched]
    return {
        **{"vocab_size": 11, "d_model": 8, "d_ff": 6, "d_kv": 4, "num_heads": heads},
        "num_layers": draw(st.integers(1, 3)),
        "num_kv_heads": draw(st.sampled_from([n for n in (1, 2, 4) if heads % n == 0])),
        "tie_embeddings": draw(st.booleans()),
        "rope_scaling": draw(st.sampled_from(kinds)),
        **{"bos_token": 1, "eos_tokens": (2,), "max_positions": 64},
    }


@st.composite
def chronos_t5(draw):
    return {
        **{"vocab_size": 20, "d_model": 6, "d_kv": 4, "d_ff": 8, "num_heads": 2},
        "num_layers": draw(st.integers(1, 3)),
        "feed_forward": draw(st.sampled_from(["relu", "gated-gelu"])),
        **{"decoder": draw(st.booleans()), "tokenizer": {"n_tokens": 16}},
    }


@st.composite
def chronos2(draw):
    return {
        **{"d_model": 6, "d_kv": 4, "d_ff": 8, "context_length": 32, "max_output_patches": 2},
        **{"num_layers": draw(st.integers(1, 3)), "num_heads": draw(st.integers(1, 2))},
        "use_reg_token": draw(st.booleans()),
        "quantiles": draw(st.sampled_from([(0.5,), (0.1, 0.5, 0.9)])),
    }


@st.composite
def sensorllm(draw):
    return {
        "llm": draw(llama()),
        "encoder": {**draw(chronos_t5()), "decoder": False},
        **{"channels": ("x", "y"), "labels": ("sit", "walk", "run"), "window": 8},
        "proj_hidden": draw(st.sampled_from([(), (5,), (5, 7)])),
        **{"proj_patch": draw(st.integers(1, 2)), "statistics": draw(st.booleans())},
        "model_type": draw(st.sampled_from(["classification", "causal_lm"])),
    }


FAMILIES = {
    "chronos2": chronos2(),
    "chronos_t5": chronos_t5(),
    "llama": llama(),
    "sensorllm": sensorllm(),
    "ttm": st.sampled_from([{**TTM_SIZE, **values} for values in TTM.values()]),
    "last": st.sampled_from(LAST),
}


def test_every_table_has_its_test():
    assert FAMILIES.keys() == set(tables.families())


def draw_model(family, values, dtype, seed=0):
    """Values of the config, and random parameters and statistics."""
    module = find_module("models", family)
    config = build(module.Config, values, "model")
    _, params, stats = abstract(lambda rngs: module.Model(config, rngs=rngs))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(dtype)  # noqa: E731
    return dataclasses.asdict(config), jax.tree.map(draw, params), jax.tree.map(draw, stats)


def assert_same(found, expected):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert found[path].tobytes() == leaf.tobytes(), path


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_out_and_in_is_the_identity(family):
    @settings(max_examples=3, deadline=None, derandomize=True, database=None)
    @given(
        values=FAMILIES[family],
        scan_layers=st.booleans(),
        dtype=st.sampled_from([np.float32, jnp.bfloat16, np.float16]),
        shard=st.sampled_from([200, 5000, 10**9]),
    )
    def check(values, scan_layers, dtype, shard):
        if family in ("chronos2", "chronos_t5", "llama"):
            values = {**values, "scan_layers": scan_layers}
        values, params, stats = draw_model(family, values, dtype)
        layout = {"scan_layers": scan_layers} if "scan_layers" in values else {}
        with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
            patch.setattr(folders, "SHARD_BYTES", shard)
            first, second, third = (Path(name) / number for number in "123")
            weights.write(first, family, values, params, {"note": "kept"}, stats)
            found = weights.read(first, model_overrides=layout, dtype=None)
            assert (found.family, found.artefacts) == (family, {"note": "kept"})
            assert_same(found.params, params)
            assert_same(found.stats, {} if not found.stats else stats)
            # The same bytes again, from what was read and from file to file.
            weights.write(
                *(second, family, found.config_values, found.params, found.artefacts, found.stats)
            )
            weights.rewrite(first, third)
            assert content(first) == content(second) == content(third)

    check()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_fit_is_named(family, tmp_path):
    rng = np.random.default_rng(len(family))
    values = {
        "last": LAST[2],
        "ttm": TTM_SIZE,
        "sensorllm": {"channels": ("x",), "window": 8, "labels": ("a", "b")},
    }.get(family, {})
    if family == "sensorllm":
        values |= {"llm": _TINY["llama"], "encoder": {**_TINY["chronos_t5"], "decoder": False}}
    values, params, stats = draw_model(family, _TINY.get(family, values), np.float32)
    weights.write(tmp_path / "m", family, values, params, stats=stats)
    file = tmp_path / "m/model.safetensors"
    tensors = load_file(file)
    lost, renamed, shaped = rng.permutation(sorted(tensors))[:3].tolist()
    del tensors[lost]
    tensors[f"{renamed}.old"] = tensors.pop(renamed)
    shape, tensors[shaped] = tensors[shaped].shape, np.zeros((2, 3, 4, 5), np.float32)
    tensors["surplus"] = np.zeros(1, np.float32)
    save_file(tensors, file)
    for read in (weights.read, lambda folder: weights.rewrite(folder, tmp_path / "out")):
        with pytest.raises(InputError) as error:
            read(tmp_path / "m")
        said = str(error.value)
        assert f"missing {', '.join(sorted([lost, renamed]))}; " in said
        assert f"unexpected {', '.join(sorted([f'{renamed}.old', 'surplus']))}; " in said
        assert f"{shaped} is (2, 3, 4, 5) instead of {shape}" in said
    assert not (tmp_path / "out").exists()

    flat = flatten(params)
    path = next(iter(flat))
    wrong = {p: x for p, x in flat.items() if p != path} | {"more": np.zeros(1)}
    with pytest.raises(InputError) as error:
        weights.write(tmp_path / "out", family, values, unflatten(wrong), stats=stats)
    assert f"missing {path}; unexpected more." in str(error.value)


_TINY = {
    "chronos2": {"d_model": 6, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2},
    "chronos_t5": {
        **{"vocab_size": 20, "d_model": 6, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2},
        **{"decoder": True, "tokenizer": {"n_tokens": 16}},
    },
    "llama": {
        **{"vocab_size": 11, "d_model": 8, "d_ff": 6, "num_layers": 1, "num_heads": 2},
        **{"num_kv_heads": 1, "d_kv": 4, "bos_token": 1, "eos_tokens": (2,)},
    },
}


def test_tensors_that_hold_no_numbers_are_named(tmp_path):
    values, params, _ = draw_model("llama", _TINY["llama"], np.float32)
    weights.write(tmp_path / "m", "llama", values, params)
    file = tmp_path / "m/model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name][1, 2] = np.nan
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"stores 1 values of model\.layers\.0\.mlp\.up_proj"):
        weights.read(tmp_path / "m")
    tensors[name] = np.zeros(tensors[name].shape, np.int8)
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"up_proj\.weight as I8; only F64, F32, F16, BF16"):
        weights.rewrite(tmp_path / "m", tmp_path / "out")
    (tmp_path / "m" / folders.INDEX).write_text(json.dumps({"metadata": {}}))
    with pytest.raises(InputError, match="has no object 'weight_map'"):
        weights.read(tmp_path / "m")


def test_half_precision_stays_as_it_is(tmp_path):
    values, params, _ = draw_model("llama", _TINY["llama"], jnp.bfloat16)
    weights.write(tmp_path / "m", "llama", values, params)
    assert json.loads((tmp_path / "m/config.json").read_text())["torch_dtype"] == "bfloat16"
    assert weights.read(tmp_path / "m").params["final_norm"]["scale"].dtype == np.float32
    found = weights.read(tmp_path / "m", dtype=None)
    assert found.params["final_norm"]["scale"].dtype == jnp.bfloat16
