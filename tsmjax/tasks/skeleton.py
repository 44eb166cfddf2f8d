"""Recognition of actions from skeletons.

A batch holds B clips (see `tsmjax.data.skeleton.Reader`):

    joints (B, M, S, V, 3)   zeros where a body is away     label  (B,)
    present (B, M)                                          weight (B,), 0 = counts nothing

Clips are augmented and streams derived on the device, so that the host sends joints alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax import config as config_lib
from tsmjax.data import motion
from tsmjax.data.motion import AugmentConfig
from tsmjax.data.skeleton import DataConfig, Reader, SkeletonBatches, SkeletonData
from tsmjax.errors import InputError
from tsmjax.evals.clips import ClipEvaluator
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask

__all__ = ["Config", "DataConfig", "Task"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to minimise.

    Attributes:
      label_smoothing: share of the target that is spread over all classes.
      bottleneck: loss of the information bottleneck, for models with its heads: the divergence of
        their distribution from the standard normal one ("kl"), or none.
      bottleneck_weight: its weight.
      causal: share of the training steps in which temporal convolutions see the past only.
      bones: table of parents that bones are made of; empty for the skeleton's first one.
      augment: what is done to a clip in training.
    """

    label_smoothing: float = 0.0
    bottleneck: Literal["kl", "none"] = "none"
    bottleneck_weight: float = 0.01
    causal: float = 0.0
    bones: str = ""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)

    def __post_init__(self):
        for name in ("label_smoothing", "causal"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"task.{name} is {getattr(self, name)}, but must be in [0, 1].")


class Task(BaseTask):
    """Classification of clips by a skeleton model."""

    def __init__(self, config: config_lib.Config):
        self.config = config
        self.family = config_lib.find_module("models", config.family)
        self.sharding = self.family.SHARDING
        self.skeleton = self.family.skeleton(config.model.skeleton)
        self.parents = self.skeleton.parents(config.task.bones or None)
        # The last two are told beside the loss, and minimise nothing.
        self.coefficients = {"cross_entropy": 1.0, "top1": 0.0, "not_finite": 0.0}
        if config.task.bottleneck != "none":
            self.coefficients["bottleneck"] = config.task.bottleneck_weight

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters.

        Raises:
          InputError: when a bottleneck is asked for and the model has no heads for it.
        """
        model = self.family.Model(self.config.model, rngs=rngs)
        if "bottleneck" in self.coefficients and model.bottleneck is None:
            raise InputError(
                f"task.bottleneck is {self.config.task.bottleneck!r}, but the model "
                f"{self.config.model.net} {self.config.model.size} has no heads for it: set it to "
                "'none'."
            )
        return Modules(model)

    def batches(self, split: str, host: int, hosts: int) -> SkeletonBatches:
        """Open the training part; `split` is "train", the only one that is sampled."""
        return SkeletonBatches(
            self.data,
            self.config.data,
            frames=self.config.model.frames,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
        )

    def device(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        """Augment the clips of a training step."""
        joints = motion.augment(
            batch["joints"],
            key,
            self.config.task.augment,
            self.config.model.frames,
            self.skeleton.permutation,
        )
        return {**batch, "joints": joints}

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the clips that count; of what is told beside, clips that do not."""
        clips = batch["weight"].sum()
        return {**dict.fromkeys(self.coefficients, clips), "not_finite": jnp.float32(1)}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum cross-entropy and bottleneck over the clips."""
        config, weight, label = self.config.task, batch["weight"], batch["label"]
        causal = None
        if config.causal and train:
            key, causal_key = jax.random.split(key)
            causal = jax.random.bernoulli(causal_key, config.causal)
        out = modules.model(
            self.streams(batch["joints"]), batch["present"], train=train, key=key, causal=causal
        )
        logits = out["logits"]
        chances = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(chances, label[:, None], axis=1)[:, 0]
        smoothing = config.label_smoothing
        losses = -(1 - smoothing) * own - smoothing * chances.mean(axis=1)
        terms = {
            "cross_entropy": (weight * losses).sum(),
            "top1": (weight * (logits.argmax(axis=1) == label)).sum(),
            "not_finite": (1 - weight).sum(),
        }
        if "bottleneck" in self.coefficients:
            divergence = normal_divergence(out["ib_mean"], out["ib_log_variance"])
            there = out["present"] / out["present"].sum(axis=1, keepdims=True)
            terms["bottleneck"] = (weight * (divergence * there).sum(axis=1)).sum()
        return terms

    def predict(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Chances of the classes (B, classes), float32."""
        config = self.config
        joints = motion.middle(batch["joints"], config.task.augment.eval_crop, config.model.frames)
        logits = model(self.streams(joints), batch["present"])["logits"]
        return jax.nn.softmax(logits.astype(jnp.float32))

    def flops(self, batch: Batch) -> float:
        """Count the FLOPs of one forward pass over all bodies that the model reads."""
        clips, bodies = batch["present"].shape
        read = 1 if self.family.bodies(self.config.model) == "first" else bodies
        return self.family.flops(self.config.model, clips * read)

    def streams(self, joints: jax.Array) -> dict[str, jax.Array]:
        """Derive the streams that the model takes from joints (B, M, T, V, 3)."""
        names = self.family.input_streams(self.config.model)
        return motion.streams(joints, names, self.parents)

    def evaluators(self, split: str) -> Sequence[Any]:
        """The validation or test clips, named like the data set."""
        if self.config.evals.suites:
            raise InputError(
                f"The config field evals.suites is {list(self.config.evals.suites)}, but this task "
                "evaluates the other clips of data.path: set it to ()."
            )
        return [self.evaluator(split)]

    def evaluator(self, split: str) -> ClipEvaluator:
        """Scores of the clips of a part."""
        config = self.config
        return ClipEvaluator(
            self.data.facts.dataset,
            self.reader,
            self.data.part(split, config.data, config.seed),
            config.evals.batch_size,
            split,
        )

    def artefacts(self) -> dict[str, Any]:
        """Names of the actions, and the joints that the model was trained on."""
        facts = self.data.facts
        return {"labels": list(facts.labels), "joints": list(facts.joints)}

    @functools.cached_property
    def reader(self) -> Reader:
        """Clips as the model takes them."""
        return Reader(self.data, self.config.data, self.config.model.frames, self.config.seed)

    @functools.cached_property
    def data(self) -> SkeletonData:
        """The data set, opened when it is first needed.

        Raises:
          InputError: when it cannot be read, or its joints or actions are not those of the model.
        """
        data, model = SkeletonData(self.config.data.path), self.config.model
        if data.facts.joints != self.skeleton.joints:
            raise InputError(
                f"{data.path} has the joints of {data.facts.skeleton}, but model.skeleton is "
                f"{model.skeleton!r}: set it to {data.facts.skeleton!r}."
            )
        if len(data.facts.labels) != model.num_classes:
            raise InputError(
                f"{data.path} has {len(data.facts.labels)} actions: set model.num_classes to that "
                f"(it is {model.num_classes})."
            )
        return data


def normal_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Divergence of N(mean, exp(log_variance)) from N(0, 1), averaged over the last axis.

    Source: Alemi et al., "Deep Variational Information Bottleneck" (2017), equation 17.
    """
    log_variance = jnp.clip(log_variance, -20.0, 2 * jnp.log(100.0))
    each = jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance
    return 0.5 * each.mean(axis=-1)
