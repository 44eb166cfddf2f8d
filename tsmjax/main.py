"""Train from a config file.

    python -m tsmjax.main --config=configs/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.SECTION.FIELD=VALUE ...]

Examples:
    python -m tsmjax.main --config=configs/chronos2_test.py
    python -m tsmjax.main --config=configs/chronos2_test.py:data/mine --config.optim.lr=5e-4
    python -m tsmjax.main --config=configs/chronos2_base.py:/data/corpus --workdir=runs/base

--config     Python file with get_config(); what follows the colon is its argument. Every value it
             sets can be overridden; docs/configuration.md lists the fields.
--workdir    run folder, resumed when it holds a checkpoint. Default: a new folder under
             experiments/.

Exit codes: 0 done, 2 wrong input, anything else a fault.
"""  # noqa: E501

from __future__ import annotations

import sys

from absl import flags
from ml_collections import config_flags

from tsmjax.errors import InputError, closest


def run(argv: list[str]) -> int:
    """Train as the command line `argv` says and return the exit code."""
    if {"-h", "--help", "-help"} & set(argv[1:]):
        print(__doc__)
        return 0
    try:
        config, workdir = parse(argv)
        from tsmjax.trainer import train

        train(config, workdir)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: list[str]) -> tuple[dict, str | None]:
    """Read the command line into (nested config values, run folder).

    Raises:
      InputError: for an unknown flag, field or file, or a value of the wrong type.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", None, flag_values=values, lock_config=True, sys_argv=argv
    )
    workdir = flags.DEFINE_string("workdir", None, "Run folder.", flag_values=values)
    try:
        rest = values(argv)[1:]
        loaded = config.value.to_dict() if config.value is not None else None
    except flags.UnrecognizedFlagError as error:
        hint = closest(error.flagname, ("config", "workdir"))
        raise InputError(f"There is no flag --{error.flagname}{hint}; see --help.") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_sentence(error)) from error
    except OSError as error:
        name = next((a for a in argv if a.startswith("--config=")), "--config")
        raise InputError(f"{name} cannot be loaded: {_sentence(error)}") from error
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; flags start with --, see --help.")
    if loaded is None:
        raise InputError("Say what to train: --config=configs/NAME.py.")
    # Grain reads absl's own flags when it starts worker processes.
    flags.FLAGS.mark_as_parsed()
    return loaded, workdir.value


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


if __name__ == "__main__":
    sys.exit(run(sys.argv))
