"""Weight table of TTM (`TinyTimeMixerForPrediction` and its decomposed form in granite-tsfm)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tsmjax.errors import InputError

TASK = "multivariate"
PEFT = {
    "base_model_class": "TinyTimeMixerForPrediction",
    "parent_library": "tsfm_public.models.tinytimemixer.modeling_tinytimemixer",
}
_NETWORKS = (("", "network"), ("trend_forecaster.", "trend"), ("residual_forecaster.", "residual"))
_STACKS = (
    ("backbone.encoder.mlp_mixer_encoder", "backbone/mixer"),
    ("decoder.decoder_block", "decoder/mixer"),
    ("head.fcm_block.exog_mixer", "head/mixing/mixer"),
)
_LAYERS = (
    (".mixers.{i}", "layers/{i}"),
    (".mixers.{l}.mixer_layers.{i}", "levels/{l}/layers/{i}"),
)
_MIXERS = (
    ("patch_mixer", "token_mixer"),
    ("feature_mixer", "feature_mixer"),
    ("channel_feature_mixer", "channel_mixer"),
)
# Inside a mixer: linears, and norms.
_LINEARS = (
    ("mlp.fc1", "mlp/fc1"),
    ("mlp.fc2", "mlp/fc2"),
    ("gating_block.attn_layer", "gate/projection"),
    *((f"self_attn_layer.{name}_proj", f"attention/{name[0]}") for name in ("q", "k", "v", "out")),
)
_NORMS = (("norm.norm", "norm"), ("norm_attn.norm", "attention_norm"))
# Outside of them.
_OUTER_LINEARS = (
    ("backbone.encoder.patcher", "backbone/patcher"),
    ("backbone.encoder.patcher.projectors.{i}", "backbone/patcher/projections/{i}"),
    ("backbone.encoder.freq_mod.1", "backbone/frequency/fc1"),
    ("backbone.encoder.freq_mod.3", "backbone/frequency/fc2"),
    ("backbone.encoder.add_fft_tokens.freq_index_mlp.0", "backbone/spectrum/fc1"),
    ("backbone.encoder.add_fft_tokens.freq_index_mlp.2", "backbone/spectrum/fc2"),
    ("backbone.encoder.add_fft_tokens.freq_concat_proj", "backbone/spectrum/join"),
    ("decoder.adapter", "decoder/adapter"),
    ("decoder.decoder_raw_embedding", "decoder/raw"),
    ("head.base_forecast_block", "head/forecast"),
    ("head.fcm_block.fcm_embedding", "head/mixing/embed"),
    ("head.fcm_block.fcm_gating_block.attn_layer", "head/mixing/gate/projection"),
    ("head.fcm_block.mlp", "head/mixing/output"),
    *(  # the first three are convolutions: their kernels have a third axis
        (f"multi_quantile_head_block.{name}", f"quantile_head/{ours}")
        for name, ours in (
            *(("dw", "smooth"), ("pw1", "expand"), ("pw2", "output")),
            *(("dec_proj", "condition"), ("dec_tok_proj", "token_condition")),
            ("dec_flat_to_hidden", "flat_condition"),
        )
    ),
)
_OUTER_NORMS = (
    ("backbone.encoder.base_norm", "backbone/base_norm"),
    ("multi_quantile_head_block.inorm", "quantile_head/norm"),
)
_TABLES = (
    ("backbone.encoder.freq_mod.0.weight", "backbone/frequency/embedding/embedding"),
    (
        "backbone.encoder.add_fft_tokens.freq_embedding.weight",
        "backbone/spectrum/embedding/embedding",
    ),
    ("backbone.encoder.add_tokens.patch_tokens", "backbone/registers"),
    ("backbone.encoder.positional_encoder.position_enc", "backbone/positions/bias"),
    (
        "decoder.decoder_cat_embedding_layer.embedding_layers.{i}.weight",
        "decoder/categories/{i}/embedding",
    ),
)


def _rules() -> Iterator[tuple[str, str, str]]:
    linears, norms = list(_OUTER_LINEARS), list(_OUTER_NORMS)
    for stack, layer, mixer in itertools.product(_STACKS, _LAYERS, _MIXERS):
        source = f"{stack[0]}{layer[0]}.{mixer[0]}"
        target = f"{stack[1]}/{layer[1]}/{mixer[1]}"
        linears += [(f"{source}.{a}", f"{target}/{b}") for a, b in _LINEARS]
        norms += [(f"{source}.{a}", f"{target}/{b}") for a, b in _NORMS]
    for prefix, network in _NETWORKS:
        for source, target in linears:
            yield f"{prefix}{source}.weight", f"{network}/{target}/kernel", "T"
            yield f"{prefix}{source}.bias", f"{network}/{target}/bias", ""
        for source, target in norms:
            yield f"{prefix}{source}.weight", f"{network}/{target}/scale", ""
            yield f"{prefix}{source}.bias", f"{network}/{target}/bias", ""
        for source, target in _TABLES:
            yield f"{prefix}{source}", f"{network}/{target}", ""


RULES = tuple(_rules())

# Our field → (the reference's field, what it takes when config.json does not name it).
_FIELDS = {
    "context_length": ("context_length", 64),
    "prediction_length": ("prediction_length", 16),
    "prediction_filter_length": ("prediction_filter_length", None),
    "patch_length": ("patch_length", 8),
    "num_input_channels": ("num_input_channels", 1),
    "prediction_channels": ("prediction_channel_indices", None),
    "minimum_scale": ("minimum_scale", None),
    "default_scale": ("default_scale", None),
    "mode": ("mode", "common_channel"),
    "d_model": ("d_model", 16),
    "num_layers": ("num_layers", 3),
    "adaptive_patching_levels": ("adaptive_patching_levels", 0),
    "expansion_factor": ("expansion_factor", 2),
    "dropout": ("dropout", 0.2),
    "gate_groups": ("gate_groups", 8),
    "norm_eps": ("norm_eps", 1e-5),
    "register_tokens": ("register_tokens", 0),
    "multi_scale": ("multi_scale", False),
    "base_norm": ("enable_base_norm_always", False),
    "use_decoder": ("use_decoder", True),
    "decoder_mode": ("decoder_mode", "common_channel"),
    "decoder_d_model": ("decoder_d_model", 8),
    "decoder_num_layers": ("decoder_num_layers", 8),
    "decoder_adaptive_patching_levels": ("decoder_adaptive_patching_levels", 0),
    "decoder_raw_residual": ("decoder_raw_residual", False),
    "head_dropout": ("head_dropout", 0.2),
}
_SPECTRUM = {
    "count": ("fft_length", 0),
    "one_token": ("get_one_freq_emb", False),
    "embed": ("use_fft_embedding", True),
    "skip_mean": ("fft_ignore_dc", False),
}
_FORECAST_MIXING = {
    "enabled": ("enable_forecast_channel_mixing", False),
    "context_length": ("fcm_context_length", 1),
    "gate": ("fcm_gated_attn", True),
    "prepend_past": ("fcm_prepend_past", True),
}
_QUANTILES = {
    "hidden": ("mq_hidden", 8),
    "kernel_size": ("mq_kernel_size", 3),
    "decoder_features": ("mq_decoder_d_model", 8),
}
_DECOMPOSITION = {
    "enabled": ("decompose", False),
    "residual_context_length": ("residual_context_length", None),
    "combine_variances": ("combine_quantiles_via_variance", False),
    **{
        name: (f"trend_{name}", None)
        for name in (
            *("patch_length", "d_model", "num_layers", "adaptive_patching_levels"),
            *("decoder_d_model", "decoder_num_layers", "register_tokens", "multi_scale"),
        )
    },
    "spectrum_count": ("trend_fft_length", None),
}
# What the reference can do and we cannot: entry of config.json → the only value that is read.
_ONLY = {
    "scaling_dim": 1,
    "keepdim": True,
    "use_register_context_gating": False,
    "masked_context_length": None,
    "mq_eps": 1e-6,
}
_DECILES = tuple(round(0.1 * i, 1) for i in range(1, 10))


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is a TTM."""
    return hf.get("model_type") == "tinytimemixer"


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `tsmjax.models.ttm.Config`.

    The loss and its settings are not part of the model. Forecast mixing saw its inputs unscaled,
    so `compat.raw_exogenous` is on for it; no other defect of the reference is part of weights.

    Raises:
      InputError: when the architecture is a variant that we lack.
    """
    for name, value in _ONLY.items():
        if (found := hf.get(name, value)) != value:
            raise InputError(f"{name} is {found!r} in config.json, but only {value!r} is known.")
    for prefix in ("", "trend_"):
        patch, stride = (hf.get(f"{prefix}patch_{name}", 8) for name in ("length", "stride"))
        if stride not in (None, patch):
            raise InputError(f"{prefix}patch_stride is {stride} in config.json, not {patch}.")
    if "batch" in hf.get("norm_mlp", "LayerNorm").lower():
        raise InputError(
            "norm_mlp is BatchNorm in config.json: its running statistics cannot be read; train "
            "such a model afresh with model.norm='batch'."
        )
    read = _reader(hf)
    scaling = hf.get("scaling", "std")
    gated, attends = hf.get("gated_attn", True), hf.get("self_attn", False)
    mixing = read(_FORECAST_MIXING)
    return {
        **read(_FIELDS),
        "known_channels": hf.get("exogenous_channel_indices") or (),
        "categories": hf.get("categorical_vocab_size_list") or (),
        "scaling": {"mean": "mean", "std": "std", True: "std"}.get(scaling, "none"),
        "gate": hf.get("gate_mode", "softmax") if gated else "none",
        "self_attention_heads": hf.get("self_attn_heads", 1) if attends else 0,
        "positions": (
            hf.get("positional_encoding_type", "sincos")
            if hf.get("use_positional_encoding")
            else "none"
        ),
        "frequency_vocabulary": (
            hf.get("frequency_token_vocab_size", 5) if hf.get("resolution_prefix_tuning") else 0
        ),
        "spectrum": read(_SPECTRUM),
        "forecast_mixing": {
            **mixing,
            "layers": hf.get("fcm_mix_layers", 2) if hf.get("fcm_use_mixer") else 0,
            "past_offset": hf.get("fcm_prepend_past_offset") or 0,
        },
        "quantile_head": {
            **read(_QUANTILES),
            "levels": (
                tuple(sorted(hf.get("quantile_levels") or _DECILES))
                if hf.get("multi_quantile_head")
                else ()
            ),
            "decoder": hf.get("mq_cond_path", "pool") if hf.get("mq_use_decoder_pool") else None,
            "concatenate": hf.get("mq_cond_mode", "add") == "concat",
            "shift_median": hf.get("mq_q50_type", "median") == "median",
        },
        "decomposition": read(_DECOMPOSITION),
        "compat": dict(hf.get("compat") or {"raw_exogenous": mixing["enabled"]}),
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to the config.json that granite-tsfm reads.

    The reference always computes as with all switches of `compat` on; they are kept beside.
    """
    from tsmjax.config import build
    from tsmjax.models.ttm import Config

    config = build(Config, values, "model")
    mixing, head, apart = config.forecast_mixing, config.quantile_head, config.decomposition

    def write(fields: Mapping[str, tuple[str, Any]], part: Any) -> dict[str, Any]:
        found = {theirs: getattr(part, ours) for ours, (theirs, _) in fields.items()}
        # A minimum_scale of null would be taken as a number.
        found = {k: x for k, x in found.items() if x is not None or k != "minimum_scale"}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in found.items()}

    decomposed = "TinyTimeMixerForDecomposedPrediction"
    return {
        "architectures": [decomposed if apart.enabled else PEFT["base_model_class"]],
        "model_type": "tinytimemixer",
        **write(_FIELDS, config),
        "patch_stride": config.patch_length,
        "trend_patch_stride": apart.patch_length,
        "exogenous_channel_indices": list(config.known_channels) or None,
        "categorical_vocab_size_list": list(config.categories) or None,
        "scaling": None if config.scaling == "none" else config.scaling,
        "norm_mlp": "LayerNorm" if config.norm == "layer" else "BatchNorm",
        "gated_attn": config.gate != "none",
        "gate_mode": "softmax" if config.gate == "none" else config.gate,
        "self_attn": bool(config.self_attention_heads),
        "self_attn_heads": config.self_attention_heads or 1,
        "use_positional_encoding": config.positions != "none",
        "positional_encoding_type": "random" if config.positions == "random" else "sincos",
        "resolution_prefix_tuning": bool(config.frequency_vocabulary),
        "frequency_token_vocab_size": config.frequency_vocabulary or 5,
        **write(_SPECTRUM, config.spectrum),
        **write(_FORECAST_MIXING, mixing),
        "fcm_use_mixer": bool(mixing.layers),
        "fcm_mix_layers": mixing.layers or 2,
        "fcm_prepend_past_offset": mixing.past_offset or None,
        "multi_quantile_head": bool(head.levels),
        "quantile_levels": list(head.levels or _DECILES),
        **write(_QUANTILES, head),
        "mq_use_decoder_pool": head.decoder is not None,
        "mq_cond_path": head.decoder or "pool",
        "mq_cond_mode": "concat" if head.concatenate else "add",
        "mq_q50_type": "median" if head.shift_median else "mean",
        **write(_DECOMPOSITION, apart),
        "torch_dtype": "float32",
        "compat": dataclasses.asdict(config.compat),
    }


def _reader(hf: Mapping[str, Any]) -> Any:
    """Return a function that reads a table of fields from config.json."""

    def read(fields: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
        return {ours: hf.get(theirs, default) for ours, (theirs, default) in fields.items()}

    return read
