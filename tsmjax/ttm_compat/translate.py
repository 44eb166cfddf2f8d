"""From a `TTMConfig` to the sections of a config: data, roles of columns, weights, optimiser."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import jax

from tsmjax import pretrained
from tsmjax.data.table import DataConfig, Table, TableBatches
from tsmjax.errors import InputError
from tsmjax.models.ttm.published import select_ttm
from tsmjax.prepare.cached import prepared
from tsmjax.ttm_compat.settings import TTMConfig

_DATA = "cache/data"  # where the scripts keep their data sets: NAME/processed and NAME/raw
_CHOSEN = "ibm-granite/granite-timeseries-ttm-r2"  # stands for all its branches
_GAMMA = 0.9999  # of a step
_LEAST = 1e-6  # of the learning rate that is left at the end


def to_config(
    settings: TTMConfig, data_root: str | Path = _DATA, announced: bool = False
) -> dict[str, Any]:
    """Return the values of a config file; what was decided on the way is printed.

    The data are converted at first use, see `tsmjax.prepare.cached`.

    Args:
      settings: what the script was told.
      data_root: folder of the data sets.
      announced: the covariates are known in the future too. By default they are not: carbohydrate
        and insulin on board of the future hold meals and doses that nobody knows yet.

    Raises:
      InputError: when a setting, the data or the checkpoint does not fit.
    """
    settings = settings.checked()
    notices: list[str] = []
    if settings.use_cpu:
        jax.config.update("jax_platforms", "cpu")
    path = _data(settings, Path(data_root), announced)
    split = _split(settings, notices)
    data = {
        "path": path,
        "split": split,
        "batch_size": settings.batch_size,
        "few_shot": settings.fewshot_percent / 100,
        "few_shot_from": "last",
        "stride": 1,
        "eval_stride": 1,
        "standardise": True,
        "workers": settings.dataloader_num_workers,
    }
    table = Table(DataConfig(**data))
    asked = [_name(settings, one) for one in (*settings.y_feature, *_covariates(settings))]
    if table.names != asked:
        raise InputError(
            f"{path} has the columns {', '.join(table.names)}, but y_feature and x_features name "
            f"{', '.join(asked)}: name those that are there, in their order."
        )
    model, skip = _model(settings, table, notices)
    horizon = model.get("prediction_filter_length") or model["prediction_length"]
    batches = TableBatches(
        table,
        DataConfig(**data),
        context_length=model["context_length"],
        horizon=horizon,
        seed=settings.seed,
    )
    steps = max(round(settings.num_epochs * batches.steps_per_epoch), 1)
    frozen = settings.freeze_backbone and settings.model_path
    score = "mae" if settings.loss in ("mae", "pinball") else "mse"
    checkpoints = settings.checkpoint_frequency if settings.save_checkpoints else None
    for notice in notices:
        print(notice, file=sys.stderr)
    return {
        "name": re.sub(r"[^\w.-]+", "_", settings.name),
        "seed": settings.seed,
        "model": model,
        "task": {"kind": "multivariate", "loss": settings.loss},
        "data": data,
        "optim": {
            "length": f"{settings.num_epochs} epochs",
            "lr": settings.learning_rate,
            **_schedule(settings, steps),
            **_optimizer(settings),
            "freeze": ((r"/backbone/", True),) if frozen else (),
            "lora": {"rank": 0, "alpha": 16.0},
            "clip": 1.0,
            "precision": "bfloat16" if settings.mixed_precision else "float32",
        },
        "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
        "checkpoint": {
            "every": f"{checkpoints or 0} steps",
            "keep_latest": 2,
            "keep_best": 2,
            "init_from": _weights(settings),
            "init_skip": skip,
            "resume_from": settings.resume_dir,
        },
        "evals": {
            "every": f"{settings.eval_frequency} steps" if settings.eval_frequency else "1 epochs",
            "suites": (),
            "metric": f"{_suite(path)}/{score}",
            "mode": "min",
            "patience": "0 steps",
            "batch_size": settings.eval_batch_size,
        },
        "log": {
            "every": _log_every(settings),
            "tensorboard": settings.save_metrics,
            "plots": settings.save_metrics,
        },
    }


def _data(settings: TTMConfig, root: Path, announced: bool) -> str:
    """Return the Arrow folder of the data, converting them at first use."""
    name = settings.data_source_name
    if name.startswith("embedded:"):
        return name
    raw = settings.loader_type == "legacy"
    inner = "raw" if raw else "processed"
    places = [place for base in (Path(name), root / name) for place in (base / inner, base)]
    source = next((place for place in places if place.exists()), None)
    if source is None:
        raise InputError(
            f"There are no data of {name!r}: neither {' nor '.join(map(str, places))} exists. Give "
            "data.source_name a path, or name the folder that holds the data sets, as in "
            "--config=configs/ttm_yaml.py:FILE.yaml,data=DIR."
        )
    if source.is_dir() and any(source.glob("*.arrow")):
        return str(source)
    target, *others = settings.y_feature
    covariates = _covariates(settings)
    options = ["--every", str(settings.resolution_min)]
    options += ["--min-rows", str(settings.context_length + settings.forecast_length)]
    options += ["--unit", "mg/dL" if "mg" in target.lower() else "mmol/L"]
    if raw:
        # BrisT1D has a training part with dates that follow the clock, and a shuffled test part.
        source = source / "train.csv" if (source / "train.csv").exists() else source
        others, covariates = (
            [_name(settings, one) for one in names] for names in (others, covariates)
        )
    else:
        options += ["--format", "processed", "--timestamp-column", settings.timestamp_column]
    options += ["--target", target, *others, "--covariates", *covariates]
    if announced:
        options.append("--announced")
    plain = re.sub(r"[^\w-]+", "_", Path(name).name)
    return prepared("glucose", source, options, plain)


def _covariates(settings: TTMConfig) -> list[str]:
    return [name for name in settings.x_features if name not in settings.y_feature]


def _name(settings: TTMConfig, column: str) -> str:
    """Name of a column; those of raw files were spelt differently in older tables."""
    if settings.loader_type == "cache" or column == settings.y_feature[0]:
        return column
    return {"hr_bpm": "hr"}.get(column, column.removesuffix("-0:00"))


def _split(settings: TTMConfig, notices: list[str]) -> tuple[float, float, float]:
    """Return shares of training, validation and test part."""
    if len(settings.data_split) == 3:
        return tuple(settings.data_split)
    train, test = settings.data_split
    validation = min(test, train / 5)
    split = (round(train - validation, 6), round(validation, 6), test)
    notices.append(
        f"data_split {list(settings.data_split)} has no validation part: {validation:.3g} of each "
        f"series, the end of its training part, is held out for it, which makes {list(split)}."
    )
    return split


def _weights(settings: TTMConfig) -> str:
    """Return the checkpoint to start from; r2's hub id alone stands for the one that fits."""
    if settings.model_path != _CHOSEN:
        return settings.model_path
    freq = f"{settings.resolution_min}min"
    return select_ttm(settings.context_length, settings.forecast_length, freq).path


def _model(
    settings: TTMConfig, table: Table, notices: list[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the section `model`, and patterns of its parameters that the checkpoint lacks."""
    context, horizon = settings.context_length, settings.forecast_length
    weights = _weights(settings)
    if weights:
        model = dict(pretrained.model_values(weights))
        if model["family"] != "ttm":
            raise InputError(f"model.path is {weights}, a model of {model['family']}, not TTM.")
        if model["context_length"] != context and settings.model_path != _CHOSEN:
            raise InputError(
                f"model.context_length is {context}, but {weights} looks at "
                f"{model['context_length']} steps: set it to this."
            )
        if model["context_length"] != context:
            notices.append(
                f"{weights} looks at {model['context_length']} steps instead of {context}."
            )
        if model["prediction_length"] < horizon:
            raise InputError(
                f"model.forecast_length is {horizon}, but {weights} forecasts "
                f"{model['prediction_length']} steps at most: ask for fewer."
            )
        cut = horizon if horizon < model["prediction_length"] else None
        model["prediction_filter_length"] = cut
    else:
        # The sizes of the published models follow from the length of a patch.
        patch = 2 ** max(int(context / 8).bit_length() - 1, 1)
        model = {"family": "ttm", "context_length": context, "prediction_length": horizon}
        model |= {"patch_length": patch, "d_model": 3 * patch, "decoder_d_model": 2 * patch}
    had = model.get("num_input_channels", 1)
    mixed = "mix_channel" in (model.get("mode"), model.get("decoder_mode"))
    if table.channels > table.targets or mixed:
        model["num_input_channels"] = table.channels
        model["prediction_channels"] = tuple(range(table.targets))
        model["known_channels"] = tuple(range(table.channels - table.known, table.channels))
        model["decoder_mode"] = "mix_channel"
    skip = []
    if model.get("decoder_mode") == "mix_channel" and (not mixed or had != table.channels):
        skip.append("channel_mixer/")
    corrected = dict(model.get("forecast_mixing") or {})
    if table.known and not corrected.get("enabled"):
        model["forecast_mixing"] = {**corrected, "enabled": True}
        skip.append("head/mixing/")
    elif corrected.get("enabled") and had != table.channels:
        skip.append("head/mixing/")
    if skip and weights:
        notices.append(
            f"{weights} knows nothing of the {table.channels} channels together: the parts that "
            "mix them begin with fresh weights."
        )
    return model, tuple(skip) if weights else ()


def _schedule(settings: TTMConfig, steps: int) -> dict[str, Any]:
    """Return course and end of the learning rate over a run of `steps` steps."""
    options, final = settings.scheduler_params, 0.0
    if settings.scheduler == "exponential":
        final = min(max(float(options.get("gamma", _GAMMA)) ** steps, _LEAST), 1.0)
    elif settings.scheduler == "cosine":
        final = float(options.get("eta_min", 0.0)) / settings.learning_rate
    return {"schedule": settings.scheduler, "warmup": "0 steps", "final": final}


def _optimizer(settings: TTMConfig) -> dict[str, Any]:
    options = dict(settings.optimizer_params)
    b1, b2 = options.pop("betas", (0.9, 0.999))
    values = {name: float(value) for name, value in options.items()}
    return {"optimizer": settings.optimizer, "weight_decay": 0.01, "b1": b1, "b2": b2, **values}


def _log_every(settings: TTMConfig) -> str:
    if settings.debug_mode or settings.log_level == "debug":
        return "1 steps"
    if settings.log_frequency:
        return f"{settings.log_frequency} steps"
    return "1%" if settings.log_level == "info" else "1 epochs"


def _suite(path: str) -> str:
    """Name that the evaluator of a data set has."""
    return Path(path.partition("?")[0].rpartition(":")[2]).stem
