"""Weight table of Chronos-T5 (`T5ForConditionalGeneration` and `T5EncoderModel` of transformers).

The published checkpoints hold encoder and decoder; what is read of them is the encoder, unless
``Config.decoder`` is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmjax.errors import InputError
from tsmjax.weights import plan

TASK = "classify"
PEFT = {
    "base_model_class": "T5EncoderModel",
    "parent_library": "transformers.models.t5.modeling_t5",
}


def _attention(source: str, target: str, layer: int, kind: str = "SelfAttention") -> plan.Rules:
    """Rules of an attention layer and its norm."""
    source = f"{source}.layer.{layer}"
    return (
        *((f"{source}.{kind}.{name}.weight", f"{target}/{name}/kernel", "T") for name in "qkvo"),
        (f"{source}.layer_norm.weight", f"{target}/norm/scale", ""),
    )


def _feed_forward(source: str, target: str, layer: int) -> plan.Rules:
    """Rules of a feed-forward layer, gated or not, and its norm."""
    source = f"{source}.layer.{layer}"
    names = (("wi", "wi"), ("wi_0", "gate"), ("wi_1", "up"), ("wo", "wo"))
    return (
        *(
            (f"{source}.DenseReluDense.{theirs}.weight", f"{target}/{ours}/kernel", "T")
            for theirs, ours in names
        ),
        (f"{source}.layer_norm.weight", f"{target}/norm/scale", ""),
    )


def _outside(source: str, target: str) -> plan.Rules:
    """Rules of what the blocks of a side share."""
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        (f"{source}.{bias}", f"{target}relative_bias/embedding", ""),
        (f"{source}.final_layer_norm.weight", f"{target}final_norm/scale", ""),
    )


_ENCODER, _DECODER = "encoder.block.{i}", "decoder.block.{i}"
RULES = (
    ("shared.weight", "embed/embedding", ""),
    *_outside("encoder", ""),
    *_attention(_ENCODER, "blocks/{i}/attention", 0),
    *_feed_forward(_ENCODER, "blocks/{i}/feed_forward", 1),
    *_outside("decoder", "decoder/"),
    *_attention(_DECODER, "decoder/blocks/{i}/attention", 0),
    *_attention(_DECODER, "decoder/blocks/{i}/cross_attention", 1, "EncDecAttention"),
    *_feed_forward(_DECODER, "decoder/blocks/{i}/feed_forward", 2),
)
SAME = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
    "lm_head.weight": "shared.weight",
}

# Our field → (the reference's field, what it takes when config.json does not name it).
_FIELDS = {
    "vocab_size": ("vocab_size", 32128),
    "d_model": ("d_model", 512),
    "d_kv": ("d_kv", 64),
    "d_ff": ("d_ff", 2048),
    "num_layers": ("num_layers", 6),
    "num_heads": ("num_heads", 8),
    "feed_forward": ("feed_forward_proj", "relu"),
    "relative_buckets": ("relative_attention_num_buckets", 32),
    "relative_max_distance": ("relative_attention_max_distance", 128),
    "layer_norm_epsilon": ("layer_norm_epsilon", 1e-6),
    "initializer_factor": ("initializer_factor", 1.0),
}
_TOKENIZER = {
    "kind": "tokenizer_class",
    "n_tokens": "n_tokens",
    "n_special_tokens": "n_special_tokens",
    "pad_token": "pad_token_id",
    "eos_token": "eos_token_id",
    "use_eos_token": "use_eos_token",
    "context_length": "context_length",
}
_LIMITS = ("low_limit", "high_limit")


def ignored(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return patterns of the tensors that an encoder alone passes over."""
    return () if values.get("decoder") else (r"^decoder\.", r"^lm_head\.")


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is a Chronos-T5 (its model_type, t5, says nothing)."""
    chronos = hf.get("chronos_config")
    return (
        hf.get("model_type") == "t5"
        and isinstance(chronos, Mapping)
        and "tokenizer_class" in chronos
    )


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `tsmjax.models.chronos_t5.Config`.

    Raises:
      InputError: when a required entry is missing, or the architecture is a variant that we lack.
    """
    chronos = hf.get("chronos_config")
    if not isinstance(chronos, Mapping):
        raise InputError("The config.json of a Chronos-T5 needs an object 'chronos_config'.")
    if missing := [name for name in _TOKENIZER.values() if name not in chronos]:
        raise InputError(f"chronos_config in config.json lacks {', '.join(missing)}.")
    if (kind := chronos.get("model_type", "seq2seq")) != "seq2seq":
        raise InputError(f"chronos_config.model_type is {kind!r} in config.json, not 'seq2seq'.")
    limits = chronos.get("tokenizer_kwargs") or {}
    return {
        # A foreign folder gives the encoder alone, ours what was put into it.
        "decoder": "tsmjax" in hf and hf.get("is_encoder_decoder", True),
        **{ours: hf.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()},
        "tokenizer": {
            **{ours: chronos[theirs] for ours, theirs in _TOKENIZER.items()},
            **{name: float(limits[name]) for name in _LIMITS if name in limits},
        },
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to the config.json that transformers and Chronos read."""
    from tsmjax.config import build
    from tsmjax.models.chronos_t5 import PUBLISHED, Config

    config = build(Config, values, "model")
    tokenizer = config.tokenizer
    return {
        "architectures": ["T5ForConditionalGeneration" if config.decoder else "T5EncoderModel"],
        "model_type": "t5",
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _FIELDS.items()},
        "num_decoder_layers": config.num_layers,
        "decoder_start_token_id": tokenizer.pad_token,
        "is_encoder_decoder": config.decoder,
        "tie_word_embeddings": True,
        "n_positions": tokenizer.context_length,
        "pad_token_id": tokenizer.pad_token,
        "eos_token_id": tokenizer.eos_token,
        "torch_dtype": "float32",
        "chronos_config": {
            **{theirs: getattr(tokenizer, ours) for ours, theirs in _TOKENIZER.items()},
            "tokenizer_kwargs": {name: getattr(tokenizer, name) for name in _LIMITS},
            "model_type": "seq2seq",
            # How the published models are used, without which chronos-forecasting reads nothing.
            **{"prediction_length": 64, "num_samples": 20, **PUBLISHED._asdict()},
        },
    }
