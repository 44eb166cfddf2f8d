"""Weight table of Llama (`LlamaForCausalLM` of transformers): 1, 2, 3, 3.1 and 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmjax.errors import InputError

TASK = "align"
PEFT = {
    "base_model_class": "LlamaForCausalLM",
    "parent_library": "transformers.models.llama.modeling_llama",
}
_BLOCK, _OURS = "model.layers.{i}", "blocks/{i}"

RULES = (
    ("model.embed_tokens.weight", "embed/embedding", ""),
    *(
        (f"{_BLOCK}.self_attn.{name}_proj.weight", f"{_OURS}/attention/{name}/kernel", "T")
        for name in "qkvo"
    ),
    *(
        (f"{_BLOCK}.mlp.{name}_proj.weight", f"{_OURS}/feed_forward/{name}/kernel", "T")
        for name in ("gate", "up", "down")
    ),
    (f"{_BLOCK}.input_layernorm.weight", f"{_OURS}/attention/norm/scale", ""),
    (f"{_BLOCK}.post_attention_layernorm.weight", f"{_OURS}/feed_forward/norm/scale", ""),
    ("model.norm.weight", "final_norm/scale", ""),
    ("lm_head.weight", "output/kernel", "T"),
)
# A tied table may be stored under both names; old files keep the rotary frequencies.
SAME = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"\.rotary_emb\.inv_freq$",)

# Our field → (the reference's field, what it takes when config.json does not name it).
_FIELDS = {
    "vocab_size": ("vocab_size", 32000),
    "d_model": ("hidden_size", 4096),
    "d_ff": ("intermediate_size", 11008),
    "num_layers": ("num_hidden_layers", 32),
    "num_heads": ("num_attention_heads", 32),
    "norm_epsilon": ("rms_norm_eps", 1e-6),
    "max_positions": ("max_position_embeddings", 2048),
    "tie_embeddings": ("tie_word_embeddings", False),
    "initializer_range": ("initializer_range", 0.02),
    "bos_token": ("bos_token_id", 1),
}
# What the reference can do and we cannot: entry of config.json → the only value that is read.
_ONLY = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_positions": "original_max_position_embeddings",
}


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is a Llama."""
    return hf.get("model_type") == "llama"


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `tsmjax.models.llama.Config`.

    Raises:
      InputError: when the architecture is a variant that we lack.
    """
    for name, value in _ONLY.items():
        if (found := hf.get(name, value)) != value:
            raise InputError(f"{name} is {found!r} in config.json, but only {value!r} is known.")
    values = {ours: hf.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()}
    heads = values["num_heads"]
    ends = hf.get("eos_token_id", 2)
    rope = hf.get("rope_parameters") or {}  # transformers 5; before it, two entries
    theta = rope.get("rope_theta") or hf.get("rope_theta") or 10000.0
    return {
        **values,
        "num_kv_heads": hf.get("num_key_value_heads") or heads,
        "d_kv": hf.get("head_dim") or values["d_model"] // heads,
        "rope_theta": float(theta),
        "rope_scaling": _scaling(hf.get("rope_scaling") or rope),
        "eos_tokens": tuple(ends if isinstance(ends, list) else [ends] if ends is not None else []),
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to the config.json that transformers reads."""
    from tsmjax.config import build
    from tsmjax.models.llama import Config

    config = build(Config, values, "model")
    stretch, ends = config.rope_scaling, list(config.eos_tokens)
    names = _SCALING if stretch.kind == "llama3" else {"factor": "factor"}
    scaling = {theirs: getattr(stretch, ours) for ours, theirs in names.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _FIELDS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.d_kv,
        **_ONLY,
        "rope_theta": config.rope_theta,
        "rope_scaling": (
            None if stretch.kind == "none" else {"rope_type": stretch.kind, **scaling}
        ),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "torch_dtype": "float32",
    }


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Translate how config.json stretches the rotary frequencies; empty for not at all."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return {"kind": "none"}
    if kind not in ("linear", "llama3"):
        raise InputError(
            f"The rotary frequencies are scaled by {kind!r} in config.json; known are 'default', "
            "'linear' and 'llama3'."
        )
    found = {ours: rope[theirs] for ours, theirs in _SCALING.items() if theirs in rope}
    return {"kind": kind, **found}
