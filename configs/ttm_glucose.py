"""Forecast blood glucose with a small TTM: two hours ahead from the last twelve.

    python -m tsmjax.main --config=configs/ttm_glucose.py                                # virtual patients
    python -m tsmjax.main --config=configs/ttm_glucose.py:data/mine,from=experiments/ttm/glucose/best_run

`python -m tsmjax.prepare glucose` makes the Arrow folder of recordings. What follows the colon,
separated by commas:

    SOURCE             an Arrow folder with the columns freq and subject (or item_id), or
                       embedded:virtual_patients?…; the default is thirty of them for two weeks
    from=CHECKPOINT    what to fine-tune: run folder, Hugging Face folder or hub id; its sizes are
                       taken, and where its covariates are others, what mixes them starts afresh
    context=N          steps of the past; 12 hours by default, 2 with level=known (without from=)
    horizon=N          steps to forecast; 2 hours by default (without from=)
    level=known        scale all readings alike, by the people of the training, instead of each
                       window by itself (without from=): glucose returns to a level that people
                       share, and more than a few of them to train on tell it

Twelve hours and two train in minutes on two CPU cores; papers of the field mostly take
`context=512,horizon=96` at five minutes. Every third subject, the second first, is held out: the test is on
people whom training never saw, unless there is one only. Covariates enter through the decoder's
channel mixing, and those known ahead through forecast mixing.
"""  # noqa: E501

import pandas as pd
from ml_collections import ConfigDict

from configs import ttm_test
from tsmjax import pretrained
from tsmjax.data.synthetic import embedded, virtual_patients
from tsmjax.data.table import DataConfig, Table
from tsmjax.errors import InputError, closest
from tsmjax.glucose import simulator

_OPTIONS = ("from", "context", "horizon", "level")
_VIRTUAL = "embedded:virtual_patients"


def get_config(argument: str = _VIRTUAL) -> ConfigDict:
    """Return the config; `argument` is ``SOURCE[,from=CHECKPOINT][,context=N]…``."""
    source, options = _parse(argument)
    minutes, past, known, subjects = describe(source)
    held_out = tuple(subjects[1::3])
    hour = max(60 // minutes, 2)
    level = "level" in options
    context = options.get("context", 2 * hour if level else 12 * hour)
    config = ttm_test.get_config(source)
    config.name = "glucose"
    config.model.update(
        context_length=context,
        prediction_length=options.get("horizon", 2 * hour),
        patch_length=max(min(hour, context // 4), 1),
        num_layers=1,
        adaptive_patching_levels=2,
        scaling="none" if level else "std",
    )
    start = options.get("from", "")
    if start:
        found = pretrained.model_values(start)
        channels = found.get("num_input_channels", 1), len(found.get("known_channels", ()))
        config.model = ConfigDict(found)
        config.checkpoint.init_from = start
    count = 1 + past + known
    config.model.update(
        num_input_channels=count,
        prediction_channels=(0,),
        known_channels=tuple(range(count - known, count)),
        decoder_mode="mix_channel" if count > 1 else "common_channel",
        # A step is corrected by all that is known between the forecast's origin and it.
        forecast_mixing={"enabled": known > 0, "context_length": 2 * hour},
    )
    if start and channels != (count, known):
        fresh = ["/channel_mixer/"] * (count > 1) + ["/head/mixing/"] * (known > 0)
        config.checkpoint.init_skip = tuple(fresh)
    config.data.update(
        split=(0.85, 0.15, 0.0) if held_out else (0.7, 0.1, 0.2),
        held_out=held_out,
        batch_size=128,
        eval_stride=max(15 // minutes, 1),
    )
    if start:
        config.optim.update(length="10 epochs", lr=5e-4)
        config.evals.update(every="1 epochs", patience="4 epochs")
        if config.model.get("scaling") == "none":
            # Few people must stand for all others, who have other levels and vary more or less.
            config.task.update(random_scale=0.3, random_shift=0.2, step_decay=1.5)
            config.optim.update(length="25 epochs", lr=2e-3, average=0.99)
    else:
        config.optim.update(length="3_000 steps", lr=3e-3)
        config.evals.every = "500 steps"
    config.checkpoint.every = "0 steps"
    config.log.every = "50 steps"
    return config


def describe(source: str) -> tuple[int, int, int, list[str]]:
    """Return minutes between readings, numbers of past and of known covariates, and the subjects.

    Raises:
      InputError: when there is no such data set, or it does not tell its frequency.
    """
    if source.partition("?")[0] == _VIRTUAL:  # which need not be made yet
        _, values = embedded.parse(source)
        past, known = virtual_patients.roles(values["covariates"], values["announced"])
        subjects = simulator.patients()[0][: values["patients"]]
        return values["every"], len(past), len(known), list(subjects)
    table = Table(DataConfig(path=source, standardise=False))
    if table.targets != 1:
        raise InputError(f"{source} has {table.targets} targets, but must have glucose alone.")
    freq = table.metadata(0).get("freq")
    if not freq:
        raise InputError(f"{source} has no column freq: prepare it with `prepare glucose`.")
    minutes = pd.Timedelta(freq if freq[0].isdigit() else f"1{freq}").total_seconds() / 60
    past = table.channels - 1 - table.known
    return int(minutes), past, table.known, list(dict.fromkeys(table.subjects()))


def _parse(argument: str) -> tuple[str, dict]:
    """Split the argument into the source and the options given."""
    source, *rest = argument.split(",")
    options = dict(part.partition("=")[::2] for part in rest)
    for name, value in options.items():
        if name not in _OPTIONS:
            raise InputError(
                f"ttm_glucose has no option {name!r}{closest(name, _OPTIONS)}; "
                "there are from=CHECKPOINT, context=N, horizon=N and level=known."
            )
        if name == "from":
            continue
        if "from" in options:
            raise InputError(f"{name} does not go with from=: the checkpoint's is taken.")
        if name == "level":
            if value != "known":
                raise InputError(f"level is {value!r}, but can only be 'known'.")
        elif not value.isdecimal() or int(value) < 1:
            raise InputError(f"{name} is {value!r}, but must be a positive whole number.")
        else:
            options[name] = int(value)
    return source or _VIRTUAL, options
