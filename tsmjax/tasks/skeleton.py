"""Recognition of actions from skeletons.

A batch holds B clips (see `tsmjax.data.skeleton.Reader`):

    joints (B, M, S, V, 3)   zeros where a body is away     label  (B,)
    present (B, M)                                          weight (B,), 0 = counts nothing

Clips are augmented and streams derived on the device, so that the host sends joints alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax import config as config_lib
from tsmjax import sharding
from tsmjax.data import motion
from tsmjax.data.motion import AugmentConfig
from tsmjax.data.skeleton import DataConfig, Reader, SkeletonBatches, SkeletonData
from tsmjax.errors import InputError
from tsmjax.evals.clips import ClipEvaluator
from tsmjax.nn.functional import Tree
from tsmjax.state import blueprint
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
        self._frozen: Tree = {}

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
        self._batches = SkeletonBatches(
            self.data,
            self.config.data,
            frames=self.config.model.frames,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
        )
        return self._batches

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
        return self.sums(self.forward(modules.model, batch, key, train), batch)

    def forward(
        self, model: nnx.Module, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, Any]:
        """Run the model over the clips, causal in as many training steps as the config says."""
        causal = None
        if self.config.task.causal and train:
            key, causal_key = jax.random.split(key)
            causal = jax.random.bernoulli(causal_key, self.config.task.causal)
        streams = self.streams(batch["joints"])
        return model(streams, batch["present"], train=train, key=key, causal=causal)

    def sums(self, out: dict[str, Any], batch: Batch) -> dict[str, jax.Array]:
        """Sum the terms over the clips, given what the model says of them."""
        weight, label = batch["weight"], batch["label"]
        logits = out["logits"]
        chances = jax.nn.log_softmax(logits)
        own = jnp.take_along_axis(chances, label[:, None], axis=1)[:, 0]
        smoothing = self.config.task.label_smoothing
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

    def streams(self, joints: jax.Array, model: Any = None) -> dict[str, jax.Array]:
        """Derive what a model, by its config, takes from joints (B, M, T, V, 3); None for ours."""
        model = self.config.model if model is None else model
        backward = getattr(model, "causal", "no") == "strict"
        names = self.family.input_streams(model)
        return motion.streams(joints, names, self.parents, backward)

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

    def before(self, frozen: Tree) -> None:
        """Keep the frozen leaves for `after`."""
        self._frozen = frozen

    def after(self, state: Tree) -> Tree:
        """Measure the statistics of BatchNorm for averaged parameters, which have seen no batch.

        Each becomes its plain mean over the batches of one more epoch, in training mode, augmented
        and with dropout.

        Source: Izmailov et al., "Averaging Weights Leads to Wider Optima" (2018), section 3.2.
        """
        if not state["average"]:
            return state
        plan = blueprint(self, self.config.optim)
        mesh = jax.tree.leaves(state["average"])[0].sharding.mesh
        zeros = jax.tree.map(jnp.zeros_like, state["stats"])

        @jax.jit
        def add(total: Tree, average: Tree, frozen: Tree, batch: Batch, key: jax.Array) -> Tree:
            device_key, term_key = jax.random.split(key)
            modules = plan.assemble(average, zeros, frozen)
            self.terms(modules, self.device(batch, device_key, True), term_key, True)
            moved = plan.stats_of({name: getattr(modules, name) for name in zeros})
            return jax.tree.map(jnp.add, total, moved)

        total, key, step = zeros, jax.random.key(self.config.seed), int(state["step"])
        count = math.ceil(self._batches.steps_per_epoch)
        for number in range(step, step + count):
            batch = sharding.put_batch(self._batches[number], mesh)
            total = add(
                total, state["average"], self._frozen, batch, jax.random.fold_in(key, number)
            )
        # Statistics that were zero have moved by one part in ten towards those of the batch.
        scale = 1.0 / (count * (1.0 - self.family.MOMENTUM))
        stats = jax.tree.map(
            lambda new, old: jax.device_put(scale * new, old.sharding), total, state["stats"]
        )
        return {**state, "stats": stats}

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
