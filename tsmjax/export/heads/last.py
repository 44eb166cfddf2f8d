"""Skeleton models: joints in, chances of the actions out; streams and resampling are inside."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data import motion
from tsmjax.export.head import Head, Input, of_model, size
from tsmjax.nn.functional import Tree


def head(path: str, *, bodies: int | None = None) -> Head:
    """Describe the classifier.

    Args:
      path: run folder or folder of weights.
      bodies: bodies of a clip; None for those of the training data.
    """
    loaded, rebuild, weights = of_model(path)
    task, data = loaded.task, loaded.task.config.data
    model, skeleton = task.config.model, task.skeleton
    bodies = size("bodies", bodies, data.bodies, 1, 64)
    frames, joints = data.frames or model.frames, skeleton.size
    crop = task.config.task.augment.eval_crop
    labels = list(loaded.artefacts.get("labels", ()))
    inputs = {
        "joints": Input(
            *((None, bodies, frames, joints, 3), "float32"),
            "coordinates of the joints; zeros where a body is away",
        ),
        "present": Input((None, bodies), "bool", "bodies that count"),
    }

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        clips = motion.middle(batch["joints"], crop, model.frames)
        logits = rebuild(weights)(task.streams(clips), batch["present"])["logits"]
        return {"logits": logits, "chances": jax.nn.softmax(logits.astype(jnp.float32))}

    def sample(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        shape = (rows, bodies, frames, joints, 3)
        clips = rng.normal(size=shape) + 0.05 * rng.normal(size=shape).cumsum(axis=2)
        present = rng.random((rows, bodies)) < 0.7
        away = ~present[:, :, None] | (rng.random((rows, bodies, frames)) < 0.1)
        clips = np.where(away[..., None, None], 0.0, clips)
        return {"joints": clips.astype(np.float32), "present": present}

    shown = ("sampling", "centre", "scale", "upright")
    host = {name: value for name, value in dataclasses.asdict(data).items() if name in shown}
    return Head(
        *("last", "model", function, weights, inputs),
        {
            "logits": f"(batch, {model.num_classes})",
            "chances": f"(batch, {model.num_classes}), which sum to one",
        },
        {
            "net": f"{model.net} {model.size}",
            "labels": labels,
            "skeleton": model.skeleton,
            "joints": list(skeleton.joints),
            "preprocessing": "inside: the middle piece of a clip, resampling, streams (bones, "
            "velocities); before: clips brought to their frames, centred and scaled as "
            "before_the_graph says",
            "before_the_graph": host,
        },
        sample,
    )
