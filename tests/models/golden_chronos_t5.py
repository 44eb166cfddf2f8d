"""Small T5 encoders with weights from a formula, and what transformers makes of them.

    python tests/models/golden_chronos_t5.py

writes golden_chronos_t5.npz beside this file (transformers 5.24, torch 2.13.0; fp32, CPU,
evaluation mode). Neither is needed to check the numbers. Weights carry the reference's tensor
names, so that the weight table is checked too.
"""

import zlib
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_suffix(".npz")
SIZE = {
    **{"vocab_size": 48, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4},
    **{"relative_attention_max_distance": 20, "relative_attention_num_buckets": 8},
}
TOKENIZER = {
    **{"tokenizer_class": "StanNormalizeUniformBins", "n_tokens": 40, "n_special_tokens": 2},
    **{"tokenizer_kwargs": {"low_limit": -3.0, "high_limit": 3.0}, "context_length": 64},
    **{"pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True},
}
# Entries of config.json.
CASES = {
    "relu": {**SIZE, "feed_forward_proj": "relu"},
    "gated": {**SIZE, "feed_forward_proj": "gated-gelu"},
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of the tensor called `name`; (out, in) as the reference stores it."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    k = zlib.crc32(name.encode()) % 9973
    u = (2.0 * (((31 * i**2 + 17 * i + 101 * k + 7) % 9973) / 9973) - 1.0).reshape(shape)
    if len(shape) == 1:
        return (1.0 + 0.1 * u).astype(np.float32)
    scale = 1.0 if "relative" in name or "shared" in name else 1.0 / np.sqrt(shape[1])
    return (u * scale).astype(np.float32)


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask (2, 30); the second series has missing values."""
    b, t = np.arange(2)[:, None], np.arange(30)
    ids = 3 + (7 * t * t + 11 * b * t + 3 * b) % 37
    mask = (b == 0) | (t % 5 != 2)
    return np.where(mask, ids, 0), mask


def main() -> None:
    """Run the reference and write the fixture."""
    import torch
    from transformers import T5Config, T5EncoderModel

    arrays = {}
    for name, case in CASES.items():
        model = T5EncoderModel(T5Config(**case)).eval()
        values = {k: torch.tensor(weight(k, tuple(p.shape))) for k, p in model.named_parameters()}
        model.load_state_dict(values, strict=False)
        ids, mask = (torch.tensor(x) for x in tokens())
        h = model(ids, attention_mask=mask.long()).last_hidden_state
        h.square()[mask].sum().backward()
        norms = {k: float(p.grad.norm()) for k, p in model.named_parameters()}
        arrays[f"{name}/states"] = h.detach().numpy()[:, ::7]
        arrays[f"{name}/tensors"] = np.asarray(sorted(norms))
        arrays[f"{name}/gradients"] = np.asarray([norms[k] for k in sorted(norms)], np.float32)
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
