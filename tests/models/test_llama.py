"""Llama: golden numbers of the reference, caches, packing, generation."""

import dataclasses
import json
import re

import golden_llama as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dot_flops import dot_flops
from flax import nnx
from safetensors.numpy import save_file

from tsmjax import weights
from tsmjax.config import build
from tsmjax.errors import InputError
from tsmjax.models import llama
from tsmjax.nn.functional import abstract, flatten, merge
from tsmjax.nn.losses import cross_entropy
from tsmjax.weights import llama as table

TOKENS = golden.tokens()
NONE = jnp.array([-1])  # no token ends a text
TINY = {**llama.PRESETS["tiny"], "vocab_size": 40, "num_layers": 3}


def read(name, folder):
    """Write the tensors of the formula like the reference does, and read them."""
    case = {"model_type": "llama", **golden.CASES[name]}
    config = build(llama.Config, table.to_config(case), "model")
    _, shapes, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    names = weights.tensors("llama", dataclasses.asdict(config), fresh)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case))
    save_file(
        {k: golden.weight(k, x.shape) for k, x in names.items()}, folder / "model.safetensors"
    )
    return config, weights.read(folder)


def module(config, params):
    graph, _, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    return merge(graph, params, {})


class Compiled:
    """The case "llama3", each use of it compiled for one shape."""

    def __init__(self, config, params):
        self.config, self.params = config, params
        model = lambda params: module(config, params)  # noqa: E731
        self._forward = jax.jit(lambda p, tokens: model(p)(tokens))
        self._hidden = jax.jit(
            lambda p, tokens, *layout: model(p).hidden(model(p).embed(tokens), *layout)
        )

        @jax.jit
        def generate(p, tokens, lengths, stop):
            x = model(p).embed(tokens)
            return llama.generate(model(p), x, lengths, count=8, stop=stop, pad=-7)

        self._generate = generate
        self._score = jax.jit(
            lambda p, tokens, *rest: llama.score(model(p), model(p).embed(tokens), *rest)
        )

    def forward(self, texts):
        """Logits of texts of up to 20 tokens."""
        padded = np.full((2, 20), 39)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        return np.asarray(self._forward(self.params, padded))

    def hidden(self, tokens, positions, segments):
        return np.asarray(self._hidden(self.params, tokens, positions, segments))

    def generate(self, lengths, stop=NONE):
        padded = np.where(np.arange(9) < np.asarray(lengths)[:, None], TOKENS[:, :9], 33)
        return np.asarray(self._generate(self.params, padded, jnp.asarray(lengths), stop))

    def score(self, *arguments):
        return np.asarray(self._score(self.params, *arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def model(folder):
    config, found = read("llama3", folder / "shared")
    return Compiled(config, found.params)


@pytest.mark.parametrize("name", golden.CASES)
def test_golden_logits_loss_and_gradients(name, folder):
    """Scanned, and with everything recomputed in the backward pass."""
    expected = np.load(golden.FIXTURE)
    config, found = read(name, folder / name)
    config = dataclasses.replace(config, remat="full")

    def loss(params):
        logits = module(config, params)(TOKENS)
        return cross_entropy(logits[:, :-1], TOKENS[:, 1:]).mean(), logits

    (value, logits), tree = jax.jit(jax.value_and_grad(loss, has_aux=True))(found.params)
    np.testing.assert_allclose(logits[:, ::5], expected[f"{name}/logits"], atol=2e-5)
    np.testing.assert_allclose(value, expected[f"{name}/loss"], rtol=1e-5)
    named = weights.tensors("llama", found.config_values, tree)
    assert sorted(named) == expected[f"{name}/tensors"].tolist()
    norms = [np.linalg.norm(named[key]) for key in sorted(named)]
    np.testing.assert_allclose(norms, expected[f"{name}/gradients"], rtol=1e-4)


def test_golden_text_comes_out_of_the_cache(model):
    expected = np.load(golden.FIXTURE)["llama3/generated"]
    np.testing.assert_array_equal(model.generate([6, 6]), expected)


def test_scanned_layers_equal_unrolled_ones(model):
    config = dataclasses.replace(model.config, scan_layers=False)
    _, layout, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    params = weights.relayout(model.params, layout)
    found = jax.jit(lambda p: module(config, p)(TOKENS))(params)
    np.testing.assert_allclose(found, model.forward(TOKENS), atol=1e-5)


def test_low_frequencies_of_llama_3_2_are_divided():
    found = llama.Config().frequencies()
    expected = {
        **{14: 3.2114460e-3, 15: 1.2905479e-3, 16: 4.2955680e-4, 17: 9.7082878e-5},
        **{18: 1.9461638e-5, 31: 9.4183067e-8},
    }
    for index, value in expected.items():
        np.testing.assert_allclose(found[index], value, rtol=2e-6)


def test_published_sizes():
    counts = {"1b": 1_235_814_400, "3b": 3_212_749_824, "8b": 8_030_261_248}
    for name, expected in counts.items():
        config = llama.Config(**llama.PRESETS[name])
        _, params, _ = abstract(lambda rngs, c=config: llama.Model(c, rngs=rngs))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    # Every weight once for each token, and the attention beside.
    products = 2 * counts["1b"] * 1350 + 4 * 16 * 1350**2 * 2048
    np.testing.assert_allclose(llama.flops(llama.Config(), 1, 1350), products, rtol=1e-4)


def test_nothing_sees_the_future(model):
    other = TOKENS.copy()
    other[:, 12:] = (other[:, 12:] + 5) % 40
    a, b = model.forward(TOKENS), model.forward(other)
    np.testing.assert_array_equal(a[:, :12], b[:, :12])
    assert np.abs(a[:, 12] - b[:, 12]).max() > 1e-3


def test_packed_texts_equal_texts_of_their_own(model):
    lengths = [7, 9]
    texts = [TOKENS[row, :length] for row, length in enumerate(lengths)]
    packed = np.concatenate([*texts, np.zeros(4, int)])[None]
    segments = np.repeat([0, 1, -1], [*lengths, 4])[None]
    positions = np.concatenate([np.arange(7), np.arange(9), np.zeros(4, int)])[None]
    h = model.hidden(packed, positions, segments)
    assert np.isfinite(h).all()
    for row, (start, length) in enumerate(zip([0, 7], lengths, strict=True)):
        alone = model.hidden(TOKENS[None, row], np.arange(20)[None], np.zeros((1, 20), int))
        np.testing.assert_allclose(h[0, start : start + length], alone[0, :length], atol=1e-5)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_last_block_computes_the_wanted_states_alone(scan_layers):
    config = llama.Config(**TINY, scan_layers=scan_layers)
    model = llama.Model(config, rngs=nnx.Rngs(0))
    x = model.embed(jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, 12))))
    segments = np.array([[0] * 5 + [1] * 7, [0] * 9 + [-1] * 3])
    positions = np.array([[*range(5), *range(7)], [*range(9), 0, 0, 0]])
    places = np.array([[4, 11], [2, 8]])
    whole = model.hidden(x, positions, segments)
    some = model.hidden(x, positions, segments, places)
    np.testing.assert_allclose(some, whole[[[0], [1]], places], atol=2e-6)
    plain = model.hidden(x, places=places)
    np.testing.assert_allclose(plain, model.hidden(x)[[[0], [1]], places], atol=2e-6)


def test_flops_count_the_matmuls():
    config = llama.Config(**TINY, scan_layers=False)
    graph, params, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))
    x, places = np.zeros((3, 12, config.d_model), np.float32), np.zeros((3, 2), int)

    def forward(params):
        model = merge(graph, params, {})
        return model.logits(model.hidden(x, places=places))

    lines = jax.jit(forward).lower(params).as_text().splitlines()
    products = sum(dot_flops(line) for line in lines if "stablehlo.dot_general" in line)
    assert llama.flops(config, 3, 12, 2) == products


def test_prompts_of_several_lengths_continue_as_they_do_alone(model):
    lengths = [9, 5]
    found = model.generate(lengths)
    texts = [TOKENS[row, :length].tolist() for row, length in enumerate(lengths)]
    for _ in range(8):
        logits = model.forward(texts)
        for row, text in enumerate(texts):
            text.append(int(logits[row, len(text) - 1].argmax()))
    assert [text[-8:] for text in texts] == found.tolist()


def test_a_text_ends_at_a_stop_token_and_is_padded(model):
    whole = model.generate([6, 6])
    end = int(whole[0, 2])
    first = whole[0].tolist().index(end)
    found = model.generate([6, 6], jnp.array([end]))
    assert found[0].tolist() == [*whole[0, : first + 1], *[-7] * (7 - first)]
    assert (found[1] >= 0).sum() == [*whole[1].tolist(), end].index(end) + (end in whole[1])


def test_sampling_keeps_to_the_likely_tokens():
    chances = np.array([0.5, 0.3, 0.15, 0.05])
    cases = {
        llama.Sampling(temperature=1.0): 4,
        llama.Sampling(temperature=1.0, top_k=2): 2,
        llama.Sampling(temperature=1.0, top_p=0.79): 2,  # 0.5 is not enough, 0.8 is
        llama.Sampling(temperature=1.0, top_p=0.81): 3,
        llama.Sampling(): 1,
    }
    logits = np.tile(np.log(chances), (4000, 1))
    draw = jax.jit(lambda logits, key: [sampling.draw(logits, key) for sampling in cases])
    for drawn, possible in zip(draw(logits, jax.random.key(0)), cases.values(), strict=True):
        expected = np.where(np.arange(4) < possible, chances, 0.0)
        shares = np.bincount(drawn, minlength=4) / 4000
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


def test_answers_score_like_the_whole_text(model):
    lengths, used = np.array([9, 5]), np.array([3, 1, 2])
    answers = np.array([[3, 8, 1], [7, 0, 0], [30, 2, 0]])
    found = model.score(TOKENS[:, :9], lengths, answers, used)
    for index, answer in enumerate(answers):
        texts = [[*TOKENS[row, : lengths[row]], *answer[: used[index]]] for row in range(2)]
        logits = model.forward(texts).astype(np.float64)
        chances = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        for row, text in enumerate(texts):
            picked = chances[row, np.arange(len(text) - 1), text[1:]]
            expected = picked[lengths[row] - 1 :].sum()
            np.testing.assert_allclose(found[row, index], expected, atol=1e-5)


def test_drawing_needs_a_key():
    with pytest.raises(InputError, match="random key"):
        llama.generate(None, None, None, count=2, sampling=llama.Sampling(temperature=0.6))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_kv_heads": 5}, "num_heads is 32, which model.num_kv_heads = 5 does not divide"),
        ({"d_kv": 7}, "d_kv is 7"),
        ({"d_model": 0}, "d_model is 0"),
        ({"bos_token": 200000}, "200000, but model.vocab_size is 128256"),
        ({"remat": "dot"}, "did you mean 'dots'"),
        ({"rope_scaling": {"kind": "yarn"}}, "rope_scaling"),
        ({"rope_scaling": {"kind": "linear", "factor": 0.0}}, "factor is 0.0"),
        ({"rope_scaling": {"kind": "llama3", "low_freq_factor": 4.0}}, "the first smaller"),
    ],
)
def test_wrong_values_are_refused(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build(llama.Config, values, "model")


def test_each_sharding_rule_is_used_and_covers_all():
    used = set()
    for preset in llama.PRESETS.values():
        config = llama.Config(**preset)
        _, params, _ = abstract(lambda rngs, c=config: llama.Model(c, rngs=rngs))
        for path in flatten(params):
            used.add(next(i for i, (p, _) in enumerate(llama.SHARDING) if re.search(p, path)))
    assert used == set(range(len(llama.SHARDING)))
