"""Skeletons that nobody moved: clips of seeded actions of the 25 joints of Kinect v2.

An action is a handful of joints that swing about axes, each with its own amplitude, rhythm and
phase; people differ in the length of their limbs, cameras in direction. The last sixth of the
actions has two people. Scores on them say nothing about people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

DEFAULTS = {"clips": 480, "actions": 6, "frames": 40, "seed": 0}
BLOCK = 256  # clips that one worker process makes at a time
VERSION = 1

# Where a joint is seen from its parent at rest, in metres: a person who faces the camera.
PARENTS = (
    *(0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
    *(1, 7, 6, 11, 10),
)
_OFFSETS = {
    1: (0, 0.3, 0), 20: (0, 0.22, 0), 2: (0, 0.08, 0), 3: (0, 0.16, 0),
    4: (0.17, -0.02, 0), 5: (0.04, -0.27, 0), 6: (0.02, -0.24, 0), 7: (0, -0.07, 0),
    21: (0, -0.08, 0), 22: (-0.03, -0.04, -0.02),
    8: (-0.17, -0.02, 0), 9: (-0.04, -0.27, 0), 10: (-0.02, -0.24, 0), 11: (0, -0.07, 0),
    23: (0, -0.08, 0), 24: (0.03, -0.04, -0.02),
    12: (0.08, -0.02, 0), 13: (0.02, -0.4, 0), 14: (0, -0.38, 0), 15: (0, -0.05, -0.1),
    16: (-0.08, -0.02, 0), 17: (-0.02, -0.4, 0), 18: (0, -0.38, 0), 19: (0, -0.05, -0.1),
}  # fmt: skip
_MOVED = (1, 20, 4, 5, 8, 9, 12, 13, 16, 17, 2)  # joints about which something may swing
_ORDER = (0, 1, 20, 2, 3, *range(4, 20), *range(21, 25))  # parents before children
_SUBJECTS, _CAMERAS = 8, 3
_ACTION, _PERSON, _CLIP = 1, 2, 3


def clip(seed: int, action: int, subject: int, camera: int, number: int, frames: int) -> np.ndarray:
    """Return (bodies, frames, 25, 3) float32 metres in the camera's frame.

    Args:
      seed: of everything.
      action: number of the action.
      subject: number of the person, from 1.
      camera: 1 (front), 2 and 3 (45 degrees to either side).
      number: number of the clip: speed, place, noise.
      frames: about how many frames; clips differ.
    """
    random = np.random.default_rng([seed, _CLIP, number])
    length = int(frames * random.uniform(0.6, 1.4))
    phase = np.linspace(0, random.uniform(0.8, 1.2), max(length, 2))
    yaw = {1: 0.0, 2: np.pi / 4, 3: -np.pi / 4}[camera] + random.normal(0, 0.1)
    distance = random.uniform(2.5, 3.5)
    bodies = []
    for body in range(1 + (action % 6 == 5)):
        x = _moved(seed, action, subject + 100 * body, phase + 0.3 * body)
        x = _turned(x, np.pi * body)
        x = x + np.asarray([0.0, 0.0, 0.8 * body])
        x = _turned(x, yaw) + np.asarray([random.normal(0, 0.2), 0.1, distance])
        bodies.append(x + random.normal(0, 0.004, x.shape))
    return np.stack(bodies).astype(np.float32)


def count(clips: int, actions: int, frames: int, seed: int) -> int:
    """Return the number of rows that `rows` can make."""
    return clips


def place(index: int, actions: int) -> dict[str, int]:
    """Return action, subject, camera, setup and repetition of clip number `index`."""
    rest, action = divmod(index, actions)
    rest, subject = divmod(rest, _SUBJECTS)
    repetition, camera = divmod(rest, _CAMERAS)
    return {
        "action": action,
        "subject": subject + 1,
        "camera": camera + 1,
        "setup": 1 + subject % 2,
        "repetition": 1 + repetition,
    }


def rows(
    first: int, last: int, clips: int, actions: int, frames: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows first … last − 1 of the data set."""
    from tsmjax.prepare.skeletons import facts_of, row

    facts = facts_of("ntu60", "ntu25", tuple(f"A{action + 1:03d}" for action in range(actions)))
    for index in range(first, last):
        at = place(index, actions)
        action = at.pop("action")
        joints = clip(seed, action, at["subject"], at["camera"], index, frames)
        yield row(f"skeletons/{index}", joints, action, facts, **at)


def _moved(seed: int, action: int, person: int, phase: np.ndarray) -> np.ndarray:
    """Return (frames, 25, 3) of a person who does an action, hips at the origin."""
    of_action = np.random.default_rng([seed, _ACTION, action])
    of_person = np.random.default_rng([seed, _PERSON, person])
    lengths = of_person.normal(1.0, 0.06) * of_person.normal(1.0, 0.03, 25)
    strength = of_person.normal(1.0, 0.1)
    chosen = of_action.choice(_MOVED, 4, replace=False)
    turns = np.broadcast_to(np.eye(3), (25, len(phase), 3, 3)).copy()
    for joint in chosen:
        axis = of_action.normal(size=3)
        axis /= np.linalg.norm(axis)
        swing, beats, start = (
            of_action.uniform(0.4, 1.2),
            of_action.integers(1, 4),
            of_action.random(),
        )
        angle = strength * swing * np.sin(2 * np.pi * (beats * phase + start))
        turns[joint] = _about(axis, angle)
    x = np.zeros((len(phase), 25, 3))
    frames = np.broadcast_to(np.eye(3), (25, len(phase), 3, 3)).copy()
    for joint in _ORDER:
        parent = PARENTS[joint]
        if joint != parent:
            offset = lengths[joint] * np.asarray(_OFFSETS[joint])
            x[:, joint] = x[:, parent] + frames[parent] @ offset
        frames[joint] = frames[parent] @ turns[joint]
    return x


def _about(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotations about an axis by angles, (angles, 3, 3): Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)


def _turned(x: np.ndarray, yaw: float) -> np.ndarray:
    """Turn (frames, 25, 3) about the vertical."""
    return x @ _about(np.array([0.0, 1.0, 0.0]), np.array([yaw]))[0].T
