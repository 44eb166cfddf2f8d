"""Our Llama and Chronos-T5 against transformers, on the same weights and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from convert import llama2c, reference, verify, verify_chronos_t5, verify_llama
from convert.__main__ import main
from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import chronos_t5, llama
from tsmjax.nn.functional import abstract, merge

SIZE = {
    **{"vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3},
    **{"num_attention_heads": 6, "max_position_embeddings": 256, "rms_norm_eps": 1e-5},
}
LLAMA = {
    "shared key heads and llama3 scaling": {
        **{"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
        "rope_parameters": {
            **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0},
            **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
            "original_max_position_embeddings": 64,
        },
    },
    "untied, linear scaling": {
        **{"num_key_value_heads": 6, "tie_word_embeddings": False},
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
}
T5 = {
    **{"vocab_size": 100, "d_model": 48, "d_kv": 8, "d_ff": 80, "num_layers": 3, "num_heads": 6},
    "chronos_config": {
        **{"tokenizer_class": "MeanScaleUniformBins", "n_tokens": 96, "n_special_tokens": 2},
        **{"tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}, "context_length": 160},
        **{"pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True, "model_type": "seq2seq"},
    },
}


def assert_agree(rows):
    bad = [f"{r.name}: {r.error:.3g} > {r.tolerance:.3g}" for r in rows if not r.ok]
    assert not bad, "\n".join(bad)


def gradients(rows):
    return [row for row in rows if row.name.startswith("gradient")]


@pytest.mark.parametrize("name", LLAMA)
def test_llama_agrees_in_every_block_and_gradient(name, tmp_path):
    """Read from several files, as large models are stored."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZE, **LLAMA[name]))
    folder = reference.save_moved(model, tmp_path / "m", max_shard_size="100KB")
    assert (folder / "model.safetensors.index.json").exists()
    rows = verify_llama.verify(folder)
    assert_agree(rows)
    assert len(gradients(rows)) == 3 * 9 + 2 + (name.startswith("untied"))


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
def test_chronos_t5_agrees_in_every_block_and_gradient(activation, tmp_path):
    torch.manual_seed(0)
    config = T5Config(**T5, feed_forward_proj=activation, initializer_factor=0.3)
    rows = verify_chronos_t5.verify(reference.save_moved(T5EncoderModel(config), tmp_path / "m"))
    assert_agree(rows)
    assert len(gradients(rows)) == 3 * (8 if activation == "relu" else 9) + 3


def test_the_decoder_of_chronos_t5_agrees_and_continues_series_alike(tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        **{**T5, "is_encoder_decoder": True, "decoder_start_token_id": 0},
        **{"feed_forward_proj": "gated-gelu", "initializer_factor": 0.5},
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():  # a large table would make every token its own likeliest successor
        model.shared.weight.mul_(0.1)
    folder = reference.save_moved(model, tmp_path / "m")
    out = tmp_path / "whole"
    assert main(["export", "chronos_t5", str(folder), str(out), "--decoder"]) == 0
    rows = verify_chronos_t5.verify(out)
    assert_agree(rows)
    blocks = T5["num_layers"]
    assert len(gradients(rows)) == blocks * (5 + 4) + blocks * (5 + 5 + 4) + 5

    found = weights.read(out)
    settings = build(chronos_t5.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: chronos_t5.Model(settings, rngs=rngs))
    series = verify_chronos_t5.example(30)
    tokens = chronos_t5.tokenize(settings.tokenizer, series)
    greedy = llama.Sampling(temperature=0.0)
    drawn = jax.jit(
        lambda params: chronos_t5.sample(
            *(merge(graph, params, {}), tokens.ids, tokens.mask),
            **{"steps": 20, "count": 2, "key": jax.random.key(0), "sampling": greedy},
        )
    )(found.params)
    with torch.no_grad():
        expected = T5ForConditionalGeneration.from_pretrained(out).generate(
            torch.from_numpy(tokens.ids).long(),
            attention_mask=torch.from_numpy(tokens.mask.astype(np.int64)),
            **{"min_new_tokens": 20, "max_new_tokens": 20, "do_sample": False},
        )
    for number in range(2):
        np.testing.assert_array_equal(drawn[:, number], expected.numpy()[:, 1:])
    assert len(np.unique(drawn)) > 3, "the model repeats itself: the comparison says little"


def test_a_trained_llama_agrees_and_tells_a_story(test_data, tmp_path):
    source = test_data / "weights/stories260K"
    found = llama2c.read(source / "stories260K.bin")
    rows = verify.rows(found)
    assert_agree(rows)
    assert len(gradients(rows)) == 47
    folder = tmp_path / "m"
    assert main(["export", "llama", str(source / "stories260K.bin"), str(folder)]) == 0
    config = build(llama.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))

    @jax.jit
    def tell(params):
        model = merge(graph, params, {})
        return llama.generate(model, model.embed(jnp.array([[1]])), jnp.array([1]), count=30)

    tokens = tell(found.params)[0]
    with torch.no_grad():
        expected = (
            LlamaForCausalLM.from_pretrained(folder)
            .generate(torch.tensor([[1]]), max_new_tokens=30, do_sample=False)
            .numpy()[0, 1:]
        )
    np.testing.assert_array_equal(tokens, expected)
    texts = llama2c.vocabulary(source / "tok512.bin")
    assert "".join(texts[i] for i in tokens).startswith(" Once upon a time, there was")


def test_the_encoder_of_a_chronos_checkpoint_agrees_by_command(test_data, capsys):
    folder = test_data / "weights/dummy-chronos-model"
    assert main(["verify", "chronos_t5", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "tokens in another bin" in shown
    assert "11 of 11 gradients agree" in shown


def test_a_wrong_rotation_is_found_in_the_first_block(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZE, **LLAMA["untied, linear scaling"]))
    plain = llama.Config.frequencies
    monkeypatch.setattr(llama.Config, "frequencies", lambda config: 3.0 * plain(config))
    rows = verify_llama.verify(reference.save_moved(model, tmp_path / "m"))
    assert next(row.name for row in rows if not row.ok) == "block 0"
