"""Knowledge distillation: a small skeleton model learns from labels and from frozen teachers.

    loss = α · CE(labels) + β · τ² · KL(teachers ‖ student) + γ · Σ_stages MSE(P_s f_s, g_s)

The divergence is between softmaxes at temperature τ; several teachers are one distribution, the
weighted mean of theirs. f_s and g_s are the features behind each stage of the student and of one
teacher, P_s a projection that is trained with the student and dropped afterwards.

Teachers see the augmented clip that the student sees, in evaluation mode. Without augmentation (and
without mimicry) what they say of every training clip is computed once, before training.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), section 2; Romero et
al., "FitNets" (2015), section 2.2.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import checkpoint
from tsmjax import config as config_lib
from tsmjax.data.skeleton import DataConfig, SkeletonBatches
from tsmjax.errors import InputError
from tsmjax.models import last
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree
from tsmjax.nn.linear import Linear
from tsmjax.tasks import Batch, Modules, skeleton

__all__ = ["Config", "DataConfig", "Task", "Teacher"]

log = logging.getLogger(__name__)
_MOST = 4  # teachers


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained model to learn from.

    Attributes:
      model: what it is; kept here, so that a student can be loaded without its teachers.
      checkpoint: its weights, as for ``checkpoint.init_from``, but the best ones of a run folder.
      weight: how much its chances count among those of all teachers.
    """

    model: last.Config
    checkpoint: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Config(skeleton.Config):
    """What to minimise, beside what `tsmjax.tasks.skeleton.Config` says.

    Attributes:
      teachers: one to four of them.
      alpha: weight of the cross-entropy with the labels.
      beta: weight of the divergence from the teachers.
      tau: temperature of both softmaxes.
      gamma: weight of the mimicry of features; 0 for none. The features are those of the first
        teacher that sees nothing but joints, or of the first one.
    """

    teachers: tuple[Teacher, ...] = ()
    alpha: float = 0.5
    beta: float = 0.5
    tau: float = 4.0
    gamma: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= len(self.teachers) <= _MOST:
            raise InputError(
                f"task.teachers names {len(self.teachers)} models, but must name one to {_MOST}."
            )
        if min(self.alpha, self.beta, self.gamma) < 0:
            raise InputError("task.alpha, task.beta and task.gamma must not be negative.")
        if not self.tau > 0:
            raise InputError(f"task.tau is {self.tau}, but must be above 0.")
        if min(teacher.weight for teacher in self.teachers) <= 0:
            raise InputError("The weight of every teacher in task.teachers must be above 0.")


class Teachers(nnx.Module):
    """The teachers side by side, under ``nets``."""

    def __init__(self, configs: Sequence[last.Config], *, rngs: nnx.Rngs):
        self.nets = nnx.List([last.Model(config, rngs=rngs) for config in configs])


class Projections(nnx.Module):
    """Projections of features (…, C_student) to (…, C_teacher), one a stage, without bias."""

    def __init__(self, widths: Sequence[tuple[int, int]], *, rngs: nnx.Rngs):
        stages = [Linear(one, other, std=one**-0.5, rngs=rngs) for one, other in widths]
        self.stages = nnx.List(stages)


class Task(skeleton.Task):
    """Classification of clips by a student."""

    def __init__(self, config: config_lib.Config):
        super().__init__(config)
        own = config.task
        self.coefficients |= {"cross_entropy": own.alpha, "distillation": own.beta}
        if own.gamma:
            self.coefficients["mimicry"] = own.gamma
        models = [teacher.model for teacher in own.teachers]
        self.teachers = {
            f"nets/{place}": teacher.checkpoint for place, teacher in enumerate(own.teachers)
        }
        alone = [last.input_streams(model) == ("joint",) for model in models]
        self.mimicked = alone.index(True) if any(alone) else 0
        for place, model in enumerate(models):
            for name in ("frames", "skeleton", "num_classes"):
                if getattr(model, name) != getattr(config.model, name):
                    raise InputError(
                        f"task.teachers[{place}].model.{name} is {getattr(model, name)!r}, but the "
                        f"student's is {getattr(config.model, name)!r}: they must see the same."
                    )
        self._said: _Said | None = None

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the student, its projections and the teachers with fresh parameters."""
        own, student = self.config.task, self.config.model
        models = [teacher.model for teacher in own.teachers]
        aux = None
        if own.gamma:
            widths = zip(last.widths(student), last.widths(models[self.mimicked]), strict=True)
            aux = Projections(list(widths), rngs=rngs)
        return Modules(super().build(rngs).model, aux, Teachers(models, rngs=rngs))

    def batches(self, split: str, host: int, hosts: int) -> SkeletonBatches | _Said:
        """Open the training part; with what teachers say of the clips when that never changes."""
        batches = super().batches(split, host, hosts)
        own = self.config.task
        if own.gamma or own.augment.random or self.config.data.sampling == "segments":
            return batches
        self._said = _Said(batches, len(self.data))
        return self._said

    def before(self, frozen: Tree) -> None:
        """Ask the teachers about every training clip, when that is worth it."""
        super().before(frozen)
        if self._said is None:
            return
        graph, _, _ = functional.abstract(lambda rngs: self.build(rngs).frozen)
        params, stats = (
            jax.device_put(jax.tree.map(checkpoint.whole, frozen[part]["frozen"]))
            for part in ("params", "stats")
        )

        @jax.jit
        def ask(params: Tree, batch: Batch) -> jax.Array:
            batch = self.device(batch, jax.random.key(0), True)
            chances, _ = self._ask(functional.merge(graph, params, stats), batch)
            return chances

        clips = self.data.part("train", self.config.data, self.config.seed)
        rows = min(self.config.data.batch_size, len(clips))
        for start in range(0, len(clips), rows):
            some = clips[np.minimum(np.arange(start, start + rows), len(clips) - 1)]
            self._said.keep(some, np.asarray(ask(params, self.reader.read(some))))
        log.info("The teachers have seen each of %s clips once.", f"{len(clips):,}")

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum cross-entropy, divergence from the teachers, and mimicry over the clips."""
        own = self.config.task
        out = self.forward(modules.model, batch, key, train)
        terms = self.sums(out, batch)
        if "teachers" in batch:
            chances, told = batch["teachers"], None
        else:
            chances, told = self._ask(modules.frozen, batch)
        losses = divergence(out["logits"], chances, own.tau)
        terms["distillation"] = (batch["weight"] * losses).sum()
        if own.gamma:
            terms["mimicry"] = (batch["weight"] * mimicry(out, told, modules.aux)).sum()
        return terms

    def _ask(self, teachers: Teachers, batch: Batch) -> tuple[jax.Array, dict[str, Any]]:
        """Return the teachers' log-chances (B, classes), and all that the mimicked one says."""
        own = self.config.task
        graph, params, stats = functional.split(teachers)
        if jax.default_backend() != "cpu":  # where XLA only emulates it
            params = functional.cast(params, jnp.bfloat16)
        nets = functional.merge(graph, params, stats).nets
        joints, present = batch["joints"], batch["present"]
        outs = [net(self.streams(joints, net.config), present) for net in nets]
        weights = [teacher.weight for teacher in own.teachers]
        chances = mean_chances([out["logits"] for out in outs], weights, own.tau)
        return chances, outs[self.mimicked]


class _Said:
    """Training batches, with the log-chances that the teachers give: ``teachers`` (B, classes)."""

    def __init__(self, batches: SkeletonBatches, clips: int):
        self._batches, self._clips = batches, clips
        self._chances: np.ndarray | None = None
        self.rows, self.steps_per_epoch = batches.rows, batches.steps_per_epoch

    def keep(self, clips: np.ndarray, chances: np.ndarray) -> None:
        """Remember the log-chances of clips."""
        if self._chances is None:
            self._chances = np.zeros((self._clips, chances.shape[1]), np.float32)
        self._chances[clips] = chances

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        batch = self._batches[step]
        if self._chances is None:  # nobody has asked them
            return batch
        clips, _ = self._batches.drawn_clips(step)
        return {**batch, "teachers": self._chances[clips]}


def mean_chances(
    logits: Sequence[jax.Array], weights: Sequence[float], tau: float = 1.0
) -> jax.Array:
    """Log of the weighted mean of softmaxes at temperature `tau`; logits (B, classes) each."""
    share = jnp.asarray(weights, jnp.float32) / sum(weights)
    each = jnp.stack([jax.nn.log_softmax(one.astype(jnp.float32) / tau) for one in logits])
    return jax.nn.logsumexp(each + jnp.log(share)[:, None, None], axis=0)


def divergence(logits: jax.Array, chances: jax.Array, tau: float) -> jax.Array:
    """τ² · KL(teacher ‖ student at τ) of each clip, (B,) float32.

    Args:
      logits: (B, classes) of the student.
      chances: (B, classes) log-chances of the teacher at the same temperature.
      tau: temperature; τ² keeps the gradient's size when it changes.
    """
    own = jax.nn.log_softmax(logits.astype(jnp.float32) / tau)
    return tau**2 * (jnp.exp(chances) * (chances - own)).sum(axis=-1)


def mimicry(
    student: dict[str, Any], teacher: dict[str, Any], projections: Projections
) -> jax.Array:
    """Mean squared error of projected features, summed over the stages, of each clip (B,).

    The mean of a clip is over frames, joints, channels, and those bodies that both models read and
    that are present.
    """
    bodies = min(student["present"].shape[1], teacher["present"].shape[1])
    here = student["present"][:, :bodies] * teacher["present"][:, :bodies]
    here = here / jnp.maximum(here.sum(axis=1, keepdims=True), 1.0)
    pairs = zip(projections.stages, student["features"], teacher["features"], strict=True)
    total = jnp.float32(0)
    for project, own, wanted in pairs:
        error = project(own[:, :bodies]).astype(jnp.float32) - wanted[:, :bodies]
        total = total + (here * jnp.square(error).mean(axis=(2, 3, 4))).sum(axis=1)
    return total
