"""PyTorch reference models: loaded whole, watched, and made of random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_Select = Callable[[np.ndarray], np.ndarray]


def load(kind: type, folder: Path, **options: Any) -> tuple[torch.nn.Module, int]:
    """Load a model of transformers' making in fp32 and evaluation mode.

    Args:
      kind: its class.
      folder: Hugging Face folder.
      options: further arguments of ``from_pretrained``.

    Returns:
      The model, and how many tensors it missed, did not know, or had in another shape.
    """
    model, found = kind.from_pretrained(folder, output_loading_info=True, **options)
    lost = sum(len(found[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval().float(), lost


def record(
    stages: Mapping[str, torch.nn.Module], select: _Select = lambda x: x
) -> dict[str, np.ndarray]:
    """Return a dict that forward passes fill with what `stages` return, in order of computation.

    Args:
      stages: name → module whose first output is kept.
      select: what to keep of it.
    """
    states: dict[str, np.ndarray] = {}

    def hook(name: str):
        def keep(module, arguments, output):
            first = output if torch.is_tensor(output) else output[0]
            states[name] = select(first.detach().numpy())

        return keep

    for name, module in stages.items():
        module.register_forward_hook(hook(name))
    return states


def gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return tensor name → gradient, of the parameters that have one."""
    return {
        name: parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def save_random(
    kind: type, config: Mapping[str, Any], folder: Path, seed: int = 0, **options: Any
) -> Path:
    """Save a model with random weights, none of which is zero or one.

    A reference starts biases at zero and scales at one, where a mistake can hide: a normal draw of
    a tenth is added.

    Args:
      kind: class of the model.
      config: what its config.json holds.
      folder: new folder.
      seed: of the weights.
      options: further arguments of ``save_pretrained``.
    """
    torch.manual_seed(seed)
    return save_moved(kind(kind.config_class.from_dict(dict(config))), folder, **options)


def save_moved(model: torch.nn.Module, folder: Path, **options: Any) -> Path:
    """Save a model of transformers' making with biases and scales moved off zero and one."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **options)
    return folder
