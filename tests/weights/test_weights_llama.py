"""The weight tables of Llama and Chronos-T5: names, configs of every generation, refusals."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.__main__ import main
from tsmjax import checkpoint, weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError
from tsmjax.nn.functional import abstract, flatten
from tsmjax.weights import chronos_t5 as t5_table
from tsmjax.weights import llama as llama_table

LLAMA = {
    **{"vocab_size": 20, "d_model": 8, "d_ff": 12, "num_layers": 2, "num_heads": 2},
    **{"num_kv_heads": 1, "d_kv": 4, "bos_token": 1, "eos_tokens": (2, 3)},
}
T5 = {
    **{"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2},
    "tokenizer": {"n_tokens": 16},
}
CONFIGS = {
    "llama": ("llama", LLAMA),
    "untied llama, unrolled": (
        "llama",
        {
            **{**LLAMA, "tie_embeddings": False, "scan_layers": False, "eos_tokens": ()},
            "rope_scaling": {"kind": "linear", "factor": 2.0},
        },
    ),
    "chronos_t5": ("chronos_t5", T5),
    "gated chronos_t5, unrolled": (
        "chronos_t5",
        {
            **{**T5, "feed_forward": "gated-gelu", "scan_layers": False},
            "tokenizer": {"n_tokens": 16, "kind": "StanNormalizeUniformBins", "low_limit": -4.0},
        },
    ),
}


def written(name, folder):
    """A folder of random weights, its config and its parameters."""
    family, values = CONFIGS[name]
    module = find_module("models", family)
    config = build(module.Config, values, "model")
    _, shapes, _ = abstract(lambda rngs: module.Model(config, rngs=rngs))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    weights.write(folder, family, dataclasses.asdict(config), params)
    return config, params


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_and_config_survive_the_round_trip(name, tmp_path):
    config, params = written(name, tmp_path / "m")
    found = weights.read(tmp_path / "m", model_overrides={"scan_layers": config.scan_layers})
    assert found.family == CONFIGS[name][0]
    assert build(type(config), found.config_values, "model") == config
    expected, read = flatten(params), flatten(found.params)
    assert expected.keys() == read.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(read[path], leaf, err_msg=path)


@pytest.mark.parametrize(("family", "name"), [("llama", "llama"), ("chronos_t5", "chronos_t5")])
def test_import_then_export_is_bit_identical(family, name, tmp_path):
    written(name, tmp_path / "m")
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["import", family, str(tmp_path / "m"), str(run)]) == 0
    assert main(["export", family, f"{run}@final", str(out)]) == 0
    a, b = (load_file(folder / "model.safetensors") for folder in (tmp_path / "m", out))
    assert a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert checkpoint.load_weights(str(run)).config["model"]["family"] == family


def restore(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_tied_table_may_have_either_name_or_both(tmp_path):
    _, params = written("llama", tmp_path / "m")
    table = params["embed"]["embedding"]
    rotary = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    restore(tmp_path / "m", lambda x: x.update({"lm_head.weight": table, **rotary}))
    np.testing.assert_array_equal(weights.read(tmp_path / "m").params["embed"]["embedding"], table)
    restore(tmp_path / "m", lambda x: x.pop("model.embed_tokens.weight"))
    np.testing.assert_array_equal(weights.read(tmp_path / "m").params["embed"]["embedding"], table)
    restore(tmp_path / "m", lambda x: x.update({"model.embed_tokens.weight": table + 1}))
    with pytest.raises(InputError, match=r"lm_head\.weight and model\.embed_tokens\.weight with"):
        weights.read(tmp_path / "m")


def test_the_decoder_is_passed_over(test_data):
    found = weights.read(test_data / "weights/dummy-chronos-model")
    assert found.family == "chronos_t5"
    assert found.config_values["tokenizer"]["n_tokens"] == 32
    stored = load_file(test_data / "weights/dummy-chronos-model/model.safetensors")
    names = {name for name in stored if not name.startswith(("decoder.", "encoder.embed"))}
    assert weights.tensors("chronos_t5", found.config_values, found.params).keys() == names


def test_generations_of_llama_are_recognised():
    llama1 = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}
    found = llama_table.to_config(llama1)
    assert (found["num_kv_heads"], found["d_kv"], found["rope_theta"]) == (4, 16, 10000.0)
    assert (found["rope_scaling"], found["tie_embeddings"]) == ({"kind": "none"}, False)
    assert (found["bos_token"], found["eos_tokens"]) == (1, (2,))
    stretch = {
        **{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0},
        **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
    }
    instruct = {**llama1, "eos_token_id": [128001, 128008, 128009], "vocab_size": 128256}
    old = {**instruct, "rope_theta": 5e5, "rope_scaling": stretch}
    new = {**instruct, "rope_parameters": {**stretch, "rope_theta": 5e5}}
    for hf in (old, new):
        found = llama_table.to_config(hf)
        assert found["rope_theta"] == 5e5
        assert found["eos_tokens"] == (128001, 128008, 128009)
        assert found["rope_scaling"]["kind"] == "llama3"
        assert found["rope_scaling"]["original_max_positions"] == 8192
    older = {**llama1, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert llama_table.to_config(older)["rope_scaling"] == {"kind": "linear", "factor": 2.0}
    assert weights.identify(llama1) == "llama"


@pytest.mark.parametrize(
    ("table", "hf", "words"),
    [
        (llama_table, {"attention_bias": True}, "attention_bias is True"),
        (llama_table, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (llama_table, {"rope_scaling": {"rope_type": "yarn"}}, "scaled by 'yarn'"),
        (t5_table, {}, "needs an object 'chronos_config'"),
        (t5_table, {"chronos_config": {"n_tokens": 4}}, "lacks tokenizer_class, n_special"),
        (
            t5_table,
            {"chronos_config": {**dict.fromkeys(t5_table._TOKENIZER.values()), "model_type": "x"}},
            "model_type is 'x' in config.json",
        ),
    ],
)
def test_variants_that_we_lack_are_refused(table, hf, words):
    with pytest.raises(InputError, match=re.escape(words)):
        table.to_config(hf)


def test_configs_are_json():
    for name, (family, values) in CONFIGS.items():
        table = llama_table if family == "llama" else t5_table
        config = build(find_module("models", family).Config, values, "model")
        assert json.loads(json.dumps(table.from_config(dataclasses.asdict(config)))), name


def test_a_decoder_is_taken_along_when_asked_for_and_missed_where_it_is_not(tmp_path, capsys):
    config, _ = written("chronos_t5", tmp_path / "m")
    whole = dataclasses.replace(config, decoder=True)
    _, shapes, _ = abstract(
        lambda rngs: find_module("models", "chronos_t5").Model(whole, rngs=rngs)
    )
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    weights.write(tmp_path / "whole", "chronos_t5", dataclasses.asdict(whole), params)
    run, alone = tmp_path / "run", tmp_path / "alone"
    assert main(["import", "chronos_t5", str(tmp_path / "whole"), str(run), "--decoder"]) == 0
    assert "decoder" in checkpoint.load_weights(str(run)).params
    assert main(["import", "chronos_t5", str(tmp_path / "m"), str(alone)]) == 0
    capsys.readouterr()
    for source in (tmp_path / "m", alone):
        command = ["export", "chronos_t5", str(source), str(tmp_path / "out"), "--decoder"]
        assert main(command) == 2
        assert "decoder" in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["import", "llama", str(tmp_path / "m"), str(tmp_path / "out"), "--decoder"])
    assert "--decoder belongs to chronos_t5, not to llama" in capsys.readouterr().err
