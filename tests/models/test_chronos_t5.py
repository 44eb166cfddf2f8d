"""Chronos-T5 and its tokenizers: golden numbers, gaps, limits, continuations."""

import dataclasses
import json
import re

import golden_chronos_t5 as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from tsmjax import weights
from tsmjax.config import build
from tsmjax.errors import InputError
from tsmjax.models import chronos_t5
from tsmjax.models.chronos_t5 import Tokenizer, buckets, decode, tokenize
from tsmjax.nn.functional import abstract, flatten, merge
from tsmjax.nn.sampling import Sampling
from tsmjax.weights import chronos_t5 as table

SMALL = {
    **{"vocab_size": 24, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "tokenizer": Tokenizer(n_tokens=24),
}
STANDARDISED = Tokenizer(kind="StanNormalizeUniformBins")


def read(name, folder):
    """Write the tensors of the formula like the reference does, and read them."""
    case = {"model_type": "t5", **golden.CASES[name], "chronos_config": golden.TOKENIZER}
    config = build(chronos_t5.Config, table.to_config(case), "model")
    _, shapes, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    names = weights.tensors("chronos_t5", dataclasses.asdict(config), fresh)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case))
    tensors = {name: golden.weight(name, x.shape) for name, x in names.items()}
    save_file(tensors, folder / "model.safetensors")
    return config, weights.read(folder)


@pytest.mark.parametrize("name", golden.CASES)
def test_golden_states_and_gradients(name, tmp_path):
    """Scanned, and with everything recomputed in the backward pass."""
    expected = np.load(golden.FIXTURE)
    config, found = read(name, tmp_path / "m")
    config = dataclasses.replace(config, remat="full")
    graph, _, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))
    ids, mask = golden.tokens()

    def total(params):
        h = merge(graph, params, {})(ids, mask)
        return (h**2 * mask[..., None]).sum(), h

    (_, h), tree = jax.jit(jax.value_and_grad(total, has_aux=True))(found.params)
    np.testing.assert_allclose(h[:, ::7], expected[f"{name}/states"], atol=2e-5)
    named = weights.tensors("chronos_t5", found.config_values, tree)
    assert sorted(named) == expected[f"{name}/tensors"].tolist()
    norms = [np.linalg.norm(named[key]) for key in sorted(named)]
    np.testing.assert_allclose(norms, expected[f"{name}/gradients"], rtol=1e-4, atol=1e-4)


def test_relative_positions_share_biases_from_eight_steps_on():
    found = buckets(301, 32, 128)
    behind = {
        **{7: 7, 8: 8, 11: 8, 12: 9, 15: 9, 16: 10, 22: 10, 23: 11, 31: 11, 32: 12, 45: 12},
        **{46: 13, 63: 13, 64: 14, 90: 14, 91: 15, 300: 15, 0: 0},
    }
    for distance, bucket in behind.items():
        assert found[300, 300 - distance] == bucket, distance
    assert (found[0, 16], found[0, 128], found[0, 1]) == (26, 31, 17)


@pytest.mark.parametrize(
    ("series", "ids", "loc", "scale"),
    [
        ([1, 2, 3, 4, 5], [1856, 1953, 2049, 2145, 2242], 3.0, 1.414213566),
        ([0.5] * 4, [2049] * 4, 0.5, 1e-4),
        ([0, 0, 0, 1], [1970, 1970, 1970, 2285], 0.25, 0.4330127134),
        ([1, np.nan, 3], [1913, 0, 2185], 2.0, 1.000000005),
        (
            np.sin(0.3 * np.arange(12)),
            [1855, 1961, 2057, 2136, 2189, 2212, 2204, 2164, 2097, 2008, 1906, 1799],
            0.5413581695,
            0.3812081481,
        ),
        ([np.nan, np.inf], [0, 0], 0.0, 1.0),
    ],
)
def test_golden_tokens_of_standardised_series(series, ids, loc, scale):
    found = tokenize(STANDARDISED, np.asarray(series, np.float64))
    assert found.ids.tolist() == [*ids, 1]
    assert found.mask.tolist() == [*np.isfinite(series), True]
    np.testing.assert_allclose([found.loc, found.scale], [loc, scale], rtol=1e-9)


def test_golden_tokens_of_mean_scaled_series():
    found = tokenize(Tokenizer(), np.array([[1.0, -2.0, 3.0, np.nan], [0.0, 0.0, 0.0, 0.0]]))
    # z is 0.5, -1 and 1.5; 2049 is the bin of zero, and a bin is 30 / 4092 wide.
    assert found.ids.tolist() == [[2117, 1913, 2254, 0, 1], [2049, 2049, 2049, 2049, 1]]
    assert found.scale.tolist() == [2.0, 1.0]


def test_many_series_are_tokenized_like_each_of_them():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((3, 4, 50)) < 0.1, np.nan, rng.normal(size=(3, 4, 50)))
    for tokenizer in (STANDARDISED, Tokenizer(use_eos_token=False)):
        found = tokenize(tokenizer, x)
        assert found.ids.dtype == np.int32
        for index in np.ndindex(3, 4):
            alone = tokenize(tokenizer, x[index])
            for a, b in zip(alone, found, strict=True):
                np.testing.assert_array_equal(a, b[index])


def test_tokens_decode_to_within_half_a_bin():
    x = np.random.default_rng(1).normal(5.0, 3.0, (6, 200))
    for tokenizer in (STANDARDISED, Tokenizer()):
        found = tokenize(tokenizer, x)
        again = decode(tokenizer, found.ids[:, :-1], found.loc, found.scale)
        assert np.abs((again - x) / found.scale[:, None]).max() < 15 / 4092 * 1.001


def test_long_series_keep_their_end_and_huge_values_the_last_bin():
    x = np.random.default_rng(2).normal(size=700)
    found = tokenize(STANDARDISED, x)
    assert found.ids.shape == (513,)
    np.testing.assert_array_equal(found.ids, tokenize(STANDARDISED, x[-512:]).ids)
    outlier = tokenize(STANDARDISED, np.eye(1, 400)[0])  # 20 deviations
    assert outlier.ids[0] == 4095
    assert tokenize(Tokenizer(n_tokens=8), np.array([1e30, 1.0])).ids.tolist() == [5, 5, 1]


def test_published_sizes():
    _, params, _ = abstract(lambda rngs: chronos_t5.Model(chronos_t5.Config(), rngs=rngs))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 306_234_880
    np.testing.assert_allclose(chronos_t5.flops(chronos_t5.Config(), 3, 304), 0.58e12, rtol=0.02)


def test_published_sizes_with_the_decoder():
    """Announced as models of 8, 20, 46, 200 and 710 million."""
    millions = {"tiny": 8.4, "mini": 20.5, "small": 46.2, "base": 201.4, "large": 709.0}
    for name, expected in millions.items():
        config = chronos_t5.Config(**chronos_t5.PRESETS[name], decoder=True)
        _, params, _ = abstract(lambda rngs, c=config: chronos_t5.Model(c, rngs=rngs))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert round(count / 1e6, 1) == expected, name


@pytest.mark.parametrize("scan_layers", [True, False])
def test_continuations_follow_the_logits_of_what_came_before(scan_layers):
    """Token by token through the memory, as in one pass over the finished continuation."""
    config = chronos_t5.Config(
        **{**SMALL, "scan_layers": scan_layers, "decoder": True}, initializer_factor=1.0
    )
    model = chronos_t5.Model(config, rngs=nnx.Rngs(0))
    series = np.random.default_rng(0).normal(size=(3, 20)).cumsum(axis=1)
    series[1, 4:9] = np.nan
    tokens = tokenize(config.tokenizer, series)
    draw = jax.jit(
        lambda key: chronos_t5.sample(
            model, tokens.ids, tokens.mask, steps=12, count=2, key=key, sampling=sampling
        )
    )
    sampling, key = Sampling(temperature=1.5, top_k=15), jax.random.key(1)
    drawn = draw(key)
    assert drawn.shape == (3, 2, 12) and not (drawn == config.tokenizer.eos_token).any()
    assert (drawn[:, 0] != drawn[:, 1]).any() and (drawn != draw(jax.random.key(2))).any()
    before = np.pad(drawn[..., :-1], ((0, 0), (0, 0), (1, 0)))
    states = model(tokens.ids, tokens.mask)
    logits = np.stack([model.decode(x, states, tokens.mask) for x in before.swapaxes(0, 1)], 1)
    logits[..., config.tokenizer.eos_token] = jnp.finfo(jnp.float32).min
    for at in range(12):
        again = sampling.draw(
            jnp.asarray(logits[:, :, at].reshape(6, -1)), jax.random.fold_in(key, at)
        )
        np.testing.assert_array_equal(again.reshape(3, 2), drawn[:, :, at])
    values = decode(config.tokenizer, drawn, tokens.loc[:, None], tokens.scale[:, None])
    assert values.shape == drawn.shape and np.isfinite(values).all()


def test_an_encoder_alone_draws_nothing():
    model = chronos_t5.Model(chronos_t5.Config(**SMALL), rngs=nnx.Rngs(0))
    with pytest.raises(
        InputError, match=r"encoder alone, which cannot forecast: take .* --decoder"
    ):
        chronos_t5.sample(model, np.ones((1, 3), np.int32), steps=2, count=1, key=jax.random.key(0))


def test_the_encoder_beside_a_longer_decoder_is_read_and_the_decoder_refused(tmp_path):
    config = chronos_t5.Config(**SMALL, decoder=True)
    _, shapes, _ = abstract(lambda rngs: chronos_t5.Model(config, rngs=rngs))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    weights.write(tmp_path / "m", "chronos_t5", dataclasses.asdict(config), fresh)
    entries = json.loads((tmp_path / "m/config.json").read_text())
    del entries["tsmjax"]
    (tmp_path / "m/config.json").write_text(json.dumps(entries | {"num_decoder_layers": 3}))
    tensors = load_file(tmp_path / "m/model.safetensors")
    more = {
        name.replace("decoder.block.1.", "decoder.block.2."): x
        for name, x in tensors.items()
        if name.startswith("decoder.block.1.")
    }
    save_file(tensors | more, tmp_path / "m/model.safetensors")
    assert weights.read(tmp_path / "m").params.keys() == fresh.keys() - {"decoder"}
    with pytest.raises(InputError, match=r"unexpected decoder\.block\.2\."):
        weights.read(tmp_path / "m", model_overrides={"decoder": True})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"relative_buckets": 30}, "relative_buckets is 30"),
        ({"relative_max_distance": 8}, "relative_max_distance is 8"),
        ({"vocab_size": 32}, "tokenizer.n_tokens is 4096, but the model has only"),
        ({"feed_forward": "gelu"}, "feed_forward is 'gelu'"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"tokenizer": {"low_limit": 15.0}}, "high_limit is 15.0"),
        ({"tokenizer": {"n_tokens": 4}}, "n_tokens is 4"),
        ({"tokenizer": {"context_length": 0}}, "context_length is 0"),
        ({"tokenizer": {"kind": "StanNormalizeUniformBin"}}, "did you mean 'StanNormalizeUnif"),
    ],
)
def test_wrong_values_are_refused(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build(chronos_t5.Config, values, "model")


def test_each_sharding_rule_is_used_and_covers_all():
    used = set()
    for preset in chronos_t5.PRESETS.values():
        config = chronos_t5.Config(**preset, decoder=True)
        _, params, _ = abstract(lambda rngs, c=config: chronos_t5.Model(c, rngs=rngs))
        for path in flatten(params):
            used.add(next(i for i, (p, _) in enumerate(chronos_t5.SHARDING) if re.search(p, path)))
    assert used == set(range(len(chronos_t5.SHARDING)))
