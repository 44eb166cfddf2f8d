"""The converter's command line: round trips, exit codes, sentences."""

import dataclasses
import json
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from convert.__main__ import main
from tsmjax import checkpoint, weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError
from tsmjax.models import chronos2
from tsmjax.nn.functional import abstract, flatten

DUMMY = "weights/dummy-chronos2-model"
LORA = "weights/dummy-chronos2-lora"


LLAMA = {
    **{"vocab_size": 20, "d_model": 8, "d_ff": 12, "num_layers": 2, "num_heads": 2},
    **{"num_kv_heads": 1, "d_kv": 4, "bos_token": 1, "eos_tokens": (2,)},
}
T5 = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2}


def drawn(family, values):
    """Values of a config and random parameters, as many as bfloat16 can tell apart."""
    module = find_module("models", family)
    config = build(module.Config, values, "model")
    _, shapes, _ = abstract(lambda rngs: module.Model(config, rngs=rngs))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.integers(-9, 9, x.shape).astype(np.float32), shapes)
    return dataclasses.asdict(config), params


@pytest.fixture
def llama(tmp_path):
    """Folder of a Llama with one table for input and output."""
    weights.write(tmp_path / "llama", "llama", *drawn("llama", LLAMA))
    return tmp_path / "llama"


def same_tensors(a, b):
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_import_then_export_is_bit_identical(test_data, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["export", "chronos2", f"{run}@final", str(exported)]) == 0
    assert same_tensors(test_data / DUMMY, exported)
    loaded = checkpoint.load_weights(str(run))
    assert loaded.config["model"]["family"] == "chronos2"
    assert loaded.config["model"]["d_kv"] == 4
    assert loaded.config["task"] == {"kind": "forecast"}
    assert "sha256" in loaded.artefacts["source"]
    written = json.loads((exported / "config.json").read_text())
    assert written["tsmjax"] == {"family": "chronos2", "task": "forecast", "format": 1}
    assert written["chronos_pipeline_class"] == "Chronos2Pipeline"


def test_an_adapter_is_merged_on_import(test_data, tmp_path):
    base = str(test_data / DUMMY)
    arguments = ["export", "chronos2", str(test_data / LORA), str(tmp_path / "merged")]
    assert main([*arguments, "--base", base]) == 0
    assert not same_tensors(test_data / DUMMY, tmp_path / "merged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "chronos3", "DUMMY", "NEW"], "did you mean 'chronos2'"),
        (["import", "chronos2", "nowhere", "NEW"], "neither a folder nor a hub id"),
        (["import", "chronos2", "DUMMY", "USED"], "not empty"),
        (["export", "chronos2", "DUMMY", "USED"], "not empty"),
        (["import", "chronos2", "LORA", "NEW"], "test/dummy-chronos2-model"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    test_data, tmp_path, capsys, monkeypatch, arguments, words
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    paths = {
        "DUMMY": str(test_data / DUMMY),
        "LORA": str(test_data / LORA),
        "NEW": str(tmp_path / "new"),
        "USED": str(tmp_path / "used"),
    }
    assert main([paths.get(argument, argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [["import", "chronos2", "x"], ["verify", "chronos2", "x", "y"], ["merge", "chronos2", "x"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_run_of_another_family_is_refused(test_data, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["export", "ttm", str(run), str(tmp_path / "new")]) == 2
    assert "holds a chronos2 model, but ttm was asked for" in capsys.readouterr().err


def test_verify_agrees_on_a_run_folder_and_finds_a_difference(
    test_data, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["verify", "chronos2", str(run)]) == 0
    assert "Both implementations agree." in capsys.readouterr().out

    feed_forward = chronos2.FeedForward.__call__
    monkeypatch.setattr(
        chronos2.FeedForward, "__call__", lambda *arguments: feed_forward(*arguments) + 0.01
    )
    assert main(["verify", "chronos2", str(run)]) == 1
    assert "The first stage that differs is: block 0." in capsys.readouterr().out


def pickled(folder, count=1):
    """Keep the weights of a folder in PyTorch pickles alone; the tied table has two names."""
    import torch

    tensors = {k: torch.tensor(x) for k, x in load_file(folder / "model.safetensors").items()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = [names[start::count] for start in range(count)]
    files = [f"pytorch_model-{n}.bin" if count > 1 else "pytorch_model.bin" for n in range(count)]
    for file, part in zip(files, parts, strict=True):
        torch.save({name: tensors[name].bfloat16() for name in part}, folder / file)
    if count > 1:
        places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index = json.dumps({"weight_map": places})
        (folder / "pytorch_model.bin.index.json").write_text(index)


@pytest.mark.parametrize("count", [1, 3])
def test_pickles_are_read_like_safetensors(llama, tmp_path, capsys, count):
    expected = weights.read(llama).params
    pickled(llama, count)
    assert main(["import", "llama", str(llama), str(tmp_path / "run")]) == 0
    assert main(["export", "llama", str(llama), str(tmp_path / "out")]) == 0
    assert f"llama from {llama} (sha256" in capsys.readouterr().out
    from_run = checkpoint.load_weights(str(tmp_path / "run")).params
    for found in (from_run, weights.read(tmp_path / "out", dtype=None).params):
        found, wanted = flatten(found), flatten(expected)
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_array_equal(found[path], leaf.astype(found[path].dtype))
            assert str(found[path].dtype) == "bfloat16"


def test_pickles_need_torch_and_hold_no_code(llama, capsys, monkeypatch, tmp_path):
    import torch

    pickled(llama)
    with pytest.raises(InputError, match=r"PyTorch pickles and no safetensors: python -m convert"):
        weights.read(llama)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        assert main(["import", "llama", str(llama), str(tmp_path / "run")]) == 2
        assert "reading it needs torch: pip install 'tsmjax[convert]'" in capsys.readouterr().err
    torch.save({"x": print}, llama / "pytorch_model.bin")
    assert main(["import", "llama", str(llama), str(tmp_path / "run")]) == 2
    assert "holds more than tensors" in capsys.readouterr().err
    file = str(llama / "pytorch_model.bin")
    assert main(["import", "llama", file, str(tmp_path / "run")]) == 2
    assert "a PyTorch pickle is read from its folder" in capsys.readouterr().err
    assert main(["import", "chronos2", str(tmp_path / "x.pth"), str(tmp_path / "run")]) == 2
    assert "does not say what model it is" in capsys.readouterr().err


def test_the_parts_of_a_sensorllm_come_out_alone(tmp_path, capsys):
    encoder = {**T5, "tokenizer": {"n_tokens": 16, "kind": "StanNormalizeUniformBins"}}
    values = {"llm": LLAMA, "encoder": encoder, "channels": ("x",), "labels": ("a", "b")}
    values, params = drawn("sensorllm", {**values, "window": 8})
    facts = {"id2label": {"0": "a", "1": "b"}, "rate": 30.0}
    weights.write(tmp_path / "m", "sensorllm", values, params, facts)
    run = tmp_path / "run"
    assert main(["import", "sensorllm", str(tmp_path / "m"), str(run)]) == 0
    assert checkpoint.load_weights(str(run)).artefacts["id2label"] == facts["id2label"]
    assert main(["export", "sensorllm", str(run), str(tmp_path / "again")]) == 0
    assert same_tensors(tmp_path / "m", tmp_path / "again")
    for family, child in (("llama", "llm"), ("chronos_t5", "encoder")):
        for number, source in enumerate((run, tmp_path / "m")):
            out = tmp_path / f"{family}{number}"
            assert main(["export", family, str(source), str(out)]) == 0
            found = flatten(weights.read(out, family).params)
            for path, leaf in flatten(params[child]).items():
                np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    assert main(["export", "ttm", str(run), str(tmp_path / "new")]) == 2
    assert "holds a sensorllm model, but ttm was asked for" in capsys.readouterr().err
    assert main(["verify", "sensorllm", str(run)]) == 2
    assert "no reference implementation to verify family 'sensorllm'" in capsys.readouterr().err


def test_random_weights_need_a_preset_that_exists(capsys):
    pytest.importorskip("chronos")
    assert main(["verify", "chronos2", "random:bsae"]) == 2
    assert "chronos2 has no preset 'bsae' (did you mean 'base'?)" in capsys.readouterr().err


def test_models_of_llama2c_must_be_whole(tmp_path, capsys):
    for content in (b"short", b"\x00" * 100, struct.pack("7i", 8, 8, 1, 2, 1, 9, 4)):
        (tmp_path / "m.bin").write_bytes(content)
        assert main(["export", "llama", str(tmp_path / "m.bin"), str(tmp_path / "out")]) == 2
        assert "no model of llama2.c's first binary form" in capsys.readouterr().err
    assert main(["export", "llama", str(tmp_path / "no.bin"), str(tmp_path / "out")]) == 2
    assert "no.bin does not exist" in capsys.readouterr().err


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "convert", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "python -m convert verify chronos2" in shown
