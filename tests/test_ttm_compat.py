"""YAML files and entry points of fine-tuning scripts: every key, and a run on a folder of CSVs."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pandas as pd
import pytest
import yaml

import tsmjax
from configs import ttm_yaml
from tsmjax import main, weights
from tsmjax.config import build, resolve
from tsmjax.errors import InputError
from tsmjax.models import ttm
from tsmjax.nn.functional import abstract, flatten, unflatten
from tsmjax.ttm_compat import TTMConfig, TTMTrainer, finetune_ttm, translate
from tsmjax.ttm_compat.settings import KEYS

SIZE = {
    **{"context_length": 32, "prediction_length": 8, "patch_length": 8, "d_model": 8},
    **{"num_layers": 1, "adaptive_patching_levels": 0},
    **{"decoder_d_model": 8, "decoder_num_layers": 1},
}
COLUMNS = ["steps", "cob", "iob"]


def patient(number, rows=300, minutes=5):
    rng = np.random.default_rng(number)
    time = pd.date_range("2024-03-01", periods=rows, freq=f"{minutes}min")
    steps = rng.poisson(5.0, rows).astype(float)
    iob = 2 + np.sin(np.arange(rows) / 20 + number)
    glucose = 8 - iob + 0.3 * rng.normal(size=rows)
    content = {"p_num": f"p{number:02d}", "bg_mM": glucose, "steps": steps, "cob": 3.0, "iob": iob}
    table = pd.DataFrame(content, index=pd.Index(time, name="datetime"))
    table.iloc[40:44, 1:3] = np.nan  # bg_mM, steps
    return table


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with one set of processed files, one patient of another resolution."""
    folder = tmp_path_factory.mktemp("cache")
    inner = folder / "tiny_cgm" / "processed"
    inner.mkdir(parents=True)
    for number in (1, 2, 3):
        patient(number).to_csv(inner / f"p{number:02d}_full.csv")
    patient(4, minutes=15).to_csv(inner / "p04_full.csv")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of one channel, as a Hugging Face folder."""
    rng = np.random.default_rng(0)
    config = build(ttm.Config, SIZE, "model")
    shapes = flatten(abstract(lambda rngs: ttm.Model(config, rngs=rngs))[1])
    params = {
        path: (path.endswith("scale") + rng.normal(scale=0.3, size=leaf.shape)).astype(np.float32)
        for path, leaf in shapes.items()
    }
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    weights.write(folder, "ttm", dataclasses.asdict(config), unflatten(params))
    return str(folder)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSMJAX_CACHE", str(tmp_path_factory.mktemp("tsmjax")))
        yield


def settings_file(folder, checkpoint, **sections):
    """Write a YAML file; arguments replace what stands in a section."""
    content = {
        "model": {"path": checkpoint, "context_length": 32, "forecast_length": 8},
        "data": {
            **{"source_name": "tiny_cgm", "loader_type": "cache", "y_feature": ["bg_mM"]},
            **{"x_features": COLUMNS, "timestamp_column": "datetime", "resolution_min": 5},
            **{"data_split": [0.9, 0.1], "fewshot_percent": 100},
        },
        "training": {
            **{"batch_size": 16, "learning_rate": 0.001, "num_epochs": 1, "use_cpu": False},
            **{"loss": "mse", "dataloader_num_workers": 0},
        },
        "logging": {"debug_mode": False, "log_level": "info"},
        "output": {"save_metrics": True, "metrics_format": "json"},
    }
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def write(tmp_path, checkpoint):
    return functools.partial(settings_file, tmp_path, checkpoint)


def config_of(path, root, options=""):
    return resolve(ttm_yaml.get_config(f"{path},data={root}{options}").to_dict())


# (section, key) → value in the file, and what it must have become.
MAPPED = {
    ("experiment", "name"): ("trial 7", lambda c: c.name == "trial_7"),
    ("model", "context_length"): (32, lambda c: c.model.context_length == 32),
    ("model", "forecast_length"): (
        6,
        lambda c: (c.model.horizon, c.model.prediction_length) == (6, 8),
    ),
    ("model", "freeze_backbone"): (False, lambda c: c.optim.freeze == ()),
    ("data", "loader_type"): ("cache", lambda c: c.data.path.endswith("tiny_cgm")),
    ("data", "y_feature"): (["bg_mM", "iob"], lambda c: c.model.prediction_channels == (0, 1)),
    ("data", "x_features"): (["iob"], lambda c: c.model.num_input_channels == 2),
    ("data", "timestamp_column"): ("datetime", lambda c: c.data.path),
    ("data", "resolution_min"): (15, lambda c: len(c.build_task().table) == 2),
    ("data", "data_split"): ([0.7, 0.1, 0.2], lambda c: c.data.split == (0.7, 0.1, 0.2)),
    ("data", "fewshot_percent"): (
        20,
        lambda c: (c.data.few_shot, c.data.few_shot_from) == (0.2, "last"),
    ),
    ("training", "batch_size"): (32, lambda c: c.data.batch_size == 32),
    ("training", "learning_rate"): ("2e-4", lambda c: c.optim.lr == 2e-4),
    ("training", "num_epochs"): (3, lambda c: c.optim.length == "3 epochs"),
    ("training", "loss"): (
        "mae",
        lambda c: (c.task.loss, c.evals.metric) == ("mae", "tiny_cgm/mae"),
    ),
    ("training", "dataloader_num_workers"): (1, lambda c: c.data.workers == 1),
    ("training", "resume_dir"): ("runs/a@4", lambda c: c.checkpoint.resume_from == "runs/a@4"),
    ("training", "seed"): (5, lambda c: c.seed == 5),
    ("hardware", "mixed_precision"): (True, lambda c: c.optim.precision == "bfloat16"),
    ("logging", "debug_mode"): (True, lambda c: c.log.every == "1 steps"),
    ("logging", "log_level"): ("warning", lambda c: c.log.every == "1 epochs"),
    ("output", "save_metrics"): (False, lambda c: not (c.log.tensorboard or c.log.plots)),
    ("output", "metrics_format"): ("json", lambda c: True),
    ("output", "save_checkpoints"): (False, lambda c: c.checkpoint.every == "0 steps"),
    ("output", "checkpoint_frequency"): (50, lambda c: c.checkpoint.every == "50 steps"),
    ("output", "save_best_model"): (True, lambda c: c.checkpoint.keep_best >= 1),
    ("output", "log_frequency"): (20, lambda c: c.log.every == "20 steps"),
    ("optimization", "scheduler"): (
        "cosine",
        lambda c: (c.optim.schedule, c.optim.final) == ("cosine", 0.0),
    ),
    ("optimization", "scheduler_params"): (
        {"gamma": 0.999},
        lambda c: c.optim.final == pytest.approx(0.999 ** round(3 * 202 / 16), rel=0.01),
    ),
    ("optimization", "optimizer"): ("sgd", lambda c: c.optim.optimizer == "sgd"),
    ("optimization", "optimizer_params"): (
        {"weight_decay": 0.05, "betas": [0.8, 0.9]},
        lambda c: (c.optim.weight_decay, c.optim.b1, c.optim.b2) == (0.05, 0.8, 0.9),
    ),
    ("evaluation", "eval_frequency"): (7, lambda c: c.evals.every == "7 steps"),
    ("evaluation", "eval_batch_size"): (99, lambda c: c.evals.batch_size == 99),
    ("evaluation", "metrics"): (["mse"], lambda c: True),
}
ELSEWHERE = {
    *(("model", "path"), ("data", "source_name"), ("data", "dataloader_num_workers")),
    ("training", "use_cpu"),
}


def test_every_key_is_tried_or_is_a_remark():
    keys = {(s, key): field for s, keys in KEYS.items() for key, field in keys.items()}
    tried = MAPPED.keys() | ELSEWHERE
    aliases = {("training", "freeze_backbone")}  # stands in two sections
    assert {key for key, field in keys.items() if field} == tried | aliases
    fields = {field.name for field in dataclasses.fields(TTMConfig)}
    assert {field for field in keys.values() if field} == fields


@pytest.mark.parametrize(("section", "key"), MAPPED)
def test_a_key_becomes_a_field(write, root, section, key):
    value, holds = MAPPED[section, key]
    assert holds(config_of(write(**{section: {key: value}}), root))


def test_use_cpu_tells_jax_before_it_looks_for_devices(write, root, monkeypatch):
    calls = []
    config = types.SimpleNamespace(update=lambda *values: calls.append(values))
    monkeypatch.setattr(translate, "jax", types.SimpleNamespace(config=config))
    config_of(write(), root)
    assert not calls
    config_of(write(training={"use_cpu": True}), root)
    assert calls == [("jax_platforms", "cpu")]


def test_the_defaults_are_those_of_the_scripts(write, root, checkpoint, capsys):
    remarks = {"experiment": {"description": "x", "tags": ["a"], "version": "1.0"}}
    remarks["hardware"] = {"expected_gpu_type": "L40S", "expected_memory_gb": 48}
    config = config_of(write(**remarks), root)
    assert config.data.split == (0.8, 0.1, 0.1)
    assert "0.1 of each series, the end of its training part" in capsys.readouterr().err
    assert config.checkpoint.init_from == checkpoint
    assert config.optim.freeze == ((r"/backbone/", True),)
    assert (config.optim.schedule, config.optim.weight_decay) == ("exponential", 0.01)
    table = config.build_task().table
    assert table.names == ["bg_mM", *COLUMNS] and (table.targets, table.known) == (1, 0)
    assert len(table) == 3  # not the patient of another resolution
    assert config.model.decoder_mode == "mix_channel"
    assert config.name == "tiny"
    known = config_of(write(), root, ",announced")
    assert known.model.known_channels == (1, 2, 3) and known.model.forecast_mixing.enabled


def test_missing_values_hold_and_missing_steps_are_none(write, root):
    table = config_of(write(), root).build_task().table
    batch = table.read(np.array([0]), np.array([100]), 100, 8)
    values = batch["context"][0] * table.deviation[:, None] + table.mean[:, None]
    np.testing.assert_allclose(values[0, 40:44], values[0, 39], rtol=1e-5)
    np.testing.assert_allclose(values[1, 40:44], 0.0, atol=1e-5)
    expected = patient(1)["bg_mM"].to_numpy()
    np.testing.assert_allclose(values[0, :40], expected[:40], rtol=1e-4)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"training": {"batchsize": 3}},
            r"training\.batchsize means nothing here .did you mean 'ba",
        ),
        (
            {"model": {"batch_size": 3}},
            r"model\.batch_size means nothing here; it belongs to train",
        ),
        ({"trainning": {"batch_size": 3}}, r"no section 'trainning' .did you mean 'training'"),
        ({"training": {"batch_size": "many"}}, "batch_size is 'many', but must be of type int"),
        ({"training": {"num_epochs": 0}}, "num_epochs is 0, but must be at least 1"),
        ({"training": {"loss": "nll"}}, "loss is 'nll', but must be one of 'mse'"),
        ({"data": {"dataloader_num_workers": 2}}, "dataloader_num_workers is 0, and elsewhere 2"),
        ({"data": {"fewshot_percent": 0}}, "fewshot_percent is 0.0, but must be above 0"),
        ({"data": {"data_split": [0.9, 0.2]}}, r"data_split is \[0.9, 0.2\], but must hold"),
        ({"data": {"loader_type": "cached"}}, "did you mean 'cache'"),
        ({"data": {"source_name": "tiny"}}, r"no data of 'tiny': neither tiny/processed nor"),
        ({"data": {"x_features": ["insulin_on_board"]}}, "has no column 'insulin_on_board'"),
        ({"data": {"y_feature": []}}, "y_feature is empty"),
        ({"data": {"timestamp_column": "time"}}, "has no column 'time'"),
        ({"data": {"resolution_min": 7}}, "its readings are 5 minutes apart"),
        ({"model": {"context_length": 64}}, r"context_length is 64, but .* looks at 32 steps"),
        ({"model": {"forecast_length": 9}}, r"forecast_length is 9, but .* forecasts 8 steps"),
        ({"model": {"path": "/nowhere"}}, "/nowhere is neither a folder nor a hub id"),
        ({"output": {"metrics_format": "csv"}}, "metrics_format is 'csv', but must be one of"),
        ({"output": {"save_best_model": False}}, "the best checkpoint is always kept"),
        ({"evaluation": {"metrics": ["mape"]}}, "metrics has 'mape'"),
        ({"optimization": {"scheduler": "plateau"}}, "scheduler is 'plateau'"),
        ({"optimization": {"scheduler_params": {"gama": 1}}}, "'gama' .did you mean 'gamma'"),
        ({"data": {"source_name": None}}, "data_source_name has no value and needs one"),
    ],
)
def test_what_means_nothing_is_refused_by_name(write, root, sections, words):
    with pytest.raises(InputError, match=words):
        config_of(write(**sections), root)


def test_files_that_are_no_settings_are_refused(tmp_path):
    path = tmp_path / "x.yaml"
    for text, words in (
        ("a: [1", "is no YAML"),
        ("- 1", "must hold the sections"),
        ("model: 3", "keys"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            ttm_yaml.get_config(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        ttm_yaml.get_config(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=r"no option .dta. .did you mean .data."):
        ttm_yaml.get_config(f"{path},dta=3")


def test_the_hub_id_of_r2_stands_for_the_checkpoint_that_fits(monkeypatch, root, capsys):
    seen = []
    values = {"family": "ttm", **SIZE, "context_length": 512, "prediction_length": 96}

    def model_values(path):
        seen.append(path)
        return values

    monkeypatch.setattr(translate.pretrained, "model_values", model_values)
    options = {"data_source_name": "embedded:kernel_synth?series=4&length=1400", "num_epochs": 1}
    with pytest.raises(InputError, match="has the columns target, but y_feature and x_features"):
        translate.to_config(TTMConfig(**options), root)
    options["y_feature"] = "target"
    found = translate.to_config(TTMConfig(**options, context_length=600), root)
    assert (
        seen == ["ibm-granite/granite-timeseries-ttm-r2@main"] == [found["checkpoint"]["init_from"]]
    )
    assert found["model"]["context_length"] == 512
    assert "looks at 512 steps instead of 600" in capsys.readouterr().err


def test_raw_files_are_read_by_the_legacy_loader(tmp_path, checkpoint):
    folder = tmp_path / "kaggle_brisT1D" / "raw"
    folder.mkdir(parents=True)
    clock = pd.date_range("2024-01-01 20:00", periods=400, freq="5min").strftime("%T")
    table = {"p_num": "p01", "time": clock, "bg-0:00": 6.5 + np.sin(np.arange(400) / 9)}
    table |= {f"{name}-0:00": 1.0 for name in ("insulin", "carbs", "hr", "steps", "cals")}
    pd.DataFrame(table | {"bg+1:00": 7.0}).to_csv(folder / "train.csv", index=False)
    (folder / "sample_submission.csv").write_text("id,bg+1:00\n")
    settings = TTMConfig(
        "kaggle_brisT1D",
        *(checkpoint, 32, 8),
        loader_type="legacy",
        x_features=["steps-0:00", "iob"],
    )
    values = translate.to_config(settings, tmp_path)
    table = resolve(values).build_task().table
    assert table.names == ["bg_mM", "steps", "iob"]
    assert table.mean[0] == pytest.approx(6.5, abs=0.1)


@pytest.fixture(scope="module")
def finished(root, checkpoint, tmp_path_factory):
    """The YAML file, and the run folder that the training command made of it."""
    folder = tmp_path_factory.mktemp("run")
    path = settings_file(folder, checkpoint)
    command = ["main", f"--config=configs/ttm_yaml.py:{path},data={root}"]
    overrides = ["--config.optim.length=4", "--config.data.batch_size=8"]
    overrides += ["--config.log.plots=False", f"--workdir={folder / 'run'}"]
    assert main.run([*command, *overrides]) == 0
    return path, folder / "run"


def test_a_run_from_a_file_leaves_scores_and_a_model_that_knows_its_columns(finished):
    _, run = finished
    found = json.loads((run / "results.json").read_text())
    assert found["step"] == 4 and np.isfinite(found["test"]["tiny_cgm/mse"])
    assert found["trained_parameters"] < found["parameters"]
    forecaster = tsmjax.Forecaster.from_pretrained(run)
    df = patient(9, rows=50)[["bg_mM", *COLUMNS]].ffill().reset_index().assign(item_id="p09")
    frame = forecaster.predict_df(df, timestamp_column="datetime", quantile_levels=[0.5])
    assert frame["target_name"].unique().tolist() == ["bg_mM"] and len(frame) == 8
    assert frame["predictions"].between(0, 20).all()


@pytest.fixture
def told(monkeypatch, finished):
    """What `tsmjax.train` is called with, in place of a second run; it returns those results."""
    calls = []

    def train(config, workdir=None):
        calls.append((config, workdir))
        return json.loads((finished[1] / "results.json").read_text())

    monkeypatch.setattr("tsmjax.trainer.train", train)
    return calls


def test_the_trainer_trains_what_the_command_trains(finished, root, told):
    path, run = finished
    trainer = TTMTrainer(TTMConfig.from_yaml(path), data_root=root, workdir="w")
    with pytest.raises(InputError, match=r"call train\(\) first"):
        _ = trainer.forecaster
    metrics = trainer.train()
    ((values, workdir),) = told
    expected = json.loads((run / "config.json").read_text())
    expected["data"]["batch_size"], expected["optim"]["length"] = 16, "1 epochs"
    expected["log"]["plots"] = True
    assert json.loads(json.dumps(resolve(values).to_dict())) == expected and workdir == "w"
    scores = json.loads((run / "results.json").read_text())["best"]
    assert metrics["eval_loss"] == metrics["eval_mse"] == scores["tiny_cgm/mse"]
    assert metrics["eval_rmse"] == pytest.approx(metrics["eval_mse"] ** 0.5)
    assert metrics["test_mae"] > 0 and metrics["run"] == str(run)
    assert trainer.forecaster.model_context_length == 32


def arguments(checkpoint):
    first = [checkpoint, 32, 8, "tiny_cgm", ["bg_mM"], COLUMNS, "datetime", 5, [0.9, 0.1], 100]
    return [*first, 16, 1e-3, 1]


def test_the_old_function_warns_and_returns_what_it_did(
    finished, root, checkpoint, told, monkeypatch
):
    old, options = arguments(checkpoint), {"data_root": root, "dataloader_num_workers": 0}
    with pytest.warns(DeprecationWarning, match="use TTMTrainer"):
        metrics = finetune_ttm(*old, **options, name="tiny")
    with pytest.warns(DeprecationWarning):
        trainer, windows = finetune_ttm(*old, **options, name="tiny", returns="trainer")
    assert trainer.metrics == metrics
    expected = ttm_yaml.get_config(f"{finished[0]},data={root}").to_dict()
    assert [resolve(values) for values, _ in told] == [resolve(expected)] * 2
    window = windows[-1]
    assert len(windows) > 10 and window["past_values"].shape == (32, 4)
    assert window["future_values"].shape == (8, 4) and window["past_observed_mask"].all()
    assert window["future_observed_mask"][:, 0].all() and not window["future_values"][:, 1:].any()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.warns(DeprecationWarning), pytest.raises(InputError, match="JAX runs on gpu alr"):
        finetune_ttm(*old, **options, use_cpu=True)
    with pytest.raises(IndexError):
        windows[len(windows)]
    with pytest.warns(DeprecationWarning), pytest.raises(InputError, match="did you mean 'sched"):
        finetune_ttm(*old, **options, schedule="cosine")
    with pytest.warns(DeprecationWarning), pytest.raises(InputError, match="returns is 'both'"):
        finetune_ttm(*old, **options, returns="both")


@pytest.mark.slow
def test_the_trainer_and_the_old_function_train(root, checkpoint, tmp_path):
    options = {"data_root": root, "dataloader_num_workers": 0, "save_metrics": False}
    with pytest.warns(DeprecationWarning):
        metrics = finetune_ttm(*arguments(checkpoint), **options, workdir=str(tmp_path / "run"))
    assert np.isfinite(metrics["eval_loss"]) and metrics["step"] > 10
