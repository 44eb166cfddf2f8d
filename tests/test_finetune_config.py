"""Fine-tuning from the command line: a checkpoint and a CSV in one command, full and LoRA."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsmjax
from configs import chronos2_finetune
from tsmjax import checkpoint, weights
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.main import run
from tsmjax.models import chronos2
from tsmjax.nn.functional import flatten, split
from tsmjax.prepare.__main__ import main as prepare

SIZE = {
    **{"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    **{"context_length": 256, "max_output_patches": 2, "quantiles": (0.1, 0.5, 0.9)},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A Hugging Face folder of a small model with another size than any preset."""
    from flax import nnx

    folder = tmp_path_factory.mktemp("start") / "model"
    model = chronos2.Model(chronos2.Config(**SIZE), rngs=nnx.Rngs(0))
    weights.write(folder, "chronos2", SIZE, split(model)[1])
    return str(folder)


@pytest.fixture(scope="module")
def sales(tmp_path_factory):
    """Daily sales of three shops, with a promotion that is known ahead."""
    rng = np.random.default_rng(0)
    frames = []
    for shop in "abc":
        promotion = (rng.random(150) < 0.3).astype(float)
        units = 20 + 5 * np.sin(np.arange(150) * 2 * np.pi / 7) + 10 * promotion
        frames.append(
            pd.DataFrame(
                {
                    "item_id": shop,
                    "timestamp": pd.date_range("2024-01-01", periods=150),
                    "target": units + rng.normal(size=150),
                    "promotion": promotion,
                }
            )
        )
    path = tmp_path_factory.mktemp("data") / "sales.csv"
    pd.concat(frames).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("lora", [False, True])
def test_a_csv_and_a_checkpoint_in_one_command(start, sales, tmp_path, lora):
    folder = tmp_path / "run"
    argument = f"{sales},from={start},horizon=14" + (",lora" if lora else "")
    command = ["main", f"--config=configs/chronos2_finetune.py:{argument}", f"--workdir={folder}"]
    settings = ("optim.length=2", "optim.precision=float32", f"optim.lora.rank={2 * lora}")
    assert run([*command, *(f"--config.{setting}" for setting in settings)]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert np.isfinite(results["test"]["sales/wql"])
    stored = json.loads((folder / "config.json").read_text())
    assert stored["model"]["d_model"] == 16 and stored["data"]["holdout"] == 28
    before = flatten(weights.read(start, model_overrides={"scan_layers": False}).params)
    after = flatten(checkpoint.load_weights(f"{folder}@final").params)
    same = {path for path, leaf in before.items() if np.array_equal(leaf, after[path])}
    adapted = re.compile(r"attention/[qkvo]/kernel|^output_patch_embedding/output/kernel")
    if lora:
        assert not {path for path in before if not adapted.search(path)} - same
        assert results["trained_parameters"] < results["parameters"]
    else:
        assert len(same) <= 1  # half of `shared`, the padding, has no gradient


def test_sizes_follow_the_data_and_the_checkpoint(start, sales, tmp_path):
    data = str(tmp_path / "sales")
    command = ["csv", "--src", sales, "--dst", data, "--future-covariates", "promotion"]
    assert prepare(command) == 0
    config = resolve(chronos2_finetune.get_config(f"{data},from={start},horizon=40"))
    # Two rows an item: the target and its covariate.
    assert config.data.batch_size == 64 and config.evals.grouped
    assert config.data.context_length == 80  # whole patches of what 150 − 2 · 40 steps can fill
    assert (config.model.max_output_patches, config.model.context_length) == (3, 256)
    assert config.model.time_encoding_scale == 8192
    assert config.optim.lora.rank == 0 and config.data.holdout == 80
    run_folder = tmp_path / "run"
    values = chronos2_finetune.get_config(f"{data},from={start},horizon=20").to_dict()
    values["optim"] |= {"length": 1}
    values["log"] |= {"plots": False, "tensorboard": False}
    values["task"]["flip_invariant"] = True
    tsmjax.train(values, workdir=str(run_folder))
    again = resolve(chronos2_finetune.get_config(f"{data},from={run_folder},horizon=64,lora"))
    assert again.model.d_model == 16 and again.model.quantiles == (0.1, 0.5, 0.9)
    assert again.model.max_output_patches == 4 and again.optim.lora.rank == 8
    assert again.task.flip_invariant


def test_a_fitted_forecaster_stays_flip_invariant(start, tmp_path):
    values = {**SIZE, "family": "chronos2"}
    params = weights.read(start).params
    task = {"kind": "forecast", "flip_invariant": True}
    run_folder = str(tmp_path / "run")
    checkpoint.save_weights(run_folder, params, {}, {"model": values, "task": task}, {})
    series = [np.random.default_rng(n).normal(size=80).cumsum() for n in range(4)]
    fitted = tsmjax.Forecaster.from_pretrained(run_folder).fit(
        *(series, 16), num_steps=1, batch_size=4, output_dir=tmp_path / "fitted"
    )
    plain, negated = (
        fitted.predict_quantiles([sign * series[0]], 16, quantile_levels=[0.1, 0.5, 0.9])[0][0]
        for sign in (1, -1)
    )
    np.testing.assert_allclose(negated, -plain[..., ::-1], rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="a Hugging Face folder cannot tell"):
        fitted.save_pretrained(tmp_path / "folder")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("SALES,horizn=3", "no option 'horizn' .did you mean 'horizon'"),
        ("SALES,horizon=soon", "horizon is 'soon'"),
        ("SALES,from=/nowhere", "/nowhere is neither a folder nor a hub id"),
        ("nothing.csv", r"There is no file nothing\.csv"),
    ],
)
def test_wrong_arguments_are_refused(sales, argument, words):
    with pytest.raises(InputError, match=words):
        chronos2_finetune.get_config(argument.replace("SALES", sales))


def test_a_table_is_converted_once_until_it_changes(sales, tmp_path, capsys):
    from tsmjax.prepare.cached import arrow_folder

    copy = tmp_path / "copy.csv"
    copy.write_text(Path(sales).read_text())
    first = arrow_folder(str(copy))
    assert "layout" in capsys.readouterr().err
    assert arrow_folder(str(copy)) == first and not capsys.readouterr().err
    with copy.open("a") as file:
        file.write("c,2024-05-30,1.0,0.0\n")
    assert arrow_folder(str(copy)) != first
    assert arrow_folder(first) == first
