"""Pretraining of skeleton models without labels: masked joints and two views of a clip.

    loss = MSE(decoder(encoder(masked view)), view) + 0.5 · InfoNCE(projector(encoder(views)))

Two views of every clip are augmented, each loses six tenths of its joints by body regions, and both
pass the encoder together. The error counts masked joints only; the contrast sets the two views of a
clip against all other views of the global batch. Masked joints are a learned token in every stream,
and so is a bone whose parent is masked, which would tell where the parent is.

Known by the name MaskCLR, whose paper describes something else: a supervised contrast between clips
and clips without the joints that the net attends to most. The latter choice of joints is one of
`MASKS` here. Sources: He et al., "Masked Autoencoders" (2022), section 3; Chen et al., "A Simple
Framework for Contrastive Learning" (2020), equation 1; Abdelfattah et al., "MaskCLR" (2024),
section 3.2.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import config as config_lib
from tsmjax.data import motion
from tsmjax.data.skeleton import DataConfig
from tsmjax.errors import InputError
from tsmjax.evals.clip_neighbours import NeighbourEvaluator
from tsmjax.nn.linear import Linear
from tsmjax.tasks import Batch, Modules, skeleton

__all__ = ["Config", "DataConfig", "Task"]


@dataclasses.dataclass(frozen=True)
class Config(skeleton.Config):
    """What to minimise, beside what `tsmjax.tasks.skeleton.Config` says of views.

    Attributes:
      mask_ratio: share of the joints that a view loses, in all of its frames.
      mask_strategy: whole body regions one after another, the last one in part ("body_region"), any
        joints ("joint"), or by chances that grow with a joint's share of the energy of the last
        stage's features, where the net as it stands sees the whole clip ("attention"; costs a
        forward pass more).
      temperature: of the contrast.
      contrast: weight of the contrast; 0 for masked joints alone.
      projected: size of the vectors that are contrasted.
    """

    mask_ratio: float = 0.6
    mask_strategy: Literal["body_region", "joint", "attention"] = "body_region"
    temperature: float = 0.07
    contrast: float = 0.5
    projected: int = 128

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"task.mask_ratio is {self.mask_ratio}, but must be in (0, 1).")
        if not self.temperature > 0:
            raise InputError(f"task.temperature is {self.temperature}, but must be above 0.")


class Heads(nnx.Module):
    """What pretraining adds and drops: mask tokens (streams, 3), decoder, projector."""

    def __init__(self, streams: int, width: int, joints: int, projected: int, *, rngs: nnx.Rngs):
        self.token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (streams, 3)))
        linear = functools.partial(Linear, width, std=width**-0.5, bias=True, rngs=rngs)
        self.decoder = linear(3 * joints)
        self.projector = linear(projected)


class Task(skeleton.Task):
    """Pretraining of an encoder; its classifier keeps its fresh values."""

    freeze = ((r"^model/(classifier|bottleneck)/", True),)
    couples_rows = True

    def __init__(self, config: config_lib.Config):
        super().__init__(config)
        if config.task.bottleneck != "none":
            raise InputError("task.bottleneck needs labels: set it to 'none' for pretraining.")
        self.coefficients = {"reconstruction": 1.0, "not_finite": 0.0}
        if config.task.contrast:
            self.coefficients["contrast"] = config.task.contrast

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the encoder and the heads with fresh parameters."""
        model, own = self.config.model, self.config.task
        streams = len(self.family.input_streams(model))
        width = self.family.widths(model)[-1]
        heads = Heads(streams, width, self.skeleton.size, own.projected, rngs=rngs)
        return Modules(super().build(rngs).model, heads)

    def device(self, batch: Batch, key: jax.Array, train: bool) -> Batch:
        """Make two views of each clip, ``joints`` and ``order`` with an axis 2 behind the rows."""
        views, orders = [], []
        for view_key in jax.random.split(key):
            clip_key, mask_key = jax.random.split(view_key)
            views.append(super().device(batch, clip_key, train)["joints"])
            orders.append(self.order(mask_key, len(batch["joints"])))
        return {**batch, "joints": jnp.stack(views, axis=1), "order": jnp.stack(orders, axis=1)}

    def order(self, key: jax.Array, rows: int) -> jax.Array:
        """Draw in what order joints are masked, the least first, (rows, V).

        Where attention has a say, these are the exponentials of mean 1 to divide by it.
        """
        own, size = self.config.task, self.skeleton.size
        region_key, joint_key = jax.random.split(key)
        if own.mask_strategy == "attention":
            return jax.random.exponential(joint_key, (rows, size))
        order = jax.random.uniform(joint_key, (rows, size))
        if own.mask_strategy == "body_region":
            region = np.zeros(size, int)
            for number, joints in enumerate(self.skeleton.regions.values()):
                region[list(joints)] = number
            regions = len(self.skeleton.regions)
            rank = jax.random.uniform(region_key, (rows, regions)).argsort(axis=1).argsort(axis=1)
            order = order + rank[:, region]
        return order

    def mask(self, order: jax.Array, attention: jax.Array | float = 1.0) -> jax.Array:
        """Return which joints are masked, (rows, V) bool, the same number in each row.

        Args:
          order: (rows, V) as drawn.
          attention: (rows, V) positive. Exponentials divided by it are the waiting times of a
            draw without replacement whose chances are proportional to it (Efraimidis & Spirakis,
            "Weighted random sampling with a reservoir", 2006).
        """
        return (order / attention).argsort(axis=1).argsort(axis=1) < self.masked_joints

    def attention(self, model: nnx.Module, joints: jax.Array, present: jax.Array) -> jax.Array:
        """Mean square of each joint's features in the last stage, over all bodies, (rows, V)."""
        out = model(self.streams(joints), present)
        energy = jnp.square(out["features"][-1].astype(jnp.float32)).mean(axis=(2, 4))
        energy = (energy * out["present"][..., None]).sum(axis=1)
        return jax.lax.stop_gradient(jnp.maximum(energy, 1e-30))

    @property
    def masked_joints(self) -> int:
        """Number of joints that a view loses."""
        size = self.skeleton.size
        return min(max(round(self.config.task.mask_ratio * size), 1), size - 1)

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the views of clips that count."""
        views = 2 * batch["weight"].sum()
        return {**dict.fromkeys(self.coefficients, views), "not_finite": jnp.float32(1)}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum errors of masked joints and the contrast over the views."""
        rows = len(batch["weight"])
        # Views of a clip stay neighbours, so that no device has to send its rows to another.
        joints = batch["joints"].reshape(2 * rows, *batch["joints"].shape[2:])
        order = batch["order"].reshape(2 * rows, -1)
        weight, present = (jnp.repeat(batch[name], 2, axis=0) for name in ("weight", "present"))
        attention = 1.0
        if self.config.task.mask_strategy == "attention":
            attention = self.attention(modules.model, joints, present)
        masked = self.mask(order, attention)
        causal = None
        if self.config.task.causal and train:
            key, causal_key = jax.random.split(key)
            causal = jax.random.bernoulli(causal_key, self.config.task.causal)
        streams = self.hidden(joints, masked, modules.aux.token[...])
        out = modules.model(streams, present, train=train, key=key, causal=causal)
        features, here = out["features"][-1], out["present"]
        here = here / here.sum(axis=1, keepdims=True)
        pooled = features.mean(axis=3)
        steps = self.config.model.frames // pooled.shape[2]
        wanted = joints[:, : here.shape[1], ::steps]
        found = modules.aux.decoder(pooled).astype(jnp.float32).reshape(wanted.shape)
        error = jnp.square(found - wanted).mean(axis=(2, 4))  # of each joint of each body
        error = (error * masked[:, None]).sum(axis=2) / self.masked_joints
        terms = {
            "reconstruction": (weight * (error * here).sum(axis=1)).sum(),
            "not_finite": (1 - batch["weight"]).sum(),
        }
        if "contrast" in self.coefficients:
            z = modules.aux.projector((out["pooled"] * here[..., None]).sum(axis=1))
            each = contrast(z, weight, self.config.task.temperature)
            terms["contrast"] = (weight * each).sum()
        return terms

    def hidden(
        self, joints: jax.Array, masked: jax.Array, token: jax.Array
    ) -> dict[str, jax.Array]:
        """Derive the streams of joints (B, M, T, V, 3), masked ones (B, V) being tokens."""
        # A bone, joint minus parent, would tell a visible joint's masked parent.
        bones = masked | masked[:, np.asarray(self.parents)]
        streams = self.streams(joints)
        return {
            name: jnp.where(
                (bones if name.startswith("bone") else masked)[:, None, None, :, None],
                token[number].astype(x.dtype),
                x,
            )
            for number, (name, x) in enumerate(streams.items())
        }

    def predict(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Encode whole clips: pooled features (B, C) of length 1, float32."""
        crop, frames = self.config.task.augment.eval_crop, self.config.model.frames
        joints = motion.middle(batch["joints"], crop, frames)
        out = model(self.streams(joints), batch["present"])
        here = out["present"] / out["present"].sum(axis=1, keepdims=True)
        return _unit((out["pooled"] * here[..., None]).sum(axis=1))

    def evaluator(self, split: str) -> NeighbourEvaluator:
        """How often the nearest other clip of a part shows the same action."""
        config = self.config
        return NeighbourEvaluator(
            self.data.facts.dataset,
            self.reader,
            self.data.part(split, config.data, config.seed),
            config.evals.batch_size,
        )


def contrast(z: jax.Array, weight: jax.Array, temperature: float) -> jax.Array:
    """Cross-entropy of finding a view's partner among all other views, (2B,) float32.

    Args:
      z: (2B, D) vectors, views 2i and 2i + 1 being partners.
      weight: (2B,) 0 for views that are no candidates.
      temperature: divides the cosine similarities.
    """
    z, places = _unit(z), jnp.arange(len(z))
    similar = z @ z.T / temperature
    candidate = (weight > 0)[None, :] & (places[:, None] != places[None, :])
    partner = jnp.take_along_axis(similar, (places ^ 1)[:, None], axis=1)[:, 0]
    total = jax.nn.logsumexp(jnp.where(candidate, similar, -jnp.inf), axis=1)
    return jnp.where(weight > 0, total - partner, 0.0)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-12)
