"""Import, export and verify model weights: ``python -m convert --help``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from convert import llama2c, torch_checkpoint
from tsmjax import checkpoint, weights
from tsmjax.config import build, find_module
from tsmjax.errors import InputError
from tsmjax.weights import hub

EXAMPLES = """\
examples:
  python -m convert import chronos2 amazon/chronos-2 experiments/chronos2/published
  python -m convert import chronos2 my-lora-adapter/ merged/ --base amazon/chronos-2
  python -m convert export chronos2 experiments/chronos2/base/best_run@best hf/my-chronos2
  python -m convert export chronos2 runs/lora my-lora-adapter/ --adapter --base amazon/chronos-2
  python -m convert export llama runs/sensorllm hf/llama       the Llama inside a SensorLLM
  python -m convert verify chronos2 hf/my-chronos2
  python -m convert verify chronos_t5 random:large             random weights of the reference
  python -m convert import chronos_t5 amazon/chronos-t5-small runs/t5 --decoder
  python -m convert import last best_model.pth weights/last_e_v3

SOURCE is a run folder (with @best, @final, @latest or @STEP behind it), a Hugging Face folder with
config.json and safetensors or PyTorch's .bin files, a PEFT LoRA adapter folder, or a hub id
(OWNER/NAME, OWNER/NAME@REVISION); for family last also a PyTorch checkpoint file (.pth), for llama
also a model of llama2c (.bin), for verify also random:PRESET. TARGET is a new folder.
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
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="export the LoRA adapter of a run for PEFT, instead of merged weights",
    )
    parser.add_argument(
        "--decoder",
        action="store_true",
        help="chronos_t5: read the decoder as well, instead of the encoder alone",
    )
    options = parser.parse_args(arguments)
    if (options.target is None) != (options.action == "verify"):
        wants = "takes no TARGET" if options.action == "verify" else "needs a TARGET folder"
        parser.error(f"{options.action} {wants}")
    if options.adapter and options.action != "export":
        parser.error(f"--adapter belongs to export, not to {options.action}")
    if options.decoder and options.family != "chronos_t5":
        parser.error(f"--decoder belongs to chronos_t5, not to {options.family}")
    model = {"decoder": True} if options.decoder else {}
    reading = {"base": options.base, "model_overrides": model}
    try:
        if options.adapter:
            base = export_adapter(options.source, options.family, options.target, options.base)
            print(f"{options.target}: LoRA adapter of {base} from {options.source}")
            return 0
        if options.action == "verify":
            from convert import verify

            if options.source.startswith(verify.RANDOM):
                preset = options.source.removeprefix(verify.RANDOM)
                return verify.run(verify.random(options.family, preset, model))
            return verify.run(load(options.source, options.family, **reading))
        move = import_weights if options.action == "import" else export
        source = move(options.source, options.family, options.target, **reading)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.target}: {options.family} from {source}")
    return 0


def load(
    source: str,
    family: str,
    base: str | None = None,
    model_overrides: Mapping[str, Any] | None = None,
) -> weights.Imported:
    """Read model weights from any kind of checkpoint, in the types that it has.

    Args:
      source: run folder with an optional selector, Hugging Face folder, adapter folder, hub id, or
        model file.
      family: the expected family; a part of the model that is stored will do.
      base: base model of an adapter.
      model_overrides: `Config` values that replace those of a Hugging Face folder; of any other
        source they must be the values that it has.

    Raises:
      InputError: when there is no such checkpoint, or it is of another family.
    """
    if source.endswith(torch_checkpoint.SUFFIXES):
        return torch_checkpoint.read(source, family)
    if family == "llama" and source.endswith(llama2c.SUFFIX):
        return llama2c.read(source)
    if _is_run(source):
        run = checkpoint.load_weights(source)
        values = dict(run.config["model"])
        stored = values.pop("family")
        found = weights.Imported(stored, values, run.params, run.source, run.artefacts, run.stats)
        found = _of_family(found, family)
        for name, value in (model_overrides or {}).items():
            if found.config_values.get(name) != value:
                raise InputError(
                    f"{found.source} was stored with model.{name} = "
                    f"{found.config_values.get(name)}, and lacks the weights for {value}: give "
                    "the folder that it was taken in from."
                )
        return found
    with torch_checkpoint.as_safetensors(source) as (folder, pickles):
        stored = family if base is not None else weights.describe(folder)[0]
        whole = stored if family in weights.parts(stored) else family
        found = weights.read(folder, whole, model_overrides, base, dtype=None)
    if pickles:
        found = dataclasses.replace(found, source=f"{source} (sha256 {pickles})")
    return _of_family(found, family)


def _is_run(source: str) -> bool:
    return (epath.Path(source.rpartition("@")[0] or source) / "checkpoints").exists()


def _of_family(found: weights.Imported, family: str) -> weights.Imported:
    """Return `found`, or the part of it that is of `family`."""
    if found.family == family:
        return found
    child = weights.parts(found.family).get(family)
    if child is None:
        raise InputError(
            f"{found.source} holds a {found.family} model, but {family} was asked for."
        )
    return weights.Imported(
        family, found.config_values[child], found.params[child], f"{child} of {found.source}"
    )


def export_adapter(source: str, family: str, target: str, base: str | None = None) -> str:
    """Write the LoRA adapter of a run as a folder that PEFT loads, and return its base model.

    Args:
      source: run folder with an optional selector.
      family: the expected family.
      target: new folder.
      base: Hugging Face folder or hub id of the base model; None takes what the run started from.

    Raises:
      InputError: when the run has no adapter, or started from something that PEFT cannot load.
    """
    found = checkpoint.load_weights(source, merge=False)
    values = dict(found.config["model"])
    if (stored := values.pop("family")) != family:
        raise InputError(f"{found.source} holds a {stored} model, but {family} was asked for.")
    adapters = found.config.get("optim", {}).get("lora", {})
    if not adapters.get("rank"):
        raise InputError(f"{source} was not trained with LoRA: export it without --adapter.")
    base = base or found.config["checkpoint"]["init_from"]
    folder = epath.Path(base.rpartition("@")[0] or base)
    if (folder / "config.json").exists() and not (folder / "checkpoints").exists():
        base = str(folder.resolve())
    elif folder.exists() or not hub.is_id(base):
        raise InputError(
            f"An adapter needs a Hugging Face folder or hub id as its base, and {base!r} is none: "
            f"export what {source} started from, and give that folder as --base."
        )
    weights.write_adapter(target, family, values, found.params, adapters["alpha"], base)
    return base


def export(source: str, family: str, target: str, **reading: Any) -> str:
    """Write weights as a Hugging Face folder, and return where they came from.

    What is a folder already travels tensor by tensor.

    Args:
      source: see `load`.
      family: see `load`.
      target: new folder.
      **reading: the other arguments of `load`.

    Raises:
      InputError: see `load`; or when `target` exists and is not empty.
    """
    folder = not (_is_run(source) or source.endswith((*torch_checkpoint.SUFFIXES, llama2c.SUFFIX)))
    if folder:
        with torch_checkpoint.as_safetensors(source) as (place, pickles):
            stored = family if reading.get("base") else weights.describe(place)[0]
            if family not in weights.parts(stored):
                _, told = weights.rewrite(place, target, family, **reading)
                return f"{source} (sha256 {pickles})" if pickles else told
    found = load(source, family, **reading)
    values = found.config_values
    weights.write(target, family, values, found.params, found.artefacts, found.stats)
    return found.source


def import_weights(source: str, family: str, target: str, **reading: Any) -> str:
    """Write weights as a run folder that every command takes, and return where they came from.

    Arguments are those of `export`.

    Raises:
      InputError: see `load`; or when `target` exists and is not empty.
    """
    found = load(source, family, **reading)
    config = build(find_module("models", found.family).Config, found.config_values, "model")
    task = weights.task(found.family)
    checkpoint.save_weights(
        target,
        params=found.params,
        stats=found.stats,
        config={
            "model": {"family": found.family, **dataclasses.asdict(config)},
            "task": {"kind": task},
            "tsmjax": {"family": found.family, "task": task, "format": weights.FORMAT},
        },
        artefacts={**found.artefacts, "source": found.source},
    )
    return found.source


if __name__ == "__main__":
    sys.exit(main())
