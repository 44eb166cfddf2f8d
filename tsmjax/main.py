"""Train from a config file.

    python -m tsmjax.main --config=configs/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.SECTION.FIELD=VALUE ...]

Examples:
    python -m tsmjax.main --config=configs/chronos2_test.py
    python -m tsmjax.main --config=configs/chronos2_test.py:data/mine --config.optim.lr=5e-4
    python -m tsmjax.main --config=configs/chronos2_base.py:/data/corpus --workdir=runs/base
    python -m tsmjax.main --config=configs/chronos2_base.py --config.mesh.fsdp=8 --dry_run=64

--config     Python file with get_config(); what follows the colon is its argument. Every value it
             sets can be overridden; docs/configuration.md lists the fields.
--workdir    run folder, resumed when it holds a checkpoint. Default: a new folder under
             experiments/.
--dry_run    print parameters, shardings, memory of a device and FLOPs, and train nothing: on the
             devices that are here, or --dry_run=N on N devices that need not be.

--coordinator, --num_processes, --process_id and others start one run on several hosts, where the
launcher does not tell; docs/hosts.md lists them.

Exit codes: 0 done, 2 wrong input, 75 stopped by SIGTERM (start it again), anything else a fault.
"""  # noqa: E501

from __future__ import annotations

import sys
import traceback

from absl import flags
from ml_collections import config_flags

from tsmjax import cluster, watch
from tsmjax.errors import HostError, InputError, closest


def run(argv: list[str]) -> int:
    """Train as the command line `argv` says and return the exit code."""
    if {"-h", "--help", "-help"} & set(argv[1:]):
        print(__doc__)
        return 0
    with watch.watching():
        try:
            config, workdir, place, devices = parse(argv)
            if devices is not None:
                from tsmjax.dry_run import dry_run

                dry_run(config, devices)
                return 0
            from tsmjax import distributed
            from tsmjax.trainer import train

            watch.limit(distributed.start(place).watchdog)
            train(config, workdir)
        except (InputError, HostError) as error:
            print(f"error: {error}", file=sys.stderr)
            return watch.give_up(str(error), 2 if isinstance(error, InputError) else 1)
        except Exception as error:
            traceback.print_exc()
            return watch.give_up(f"{type(error).__name__}: {error}", 1)
    return 0


def parse(argv: list[str]) -> tuple[dict, str | None, dict[str, str | None], int | None]:
    """Read the command line into (config values, run folder, settings of the cluster, dry run).

    The last is None for training, the number of devices of a dry run, or 0 for those that are here.

    Raises:
      InputError: for an unknown flag, field or file, or a value of the wrong type.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", None, flag_values=values, lock_config=True, sys_argv=argv
    )
    workdir = flags.DEFINE_string("workdir", None, "Run folder.", flag_values=values)
    cluster.define_flags(values)
    devices = flags.DEFINE_integer("dry_run", None, "Devices.", 0, flag_values=values)
    argv = ["--dry_run=0" if argument == "--dry_run" else argument for argument in argv]
    try:
        rest = values(argv)[1:]
        loaded = config.value.to_dict() if config.value is not None else None
    except flags.UnrecognizedFlagError as error:
        hint = closest(error.flagname, ("config", "workdir", "dry_run", *cluster.SETTINGS))
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
    place = {name: values[name].value for name in cluster.SETTINGS}
    return loaded, workdir.value, place, devices.value


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
