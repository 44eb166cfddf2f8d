"""Forecasts of Chronos: continuations of a series, drawn token by token."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tsmjax.errors import InputError
from tsmjax.models.chronos_t5.decoder import Memory
from tsmjax.models.chronos_t5.model import Model
from tsmjax.nn.sampling import Sampling

PUBLISHED = Sampling(temperature=1.0, top_k=50)  # of the published models


def sample(
    model: Model,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    *,
    steps: int,
    count: int,
    key: jax.Array,
    sampling: Sampling = PUBLISHED,
) -> jax.Array:
    """Draw continuations of each series.

    The end token is never drawn, so that each has all its steps. `decode` turns the result into
    values.

    Args:
      model: a model with a decoder.
      tokens: (B, L) int, see `Model.__call__`.
      mask: (B, L) bool, False where a value is missing; None for nowhere.
      steps: steps of a continuation, static.
      count: continuations of each series, S, static.
      key: random key.
      sampling: how tokens are drawn.

    Returns:
      (B, S, steps) int32 tokens.

    Raises:
      InputError: when the model is the encoder alone.

    Source: Ansari et al. (2024), section 3.4.
    """
    decoder = model.decoder
    if decoder is None:
        raise InputError(
            "This Chronos-T5 is the encoder alone, which cannot forecast: take its weights in with "
            "the decoder (python -m convert import chronos_t5 SOURCE RUN --decoder)."
        )
    tokenizer = model.config.tokenizer
    start = jnp.full((tokens.shape[0], count), tokenizer.pad_token, jnp.int32)
    memory = decoder.start(model(tokens, mask), count, steps)

    def advance(
        carry: tuple[jax.Array, Memory], at: jax.Array
    ) -> tuple[tuple[jax.Array, Memory], jax.Array]:
        h, memory = decoder.extend(model.embed(carry[0]), at, carry[1], mask)
        logits = model.logits(h).at[..., tokenizer.eos_token].set(jnp.finfo(jnp.float32).min)
        drawn = sampling.draw(logits.reshape(-1, logits.shape[-1]), jax.random.fold_in(key, at))
        drawn = drawn.reshape(start.shape).astype(jnp.int32)
        return (drawn, memory), drawn

    _, drawn = jax.lax.scan(advance, (start, memory), jnp.arange(steps))
    return jnp.moveaxis(drawn, 0, -1)
