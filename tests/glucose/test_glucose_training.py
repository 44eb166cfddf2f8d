"""Virtual patients as a table, and the glucose configs trained on a few of them."""

import numpy as np
import pytest

import tsmjax
from configs import ttm_glucose, ttm_glucose_lora
from tsmjax.config import resolve
from tsmjax.data.arrow import ArrowSource
from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.synthetic import embedded, virtual_patients
from tsmjax.errors import InputError
from tsmjax.glucose.features import carb_kernels

PATH = "embedded:virtual_patients?patients=32&days=1&every=15&announced=1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Made once by a worker process, in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield embedded.resolve(PATH, processes=1)


def test_virtual_patients_are_a_table_with_roles_and_people(folder):
    source = ArrowSource(folder)
    assert source.names == {
        "target": ["glucose"],
        "past_feat_dynamic_real": ["iob", "insulin_availability"],
        "feat_dynamic_real": ["cob", "carb_availability"],
    }
    meta = [source.metadata(row) for row in range(32)]
    assert [meta[row]["subject"] for row in (0, 30, 31)] == [
        *("adolescent#001", "adolescent#001", "adolescent#002")
    ]
    assert meta[30]["item_id"] == "adolescent#001/1" and meta[30]["freq"] == "15min"
    items = list(source.read(np.arange(32)))
    assert {item.target.shape for item in items} == {(1, 96)}
    assert not np.array_equal(items[0].target, items[30].target)  # other days of the same person
    glucose = np.stack([item.target[0] for item in items])
    assert glucose.min() >= 39 and 90 < np.median(glucose) < 180
    # Basal insulin of the day that is left out is on board from the beginning.
    first = np.stack([item.past[0, 0] for item in items])
    last = np.stack([item.past[0, -1] for item in items])
    assert 0.3 < np.median(first / last) < 3


def test_carbohydrate_on_board_is_that_of_meals(folder):
    cob, available = ArrowSource(folder)[12].future
    assert (cob >= available - 1e-4).all() and cob.max() > 20
    # Nothing is eaten where it falls: three rows of five minutes each decay by the kernel's tail.
    decay, _ = carb_kernels(15)
    falling = np.flatnonzero(np.diff(cob) < -0.1)
    assert (cob[falling + 1] / cob[falling] >= (decay[-1] / decay[-2]) - 1e-3).all()


def test_careful_patients_tell_of_every_meal_as_it_is():
    _, values = embedded.parse(PATH)
    told = {}
    for careful in (0, 1):
        made = virtual_patients.rows(0, 30, **values | {"careful": careful})
        told[careful] = np.stack([row["feat_dynamic_real"][0] for row in made])
    meals = {careful: (np.diff(cob) > 2).sum() for careful, cob in told.items()}
    assert meals[1] > 1.1 * meals[0]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("every=7", "every is 7, but must be a multiple of 5"),
        ("every=25", "divides a day"),
        ("announced=3", "announced is 0, 1 or 2"),
        ("covariates=2", "covariates and careful are 0 or 1"),
        ("careful=2", "covariates and careful are 0 or 1"),
        ("patients=0", "patients is '0'"),
    ],
)
def test_wrong_parameters_are_refused(query, words):
    with pytest.raises(InputError, match=words):
        embedded.parse(f"embedded:virtual_patients?{query}")


def test_the_config_follows_its_source(folder):
    config = resolve(ttm_glucose.get_config(folder))
    model, data = config.model, config.data
    assert (model.context_length, model.prediction_length, model.patch_length) == (48, 8, 4)
    assert (model.num_input_channels, model.prediction_channels) == (5, (0,))
    assert model.known_channels == (3, 4) and model.forecast_mixing.enabled
    # What is told of a source that is not made yet is what is found in it.
    made, described = ttm_glucose.describe(folder), ttm_glucose.describe(PATH)
    assert made == described
    assert data.held_out == tuple(described[3][1::3]) and len(data.held_out) == 10
    assert "adult#001" in data.held_out
    usual = resolve(ttm_glucose.get_config("embedded:virtual_patients,context=512,horizon=96"))
    assert (usual.model.context_length, usual.model.horizon) == (512, 96)
    assert usual.model.known_channels == () and usual.model.decoder_mode == "mix_channel"
    assert usual.model.scaling == "std" and usual.model.patch_length == 12
    level = resolve(ttm_glucose.get_config("embedded:virtual_patients?every=15,level=known"))
    assert (level.model.context_length, level.model.patch_length) == (8, 2)
    assert level.model.scaling == "none" and level.task.random_shift == 0


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (",form=x", "no option 'form' .did you mean 'from'"),
        (",horizon=two", "horizon is 'two'"),
        ("data/mine,from=x,context=96", "context does not go with from="),
        ("data/mine,level=known,from=x", "level does not go with from="),
        (",level=none", "level is 'none', but can only be 'known'"),
    ],
)
def test_wrong_arguments_are_refused(argument, words):
    with pytest.raises(InputError, match=words):
        ttm_glucose.get_config(argument)


def test_sources_that_do_not_tell_enough_are_refused(tmp_path):
    write_dataset([{"target": np.ones(50)}], tmp_path / "no_freq")
    with pytest.raises(InputError, match="no column freq"):
        ttm_glucose.get_config(str(tmp_path / "no_freq"))
    write_dataset([{"target": np.ones((2, 50)), "freq": "5min"}], tmp_path / "two")
    with pytest.raises(InputError, match="2 targets"):
        ttm_glucose.get_config(str(tmp_path / "two"))


def short(config, steps):
    values = config.to_dict()
    values["optim"] |= {"length": steps}
    values["data"] |= {"batch_size": 16, "eval_stride": 8}
    values["evals"] |= {"every": steps, "patience": 0}
    values["log"] |= {"every": 1, "plots": False, "tensorboard": False}
    return values


def small(config):
    config.model.update(d_model=8, decoder_d_model=8, adaptive_patching_levels=0)
    config.model.update(decoder_num_layers=1)
    return config


def test_a_model_that_knows_the_level_is_tuned_for_other_people(folder, tmp_path):
    base = small(ttm_glucose.get_config(f"{folder},level=known"))
    base.optim.length, base.log.plots = "2 steps", False
    base.evals.every = "2 steps"
    tsmjax.train(base, str(tmp_path / "base"))
    tuned = ttm_glucose.get_config(f"{folder},from={tmp_path / 'base'}")
    assert tuned.model.scaling == "none" and tuned.model.context_length == 8
    assert (tuned.task.random_shift, tuned.task.step_decay) == (0.2, 1.5)
    assert tuned.optim.average == 0.99


def test_it_trains_on_virtual_patients_and_is_tested_on_others(folder, tmp_path):
    outcome = tsmjax.train(short(small(ttm_glucose.get_config(folder)), 6), str(tmp_path / "run"))
    name = folder.rpartition("/")[2]
    assert outcome["step"] == 6 and np.isfinite(outcome["test"][f"{name}/mse"])


@pytest.mark.slow
def test_it_is_fine_tuned_on_people_with_other_covariates(folder, tmp_path):
    base = small(ttm_glucose.get_config(folder))
    base.model.update(known_channels=(), forecast_mixing={"enabled": False})
    tsmjax.train(short(base, 2), str(tmp_path / "base"))
    rng = np.random.default_rng(0)
    rows = [
        {
            "item_id": f"of {n}",
            "freq": "15min",
            "target": 140 + 4 * rng.normal(size=200).cumsum(),
            "past_feat_dynamic_real": rng.random((1, 200)),
        }
        for n in range(3)
    ]
    write_dataset(rows, tmp_path / "mine")
    argument = f"{tmp_path / 'mine'},from={tmp_path / 'base'}"
    tuned = ttm_glucose.get_config(argument)
    assert tuned.model.num_input_channels == 2 and tuned.model.d_model == 8
    assert tuned.checkpoint.init_skip == ("/channel_mixer/",)
    assert tuned.task.to_dict() == base.task.to_dict()
    lora = ttm_glucose_lora.get_config(argument)
    assert lora.data.held_out == ("of 1",)
    lora.optim.lora.rank = 1
    outcome = tsmjax.train(short(lora, 2), str(tmp_path / "lora"))
    assert np.isfinite(outcome["test"]["mine/mse"])
    assert outcome["trained_parameters"] < outcome["parameters"]
