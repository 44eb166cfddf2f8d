"""The Chronos-T5 encoder: tokens of series in, states out."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax import config as config_lib
from tsmjax import pretrained
from tsmjax.export.head import Head, Input, size
from tsmjax.models import chronos_t5
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree


def head(path: str, *, length: int | None = None) -> Head:
    """Describe the encoder at a fixed length.

    Args:
      path: Hugging Face folder or hub id.
      length: tokens of a series, the end token included; None for the longest.
    """
    found = pretrained.load(path)
    values = {name: value for name, value in found.config["model"].items() if name != "family"}
    config = config_lib.build(chronos_t5.Config, values, "model")
    return encoder(config, found.params, "chronos_t5", "model", length)


def encoder(
    config: chronos_t5.Config, params: Tree, family: str, part: str, length: int | None
) -> Head:
    """Describe an encoder with the given parameters."""
    tokenizer = config.tokenizer
    most = tokenizer.context_length + tokenizer.use_eos_token
    length = size("length", length, most, 1, most)
    weights, rebuild = module(lambda rngs: chronos_t5.Model(config, rngs=rngs), params)
    inputs = {
        "tokens": Input((None, length), "int32", "bins of the scaled series and the end token"),
        "mask": Input((None, length), "bool", "false where a value is missing"),
    }

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"states": rebuild(weights)(batch["tokens"], batch["mask"]).astype(jnp.float32)}

    def sample(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        tokens = rng.integers(0, config.vocab_size, (rows, length)).astype(np.int32)
        return {"tokens": tokens, "mask": rng.random((rows, length)) < 0.9}

    return Head(
        *(family, part, function, weights, inputs),
        {"states": f"(batch, {length}, {config.d_model}); meaningless where a value is missing"},
        {
            "preprocessing": "before: tokens of a series as the tokenizer says (scale, then the "
            "number of the bin, bins being even between its limits)",
            "tokenizer": dataclasses.asdict(tokenizer),
        },
        sample,
    )


def module(build, params: Tree):
    """Return (weights, how to rebuild the module) of a module with loaded parameters."""
    graph, expected, _ = functional.abstract(build)
    chosen, _ = pretrained.fit(params, expected, (), "the checkpoint")
    chosen = jax.tree.map(lambda x: np.asarray(x, np.float32), chosen)
    return chosen, lambda weights: functional.merge(graph, weights, {})
