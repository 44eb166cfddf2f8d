"""Trained models as ONNX files: what they compute, what they say of themselves, who loads them."""

import json
import subprocess
import sys

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from drawing import drawn

from tsmjax import checkpoint, config, pretrained, weights
from tsmjax.errors import InputError
from tsmjax.export import head as heads
from tsmjax.export import onnx as exported
from tsmjax.export.__main__ import main
from tsmjax.models import last
from tsmjax.nn.functional import abstract

CHRONOS2 = {
    **{"family": "chronos2", "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2},
    **{"num_heads": 2, "context_length": 64, "max_output_patches": 3, "initializer_factor": 0.5},
    "quantiles": (0.1, 0.5, 0.9),
}
TTM = {
    **{"family": "ttm", "context_length": 48, "prediction_length": 12, "patch_length": 8},
    **{"d_model": 16, "num_layers": 1, "adaptive_patching_levels": 2, "decoder_d_model": 8},
    **{"decoder_num_layers": 1, "num_input_channels": 2},
}
EVERYTHING = {
    **TTM,
    **{"num_input_channels": 3, "decoder_mode": "mix_channel", "categories": (4,)},
    **{"prediction_channels": (0, 1), "known_channels": (2,), "frequency_vocabulary": 10},
    **{"forecast_mixing": {"enabled": True, "layers": 1}},
    **{"quantile_head": {"levels": (0.1, 0.5, 0.9)}},
}
LAST = {
    **{"family": "last", "skeleton": "ucla20", "channels": (8, 8, 8), "blocks": (1, 1, 1)},
    **{"frames": 8, "num_classes": 3},
}
ENCODER = {
    **{"vocab_size": 40, "d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2},
    **{"initializer_factor": 1.0},
    "tokenizer": {"kind": "StanNormalizeUniformBins", "n_tokens": 40, "context_length": 16},
}
SENSORLLM = {
    "family": "sensorllm",
    "llm": {
        **{"vocab_size": 20, "d_model": 16, "d_ff": 24, "num_layers": 1, "num_heads": 2},
        **{"num_kv_heads": 1, "d_kv": 8, "bos_token": 1, "eos_tokens": (2,)},
    },
    "encoder": ENCODER,
    **{"window": 9, "labels": ("walk", "sit"), "proj_hidden": (10, 14)},
}
KINDS = {"chronos2": "forecast", "ttm": "multivariate", "last": "skeleton", "sensorllm": "classify"}
TABLE = {"mean": [5.0, -3.0, 0], "deviation": [2.0, 9.0, 1], "names": ["load", "wind", "sun"]}
CASES = {
    "chronos2 groups": (CHRONOS2, {"series": 3, "horizon": 33}, {}),
    "ttm with everything": (EVERYTHING, {}, TABLE),
    "last": ({**LAST, "net": "last_e"}, {"bodies": 2}, {"labels": ["run", "sit", "fall"]}),
    "encoder": ({"family": "chronos_t5", **ENCODER}, {"length": 12}, {}),
    "projection": (SENSORLLM, {"part": "projection"}, {}),
    "head": (SENSORLLM, {"part": "head"}, {}),
}
MORE = {
    "chronos2": (CHRONOS2, {"context": 40, "horizon": 20}, {}),
    "ttm": (TTM, {"channels": 3}, {}),
    "ttm in two networks": ({**TTM, "decomposition": {"enabled": True}}, {}, {}),
    "part encoder": (SENSORLLM, {"part": "encoder"}, {}),
}
NETS = {
    f"{net} {size}": ({**LAST, "net": net, "size": size}, {"bodies": 2}, {})
    for net in last.NETS
    for size in ("nano" if "nano" in last.NETS[net].SIZES else "small", "base")
    if size in last.NETS[net].SIZES
}


def folder_of(values, artefacts, path, **task):
    """Write random weights as a checkpoint of any kind."""
    values = dict(values)
    family = values.pop("family")
    module = config.find_module("models", family)
    built = config.build(module.Config, values, "model")
    _, params, stats = abstract(lambda rngs: module.Model(built, rngs=rngs))
    if family == "chronos_t5":
        weights.write(path, family, values, drawn(params))
    else:
        settings = {"model": {"family": family, **values}, "task": {"kind": KINDS[family], **task}}
        checkpoint.save_weights(path, drawn(params), drawn(stats), settings, artefacts)
    return str(path)


@pytest.fixture(scope="module")
def chronos2(tmp_path_factory):
    return folder_of(CHRONOS2, {}, tmp_path_factory.mktemp("weights") / "chronos2")


def compare(name, tmp_path, batches):
    values, options, artefacts = {**CASES, **MORE, **NETS}[name]
    path = folder_of(values, artefacts, tmp_path / "weights")
    described = heads.load(path, options)
    report = exported.save(described, tmp_path / "model.onnx", batches=batches, source=path)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert report.passed
    assert report.error < 1e-4
    assert report.batches == batches
    told = json.loads((tmp_path / "model.report.json").read_text())
    assert told["error"] == report.error
    assert told["bytes"] == (tmp_path / "model.onnx").stat().st_size
    said = {one.key: one.value for one in model.metadata_props}
    assert said["family"] == values["family"]
    assert set(json.loads(said["inputs"])) == {one.name for one in model.graph.input}
    assert set(json.loads(said["outputs"])) == {one.name for one in model.graph.output}
    assert said["preprocessing"]
    return report, said


@pytest.mark.parametrize("flip", [False, True])
def test_a_forecaster_is_exported_as_it_forecasts(tmp_path, flip):
    path = folder_of(CHRONOS2, {}, tmp_path / "weights", flip_invariant=flip)
    described = heads.load(path, {"context": 40, "horizon": 20})
    batch = described.sample(np.random.default_rng(0), 3)
    found = jax.jit(described.function)(described.weights, batch)["quantiles"]
    loaded = pretrained.from_pretrained(path)
    horizon = 2 * loaded.task.patch
    batch |= {
        "future": np.full((3, 1, horizon), np.nan, np.float32),
        "group": np.zeros((3, 1), np.int32),
        "patches": np.full(3, 2, np.int32),
    }
    expected = loaded.task.predict(loaded.model, batch)[..., :20]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_file_computes_what_jax_does(name, tmp_path, monkeypatch):
    monkeypatch.setattr(exported.comparison, "ROWS", (3,))  # each size compiles a program
    report, said = compare(name, tmp_path, batches=3)
    assert list(report.milliseconds) == [3]
    if name == "ttm with everything":
        assert json.loads(said["names"]) == ["load", "wind", "sun"]
        assert "standardisation" in said["preprocessing"]
    if name == "last":
        assert json.loads(said["labels"]) == ["run", "sit", "fall"]
    if name == "head":
        assert json.loads(said["labels"]) == ["walk", "sit"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, *MORE, *NETS])
def test_a_hundred_batches_agree(name, tmp_path):
    compare(name, tmp_path, batches=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ttm-r1-1024-96-finetuned", "ttm-r2-512-96-mixchannel-finetuned"])
def test_real_ttm_weights(name, test_data, tmp_path):
    described = heads.load(str(test_data / "weights" / name), {})
    assert exported.save(described, tmp_path / "ttm.onnx", batches=100).error < 1e-4


def test_a_process_without_jax_forecasts_batches_of_any_size(chronos2, tmp_path, capsys):
    path = tmp_path / "chronos2.onnx"
    described = heads.load(chronos2, {"context": 40, "horizon": 20})
    batch = described.sample(np.random.default_rng(9), 7)
    batch["context"][0] = np.nan
    np.savez(tmp_path / "batch.npz", **batch)
    command = ["onnx", "--checkpoint", chronos2, "--output", str(path), "--context", "40"]
    command += ["--horizon", "20", "--batches", "1", "--inputs", str(tmp_path / "batch.npz")]
    assert main([*command, "--opset", "13"]) == 0
    assert "over 2 batches" in " ".join(capsys.readouterr().out.split())
    assert json.loads(path.with_suffix(".report.json").read_text())["batches"] == 2
    program = (
        "import sys, numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        f"batch = dict(numpy.load({str(tmp_path / 'batch.npz')!r}))\n"
        f"numpy.save({str(tmp_path / 'found.npy')!r}, session.run(['quantiles'], batch)[0])\n"
        "assert not {'jax', 'torch', 'tsmjax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npy")
    wanted = jax.jit(described.function)(described.weights, batch)["quantiles"]
    assert found.shape == (7, 1, 3, 20)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    model = onnx.load(path)
    assert model.opset_import[0].version == 13
    said = {one.key: one.value for one in model.metadata_props}
    assert json.loads(said["quantiles"]) == [0.1, 0.5, 0.9]


@pytest.mark.slow
def test_a_short_past_is_padded_in_front(chronos2):
    context = np.random.default_rng(0).normal(size=(2, 1, 23)).astype(np.float32)
    padded = np.pad(context, ((0, 0), (0, 0), (41, 0)), constant_values=np.nan)
    found = []
    for given in (context, padded):
        model = exported.file.build(heads.load(chronos2, {"context": given.shape[-1]}), 17)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        found.append(session.run(None, {"context": given})[0])
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_given_inputs_must_be_those_of_the_model(chronos2, tmp_path):
    described = heads.load(chronos2, {"horizon": 16})
    for given, words in (
        (
            {"context": np.ones((5, 64))},
            r"context has the shape \(5, 64\), .* takes \(batch, 1, 64",
        ),
        ({"past": np.ones((5, 1, 64))}, "inputs are past, but the model takes context"),
    ):
        with pytest.raises(InputError, match=words):
            exported.save(described, tmp_path / "out.onnx", given=given)
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_not_kept(chronos2, tmp_path, monkeypatch):
    described = heads.load(chronos2, {"horizon": 16})
    right = described.function
    broken = exported.file.build(described, 17)
    for tensor in broken.graph.initializer:
        if tensor.name.endswith("final_norm/scale"):
            wrong = 1.01 * onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    monkeypatch.setattr(exported.file, "build", lambda *_: broken)
    with pytest.raises(InputError, match=r"differs from JAX by \d.*more than 0.0001"):
        exported.save(described, tmp_path / "out.onnx", batches=1)
    assert not list(tmp_path.iterdir())
    assert right is described.function


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "out.pb"], "must end in .onnx"),
        (["--opset", "12"], "--opset is 12, but must be from 13 to 17"),
        (["--batches", "0"], "--batches is 0"),
        (["--inputs", "none.npz"], "--inputs none.npz cannot be read"),
        (["--channels", "3"], "chronos2 takes no --channels; of such options it takes --context"),
        (["--context", "65"], "--context is 65, but must be from 1 to 64"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    chronos2, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    command = ["onnx", "--checkpoint", chronos2, "--output", "out.onnx", *arguments]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_part_must_be_named(tmp_path):
    path = folder_of(SENSORLLM, {}, tmp_path / "weights")
    with pytest.raises(InputError, match=r"--part projection, head, encoder\."):
        heads.load(path, {})
    with pytest.raises(InputError, match="did you mean 'encoder'"):
        heads.load(path, {"part": "encode"})


def test_a_family_of_ones_own_brings_its_head(tmp_path, monkeypatch):
    monkeypatch.setattr(heads.pretrained, "model_values", lambda path: {"family": "my_family"})
    with pytest.raises(InputError, match=r"write a module my_family_head with .* head\(path\)"):
        heads.load("runs/mine", {})
    (tmp_path / "my_family_head.py").write_text("def head(path, *, size=1): return path, size\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert heads.load("runs/mine", {"size": 3, "part": None}) == ("runs/mine", 3)


def test_missing_packages_are_named(chronos2, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("tsmjax.export.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("tsmjax.export.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["onnx", "--checkpoint", chronos2, "--output", str(tmp_path / "out.onnx")]) == 2
    assert "pip install 'tsmjax[export]'" in capsys.readouterr().err
