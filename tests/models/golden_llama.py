"""Small Llamas with weights from a formula, and what transformers makes of them.

    python tests/models/golden_llama.py

writes golden_llama.npz beside this file (transformers 5.24, torch 2.13.0; fp32, CPU, evaluation
mode). Neither is needed to check the numbers. Weights carry the reference's tensor names, so that
the weight table is checked too.
"""

import zlib
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_suffix(".npz")
SIZE = {
    **{"vocab_size": 40, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5},
    **{"max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2},
}
# Entries of config.json.
CASES = {
    "llama3": {
        **SIZE,
        **{"tie_word_embeddings": True, "rope_theta": 500.0},
        "rope_scaling": {
            **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        },
    },
    "linear": {
        **SIZE,
        **{"num_key_value_heads": 4, "tie_word_embeddings": False},
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of the tensor called `name`; (out, in) as the reference stores it."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    k = zlib.crc32(name.encode()) % 9973
    u = (2.0 * (((31 * i**2 + 17 * i + 101 * k + 7) % 9973) / 9973) - 1.0).reshape(shape)
    if len(shape) == 1:
        return (1.0 + 0.1 * u).astype(np.float32)
    scale = 1.0 if "embed" in name else 1.5 / np.sqrt(shape[1])
    return (u * scale).astype(np.float32)


def tokens() -> np.ndarray:
    """Two texts of 20 tokens."""
    b, t = np.arange(2)[:, None], np.arange(20)
    return (7 * t * t + 11 * b * t + 3 * b) % 40


def main() -> None:
    """Run the reference and write the fixture."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    arrays = {}
    for name, case in CASES.items():
        model = LlamaForCausalLM(LlamaConfig(**case)).eval()
        values = {k: torch.tensor(weight(k, tuple(p.shape))) for k, p in model.named_parameters()}
        model.load_state_dict(values, strict=False)
        given = torch.tensor(tokens())
        output = model(given, labels=given)
        output.loss.backward()
        norms = {k: float(p.grad.norm()) for k, p in model.named_parameters()}
        arrays[f"{name}/logits"] = output.logits.detach().numpy()[:, ::5]
        arrays[f"{name}/loss"] = np.float32(output.loss.detach())
        arrays[f"{name}/tensors"] = np.asarray(sorted(norms))
        arrays[f"{name}/gradients"] = np.asarray([norms[k] for k in sorted(norms)], np.float32)
        arrays[f"{name}/generated"] = model.generate(
            given[:, :6],
            attention_mask=torch.ones(2, 6),
            **{"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0},
        ).numpy()[:, 6:]
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
