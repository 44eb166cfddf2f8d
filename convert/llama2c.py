"""Models of llama2.c: its first binary form, which has no magic number, and its vocabularies.

Source: github.com/karpathy/llama2.c, export.py, ``legacy_export``.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tsmjax import weights
from tsmjax.errors import InputError
from tsmjax.nn.functional import unflatten

SUFFIX = ".bin"
_HEADER = struct.Struct("7i")  # width, hidden width, layers, heads, key heads, ± vocabulary, length


def read(path: str | Path) -> weights.Imported:
    """Read a model file.

    llama2.c rotates neighbouring pairs (2i, 2i + 1) of a head, as Meta's own code does; queries and
    keys are permuted here to the halves (i, i + features/2) that everybody else rotates.

    Raises:
      InputError: when there is no such file, or its size is not what its header asks for.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist.")
    raw = Path(path).read_bytes()
    values = _values(raw, path)
    dim, hidden, layers = values["d_model"], values["d_ff"], values["num_layers"]
    heads, kv_heads = values["num_heads"], values["num_kv_heads"]
    features, vocabulary = values["d_kv"], values["vocab_size"]
    numbers = np.frombuffer(raw, np.float32, offset=_HEADER.size)

    def take(*shape: int) -> np.ndarray:
        nonlocal numbers
        size = int(np.prod(shape))
        found, numbers = numbers[:size].reshape(shape), numbers[size:]
        return found

    def halves(x: np.ndarray, count: int) -> np.ndarray:
        x = x.reshape(layers, count, features // 2, 2, dim)
        return x.swapaxes(2, 3).reshape(layers, count * features, dim)

    flat = {"embed/embedding": take(vocabulary, dim)}
    flat["blocks/attention/norm/scale"] = take(layers, dim)
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        kernel = take(layers, count * features, dim)
        flat[f"blocks/attention/{name}/kernel"] = kernel if name == "v" else halves(kernel, count)
    flat["blocks/attention/o/kernel"] = take(layers, dim, heads * features)
    flat["blocks/feed_forward/norm/scale"] = take(layers, dim)
    for name, shape in (("gate", (hidden, dim)), ("down", (dim, hidden)), ("up", (hidden, dim))):
        flat[f"blocks/feed_forward/{name}/kernel"] = take(layers, *shape)
    flat["final_norm/scale"] = take(dim)
    take(2, values["max_positions"], features // 2)  # cosines and sines
    if not values["tie_embeddings"]:
        flat["output/kernel"] = take(vocabulary, dim)
    params = {
        name: np.ascontiguousarray(x.swapaxes(-1, -2) if name.endswith("kernel") else x)
        for name, x in flat.items()
    }
    source = f"{path} (sha256 {hashlib.sha256(raw).hexdigest()})"
    return weights.Imported("llama", values, unflatten(params), source)


def vocabulary(path: str | Path) -> list[str]:
    """Return the texts of the tokens of a ``tok*.bin``."""
    raw = Path(path).read_bytes()
    at, texts = 4, []
    while at < len(raw):
        _, size = struct.unpack_from("fi", raw, at)
        texts.append(raw[at + 8 : at + 8 + size].decode(errors="replace"))
        at += 8 + size
    return texts


def _values(raw: bytes, path: str | Path) -> dict[str, Any]:
    """Values of `llama.Config` that the header gives; the file must be as long as they say."""
    message = (
        f"{path} is no model of llama2.c's first binary form; a PyTorch pickle is read from its "
        "folder, with config.json beside it."
    )
    if len(raw) < _HEADER.size:
        raise InputError(message)
    dim, hidden, layers, heads, kv_heads, tokens, length = _HEADER.unpack_from(raw)
    if min(dim, hidden, layers, heads, kv_heads, length) < 1 or not tokens or dim % heads:
        raise InputError(message)
    features, shared = dim // heads, kv_heads * (dim // heads)
    per_layer = 2 * dim + 2 * dim * dim + 2 * dim * shared + 3 * dim * hidden
    tables = abs(tokens) * dim * (1 if tokens > 0 else 2)
    count = tables + layers * per_layer + dim + length * features
    if len(raw) != _HEADER.size + 4 * count:
        raise InputError(message)
    return {
        **{"vocab_size": abs(tokens), "d_model": dim, "d_ff": hidden, "num_layers": layers},
        **{"num_heads": heads, "num_kv_heads": kv_heads, "d_kv": features},
        **{"max_positions": length, "tie_embeddings": tokens > 0, "rope_theta": 10000.0},
        **{"rope_scaling": {}, "bos_token": 1, "eos_tokens": (2,), "scan_layers": True},
        "norm_epsilon": 1e-5,
    }
