"""Skeleton models: joints in, chances of the actions out; streams and resampling are inside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data import motion
from tsmjax.data.counter import permute
from tsmjax.errors import InputError, closest
from tsmjax.evals.clips import ClipEvaluator
from tsmjax.export.head import Arrays, Head, Input, of_model, size
from tsmjax.models.last import operators
from tsmjax.models.last.folding import fold
from tsmjax.nn.functional import Tree

FRONTS = ("streams", "none")
_READ = 16  # clips that are read at once


def head(
    path: str, *, bodies: int | None = None, front: str | None = None, single: bool = False
) -> Head:
    """Describe the classifier, with BatchNorm folded into its neighbours.

    Args:
      path: run folder or folder of weights.
      bodies: bodies of a clip; None for those of the training data.
      front: "streams" takes joints, and crops, resamples and derives streams inside (the default);
        "none" takes the streams.
      single: take one clip at a time, and write convolutions as such.

    Raises:
      InputError: when there is no such front.
    """
    front = front or FRONTS[0]
    if front not in FRONTS:
        raise InputError(
            f"--front is {front!r}{closest(front, FRONTS)}, but must be {' or '.join(FRONTS)}."
        )
    loaded, rebuild, weights = of_model(path, fold)
    task, data = loaded.task, loaded.task.config.data
    model, skeleton = task.config.model, task.skeleton
    bodies = size("bodies", bodies, data.bodies, 1, 64)
    frames, joints = data.frames or model.frames, skeleton.size
    crop = task.config.task.augment.eval_crop
    labels = list(loaded.artefacts.get("labels", ()))
    rows = 1 if single else None
    names = task.family.input_streams(model)
    if front == "streams":
        inputs = {
            "joints": Input(
                *((rows, bodies, frames, joints, 3), "float32"),
                "coordinates of the joints; zeros where a body is away",
            )
        }
    else:
        shape = (rows, bodies, model.frames, joints, 3)
        inputs = {
            name: Input(shape, "float32", f"{name.replace('_', ' ')}; zeros where a body is away")
            for name in names
        }
    inputs["present"] = Input((rows, bodies), "bool", "bodies that count")

    def streams(clips: jax.Array) -> dict[str, jax.Array]:
        return task.streams(motion.middle(clips, crop, model.frames))

    def function(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        given = streams(batch["joints"]) if front == "streams" else batch
        logits = rebuild(weights)(given, batch["present"])["logits"]
        return {"logits": logits, "chances": jax.nn.softmax(logits.astype(jnp.float32))}

    before = jax.jit(streams)

    def given(clips: np.ndarray, present: np.ndarray) -> Arrays:
        if front == "streams":
            return {"joints": clips, "present": present}
        derived = {name: np.asarray(x) for name, x in before(clips).items()}
        return {**derived, "present": present}

    def sample(rng: np.random.Generator, rows: int) -> Arrays:
        shape = (rows, bodies, frames, joints, 3)
        clips = rng.normal(size=shape) + 0.05 * rng.normal(size=shape).cumsum(axis=2)
        present = rng.random((rows, bodies)) < 0.7
        away = ~present[:, :, None] | (rng.random((rows, bodies, frames)) < 0.1)
        clips = np.where(away[..., None, None], 0.0, clips)
        return given(clips.astype(np.float32), present)

    def labelled(part: str) -> Iterator[tuple[Arrays, int]]:
        if bodies != data.bodies:
            raise InputError(
                f"--bodies is {bodies}, but the clips that the model was trained on are read with "
                f"{data.bodies}: leave it out."
            )
        clips = task.data.part(part, data, task.config.seed)
        if part == "train":
            clips = clips[permute(np.arange(len(clips)), len(clips), task.config.seed, 0)]
        for batch in ClipEvaluator(part, task.reader, clips, _READ).batches(0, 1):
            for row in np.flatnonzero(batch["weight"]):
                one = slice(row, row + 1)
                yield given(batch["joints"][one], batch["present"][one]), int(batch["label"][row])

    shown = ("sampling", "centre", "scale", "upright")
    host = {name: value for name, value in dataclasses.asdict(data).items() if name in shown}
    inside = "inside: the middle piece of a clip, resampling, streams (bones, velocities); before: "
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
            "preprocessing": (inside if front == "streams" else "before: streams of ")
            + "clips brought to their frames, centred and scaled as before_the_graph says",
            "before_the_graph": host,
        },
        sample,
        labelled,
        functools.partial(operators.exported, convolutions=single),
    )
