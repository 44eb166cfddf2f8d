"""Import, export and verify model weights: ``python -m convert --help``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from etils import epath

from tsmjax import checkpoint, weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError

EXAMPLES = """\
examples:
  python -m convert import chronos2 amazon/chronos-2 experiments/chronos2/published
  python -m convert import chronos2 my-lora-adapter/ merged/ --base amazon/chronos-2
  python -m convert export chronos2 experiments/chronos2/base/best_run@best hf/my-chronos2
  python -m convert verify chronos2 hf/my-chronos2

SOURCE is a run folder (with @best, @final, @latest or @STEP behind it), a Hugging Face folder with
config.json and safetensors, a PEFT LoRA adapter folder, or a hub id. TARGET is a new folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 (done), 1 (verify found a difference) or 2 (bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Move model weights between Hugging Face folders and run folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action",
        choices=("import", "export", "verify"),
        help="import: write a run folder; export: write a Hugging Face folder; verify: run the "
        "reference implementation beside ours and compare block by block",
    )
    parser.add_argument("family", help="model family, such as chronos2")
    parser.add_argument("source", help="run folder, Hugging Face folder, LoRA adapter or hub id")
    parser.add_argument("target", nargs="?", help="new folder (import and export)")
    parser.add_argument("--base", help="base model of a LoRA adapter, if not the one it names")
    options = parser.parse_args(arguments)
    if (options.target is None) != (options.action == "verify"):
        wants = "takes no TARGET" if options.action == "verify" else "needs a TARGET folder"
        parser.error(f"{options.action} {wants}")
    try:
        found = load(options.source, options.family, options.base)
        if options.action == "verify":
            from convert import verify

            return verify.run(found)
        if options.action == "import":
            import_weights(found, options.target)
        else:
            weights.write(options.target, found.family, found.config_values, found.params)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.target}: {found.family} from {found.source}")
    return 0


def load(source: str, family: str, base: str | None = None) -> weights.Imported:
    """Read model weights from any kind of checkpoint.

    Args:
      source: run folder with an optional selector, Hugging Face folder, adapter folder or hub id.
      family: the expected family.
      base: base model of an adapter.

    Raises:
      InputError: when there is no such checkpoint, or it is of another family.
    """
    run = epath.Path(source.rpartition("@")[0] or source)
    if not (run / "checkpoints").exists():
        return weights.read(source, family, base=base)
    found = checkpoint.load_weights(source)
    values = dict(found.config["model"])
    if (stored := values.pop("family")) != family:
        raise InputError(f"{source} holds a {stored} model, but {family} was asked for.")
    return weights.Imported(family, values, found.params, found.source)


def import_weights(found: weights.Imported, target: str) -> None:
    """Write weights as a run folder that every command accepts as a checkpoint.

    Raises:
      InputError: when `target` exists and is not empty.
    """
    config = build(find_module("models", found.family).Config, found.config_values, "model")
    task = weights.task(found.family)
    checkpoint.save_weights(
        target,
        params=found.params,
        stats={},
        config={
            "model": {"family": found.family, **dataclasses.asdict(config)},
            "task": {"kind": task},
            "tsmjax": {"family": found.family, "task": task, "format": weights.FORMAT},
        },
        artefacts={"source": found.source},
    )


if __name__ == "__main__":
    sys.exit(main())
