"""What the trainer asks of a task: `Task` is the whole contract.

A task module holds `Config` and `DataConfig` (frozen dataclasses for the config sections ``task``
and ``data``) and a class `Task` (a subclass of the one below), constructed as ``Task(config)``.
"""

from __future__ import annotations

import abc
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import nnx

from tsmjax.nn.functional import Tree

Batch = dict[str, jax.Array]


class Modules(NamedTuple):
    """The modules of a task, rebuilt around the current leaves inside the step.

    Attributes:
      model: what is trained, evaluated, exported.
      aux: trained beside it and dropped afterwards (projections, decoders); None for most tasks.
      frozen: never trained, always in evaluation mode (teachers); None for most tasks.
    """

    model: nnx.Module
    aux: nnx.Module | None = None
    frozen: nnx.Module | None = None


class Batches(Protocol):
    """Batches addressed by step: a pure function of (config, seed, step)."""

    rows: int  # rows of one global batch, for throughput
    steps_per_epoch: float | None  # None when the data have no end
    # Optional: `drawn(first, last)`, rows by source, and `skipped`, name → (series left out, all).

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's slice of the batch of `step`."""
        ...


class Task(abc.ABC):
    """The only thing the training loop knows of a family.

    Attributes:
      sharding: ordered (path pattern, axes of the trailing dimensions) rules.
      lora: (path pattern, adapted?) rules of the projections that low-rank adapters go to when the
        config names none.
      freeze: (path pattern, frozen?) rules for leaves that no rule of ``optim.freeze`` matches.
      parts: name of a child of the model → the checkpoint that it starts from, unless the whole
        model starts from one.
      teachers: path of a module inside the frozen one → the checkpoint that it is, the best one of
        a run folder.
      coefficients: weight of each term in the loss.
      couples_rows: True when a term mixes rows (InfoNCE), which gradient accumulation would change.
    """

    sharding: Sequence[tuple[str, tuple[str | None, ...]]]
    lora: Sequence[tuple[str, bool]] = ()
    freeze: Sequence[tuple[str, bool]] = ()
    parts: Mapping[str, str] = types.MappingProxyType({})
    teachers: Mapping[str, str] = types.MappingProxyType({})
    coefficients: dict[str, float]
    couples_rows: bool = False

    @abc.abstractmethod
    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the modules with fresh parameters."""

    @abc.abstractmethod
    def batches(self, split: str, host: int, hosts: int) -> Batches:
        """Return the batches of `split` that this host reads."""

    def device(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        """Generate, mix, crop or augment on the device, at the head of the step."""
        return batch

    @abc.abstractmethod
    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Denominator of each term, from the batch alone."""

    @abc.abstractmethod
    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum of each term over the batch; loss = Σ coefficient · sum / weight."""

    @abc.abstractmethod
    def predict(self, model: nnx.Module, batch: Batch) -> Any:
        """Run the one forward pass that evaluators, inference and export share."""

    def flops(self, batch: Batch) -> float | None:
        """Count the FLOPs of one forward pass over a global (or abstract) batch; None = unknown."""
        return None

    def tokens(self, batch: Batch) -> float | None:
        """Count the tokens that the model reads of a global batch; None where there are none."""
        return None

    def evaluators(self, split: str) -> Sequence[Any]:
        """Evaluators of "validation" (during training) or "test" (once, at the end)."""
        return ()

    def follow(self, part: str, params: Tree) -> Tree:
        """Return parameters of the model that follow from a part that was loaded (see `parts`)."""
        return {}

    def before(self, frozen: Tree) -> None:
        """Run once before training, with the frozen leaves (build a cache, say)."""
        return None

    def after(self, state: Tree) -> Tree:
        """Run once after training (re-estimate statistics, say) and return the state."""
        return state

    def artefacts(self) -> dict[str, Any]:
        """JSON values stored in every checkpoint: label map, quantile levels, scalers."""
        return {}
