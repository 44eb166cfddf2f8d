"""Which bodies of a Kinect recording are people, and in which of two tracks they go.

The sensor also finds chairs and reflections, and gives a person who was lost a new number.

Source: the rules published with CTR-GCN and its predecessors (Chen et al., 2021, section 4.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAST_FRAMES = 11  # bodies seen in no more frames are noise
SPREAD = 0.8  # a person's width is at most this share of the height …
BAD_SHARE = 0.69754  # … but in less than this share of the frames


class Body(NamedTuple):
    """A body of a recording.

    Attributes:
      number: the sensor's number of it.
      frames: (F,) ascending frames in which it was seen.
      joints: (F, joints, 3) metres, NaN where a joint was not tracked.
    """

    number: str
    frames: np.ndarray
    joints: np.ndarray

    @property
    def motion(self) -> float:
        """Variance of the coordinates, summed over x, y and z."""
        variances = np.nanvar(self.joints.reshape(-1, 3), axis=0)
        return float(variances.sum())


def people(bodies: list[Body]) -> tuple[list[Body], list[str]]:
    """Drop bodies that are no people and sort the others by motion, the strongest first.

    A recording of one body keeps it, and one in which no body is a person keeps those that lasted,
    or all.

    Returns:
      The bodies, and a sentence for each one dropped.
    """
    why: list[str] = []
    kept = bodies
    if len(bodies) > 1:
        lasted = [body for body in bodies if len(body.frames) > LEAST_FRAMES]
        if lasted:
            why += [
                f"body {body.number} was seen in {len(body.frames)} frames"
                for body in bodies
                if len(body.frames) <= LEAST_FRAMES
            ]
            kept = lasted
    if len(kept) > 1:
        shaped = [(body, _bad_share(body)) for body in kept]
        upright = [body for body, share in shaped if share < BAD_SHARE]
        if upright:
            why += [
                f"body {body.number} is wider than high in {share:.0%} of its frames"
                for body, share in shaped
                if share >= BAD_SHARE
            ]
            kept = upright
    return sorted(kept, key=lambda body: -body.motion), why


def tracks(bodies: list[Body], frames: int, most: int = 2) -> tuple[np.ndarray, list[str]]:
    """Put bodies into tracks: each into the first one that is free in all of its frames.

    Args:
      bodies: the most important first.
      frames: frames of the recording.
      most: number of tracks.

    Returns:
      (tracks, frames, joints, 3) with NaN where a track is empty, without empty tracks, and a
      sentence for each body that found no place.
    """
    joints = bodies[0].joints.shape[1]
    placed = np.full((most, frames, joints, 3), np.nan, np.float32)
    taken = np.zeros((most, frames), bool)
    why = []
    for body in bodies:
        free = [track for track in range(most) if not taken[track, body.frames].any()]
        if not free:
            why.append(f"body {body.number} found no free track")
            continue
        placed[free[0], body.frames] = body.joints
        taken[free[0], body.frames] = True
    return placed[taken.any(axis=1)], why


def _bad_share(body: Body) -> float:
    """Share of the frames in which a body is wider than a person."""
    with np.errstate(invalid="ignore"):
        x, y = body.joints[..., 0], body.joints[..., 1]
        width = np.nanmax(x, axis=1) - np.nanmin(x, axis=1)
        height = np.nanmax(y, axis=1) - np.nanmin(y, axis=1)
    return float((width > SPREAD * height).mean())
