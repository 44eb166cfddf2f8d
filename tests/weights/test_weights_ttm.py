"""The weight table of TTM: one tensor for each parameter, configs that survive the round trip."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from convert.__main__ import main
from tsmjax import checkpoint, weights
from tsmjax.config import build
from tsmjax.errors import InputError
from tsmjax.models import ttm
from tsmjax.models.ttm.config import Decomposition, ForecastMixing, Quantiles, Spectrum
from tsmjax.nn.functional import abstract
from tsmjax.weights import ttm as table

REAL = ("ttm-r1-1024-96-finetuned", "ttm-r2-512-96-mixchannel-finetuned")
SMALL = {
    **{"context_length": 48, "prediction_length": 12, "patch_length": 8, "d_model": 16},
    **{"num_layers": 1, "adaptive_patching_levels": 2, "decoder_d_model": 8},
}
CONFIGS = {
    "plain": {},
    "no decoder": {"use_decoder": False, "gate": "none"},
    "prefixes": {
        **{"frequency_vocabulary": 10, "register_tokens": 2, "positions": "sincos"},
        **{"spectrum": Spectrum(count=3), "base_norm": True, "self_attention_heads": 2},
    },
    "one spectrum token": {"spectrum": Spectrum(count=3, one_token=True, embed=False)},
    "channels": {
        **{"num_input_channels": 3, "mode": "mix_channel", "decoder_mode": "mix_channel"},
        **{"prediction_channels": (1,), "known_channels": (2,), "categories": (4, 2)},
        **{"decoder_raw_residual": True, "decoder_adaptive_patching_levels": 1},
        "forecast_mixing": ForecastMixing(enabled=True, layers=2, past_offset=3),
    },
    "scaled by mean": {"scaling": "mean", "minimum_scale": 0.1, "default_scale": None},
    "multi-scale with quantiles": {
        **{"multi_scale": True, "gate": "group_sigmoid", "expansion_factor": 3},
        "quantile_head": Quantiles(levels=(0.1, 0.5, 0.9), decoder="flatten", concatenate=True),
    },
    "decomposed": {
        "decomposition": Decomposition(
            enabled=True, residual_context_length=32, patch_length=12, d_model=8, register_tokens=1
        ),
        "quantile_head": Quantiles(levels=(0.25, 0.5, 0.75), decoder="pool", shift_median=False),
        "compat": ttm.Compat(raw_exogenous=True),
    },
}


def params_of(values):
    config = build(ttm.Config, values, "model")
    _, shapes, _ = abstract(lambda rngs: ttm.Model(config, rngs=rngs))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", CONFIGS)
def test_write_then_read_is_the_identity(name, tmp_path):
    config = build(ttm.Config, {**SMALL, **CONFIGS[name]}, "model")
    values = dataclasses.asdict(config)
    params = params_of(values)
    weights.write(tmp_path / "m", "ttm", values, params)
    found = weights.read(tmp_path / "m")
    assert found.family == "ttm"
    read = build(ttm.Config, found.config_values, "model")
    # What a scaler does not use, and what a form without one does not have, is not written.
    if config.scaling == "std":
        read = dataclasses.replace(read, default_scale=config.default_scale)
    if not config.quantile_head.levels:
        read = dataclasses.replace(read, quantile_head=config.quantile_head)
    assert read == config
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert len(load_file(tmp_path / "m/model.safetensors")) == len(jax.tree.leaves(params))


@pytest.mark.parametrize("name", REAL)
def test_real_checkpoints_survive_import_and_export(name, test_data, tmp_path):
    source, run, out = test_data / "weights" / name, tmp_path / "run", tmp_path / "out"
    assert main(["import", "ttm", str(source), str(run)]) == 0
    assert main(["export", "ttm", f"{run}@final", str(out)]) == 0
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        assert tensor.tobytes() == ours[key].tobytes(), key
    loaded = checkpoint.load_weights(str(run))
    assert loaded.config["model"]["family"] == "ttm"
    assert loaded.config["task"] == {"kind": "multivariate"}
    original = json.loads((source / "config.json").read_text())
    written = json.loads((out / "config.json").read_text())
    for key in written.keys() & original.keys() - {"fcm_mix_layers", "torch_dtype"}:
        assert written[key] == original[key], key


def test_absent_entries_take_the_defaults_of_the_reference():
    config = build(ttm.Config, table.to_config({"model_type": "tinytimemixer"}), "model")
    assert (config.context_length, config.patch_length, config.d_model) == (64, 8, 16)
    assert (config.decoder_num_layers, config.decoder_d_model) == (8, 8)
    assert (config.gate, config.scaling, config.quantiles) == ("softmax", "std", (0.5,))
    assert config.default_scale is None


def test_forecast_mixing_of_foreign_weights_saw_raw_values():
    hf = {"model_type": "tinytimemixer", "num_input_channels": 2}
    assert table.to_config(hf)["compat"] == {"raw_exogenous": False}
    hf["enable_forecast_channel_mixing"] = True
    assert table.to_config(hf)["compat"] == {"raw_exogenous": True}
    ours = dataclasses.asdict(build(ttm.Config, table.to_config(hf), "model"))
    ours["compat"]["raw_exogenous"] = False
    assert table.to_config(table.from_config(ours))["compat"]["raw_exogenous"] is False


@pytest.mark.parametrize(
    ("entry", "expected"),
    [("std", "std"), (True, "std"), ("mean", "mean"), (None, "none"), (False, "none")],
)
def test_scalers_go_by_the_names_of_the_reference(entry, expected):
    assert table.to_config({"scaling": entry})["scaling"] == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_stride": 4}, "patch_stride is 4 in config.json, not 8"),
        ({"trend_patch_length": 4, "trend_patch_stride": 2}, "trend_patch_stride is 2"),
        ({"norm_mlp": "BatchNorm"}, "norm_mlp is BatchNorm"),
        ({"use_register_context_gating": True}, "use_register_context_gating is True"),
        ({"masked_context_length": 80}, "masked_context_length is 80"),
        ({"gate_mode": "tanh"}, "model.gate is 'tanh'"),
    ],
)
def test_variants_that_we_lack_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        build(ttm.Config, table.to_config({"model_type": "tinytimemixer", **change}), "model")


def test_a_config_with_other_sizes_than_the_file_is_refused(tmp_path):
    values = dataclasses.asdict(ttm.Config(**SMALL))
    weights.write(tmp_path / "m", "ttm", values, params_of(values))
    with pytest.raises(InputError, match=r"attn_layer\.bias is \(12,\) instead of \(24,\)"):
        weights.read(tmp_path / "m", model_overrides={"context_length": 96})
    assert weights.identify({"model_type": "tinytimemixer"}) == "ttm"
