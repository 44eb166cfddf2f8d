"""What the readers of skeleton data share: rows of the data set, names of actions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsmjax.models.last.skeletons import skeleton

UCLA_ACTIONS = (
    *("pick up with one hand", "pick up with two hands", "drop trash", "walk around", "sit down"),
    *("stand up", "donning", "doffing", "throw", "carry"),
)
UTD_ACTIONS = (
    *("swipe left", "swipe right", "wave", "clap", "throw", "arm cross", "basketball shoot"),
    *("draw x", "draw circle clockwise", "draw circle counter-clockwise", "draw triangle"),
    *("bowling", "boxing", "baseball swing", "tennis swing", "arm curl", "tennis serve", "push"),
    *("knock", "catch", "pick up and throw", "jog", "walk", "sit to stand", "stand to sit"),
    *("lunge", "squat"),
)


def row(
    name: str,
    joints: np.ndarray,
    label: int,
    facts: dict[str, Any],
    *,
    subject: int = 0,
    camera: int = 0,
    setup: int = 0,
    repetition: int = 0,
    split: str = "",
    half: bool = False,
) -> dict[str, Any]:
    """Return a row of a skeleton data set (`tsmjax.data.skeleton`).

    Args:
      name: name of the clip.
      joints: (bodies, frames, joints, 3) metres, NaN where a body is away or a joint not tracked.
      label: number of the action, from 0.
      facts: see `facts_of`.
      subject: number of the person.
      camera: number of the camera or view.
      setup: number of the setup.
      repetition: number of the repetition.
      split: "train" or "test" where the raw files come split.
      half: store float16.
    """
    bodies, frames, size, _ = joints.shape
    target = joints.transpose(0, 2, 3, 1).reshape(bodies * size * 3, frames)
    return {
        "item_id": name,
        "target": np.ascontiguousarray(target, np.float16 if half else np.float32),
        "label": int(label),
        "subject": int(subject),
        "camera": int(camera),
        "setup": int(setup),
        "repetition": int(repetition),
        "split": split,
        "skeleton": facts,
    }


def facts_of(dataset: str, name: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the facts about a data set as JSON values."""
    joints = list(skeleton(name).joints)
    return {"dataset": dataset, "skeleton": name, "joints": joints, "labels": list(labels)}
