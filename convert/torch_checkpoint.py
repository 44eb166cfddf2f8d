"""PyTorch pickles: from state dicts in .bin and .pth files to what `weights.read` returns.

Only tensors are unpickled, never code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsmjax import weights
from tsmjax.errors import InputError
from tsmjax.weights import folder as folders
from tsmjax.weights import hub, lora, tables

SUFFIXES = (".pth", ".pt")
_KEYS = ("model_state_dict", "state_dict", "model")  # where trainers put the weights


def read(path: str | Path, family: str) -> weights.Imported:
    """Read a checkpoint of a reference trainer.

    Args:
      path: the file: a state dict, or a dict with one under ``model_state_dict``, ``state_dict`` or
        ``model``.
      family: its family, whose weight table has a function ``describe``.

    Raises:
      InputError: when the file is missing, damaged, of another model, or holds code.
    """
    table = tables.table(family)
    if not hasattr(table, "describe"):
        raise InputError(
            f"{path} alone does not say what model it is: give {family} a folder with config.json "
            "and the file as pytorch_model.bin, or a hub id."
        )
    state = load(Path(path))
    arrays = {
        name: x.float().numpy() if x.is_floating_point() else x.numpy() for name, x in state.items()
    }
    config = table.describe(arrays)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        _save(
            {name: x.float() for name, x in state.items() if x.is_floating_point()},
            Path(folder) / folders.WEIGHTS,
        )
        found = weights.read(folder, family)
    source = f"{path} (sha256 {folders.digest([Path(path)])})"
    return dataclasses.replace(found, source=source)


@contextlib.contextmanager
def as_safetensors(source: str) -> Iterator[tuple[str, str]]:
    """Give a model folder whose weights are safetensors.

    Args:
      source: folder or hub id.

    Yields:
      The source itself; or, when its weights are PyTorch pickles alone, a folder with a copy that
      vanishes afterwards. And the digest of the pickles, empty when there are none.

    Raises:
      InputError: when there are no weights, or a pickle is damaged or holds code.
    """
    folder = hub.resolve(source)
    if _has_safetensors(folder):
        yield source, ""
        return
    if not Path(source).expanduser().is_dir():
        folder = hub.resolve(source, pickles=True)
    files = _pickles(folder)
    if not files:
        yield source, ""  # whoever reads it says what is missing
        return
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copy(folder / "config.json", copy / "config.json")
        places = {}
        for number, file in enumerate(files):
            shard = f"model-{number}.safetensors"
            state = load(file)
            _save(state, copy / shard)
            places |= dict.fromkeys(state, shard)
            del state
        (copy / folders.INDEX).write_text(json.dumps({"weight_map": places}))
        yield name, folders.digest(files)


def load(path: Path) -> dict[str, Any]:
    """Read the state dict of a file: tensor name → torch tensor.

    Raises:
      InputError: when the file is missing, damaged, holds code or no state dict, or torch is not
        installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path} is a PyTorch pickle, and reading it needs torch: pip install "
            "'tsmjax[convert]', or take a checkpoint in safetensors."
        ) from error
    try:
        mapped = zipfile.is_zipfile(path)  # the format since PyTorch 1.6
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, and is not read for safety; save the state dict "
            "alone (torch.save(model.state_dict(), FILE))."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it ends early"
        raise InputError(f"{path} is no PyTorch checkpoint ({reason}).") from error
    state = next(
        (loaded[key] for key in _KEYS if isinstance(loaded, dict) and key in loaded), loaded
    )
    if not isinstance(state, dict) or not all(torch.is_tensor(x) for x in state.values()):
        raise InputError(f"{path} holds no state dict, nor one under {', '.join(_KEYS)}.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _save(state: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    seen, alone = set(), {}
    for name, tensor in state.items():
        # Tied tensors share their memory, which safetensors does not store.
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        alone[name] = tensor.clone() if shared else tensor.contiguous()
    save_file(alone, path)


def _has_safetensors(folder: Path) -> bool:
    names = (folders.WEIGHTS, folders.INDEX, lora.CONFIG)
    return any((folder / name).exists() for name in names)


def _pickles(folder: Path) -> list[Path]:
    single, index = (folder / name for name in folders.PICKLES)
    if single.exists():
        return [single]
    if not index.exists():
        return []
    names = sorted(set(folders.read_json(index).get("weight_map", {}).values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder} has no file {missing[0]}; download the whole folder.")
    return [folder / name for name in names]
