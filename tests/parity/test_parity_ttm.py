"""Our TTM against granite-tsfm, on the same weights and the same batches."""

import json

import numpy as np
import pytest

pytest.importorskip("tsfm_public", reason="granite-tsfm is not installed")

import torch
from tsfm_public.models.tinytimemixer import TinyTimeMixerForPrediction

from convert import verify_ttm
from convert.reference import save_random
from convert.verify_ttm import Case, compare, example
from tsmjax import pretrained, weights

R2 = {
    **{"context_length": 512, "patch_length": 64, "patch_stride": 64, "prediction_length": 96},
    **{"d_model": 192, "num_layers": 2, "adaptive_patching_levels": 3},
    **{"decoder_d_model": 128, "decoder_num_layers": 2},
}
SMALL = {
    **{"context_length": 96, "patch_length": 8, "patch_stride": 8, "prediction_length": 24},
    **{"d_model": 32, "num_layers": 1, "adaptive_patching_levels": 2},
    **{"decoder_d_model": 16, "decoder_num_layers": 1},
}
PUBLISHED = {
    "one channel": R2,
    "frequency prefix": {
        **R2,
        **{"resolution_prefix_tuning": True, "frequency_token_vocab_size": 10},
    },
    "exogenous channels": {
        **R2,
        **{"num_input_channels": 6, "decoder_mode": "mix_channel", "prediction_filter_length": 60},
        **{"prediction_channel_indices": [0, 3], "exogenous_channel_indices": [1, 4, 5]},
        **{"enable_forecast_channel_mixing": True, "fcm_use_mixer": True},
        **{"fcm_mix_layers": 3, "fcm_context_length": 2},
    },
    "static categories": {
        **R2,
        **{"num_input_channels": 3, "decoder_mode": "mix_channel", "decoder_raw_residual": True},
        **{"categorical_vocab_size_list": [3, 5], "resolution_prefix_tuning": True},
    },
    "mixed backbone": {
        **R2,
        **{"num_input_channels": 3, "mode": "mix_channel", "decoder_adaptive_patching_levels": 2},
    },
}
VARIANTS = {
    "mean scaler": {"scaling": "mean", "num_input_channels": 2},
    "no scaler": {"scaling": None, "gated_attn": False},
    "sigmoid gates": {"gate_mode": "sigmoid", "self_attn": True, "self_attn_heads": 2},
    "grouped gates": {"gate_mode": "group_sigmoid", "mode": "mix_channel", "num_input_channels": 6},
    "learned positions": {
        **{"use_positional_encoding": True, "positional_encoding_type": "random"},
        **{"use_decoder": False, "adaptive_patching_levels": 4},
    },
    "sinusoids": {"use_positional_encoding": True, "context_length": 100},
    "one spectrum token": {
        **{"fft_length": 3, "get_one_freq_emb": True, "fft_ignore_dc": True},
        **{"use_fft_embedding": False, "enable_base_norm_always": True},
    },
    "multi-scale": {
        **{"multi_scale": True, "register_tokens": 1, "fft_length": 1, "gate_mode": "glu"},
        "resolution_prefix_tuning": True,
    },
    "quantiles": {
        **{"multi_quantile_head": True, "mq_use_decoder_pool": True, "mq_cond_path": "flatten"},
        **{"mq_cond_mode": "concat", "mq_q50_type": "mean"},
    },
    "ungated forecast mixing": {
        **{"num_input_channels": 3, "enable_forecast_channel_mixing": True},
        **{"fcm_gated_attn": False, "fcm_use_mixer": True, "fcm_prepend_past": False},
    },
    "decomposed": {
        **{"decompose": True, "num_input_channels": 2, "residual_context_length": 64},
        **{"trend_patch_length": 12, "trend_patch_stride": 12, "trend_d_model": 24},
        **{"multi_quantile_head": True, "combine_quantiles_via_variance": True},
    },
    "decomposed points": {"decompose": True, "prediction_channel_indices": [1]}
    | {"num_input_channels": 3},
}


def reference_folder(folder, entries, seed=0):
    """Save a reference model with random weights; biases and scales are moved off zero and one."""
    return save_random(verify_ttm.reference_class(entries), entries, folder, seed)


def assert_agree(rows):
    bad = [f"{r.name}: {r.error:.3g} > {r.tolerance:.3g}" for r in rows if not r.ok]
    assert not bad, "\n".join(bad)


def gradients(rows):
    return [row for row in rows if row.name.startswith("gradient")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_agree_in_every_layer_and_gradient(name, tmp_path):
    rows = verify_ttm.verify(reference_folder(tmp_path / "m", PUBLISHED[name]))
    assert_agree(rows)
    assert len(gradients(rows)) >= 134


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_agree_in_every_layer_and_gradient(name, tmp_path):
    rows = verify_ttm.verify(reference_folder(tmp_path / "m", {**SMALL, **VARIANTS[name]}))
    assert_agree(rows)
    assert len(gradients(rows)) > 40


@pytest.mark.parametrize(
    ("name", "tensors"),
    [("ttm-r1-1024-96-finetuned", 134), ("ttm-r2-512-96-mixchannel-finetuned", 150)],
)
def test_real_checkpoints_agree(name, tensors, test_data):
    rows = verify_ttm.verify(test_data / "weights" / name)
    assert_agree(rows)
    assert len(gradients(rows)) == tensors


def test_a_short_context_agrees_where_zeros_count_as_observed(tmp_path):
    folder = reference_folder(tmp_path / "m", SMALL)
    case = example(verify_ttm.read(folder)[1].config.model)
    past = np.nan_to_num(case.past[:, -70:] + 20.0, nan=20.0)
    with torch.no_grad():
        model = TinyTimeMixerForPrediction.from_pretrained(folder).eval()
        expected = model(torch.tensor(past)).prediction_outputs.numpy()
    found, task = verify_ttm.read(folder)
    model = build(task, found)
    forecast = np.asarray(model.unscale(*model(past.swapaxes(1, 2))))[:, :, 0]
    np.testing.assert_allclose(forecast.swapaxes(1, 2), expected, atol=1e-4)
    # By default the padding is missing: the forecast stays with the series.
    loaded = pretrained.from_pretrained(str(folder)).model
    right = np.asarray(loaded.unscale(*loaded(past.swapaxes(1, 2))))
    assert np.abs(right.mean() - past.mean()) < 0.2 * np.abs(expected.mean() - past.mean())


def build(task, found):
    from tsmjax.nn.functional import abstract, merge

    graph, _, _ = abstract(lambda rngs: task.build(rngs).model)
    return merge(graph, found.params, {})


def test_a_wrong_weight_is_found_in_its_layer(tmp_path, monkeypatch):
    folder = reference_folder(tmp_path / "m", SMALL)
    read = weights.read

    def perturbed(*arguments, **options):
        found = read(*arguments, **options)
        levels = found.params["network"]["backbone"]["mixer"]["levels"]
        levels["1"]["layers"]["0"]["feature_mixer"]["mlp"]["fc2"]["kernel"][0] += 0.1
        return found

    monkeypatch.setattr(weights, "read", perturbed)
    rows = verify_ttm.verify(folder)
    assert next(row.name for row in rows if not row.ok) == "backbone.mixers.1.layers.0"


def test_our_export_loads_in_the_reference(tmp_path):
    folder = reference_folder(tmp_path / "m", {**SMALL, **VARIANTS["multi-scale"]})
    found = weights.read(folder)
    weights.write(tmp_path / "out", found.family, found.config_values, found.params)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["architectures"] == ["TinyTimeMixerForPrediction"]
    case = example(verify_ttm.read(folder)[1].config.model)
    case = Case(np.nan_to_num(case.past), np.nan_to_num(case.future), None, case.frequency)
    a, b = (verify_ttm.reference(x, case, False) for x in (folder, tmp_path / "out"))
    np.testing.assert_array_equal(a.outputs["forecast"], b.outputs["forecast"])
    assert all(row.ok for row in compare(tmp_path / "out", case, gradients=False))
