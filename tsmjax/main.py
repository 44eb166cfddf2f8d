"""Train from a config file.

    python -m tsmjax.main --config=configs/NAME.py[:ARGUMENT] [--workdir=DIR] [--config.SECTION.FIELD=VALUE ...]

Examples:
    python -m tsmjax.main --config=configs/chronos2_test.py
    python -m tsmjax.main --config=configs/chronos2_test.py:data/mine --config.optim.lr=5e-4
    python -m tsmjax.main --config=configs/chronos2_base.py:/data/corpus --workdir=runs/base
    python -m tsmjax.main --config=configs/chronos2_base.py --config.mesh.fsdp=8 --dry_run=64

--config     Python file with get_config(); what follows the colon is its argument. Or a YAML or
             JSON file of values, such as the config.yaml of a run. Every field can be overridden;
             docs/configuration.md lists them.
--workdir    run folder, resumed when it holds a checkpoint. Default: a new folder under
             experiments/.
--dry_run    print parameters, shardings, memory of a device and FLOPs, and train nothing: on the
             devices that are here, or --dry_run=N on N devices that need not be.

--env        local, kaggle or lambda: where data are looked for that are not at data.path; detected
             unless given.

--coordinator, --num_processes, --process_id and others start one run on several hosts, where the
launcher does not tell; docs/hosts.md lists them.

Exit codes: 0 done, 2 wrong input, 75 stopped by SIGTERM (start it again), anything else a fault.
"""  # noqa: E501

from __future__ import annotations

import sys
import traceback

from tsmjax import allocator, watch
from tsmjax.command_line import parse
from tsmjax.errors import HostError, InputError


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


if __name__ == "__main__":
    allocator.keep_freed()
    sys.exit(run(sys.argv))
