"""Weight table of Chronos-2 (`Chronos2Model` of chronos-forecasting)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmjax.errors import InputError, closest

TASK = "forecast"
PEFT = {"base_model_class": "Chronos2Model", "parent_library": "chronos.chronos2.model"}
_EMBEDDINGS = ("input_patch_embedding", "output_patch_embedding")
_ATTENTIONS = ((0, "time_attention"), (1, "group_attention"))
_BLOCK, _OURS = "encoder.block.{i}.layer", "blocks/{i}"

RULES = (
    ("shared.weight", "shared/embedding", ""),
    *(
        rule
        for block in _EMBEDDINGS
        for name in ("hidden", "output", "residual")
        for rule in (
            (f"{block}.{name}_layer.weight", f"{block}/{name}/kernel", "T"),
            (f"{block}.{name}_layer.bias", f"{block}/{name}/bias", ""),
        )
    ),
    *(
        (f"{_BLOCK}.{layer}.self_attention.{name}.weight", f"{_OURS}/{ours}/{name}/kernel", "T")
        for layer, ours in _ATTENTIONS
        for name in "qkvo"
    ),
    *(
        (f"{_BLOCK}.{layer}.layer_norm.weight", f"{_OURS}/{ours}/norm/scale", "")
        for layer, ours in (*_ATTENTIONS, (2, "feed_forward"))
    ),
    (_BLOCK + ".2.mlp.wi.weight", f"{_OURS}/feed_forward/wi/kernel", "T"),
    (_BLOCK + ".2.mlp.wo.weight", f"{_OURS}/feed_forward/wo/kernel", "T"),
    ("encoder.final_layer_norm.weight", "final_norm/scale", ""),
)

# Field → what the reference takes when config.json does not name it.
_CORE = {
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 0.05,
    "rope_theta": 10000.0,
}
_FORECAST = {
    "use_reg_token": False,
    "use_arcsinh": False,
    "max_output_patches": 1,
    "time_encoding_scale": None,
}
_REQUIRED = (
    *("context_length", "input_patch_size", "output_patch_size", "input_patch_stride"),
    "quantiles",
)


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is a Chronos-2 (its model_type, t5, says nothing)."""
    return (
        "Chronos2Model" in (hf.get("architectures") or ())
        or hf.get("chronos_pipeline_class") == "Chronos2Pipeline"
    )


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `tsmjax.models.chronos2.Config`.

    Raises:
      InputError: when a required entry is missing, or the architecture is a variant we lack.
    """
    forecast = hf.get("chronos_config")
    if not isinstance(forecast, Mapping):
        raise InputError("The config.json of a Chronos-2 needs an object 'chronos_config'.")
    if missing := [name for name in _REQUIRED if name not in forecast]:
        raise InputError(f"chronos_config in config.json lacks {', '.join(missing)}.")
    known = (*_REQUIRED, *_FORECAST)
    for name in forecast:
        if name not in known:
            raise InputError(
                f"chronos_config in config.json has an unknown entry {name!r}"
                f"{closest(name, known)}."
            )
    if (activation := hf.get("feed_forward_proj", "relu")) != "relu":
        raise InputError(f"feed_forward_proj is {activation!r} in config.json; only relu exists.")
    return {
        **{name: hf.get(name, default) for name, default in _CORE.items()},
        **{name: forecast[name] for name in _REQUIRED},
        **{name: forecast.get(name, default) for name, default in _FORECAST.items()},
        "quantiles": tuple(forecast["quantiles"]),
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to the config.json that chronos-forecasting reads."""
    from tsmjax.models.chronos2 import Config

    config = Config(**values)
    forecast = {name: getattr(config, name) for name in (*_REQUIRED, *_FORECAST)}
    return {
        "architectures": ["Chronos2Model"],
        "chronos_pipeline_class": "Chronos2Pipeline",
        "model_type": "t5",
        **{name: getattr(config, name) for name in _CORE},
        "feed_forward_proj": "relu",
        "dense_act_fn": "relu",
        "is_gated_act": False,
        "vocab_size": 2 if config.use_reg_token else 1,
        "pad_token_id": 0,
        **({"reg_token_id": 1} if config.use_reg_token else {}),
        "torch_dtype": "float32",
        "chronos_config": {
            **forecast,
            "quantiles": list(config.quantiles),
            "time_encoding_scale": config.time_encoding_scale or config.context_length,
        },
    }
