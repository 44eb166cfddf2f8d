"""Reader of llama2.c's first binary form, for the tests that use its small trained models."""

import struct
from pathlib import Path

import numpy as np

from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import llama
from tsmjax.nn.functional import abstract, flatten, unflatten


def read(path: Path):
    """Return values of `llama.Config`, and parameters in their layout.

    llama2.c rotates neighbouring pairs (2i, 2i + 1) of a head, as Meta's own code does; queries and
    keys are permuted here to the halves (i, i + features/2) that everybody else rotates.
    """
    raw = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, length = struct.unpack("7i", raw[:28])
    features = dim // heads
    numbers = np.frombuffer(raw, np.float32, offset=28)

    def take(*shape):
        nonlocal numbers
        size = int(np.prod(shape))
        found, numbers = numbers[:size].reshape(shape), numbers[size:]
        return found

    def halves(x, count):
        x = x.reshape(layers, count, features // 2, 2, dim)
        return x.swapaxes(2, 3).reshape(layers, count * features, dim)

    flat = {"embed/embedding": take(abs(vocab), dim)}
    flat["blocks/attention/norm/scale"] = take(layers, dim)
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        kernel = take(layers, count * features, dim)
        flat[f"blocks/attention/{name}/kernel"] = kernel if name == "v" else halves(kernel, count)
    flat["blocks/attention/o/kernel"] = take(layers, dim, heads * features)
    flat["blocks/feed_forward/norm/scale"] = take(layers, dim)
    for name, shape in (("gate", (hidden, dim)), ("down", (dim, hidden)), ("up", (hidden, dim))):
        flat[f"blocks/feed_forward/{name}/kernel"] = take(layers, *shape)
    flat["final_norm/scale"] = take(dim)
    take(2, length, features // 2)  # cosines and sines
    if vocab < 0:
        flat["output/kernel"] = take(-vocab, dim)
    assert not numbers.size
    values = {
        **{"vocab_size": abs(vocab), "d_model": dim, "d_ff": hidden, "num_layers": layers},
        **{"num_heads": heads, "num_kv_heads": kv_heads, "d_kv": features},
        **{"max_positions": length, "tie_embeddings": vocab > 0, "rope_theta": 10000.0},
        **{"rope_scaling": {}, "bos_token": 1, "eos_tokens": (2,)},
    }
    flat = {
        name: np.ascontiguousarray(x.swapaxes(-1, -2) if name.endswith("kernel") else x)
        for name, x in flat.items()
    }
    config = build(llama.Config, values, "model")
    _, shapes, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    params = unflatten(flat)
    assert {p: x.shape for p, x in flatten(shapes).items()} == {p: x.shape for p, x in flat.items()}
    return values, params


def vocabulary(path: Path):
    """Return the texts of the tokens of a ``tok*.bin``."""
    raw = path.read_bytes()
    at, texts = 4, []
    while at < len(raw):
        _, size = struct.unpack_from("fi", raw, at)
        texts.append(raw[at + 8 : at + 8 + size].decode(errors="replace"))
        at += 8 + size
    return texts


def write(source: Path, folder: Path):
    """Write a llama2.c model as a Hugging Face folder."""
    values, params = read(source)
    weights.write(folder, "llama", values, params)
    return folder
