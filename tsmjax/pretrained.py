"""Trained weights from anywhere: a run folder, a Hugging Face folder, a hub id."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
from etils import epath
from flax import nnx

from tsmjax import checkpoint, config, optim, weights
from tsmjax.checkpoint import Weights
from tsmjax.errors import InputError
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree, flatten, unflatten
from tsmjax.tasks import Task


def load(path: str, default: str = "best", digest: bool = True) -> Weights:
    """Load model weights to the host.

    Args:
      path: run folder (``@best``, ``@final``, ``@latest`` or ``@STEP`` may follow), a folder with
        ``config.json`` and safetensors files, or a hub id.
      default: checkpoint of a run folder when `path` names none.
      digest: whether the source of files of weights holds their digest.

    Raises:
      InputError: when there is nothing to load at `path`.
    """
    folder = epath.Path(path.rsplit("@", 1)[0])
    if (folder / "checkpoints").exists():
        return checkpoint.load_weights(path, default)
    found = weights.read(path, dtype=None, digest=digest)
    values = {
        "model": {"family": found.family, **found.config_values},
        "task": {"kind": weights.task(found.family)},
    }
    return Weights(found.params, found.stats, values, found.artefacts, found.source)


def model_values(path: str) -> dict[str, Any]:
    """Return the config section ``model`` of what `load` would load.

    Raises:
      InputError: when there is nothing to load at `path`.
    """
    run = epath.Path(path.rsplit("@", 1)[0])
    if (run / "checkpoints").exists():
        return json.loads((run / "config.json").read_text())["model"]
    family, values = weights.describe(path)
    return {"family": family, **values}


def task_values(path: str) -> dict[str, Any]:
    """Return the config section ``task`` of what `load` would load; only runs hold more than kinds.

    Raises:
      InputError: when there is nothing to load at `path`.
    """
    run = epath.Path(path.rsplit("@", 1)[0])
    if (run / "checkpoints").exists():
        return json.loads((run / "config.json").read_text())["task"]
    return {"kind": weights.task(weights.describe(path)[0])}


def fit(found: Tree, expected: Tree, skip: tuple[str, ...], source: str) -> tuple[Tree, str]:
    """Select the loaded parameters that the config's model takes.

    Args:
      found: nested dict of loaded arrays; scanned and unrolled layers are converted as needed.
      expected: nested dict of the shapes the config asks for.
      skip: path patterns of parameters that keep their fresh values.
      source: readable origin, for messages.

    Returns:
      The parameters to put in place, and a sentence that says what matched.

    Raises:
      InputError: with the difference, when the rest does not match exactly.
    """
    flat = flatten(weights.relayout(found, expected))
    wanted = flatten(expected)
    skipped = optim.first_match(
        tuple((pattern, True) for pattern in skip), list(wanted), "checkpoint.init_skip"
    )
    needed = {path: leaf for path, leaf in wanted.items() if path not in skipped}
    offered = {path: leaf for path, leaf in flat.items() if path not in skipped}
    if difference := checkpoint.compare(needed, offered):
        raise InputError(
            f"The weights of {source} do not fit this config's model: {difference}. Change the "
            "model section, or list patterns in checkpoint.init_skip to keep fresh values."
        )
    cast = sum(str(offered[path].dtype) != str(leaf.dtype) for path, leaf in needed.items())
    note = f"{len(needed)} of {len(wanted)} tensors loaded from {source}"
    if skipped:
        note += f", {len(skipped)} kept fresh"
    if cast:
        note += f", {cast} converted to float32"
    return unflatten({path: offered[path] for path in needed}), note


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained model ready to call.

    Attributes:
      task: the task it was trained for, with `predict`.
      model: the module, with its weights on the default device.
      config: the resolved config values.
      artefacts: what the task stored beside the weights.
    """

    task: Task
    model: nnx.Module
    config: dict[str, Any]
    artefacts: dict[str, Any]


def from_pretrained(path: str, default: str = "best") -> Pretrained:
    """Build the task and model that `path` describes and fill in its weights (float32)."""
    loaded = load(path, default, digest=False)  # which takes as long as reading
    resolved = config.resolve(loaded.config)
    task = resolved.build_task()
    graph, params, _ = functional.abstract(lambda rngs: task.build(rngs).model)
    chosen, _ = fit(loaded.params, params, (), loaded.source)
    model = functional.merge(
        graph,
        unflatten({path: jnp.asarray(leaf, jnp.float32) for path, leaf in flatten(chosen).items()}),
        loaded.stats,
    )
    return Pretrained(task, model, loaded.config, loaded.artefacts)
