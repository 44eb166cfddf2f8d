"""SensorLLM: the splice, whom gradients reach, what is pooled."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.config import build
from tsmjax.errors import InputError
from tsmjax.models import chronos_t5, llama, sensorllm
from tsmjax.models.sensorllm import Compat, Config
from tsmjax.nn.functional import abstract, flatten, merge
from tsmjax.wearables.summaries import TOLD

CONFIG = Config(
    llm=llama.Config(
        **{"vocab_size": 20, "d_model": 16, "d_ff": 24, "num_layers": 1, "num_heads": 2},
        **{"num_kv_heads": 1, "d_kv": 8, "bos_token": 1, "eos_tokens": (2,)},
    ),
    encoder=chronos_t5.Config(
        **{"vocab_size": 40, "d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1},
        **{"num_heads": 2, "initializer_factor": 1.0},
        tokenizer=chronos_t5.Tokenizer(kind="StanNormalizeUniformBins", n_tokens=40),
    ),
    window=4,
    labels=("walk", "sit"),
    proj_hidden=(10, 14),
)
STATES = CONFIG.tokens_per_channel
LENGTHS = np.array([24, 22])


def prompts():
    """Tokens and ts_index (2, 24): BOS, three blocks of marker, states, marker; text; padding."""
    tokens, index = np.full((2, 24), 3), np.full((2, 24), -1)
    tokens[:, 0] = 1
    for channel in range(3):
        start = 1 + channel * (STATES + 2)
        tokens[:, start] = CONFIG.marker(channel, False)
        tokens[:, start + STATES + 1] = CONFIG.marker(channel, True)
        index[:, start + 1 : start + 1 + STATES] = channel * STATES + np.arange(STATES)
    tokens[:, 22:] = [[7, 8], [9, 9]]
    return tokens, index


def series():
    return np.random.default_rng(0).integers(3, 39, (2, 3, STATES))


@pytest.fixture(scope="module")
def params():
    _, shapes, _ = abstract(lambda rngs: sensorllm.Model(CONFIG, rngs=rngs))
    rng = np.random.default_rng(2)
    draw = lambda x: (0.3 * rng.normal(size=x.shape)).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, shapes)


def model_of(params, config=CONFIG):
    graph, _, _ = abstract(lambda rngs: sensorllm.Model(config, rngs=rngs))
    return merge(graph, params, {})


def test_states_are_spliced_as_a_loop_would(params):
    tokens, index = prompts()

    @jax.jit
    def pieces(params):
        model = model_of(params)
        features = model.encode(series())
        embedded = model.embed(tokens, index, features)
        table = jnp.concatenate([model.llm.embed.embedding[...], model.new_tokens.embedding[...]])
        return embedded, model.projection(features), table, features

    embedded, states, table, features = (np.asarray(x) for x in pieces(params))
    expected = np.zeros_like(embedded)
    for row in range(2):
        channel = place = None
        for at, token in enumerate(tokens[row]):
            if index[row, at] < 0:
                expected[row, at] = table[token]
                if token >= 20 and (token - 20) % 2 == 0:
                    channel, place = (token - 20) // 2, 0
            else:
                expected[row, at] = states[row, channel, place]
                place += 1
    np.testing.assert_array_equal(embedded, expected)
    # Each channel is encoded on its own.
    alone = jax.jit(lambda p: model_of(p).encoder(series()[1, 2][None]))(params)
    np.testing.assert_allclose(features[1, 2], alone[0], atol=1e-5)


def test_patches_join_neighbouring_states_and_numbers_join_start_markers(params):
    config = dataclasses.replace(CONFIG, proj_patch=2, statistics=True)
    assert (config.vectors(4), config.vectors(3), config.proj_widths) == (3, 2, (24, 10, 14, 16))
    _, shapes, _ = abstract(lambda rngs: sensorllm.Model(config, rngs=rngs))
    rng = np.random.default_rng(3)
    drawn = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    tokens = np.array([[1, 20, 0, 0, 0, 21, 22, 0, 0, 0, 23, 24, 0, 0, 0, 25, 7]])
    index = np.where(tokens == 0, np.cumsum(tokens == 0) - 1, -1)
    features = rng.normal(size=(1, 3, STATES, 12)).astype(np.float32)
    numbers = rng.normal(size=(1, 3, TOLD)).astype(np.float32)

    @jax.jit
    def pieces(params):
        model = model_of(params, config)
        joined = features.reshape(3, STATES, 12)
        joined = jnp.concatenate([joined, jnp.zeros((3, 1, 12))], axis=1).reshape(9, 24)
        return (
            model.embed(tokens, index, features, numbers),
            model.embed(tokens, index, features),
            model.projection(joined),
            model.statistics(numbers),
        )

    told, untold, states, added = (np.asarray(x) for x in pieces(drawn))
    np.testing.assert_allclose(told[0, index[0] >= 0], states, rtol=1e-5, atol=1e-4)
    expected = untold.copy()
    expected[0, [1, 6, 11]] += added[0]
    np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-4)


def test_projection_has_exact_gelus_between_its_layers(params):
    x = np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)
    found = jax.jit(lambda p: model_of(p).projection(x))(params)
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / 2**0.5)))
    expected = x.astype(np.float64)
    for number in ("0", "1", "2"):
        layer = params["projection"]["layers"][number]
        expected = gelu(expected) if number != "0" else expected
        expected = expected @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last_only", [False, True])
def test_every_channel_trains_the_projection(params, last_only):
    """Unless the reference's defect is asked for."""
    tokens, index = prompts()
    config = dataclasses.replace(CONFIG, compat=Compat(last_channel_grad_only=last_only))

    def loss(params, features):
        model = model_of(params, config)
        return (model.classify(model.embed(tokens, index, features), LENGTHS) ** 2).sum()

    features = jax.random.normal(jax.random.key(0), (2, 3, STATES, 12))
    grads, reached = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, features)
    per_channel = np.abs(reached).max(axis=(0, 2, 3))
    assert (per_channel[:2] > 0).all() == (not last_only)
    assert per_channel[2] > 0
    markers = np.abs(grads["new_tokens"]["embedding"]).max(axis=1)
    assert (markers[:4] > 0).all() == (not last_only)
    assert (markers[4:] > 0).all()
    for number in ("0", "1", "2"):
        assert np.abs(grads["projection"]["layers"][number]["kernel"]).max() > 0


def test_the_last_real_token_is_pooled(params):
    tokens, index = prompts()

    @jax.jit
    def logits(params, tokens, lengths):
        model = model_of(params)
        x = model.embed(tokens, index, model.encode(series()))
        return model.classify(x, lengths), model.llm.hidden(x)

    found, h = logits(params, tokens, LENGTHS)
    kernel = params["head"]["kernel"]
    np.testing.assert_allclose(found[0], h[0, 23] @ kernel, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], h[1, 21] @ kernel, rtol=1e-4, atol=1e-4)
    padded = tokens.copy()
    padded[1, 22:] = 15  # behind the end of the second prompt
    np.testing.assert_array_equal(logits(params, padded, LENGTHS)[0], found)
    assert np.abs(logits(params, padded, np.array([24, 24]))[0][1] - found[1]).max() > 1e-3


def test_published_sizes_of_the_trained_parts():
    sizes = {(2048,): 6_295_552, (2048, 3072): 14_687_232, (): 2_099_200}
    for hidden, expected in sizes.items():
        widths = (1024, *hidden, 2048)
        _, params, _ = abstract(lambda rngs, w=widths: sensorllm.Projection(w, rngs=rngs))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    _, params, _ = abstract(lambda rngs: sensorllm.Model(Config(), rngs=rngs))
    assert params["head"]["kernel"].size == 20_480
    assert params["new_tokens"]["embedding"].shape == (6, 2048)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"window": 600}, "model.window is 600 readings, but the encoder takes at most 512"),
        ({"labels": ()}, "model.labels is []"),
        ({"channels": ("x", "x")}, "model.channels is ['x', 'x']"),
        ({"proj_hidden": (0,)}, "model.proj_hidden is [0]"),
        ({"model_type": "CasualLM"}, "model.model_type is 'CasualLM'"),
        ({"llm": {"d_kv": 3}}, "d_kv is 3"),
        ({"encoder": {"tokeniser": {}}}, "model.encoder.tokeniser does not exist"),
    ],
)
def test_wrong_values_are_refused(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build(Config, values, "model")


def test_each_sharding_rule_is_used_and_covers_all():
    used = set()
    untied = llama.Config(**llama.PRESETS["8b"])
    for config in (Config(), Config(llm=untied)):
        _, params, _ = abstract(lambda rngs, c=config: sensorllm.Model(c, rngs=rngs))
        for path in flatten(params):
            used.add(next(i for i, (p, _) in enumerate(sensorllm.SHARDING) if re.search(p, path)))
    unused = {pattern for i, (pattern, _) in enumerate(sensorllm.SHARDING) if i not in used}
    assert not unused, unused
