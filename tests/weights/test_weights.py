"""The weight engine: one-to-one plans, both layer layouts, adapters, and sentences for mistakes."""

import json
import shutil
import subprocess
import sys
import types

import huggingface_hub.constants
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from tsmjax import weights
from tsmjax.errors import InputError
from tsmjax.models import chronos2
from tsmjax.nn.functional import abstract, flatten, split
from tsmjax.weights import chronos2 as table
from tsmjax.weights import plan, tables

VALUES = {
    **{"d_model": 6, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_heads": 2},
    **{"context_length": 64, "quantiles": (0.1, 0.5, 0.9), "max_output_patches": 4},
}


def random_params(seed=0, **changes):
    config = chronos2.Config(**VALUES, **changes)
    return split(chronos2.Model(config, rngs=nnx.Rngs(seed)))[1]


def assert_equal(found, expected):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.fixture
def folder(tmp_path):
    weights.write(tmp_path / "model", "chronos2", VALUES, random_params())
    return tmp_path / "model"


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("read", [True, False])
def test_round_trip_in_every_layout(tmp_path, written, read):
    params = random_params(scan_layers=written)
    values = {**VALUES, "scan_layers": written}
    weights.write(tmp_path / "m", "chronos2", values, params)
    found = weights.read(tmp_path / "m", model_overrides={"scan_layers": read})
    target = abstract(
        lambda rngs: chronos2.Model(chronos2.Config(**VALUES, scan_layers=read), rngs=rngs)
    )[1]
    assert_equal(found.params, weights.relayout(params, target))
    assert found.family == "chronos2"
    assert weights.task(found.family) == "forecast"


def test_relayout_is_invertible_and_moves_the_right_layer():
    stacked, unrolled = random_params(scan_layers=True), random_params(scan_layers=False)
    found = weights.relayout(stacked, unrolled)
    assert flatten(found).keys() == flatten(unrolled).keys()
    path = "time_attention/q/kernel"
    np.testing.assert_array_equal(
        flatten(found)[f"blocks/2/{path}"], flatten(stacked)[f"blocks/{path}"][2]
    )
    assert_equal(weights.relayout(found, stacked), stacked)


def test_relayout_keeps_what_the_target_lacks_and_another_depth():
    stacked = random_params(scan_layers=True)
    target = random_params(scan_layers=False)
    del target["blocks"]["2"]
    found = flatten(weights.relayout({**stacked, "extra": np.zeros(1)}, target))
    assert "extra" in found
    assert found["blocks/time_attention/q/kernel"].shape[0] == 3  # not cut down to two layers
    three = random_params(scan_layers=False)
    assert_equal(weights.relayout(target, three), target)  # the third layer is not made up


def test_relayout_sorts_layers_by_number():
    tree = {"blocks": {str(i): {"x": np.array([i])} for i in range(12)}}
    found = weights.relayout(tree, {"blocks": {"x": None}})
    np.testing.assert_array_equal(found["blocks"]["x"][:, 0], np.arange(12))


def test_shards_equal_a_single_file(folder):
    expected = weights.read(folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    index = {}
    for shard, part in enumerate((names[::2], names[1::2])):
        file = f"model-{shard}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_equal(weights.read(folder).params, expected.params)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"no file model-1\.safetensors"):
        weights.read(folder)


def test_half_precision_files_become_fp32(folder):
    tensors = load_file(folder / "model.safetensors")
    half = {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}
    save_file(half, folder / "model.safetensors")
    kernel = weights.read(folder).params["final_norm"]["scale"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        kernel, half["encoder.final_layer_norm.weight"].astype(np.float32)
    )


def test_the_difference_is_listed_by_name(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["surplus.weight"] = tensors.pop("shared.weight")
    tensors["encoder.final_layer_norm.weight"] = np.zeros(7, np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as error:
        weights.read(folder)
    message = str(error.value)
    assert "missing shared.weight" in message
    assert "unexpected surplus.weight" in message
    assert "encoder.final_layer_norm.weight is (7,) instead of (6,)" in message


def test_every_tensor_is_used_once_and_every_parameter_filled_once():
    for scan_layers in (True, False):
        params = flatten(random_params(scan_layers=scan_layers))
        slots = plan.make(table.RULES, params)
        assert len({(slot.path, slot.layer) for slot in slots.values()}) == len(slots)
        filled = {}
        for slot in slots.values():
            filled[slot.path] = filled.get(slot.path, 0) + np.prod(slot.shape)
        assert filled == {path: leaf.size for path, leaf in params.items()}


def test_config_translation_inverts():
    full = chronos2.Config(
        **VALUES, use_reg_token=False, use_arcsinh=False, time_encoding_scale=512, dropout_rate=0.2
    )
    values = {
        name: getattr(full, name) for name in (*table._CORE, *table._REQUIRED, *table._FORECAST)
    }
    hf = json.loads(json.dumps(table.from_config(values)))
    assert table.to_config(hf) == values
    assert hf["vocab_size"] == 1


def test_absent_entries_take_the_defaults_of_the_reference():
    hf = {"chronos_config": {name: 16 for name in table._REQUIRED} | {"quantiles": [0.5]}}
    values = table.to_config(hf)
    assert values["use_reg_token"] is False
    assert values["max_output_patches"] == 1
    assert chronos2.Config(**values).time_encoding_scale is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hf: hf.pop("chronos_config"), "needs an object 'chronos_config'"),
        (lambda hf: hf["chronos_config"].pop("quantiles"), "lacks quantiles"),
        (lambda hf: hf["chronos_config"].update(use_arcsin=True), "did you mean 'use_arcsinh'"),
        (lambda hf: hf.update(feed_forward_proj="gated-gelu"), "gated-gelu"),
        (lambda hf: hf.update(d_kv=3), "model.d_kv is 3"),
    ],
)
def test_wrong_config_json_is_refused(folder, change, words):
    hf = json.loads((folder / "config.json").read_text())
    change(hf)
    (folder / "config.json").write_text(json.dumps(hf))
    with pytest.raises(InputError, match=words):
        weights.read(folder)


def test_exactly_one_family_must_match(monkeypatch):
    assert weights.identify({"architectures": ["Chronos2Model"], "model_type": "t5"}) == "chronos2"
    with pytest.raises(InputError, match="of no known family; known are chronos2"):
        weights.identify({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"})
    greedy = types.SimpleNamespace(matches=lambda hf: True)
    monkeypatch.setattr(tables, "families", lambda: ["chronos2", "greedy"])
    monkeypatch.setitem(sys.modules, "tsmjax.weights.greedy", greedy)
    with pytest.raises(InputError, match="several families: chronos2, greedy"):
        weights.identify({"architectures": ["Chronos2Model"]})


def test_wrong_arguments_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="did you mean 'chronos2'"):
        weights.read(folder, "chronos")
    with pytest.raises(InputError, match=r"model\.scan_layer .*did you mean 'scan_layers'"):
        weights.read(folder, model_overrides={"scan_layer": False})
    with pytest.raises(InputError, match=r"layer_norm\.weight is \(6,\) instead of \(8,\)"):
        weights.read(folder, model_overrides={"d_model": 8})
    with pytest.raises(InputError, match=r"no config\.json"):
        weights.read(tmp_path)
    with pytest.raises(InputError, match="no adapter_config"):
        weights.read(folder, base=folder)
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        weights.read("nowhere")


def test_a_folder_of_another_family_is_refused(folder):
    hf = json.loads((folder / "config.json").read_text())
    hf["tsmjax"]["family"] = "engine"
    (folder / "config.json").write_text(json.dumps(hf))
    with pytest.raises(InputError, match="no weight table for family 'engine'"):
        weights.read(folder)
    with pytest.raises(InputError, match="holds a engine model, but chronos2"):
        weights.read(folder, "chronos2")


def test_damaged_files_are_refused(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="is a damaged safetensors file"):
        weights.read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        weights.read(folder)


def test_write_takes_no_used_folder_and_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(InputError, match="not empty"):
        weights.write(folder, "chronos2", VALUES, random_params())
    params = random_params()
    del params["shared"]
    with pytest.raises(InputError, match="missing shared/embedding"):
        weights.write(tmp_path / "other", "chronos2", VALUES, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_source_names_the_path_and_changes_with_the_weights(folder):
    first = weights.read(folder).source
    assert str(folder) in first
    tensors = load_file(folder / "model.safetensors")
    tensors["shared.weight"] += 1
    save_file(tensors, folder / "model.safetensors")
    assert weights.read(folder).source != first


def test_hub_ids_are_downloaded_without_pickles(folder, monkeypatch):
    asked = {}

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert weights.read("amazon/chronos-2").family == "chronos2"
    patterns = ["*.json", "*.safetensors"]
    assert asked == {"name": "amazon/chronos-2", "revision": None, "patterns": patterns}


def test_unreachable_hub_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"amazon/nothing-here is not a local folder") as error:
        weights.read("amazon/nothing-here")
    assert "\n" not in str(error.value)


@pytest.fixture
def adapter(folder, tmp_path):
    """An adapter of rank 2 for the queries of the last time attention."""
    rng = np.random.default_rng(0)
    name = "base_model.model.encoder.block.2.layer.0.self_attention.q.lora_{}.weight"
    path = tmp_path / "adapter"
    path.mkdir()
    tensors = {
        name.format("A"): rng.normal(size=(2, 6)).astype(np.float32),
        name.format("B"): rng.normal(size=(8, 2)).astype(np.float32),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 3, "base_model_name_or_path": str(folder)}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(("stabilised", "factor"), [(False, 3 / 2), (True, 3 / 2**0.5)])
def test_adapters_are_merged_into_the_base_they_name(adapter, folder, stabilised, factor):
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["use_rslora"] = stabilised
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    found = flatten(weights.read(adapter).params)
    expected = dict(flatten(weights.read(folder).params))
    A, B = (
        load_file(adapter / "adapter_model.safetensors")[name]
        for name in sorted(load_file(adapter / "adapter_model.safetensors"))
    )
    path = "blocks/time_attention/q/kernel"
    expected[path][2] += factor * (B @ A).T
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["shared"]}, "modules_to_save"),
        ({"alpha_pattern": {"q": 1}}, "alpha_pattern"),
        ({"peft_type": "IA3"}, "peft_type"),
    ],
)
def test_adapters_beyond_plain_lora_are_refused(adapter, change, words):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=words):
        weights.read(adapter)


def test_adapters_that_do_not_fit_are_refused(adapter):
    file = adapter / "adapter_model.safetensors"
    original = load_file(file)
    A, B = sorted(original)
    save_file({A: original[A]}, file)
    with pytest.raises(InputError, match="only factor A"):
        weights.read(adapter)
    save_file({A: original[A][:, :5].copy(), B: original[B]}, file)
    with pytest.raises(InputError, match="another base model"):
        weights.read(adapter)
    save_file({name.replace("block.2", "block.7"): x for name, x in original.items()}, file)
    with pytest.raises(InputError, match="which the base does not have"):
        weights.read(adapter)
    save_file({**original, "base_model.model.shared.weight": original[A]}, file)
    with pytest.raises(InputError, match="no LoRA factor"):
        weights.read(adapter)
    file.unlink()
    with pytest.raises(InputError, match="no file adapter_model"):
        weights.read(adapter)


def test_a_missing_base_is_named(adapter, folder):
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="model"):
        weights.read(adapter)


def test_weights_import_no_torch():
    code = (
        "import sys, tsmjax.weights.chronos2, tsmjax.models.chronos2; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
