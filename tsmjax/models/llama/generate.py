"""Text from Llama: greedy or sampled tokens, and how likely given answers are.

A prompt is given as vectors, so that it may hold more than tokens (see `Model.embed`). The prompts
of a batch are padded on the right; what is generated goes behind the padding, at positions that
continue the prompt's own.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tsmjax.errors import InputError
from tsmjax.models.llama.model import Cache, Model
from tsmjax.nn.sampling import Sampling

GREEDY = Sampling()


def generate(
    model: Model,
    prompt: jax.Array,
    lengths: jax.Array,
    *,
    count: int,
    sampling: Sampling = GREEDY,
    key: jax.Array | None = None,
    stop: tuple[int, ...] | None = None,
    pad: int = 0,
    embed: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Continue prompts token by token.

    Args:
      model: the language model.
      prompt: (B, L, D) vectors, padded on the right.
      lengths: (B,) int, tokens of each prompt, at least 1.
      count: number of tokens to generate, static.
      sampling: how tokens are drawn.
      key: random key; needed unless the most likely token is taken.
      stop: tokens that end a text; None for those of the model.
      pad: what stands behind the end of a text.
      embed: tokens (B, 1) → vectors (B, 1, D); None for the model's.

    Returns:
      (B, count) int32 tokens; the one that ended a text is the last before `pad`.

    Raises:
      InputError: when tokens are to be drawn without a key.
    """
    if key is None:
        if sampling.temperature != 0.0:
            raise InputError("Sampled tokens need a random key; or set temperature to 0.")
        key = jax.random.key(0)
    embed = model.embed if embed is None else embed
    rows, length, _ = prompt.shape
    h, cache = read_prompt(model, prompt, lengths, count)
    last = jnp.take_along_axis(h, (lengths - 1)[:, None, None], axis=1)
    ends = jnp.asarray(model.config.eos_tokens if stop is None else stop, jnp.int32)
    slots = jnp.arange(length + count)

    def draw(h: jax.Array, at: jax.Array, done: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = sampling.draw(model.logits(h[:, 0]), jax.random.fold_in(key, at))
        token = jnp.where(done, pad, token.astype(jnp.int32))
        return token, done | (token[:, None] == ends).any(axis=1)

    def unfinished(carry: tuple) -> jax.Array:
        at, _, _, done, _ = carry
        return (at < count) & ~done.all()

    def step(carry: tuple) -> tuple:
        at, tokens, cache, done, h = carry
        token, done = draw(h, at, done)
        tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, at))
        seen = (slots < lengths[:, None]) | ((slots >= length) & (slots <= length + at))
        h, cache = model.extend(
            embed(token[:, None]).astype(prompt.dtype),
            (lengths + at)[:, None],
            cache,
            length + at,
            seen[:, None],
        )
        return at + 1, tokens, cache, done, h

    tokens = jnp.full((rows, count), pad, jnp.int32)
    start = (jnp.int32(0), tokens, cache, jnp.zeros((rows,), bool), last)
    return jax.lax.while_loop(unfinished, step, start)[1]


def score(
    model: Model,
    prompt: jax.Array,
    lengths: jax.Array,
    answers: jax.Array,
    answer_lengths: jax.Array,
    *,
    embed: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Log-likelihood of each of some answers to each prompt.

    The prompt is read once; each answer then costs as much as its own tokens.

    Args:
      model: the language model.
      prompt: (B, L, D) vectors, padded on the right.
      lengths: (B,) int, tokens of each prompt, at least 1.
      answers: (K, T) int tokens, padded on the right.
      answer_lengths: (K,) int, tokens of each answer.
      embed: tokens → vectors; None for the model's.

    Returns:
      (B, K) fp32: for each answer the sum over its tokens of log p(token | all before it).
    """
    embed = model.embed if embed is None else embed
    rows, length, _ = prompt.shape
    count = answers.shape[1]
    h, cache = read_prompt(model, prompt, lengths, count)
    last = jnp.take_along_axis(h, (lengths - 1)[:, None, None], axis=1)
    slots = jnp.arange(length + count)
    offsets = jnp.arange(count)
    seen = (slots < lengths[:, None, None]) | (
        (slots >= length) & (slots <= length + offsets[:, None])
    )

    def one(answer: tuple[jax.Array, jax.Array]) -> jax.Array:
        tokens, used = answer
        x = jnp.broadcast_to(embed(tokens), (rows, count, prompt.shape[-1])).astype(prompt.dtype)
        states, _ = model.extend(x, lengths[:, None] + offsets, cache, length, seen)
        before = jnp.concatenate([last, states[:, :-1]], axis=1)
        chances = jax.nn.log_softmax(model.logits(before), axis=-1)
        index = jnp.broadcast_to(tokens, (rows, count))[..., None]
        picked = jnp.take_along_axis(chances, index, axis=-1)[..., 0]
        return jnp.where(offsets < used, picked, 0.0).sum(axis=1)

    return jax.lax.map(one, (answers, answer_lengths)).T


def read_prompt(
    model: Model, prompt: jax.Array, lengths: jax.Array, room: int
) -> tuple[jax.Array, Cache]:
    """Run prompts (B, L, D) and keep their keys and values, with `room` for further tokens.

    Returns:
      States after the final norm (B, L, D), and the cache of L + room slots.
    """
    rows, length, _ = prompt.shape
    at, slots = jnp.arange(length), jnp.arange(length + room)
    seen = (slots <= at[:, None]) & (slots < lengths[:, None, None])
    return model.extend(prompt, at, model.cache(rows, length + room, prompt.dtype), 0, seen)
