"""Our Chronos-2 against the model of chronos-forecasting, on the same weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from safetensors.numpy import load_file

from convert import verify_chronos2
from convert.verify_chronos2 import Case, compare, example, pack
from tsmjax import weights
from tsmjax.models import chronos2
from tsmjax.weights.chronos2 import from_config

GOLDEN_SIZE = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
BASE_SIZE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
FORECAST = {
    "input_patch_size": 16,
    "output_patch_size": 16,
    "input_patch_stride": 16,
    "use_reg_token": True,
    "use_arcsinh": True,
}


def reference_folder(folder, size, context_length, quantiles, gain=1.0, seed=0):
    """Save a freshly initialised reference model; `gain` scales its matrices."""
    torch.manual_seed(seed)
    config = Chronos2CoreConfig(
        **size,
        architectures=["Chronos2Model"],
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config={
            **FORECAST,
            "context_length": context_length,
            "quantiles": list(quantiles),
            "max_output_patches": 64,
            "time_encoding_scale": context_length,
        },
    )
    model = Chronos2Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                if gain != 1.0:
                    parameter.fill_(1.0)
            else:
                parameter.mul_(gain)
    model.save_pretrained(folder)
    return folder


def assert_agree(rows):
    bad = [f"{r.name}: {r.error:.3g} > {r.tolerance:.3g}" for r in rows if not r.ok]
    assert not bad, "\n".join(bad)


def errors(rows, start):
    return [row.error for row in rows if row.name.startswith(start)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    return reference_folder(folder, BASE_SIZE, 8192, chronos2.QUANTILES_21)


@pytest.mark.parametrize(("gain", "packs"), [(1.0, None), (5.0, None), (5.0, 1), (5.0, 2)])
def test_small_model_agrees_in_every_block_and_gradient(tmp_path, gain, packs):
    folder = reference_folder(tmp_path / "m", GOLDEN_SIZE, 64, (0.1, 0.5, 0.9), gain)
    case = dataclasses.replace(example(70, 40, rows=9), packs=packs)
    rows = compare(folder, case)
    assert_agree(rows)
    assert len(errors(rows, "gradient")) == 40
    assert errors(rows, "predictions")[0] <= 1e-4


@pytest.mark.parametrize(
    ("size", "packs"), [(1, None), (1, 5), (4, None), (4, 3), (16, None), (16, 1)]
)
def test_packed_groups_agree_with_attention_over_the_whole_batch(tmp_path, size, packs):
    """Groups whose rows are scattered over the batch, however they are dealt to packs."""
    folder = reference_folder(tmp_path / "m", GOLDEN_SIZE, 64, (0.1, 0.5, 0.9), gain=5.0)
    group_ids = np.random.default_rng(size).permutation(np.arange(32) // size)
    case = dataclasses.replace(example(70, 20, rows=32), group_ids=group_ids, packs=packs)
    assert_agree(compare(folder, case))


def test_dummy_checkpoint_agrees(test_data):
    folder = test_data / "weights/dummy-chronos2-model"
    assert_agree(verify_chronos2.verify(folder))


@pytest.mark.parametrize(
    "horizon", [16, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 64, 1024))]
)
def test_base_size_agrees(base, horizon):
    case = example(2048, horizon, rows=8, seed=horizon)
    rows = compare(base, case, gradients=horizon == 64)
    assert_agree(rows)
    assert errors(rows, "predictions")[0] <= 1e-4
    assert len(errors(rows, "gradient")) == (170 if horizon == 64 else 0)


@pytest.mark.slow
def test_a_wrong_weight_is_found_in_its_block(tmp_path):
    folder = reference_folder(tmp_path / "m", GOLDEN_SIZE, 64, (0.1, 0.5, 0.9), gain=5.0)
    read = weights.read

    def perturbed(*arguments, **options):
        found = read(*arguments, **options)
        kernel = found.params["blocks"]["feed_forward"]["wo"]["kernel"]
        kernel[1] += 0.1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "read", perturbed)
        rows = compare(folder, example(64, 16))
    assert next(row.name for row in rows if not row.ok) == "block 1"


def test_export_is_bit_identical_and_loads_in_the_reference(test_data, tmp_path):
    source = test_data / "weights/dummy-chronos2-model"
    found = weights.read(source)
    weights.write(tmp_path / "export", found.family, found.config_values, found.params)
    theirs = load_file(source / "model.safetensors")
    ours = load_file(tmp_path / "export/model.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.tobytes() == ours[name].tobytes(), name
        assert tensor.dtype == ours[name].dtype
    case = example(100, 24)
    inputs = [{"target": case.context[:2]}, {"target": case.context[3:5]}]
    predict = lambda folder: BaseChronosPipeline.from_pretrained(folder).predict(  # noqa: E731
        inputs, prediction_length=24
    )
    for a, b in zip(predict(source), predict(tmp_path / "export"), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_lora_merge_equals_peft(test_data):
    from peft import PeftModel

    source = test_data / "weights/dummy-chronos2-model"
    adapter = test_data / "weights/dummy-chronos2-lora"
    ours = weights.read(adapter, base=source, model_overrides={"scan_layers": False})
    merged = PeftModel.from_pretrained(Chronos2Model.from_pretrained(source), adapter)
    expected = merged.merge_and_unload().state_dict()
    named = weights.tensors(ours.family, ours.config_values, ours.params)
    changed = 0
    original = load_file(source / "model.safetensors")
    for name, tensor in named.items():
        np.testing.assert_allclose(tensor, expected[name].numpy(), atol=1e-7, err_msg=name)
        changed += not np.array_equal(tensor, original[name])
    assert changed == 17  # four projections in four attentions, and the output layer


def test_config_survives_the_round_trip(test_data):
    source = test_data / "weights/dummy-chronos2-model"
    hf = json.loads((source / "config.json").read_text())
    values = weights.read(source).config_values
    written = from_config(values)
    assert written["chronos_config"] == hf["chronos_config"]
    ignored = {"chronos_config", "transformers_version"}
    for name in hf.keys() - ignored:
        assert written[name] == hf[name], name


def test_packing_keeps_groups_together():
    group_ids = np.array([5, 5, 2, 7, 5, 7])
    np.testing.assert_array_equal(pack(group_ids), [[0, 1, 4], [2, -1, -1], [3, 5, -1]])
    np.testing.assert_array_equal(pack(group_ids, 1), [[0, 1, 4, 2, 3, 5]])
    case = Case(*(np.arange(6.0)[:, None],) * 3, group_ids)
    rows = pack(group_ids, 2)
    spread = verify_chronos2.spread(case.context, rows)
    np.testing.assert_array_equal(verify_chronos2.gather(spread, rows), case.context)
