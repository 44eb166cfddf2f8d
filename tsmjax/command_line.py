"""The command line of a training: config file, overrides of its fields, and a few flags."""

from __future__ import annotations

import re

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from tsmjax import cluster, environment
from tsmjax.config import completed, read
from tsmjax.errors import InputError, closest


def parse(argv: list[str]) -> tuple[dict, str | None, dict[str, str | None], int | None]:
    """Read the command line into (config values, run folder, settings of the cluster, dry run).

    The last is None for training, the number of devices of a dry run, or 0 for those that are here.

    Raises:
      InputError: for an unknown flag, field or file, or a value of the wrong type.
    """
    argv = ["--dry_run=0" if argument == "--dry_run" else argument for argument in argv]
    name, argv = _split(argv)
    values = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "Run folder.", flag_values=values)
    cluster.define_flags(values)
    devices = flags.DEFINE_integer("dry_run", None, "Devices.", 0, flag_values=values)
    place_name = flags.DEFINE_string("env", None, "Environment.", flag_values=values)
    try:
        complete = _open_fields(completed(_load(name)) if name else {})
        config = config_flags.DEFINE_config_dict(
            "config", ConfigDict(complete), flag_values=values, sys_argv=argv
        )
        rest = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = closest(error.flagname, ("config", "workdir", "dry_run", "env", *cluster.SETTINGS))
        raise InputError(f"There is no flag --{error.flagname}{hint}; see --help.") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_sentence(error)) from error
    except OSError as error:
        raise InputError(f"--config={name} cannot be loaded: {_sentence(error)}") from error
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; flags start with --, see --help.")
    if not name:
        raise InputError("Say what to train: --config=configs/NAME.py.")
    # Grain reads absl's own flags when it starts worker processes.
    flags.FLAGS.mark_as_parsed()
    place = {name: values[name].value for name in cluster.SETTINGS}
    found = place_name.value or environment.detect()
    if found != "local":
        print(
            f"Environment: {found}{'' if place_name.value else ' (detected; --env says otherwise)'}"
        )
    located = environment.locate(config.value.to_dict(), found)
    return located, workdir.value, place, devices.value


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Return what --config says, "" when it is not there, and the other arguments."""
    for at, argument in enumerate(argv):
        if match := re.fullmatch("--?config(?:=(.*))?", argument, re.DOTALL):
            used = 1 if match[1] is not None else 2
            name = match[1] if used == 1 else "".join(argv[at + 1 : at + 2])
            return name, argv[:at] + argv[at + used :]
    return "", argv


def _load(name: str) -> dict:
    """Read the values of a config file, without what it leaves to defaults."""
    if name.endswith((".yaml", ".yml", ".json")):
        return read(name)
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=[])
    values(["main", f"--config={name}"])
    return config.value.to_dict()


def _open_fields(values: dict) -> dict:
    """Let the command line give a value of any type to the fields that have none."""
    return {
        name: _open_fields(value)
        if isinstance(value, dict)
        else (config_dict.placeholder(object) if value is None else value)
        for name, value in values.items()
    }


def _sentence(error: BaseException) -> str:
    """What went wrong in one line; of a config file's own failure, the flag parser has the text."""
    if isinstance(error, AttributeError | KeyError):
        # The parser's own message hides in the arguments; the outer text is its representation.
        while isinstance(error, BaseException) and error.args:
            error = error.args[0]
        return " ".join(f"The config has no field {error}".split())
    text = str(error).strip()
    if "Traceback" in text:
        text = text.splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
    return " ".join(text.split())
