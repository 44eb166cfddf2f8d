"""SensorLLM: the parts beside the language model, which other tools run themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tsmjax import config as config_lib
from tsmjax import pretrained
from tsmjax.errors import InputError, closest
from tsmjax.export.head import Head, Input
from tsmjax.export.heads.chronos_t5 import encoder, module
from tsmjax.models import sensorllm
from tsmjax.models.sensorllm import Projection
from tsmjax.nn.functional import Tree
from tsmjax.nn.linear import Linear

PARTS = ("projection", "head", "encoder")


def head(path: str, *, part: str | None = None) -> Head:
    """Describe a part.

    Args:
      path: run folder.
      part: "projection" maps states of the encoder to the width of the language model, "head" the
        state of the last token to activities, "encoder" tokens of a channel to states.

    Raises:
      InputError: when the model has no such part.
    """
    if part not in PARTS:
        named = "" if part is None else f"{closest(part, PARTS)}, not {part!r}"
        raise InputError(f"Say which part of SensorLLM: --part {', '.join(PARTS)}{named}.")
    found = pretrained.load(path)
    values = {name: value for name, value in found.config["model"].items() if name != "family"}
    config = config_lib.build(sensorllm.Config, values, "model")
    if part == "encoder":
        length = config.tokens_per_channel
        return encoder(config.encoder, found.params["encoder"], "sensorllm", part, length)
    width, states = config.llm.d_model, config.encoder.d_model
    facts: dict[str, Any] = {"channels": list(config.channels), "window": config.window}
    if part == "projection":
        widths = (states, *config.proj_hidden, width)
        return _dense(
            part,
            module(lambda rngs: Projection(widths, rngs=rngs), found.params["projection"]),
            ("states", states, "states of the encoder"),
            ("embeddings", f"(batch, {width}) vectors among the tokens of the language model"),
            facts,
            lambda x: x,
        )
    if config.model_type != "classification":
        raise InputError("This model writes the name of the activity: it has no head to export.")
    classes = len(config.labels)
    return _dense(
        part,
        module(lambda rngs: Linear(width, classes, std=0.0, rngs=rngs), found.params["head"]),
        ("hidden", width, "state of the language model at the last token of a prompt"),
        ("chances", f"(batch, {classes}) chances of the activities"),
        {**facts, "labels": list(config.labels)},
        jax.nn.softmax,
    )


def _dense(
    part: str,
    loaded: tuple[Tree, Callable[[Tree], Any]],
    given: tuple[str, int, str],
    result: tuple[str, str],
    facts: dict[str, Any],
    after: Callable[[jax.Array], jax.Array],
) -> Head:
    """Describe a module over single vectors."""
    weights, rebuild = loaded
    (name, width, meaning), (output, holds) = given, result

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {output: after(rebuild(weights)(batch[name]))}

    def sample(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        return {name: rng.normal(size=(rows, width)).astype(np.float32)}

    inputs = {name: Input((None, width), "float32", meaning)}
    facts = {"preprocessing": "none", **facts}
    return Head("sensorllm", part, function, weights, inputs, {output: holds}, facts, sample)
