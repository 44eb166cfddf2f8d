"""Low-rank adapters beside PEFT: the same losses from the same start, and adapters that travel."""

import json
import re

import jax
import numpy as np
import pytest
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2.model import Chronos2Model
from peft import LoraConfig, PeftModel, get_peft_model
from test_parity_chronos2 import GOLDEN_SIZE, reference_folder
from test_parity_training import HORIZON, STEPS, cases, our_batch, our_step, reference_losses

import tsmjax
from convert import verify
from convert.__main__ import main as convert
from tsmjax import Forecaster, weights
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.models.chronos2 import QUANTILES_21
from tsmjax.nn import lora
from tsmjax.nn.functional import flatten, unflatten

SETTINGS = {"lr": 1e-3, "clip": 1.0}
TARGETS = [f"self_attention.{name}" for name in "qvko"] + ["output_patch_embedding.output_layer"]
PREFIX = "base_model.model."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose forecasts move by more than the scale of the series."""
    folder = tmp_path_factory.mktemp("reference") / "model"
    return reference_folder(folder, GOLDEN_SIZE, 128, QUANTILES_21, gain=2.5)


def peft_model(folder):
    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS)
    model = Chronos2Model.from_pretrained(folder)
    return get_peft_model(model, config)


def factors(model):
    """Reference's name of a projection → (A, B), as PEFT holds them."""
    state = {name: x.detach().numpy().copy() for name, x in model.state_dict().items()}
    return {
        name.removeprefix(PREFIX).removesuffix(".lora_A.default.weight"): (
            x,
            state[name.replace("lora_A", "lora_B")],
        )
        for name, x in state.items()
        if "lora_A" in name
    }


def test_losses_and_adapters_of_twenty_steps_agree(folder):
    model = peft_model(folder).eval()  # the model's dropout is off on both sides
    first = factors(model)
    settings = {**SETTINGS, "lora": {"rank": 8, "alpha": 16.0}}
    current, frozen, train = our_step(folder, settings, dropout_rate=0.0)
    values = {**weights.read(folder).config_values, "scan_layers": True}
    places = weights.projections("chronos2", values)
    params = {path: np.array(leaf) for path, leaf in flatten(current["params"]["model"]).items()}
    assert len(places.keys() & first.keys()) == len(first) == 17
    for name, (a, _) in first.items():
        path, layer = places[name]
        params[f"{path}/lora_a"][... if layer is None else layer] = a.T
    current["params"]["model"] = unflatten({path: jax.numpy.array(x) for path, x in params.items()})
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = reference_losses(model, [{"params": trained, "weight_decay": 0.0}], settings)
    found = []
    for case in cases():
        current, metrics = train(current, frozen, our_batch(case), jax.random.key(0))
        found.append(float(metrics["loss"]))
    assert len(found) == STEPS
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    _, adapters = lora.split(jax.device_get(current["params"]["model"]))
    for name, (a, b) in factors(model).items():
        path, layer = places[name]
        ours = [leaf if layer is None else leaf[layer] for leaf in adapters[path]]
        np.testing.assert_allclose(ours[0].T, a, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(ours[1].T, b, atol=1e-4, err_msg=name)
        assert np.abs(b).max() > 1e-3


def test_an_exported_adapter_forecasts_the_same_in_the_reference(folder, tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"item_id": str(i), "target": x} for i, x in enumerate(walks(rng, 12))]
    write_dataset(rows, tmp_path / "data")
    found = weights.read(folder)
    config = {
        "model": {"family": "chronos2", **found.config_values},
        "task": {"kind": "forecast"},
        "data": {
            "sources": ({"path": str(tmp_path / "data")},),
            "batch_size": 8,
            "prediction_length": HORIZON,
        },
        "optim": {**SETTINGS, "lr": 1e-2, "length": 5, "lora": {"rank": 8}},
        "checkpoint": {"init_from": str(folder)},
        "evals": {"every": 0},
        "log": {"tensorboard": False, "plots": False},
    }
    run = str(tmp_path / "run")
    tsmjax.train(config, workdir=run)
    assert convert(["export", "chronos2", run, str(tmp_path / "adapter"), "--adapter"]) == 0
    assert convert(["export", "chronos2", run, str(tmp_path / "merged")]) == 0
    series = walks(rng, 3)
    expected = Forecaster.from_pretrained(run).predict(series, 24)
    before = Forecaster.from_pretrained(folder).predict(series, 24)
    for exported in ("adapter", "merged"):
        pipeline = Chronos2Pipeline.from_pretrained(tmp_path / exported)
        for a, b, c in zip(pipeline.predict(series, 24), expected, before, strict=True):
            np.testing.assert_allclose(a.numpy(), b, atol=1e-3)
            assert np.abs(b - c).max() > 0.1
    again = Forecaster.from_pretrained(tmp_path / "adapter").predict(series, 24)
    np.testing.assert_allclose(again[0], expected[0], atol=1e-4)


PEFT_FAMILIES = {
    "ttm": ("r2_512", {"d_model": 32, "decoder_d_model": 16}, r"/feature_mixer/mlp/fc[12]$"),
    "llama": ("tiny", {"d_model": 32, "d_ff": 48, "num_layers": 2}, r"attention/[qkvo]$"),
    "chronos_t5": ("tiny", {"d_model": 32, "d_ff": 48, "num_layers": 2}, r"attention/[qv]$"),
}


@pytest.mark.parametrize("family", PEFT_FAMILIES)
def test_adapters_of_every_family_load_in_peft(family, tmp_path):
    """PEFT merges an adapter of ours, on weights of ours, to what we merge ourselves."""
    pytest.importorskip("tsfm_public" if family == "ttm" else "transformers")
    preset, changes, targets = PEFT_FAMILIES[family]
    found = verify.random(family, preset, changes)
    values, base = found.config_values, tmp_path / "base"
    weights.write(base, family, values, found.params)
    rng, flat = np.random.default_rng(0), dict(flatten(found.params))
    for path in [path.removesuffix("/kernel") for path in flat if path.endswith("/kernel")]:
        if re.search(targets, path):
            *layers, inputs, outputs = flat[f"{path}/kernel"].shape
            flat[f"{path}/lora_a"] = rng.normal(size=(*layers, inputs, 4)).astype(np.float32)
            flat[f"{path}/lora_b"] = rng.normal(size=(*layers, 4, outputs)).astype(np.float32)
    params = unflatten(flat)
    weights.write_adapter(tmp_path / "adapter", family, values, params, 8.0, str(base))
    hf = json.loads((base / "config.json").read_text())
    kind = verify.verifier(family).reference_class(hf)
    model = PeftModel.from_pretrained(kind.from_pretrained(base), tmp_path / "adapter")
    merged = model.merge_and_unload().state_dict()
    ours = weights.read(tmp_path / "adapter")
    assert ours.family == family
    changed = 0
    plain = weights.tensors(family, ours.config_values, found.params)
    for name, tensor in weights.tensors(family, ours.config_values, ours.params).items():
        np.testing.assert_allclose(tensor, merged[name].numpy(), atol=1e-5, err_msg=name)
        changed += not np.array_equal(tensor, plain[name])
    trained = lora.merge(params, 8.0)
    by_us = weights.tensors(family, ours.config_values, trained)
    for name, tensor in by_us.items():
        np.testing.assert_allclose(tensor, merged[name].numpy(), atol=1e-5, err_msg=name)
    assert changed == len(weights.lora.load(tmp_path / "adapter").factors) > 3


def walks(rng, count):
    return [rng.normal(size=200).cumsum().astype(np.float32) for _ in range(count)]


def test_partial_options_have_the_values_of_peft(folder):
    model = get_peft_model(Chronos2Model.from_pretrained(folder), LoraConfig(r=4))
    values = weights.read(folder).config_values
    modules = weights.projections("chronos2", {**values, "scan_layers": False})
    rank, alpha, chosen = weights.lora.options({"r": 4}, modules, default=("q", "v"))
    assert set(chosen) == factors(model).keys()
    assert (rank, alpha) == (4, LoraConfig(r=4).lora_alpha)
    for options in ({"target_modules": "all-linear"}, {"target_modules": r".*block\.1.*\.wo"}):
        config = LoraConfig(**options)
        model = get_peft_model(Chronos2Model.from_pretrained(folder), config)
        for given in (options, config.to_dict()):
            assert set(weights.lora.options(given, modules, ())[2]) == factors(model).keys()


@pytest.mark.slow
def test_fit_learns_as_much_as_the_reference(folder, tmp_path):
    rng = np.random.default_rng(0)
    t = np.arange(160)

    def wave():
        y = np.sin(2 * np.pi * (t + rng.integers(24)) / 12) + 0.05 * rng.normal(size=160)
        return y.astype(np.float32)

    train, held_out = [wave() for _ in range(24)], [wave() for _ in range(16)]
    arguments = dict(
        prediction_length=16, learning_rate=1e-2, num_steps=40, batch_size=16, min_past=32
    )

    def error(model):
        _, median = model.predict_quantiles([y[:144] for y in held_out], prediction_length=16)
        return np.mean(
            [np.abs(np.asarray(m)[0] - y[144:]) for m, y in zip(median, held_out, strict=True)]
        )

    ours, theirs = Forecaster.from_pretrained(folder), Chronos2Pipeline.from_pretrained(folder)
    before = error(ours)
    fitted = ours.fit(train, finetune_mode="lora", **arguments)
    reference = theirs.fit(train, finetune_mode="lora", output_dir=tmp_path / "theirs", **arguments)
    assert error(fitted) < 0.8 * before
    assert abs(error(fitted) - error(reference)) < 0.25 * before
