"""Train from a config file.

    python -m tsmjax.main --config=configs/chronos2_test.py
    python -m tsmjax.main --config=configs/chronos2_small.py --config.optim.lr=5e-4 --workdir=runs/a

Values of the config are overridden with ``--config.SECTION.FIELD=VALUE``. A --workdir that holds a
checkpoint is resumed. Exit codes: 0 done, 2 wrong input, anything else a fault.
"""

from __future__ import annotations

import sys

from absl import flags
from ml_collections import config_flags

from tsmjax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Python file with get_config(); what follows ':' is its argument.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run folder; resumed when it holds a checkpoint. Default: a new one."
)


def main(_: list[str]) -> None:
    """Train as the flags say."""
    from tsmjax.trainer import train

    if _CONFIG.value is None:
        raise InputError("Say what to train: --config=configs/NAME.py.")
    train(_CONFIG.value, _WORKDIR.value)


def run(argv: list[str]) -> int:
    """Parse `argv`, train, and return the exit code."""
    try:
        flags.FLAGS(argv)
        main(argv)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (flags.Error, AttributeError, KeyError, FileNotFoundError, TypeError) as error:
        if flags.FLAGS.is_parsed():
            raise
        # A misspelt field or file on the command line, reported by the flag parser.
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv))
