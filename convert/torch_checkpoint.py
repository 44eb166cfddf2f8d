"""PyTorch checkpoint files (.pth): from pickled state dicts to what `weights.read` returns."""

from __future__ import annotations

import importlib
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tsmjax import weights
from tsmjax.errors import InputError

SUFFIXES = (".pth", ".pt")
_KEYS = ("model_state_dict", "state_dict", "model")  # where trainers put the weights


def read(path: str | Path, family: str) -> weights.Imported:
    """Read a checkpoint of a reference trainer; only tensors are unpickled, never code.

    Args:
      path: the file: a state dict, or a dict with one under ``model_state_dict``, ``state_dict`` or
        ``model``.
      family: its family, whose weight table has a function ``describe``.

    Raises:
      InputError: when the file is missing, damaged, of another model, or holds code.
    """
    table = importlib.import_module(f"tsmjax.weights.{family}") if family else None
    if not hasattr(table, "describe"):
        raise InputError(f"{family} has no PyTorch checkpoint files; give a folder or a hub id.")
    tensors = _load(Path(path))
    config = table.describe(tensors)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        stored = {
            name: np.ascontiguousarray(x, np.float32)
            for name, x in tensors.items()
            if not np.issubdtype(x.dtype, np.integer)
        }
        save_file(stored, Path(folder) / "model.safetensors")
        found = weights.read(folder, family)
    digest = found.source.partition("(")[2]
    return weights.Imported(
        family, found.config_values, found.params, f"{path} ({digest}", {}, found.stats
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise InputError(f"Reading {path} needs torch: pip install 'tsmjax[convert]'.") from error
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
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
    return {
        name.removeprefix("module."): x.float().numpy() if x.is_floating_point() else x.numpy()
        for name, x in state.items()
    }
