"""Augmentation of skeleton clips, and the streams that are derived of them: pure JAX.

Joints are augmented first and streams derived after, so that a bone is the difference of its two
joints whatever was done to them. Clips are (B, M, T, V, 3); a body that is away is zeros in all of
its joints and stays so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.errors import InputError

STREAMS = ("joint", "bone", "joint_velocity", "bone_velocity")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What is done to a clip in training; all of it is drawn anew for each clip and step.

    Attributes:
      rotation: largest angle about x, y (the vertical) and z, in radians.
      scale: a factor from 1 − `scale` to 1 + `scale` on all lengths.
      shear: largest entry of a shear, any axis along any other.
      noise: deviation of Gaussian noise on each coordinate, in units of the clip.
      crop: shortest and longest piece of a clip that is seen, as shares of it; stretched to the
        model's frames.
      eval_crop: the middle piece that is seen in evaluation.
      mirror: chance to exchange left and right.
    """

    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 0.0
    shear: float = 0.0
    noise: float = 0.0
    crop: tuple[float, float] = (1.0, 1.0)
    eval_crop: float = 1.0
    mirror: float = 0.0

    def __post_init__(self):
        if not 0 < self.crop[0] <= self.crop[1] <= 1 or not 0 < self.eval_crop <= 1:
            raise InputError(
                f"task.augment.crop is {list(self.crop)} and eval_crop {self.eval_crop}, but they "
                "must be shares of a clip, above 0 and at most 1, the shorter first."
            )
        if not 0 <= self.scale < 1 or not 0 <= self.mirror <= 1:
            raise InputError(
                f"task.augment.scale is {self.scale} and mirror {self.mirror}, but they must be in "
                "[0, 1)."
            )

    @property
    def random(self) -> bool:
        """Whether a clip is not the same in every epoch."""
        drawn = (self.scale, self.shear, self.noise, self.mirror, self.crop[0] < 1)
        return any(drawn) or any(self.rotation)


def augment(
    joints: jax.Array, key: jax.Array, config: AugmentConfig, frames: int, mirror: Sequence[int]
) -> jax.Array:
    """Augment clips for training.

    Args:
      joints: (B, M, S, V, 3); every device draws for the rows of the whole batch alike.
      key: key of the step.
      config: what to do.
      frames: frames of the result, T.
      mirror: where a mirrored joint takes its coordinates from.

    Returns:
      (B, M, T, V, 3).
    """
    rows, _, given = joints.shape[:3]
    keys = jax.random.split(key, 6)
    low, high = (max(1, round(share * given)) for share in config.crop)
    length = jax.random.randint(keys[0], (rows,), low, high + 1)
    start = (jax.random.uniform(keys[1], (rows,)) * (given - length + 1)).astype(jnp.int32)
    if low < given or given != frames:
        joints = resample(joints, start, length, frames)
    if config.mirror:
        flip = jnp.asarray([-1.0, 1.0, 1.0]) * joints[:, :, :, np.asarray(mirror)]
        chosen = jax.random.bernoulli(keys[2], config.mirror, (rows, 1, 1, 1, 1))
        joints = jnp.where(chosen, flip, joints)
    if any(config.rotation) or config.scale or config.shear:
        joints = jnp.einsum("bmtvi,bij->bmtvj", joints, _linear(keys[3], rows, config))
    if config.noise:
        here = (joints != 0).any(axis=(3, 4), keepdims=True)
        joints = joints + config.noise * here * jax.random.normal(keys[4], joints.shape)
    return joints


def middle(joints: jax.Array, share: float, frames: int) -> jax.Array:
    """Return the middle `share` of clips (B, M, S, V, 3), stretched to `frames` frames."""
    rows, _, given = joints.shape[:3]
    length = max(1, round(share * given))
    if length == given == frames:
        return joints
    start = jnp.full((rows,), (given - length) // 2)
    return resample(joints, start, jnp.full((rows,), length), frames)


def resample(joints: jax.Array, start: jax.Array, length: jax.Array, frames: int) -> jax.Array:
    """Stretch a piece of each clip linearly to `frames` frames.

    A frame between one with a body and one without is the one with it, so that nothing is half
    way to the origin.

    Args:
      joints: (B, M, S, V, 3).
      start: (B,) first frame of the piece.
      length: (B,) frames of the piece.
      frames: frames of the result.
    """
    steps = jnp.arange(frames) / max(frames - 1, 1)
    places = start[:, None] + steps * (length[:, None] - 1)
    away = jnp.abs(places[:, :, None] - jnp.arange(joints.shape[2]))
    share = jnp.maximum(1.0 - away, 0.0)[:, None]  # (B, 1, T, S)
    share = share * (joints != 0).any(axis=(3, 4))[:, :, None]
    total = share.sum(axis=-1, keepdims=True)
    share = share / jnp.where(total > 0, total, 1.0)
    return jnp.einsum("bmts,bmsvi->bmtvi", share, joints)


def streams(
    joints: jax.Array, names: Sequence[str], parents: Sequence[int], backward: bool = False
) -> dict[str, jax.Array]:
    """Derive streams from joints (B, M, T, V, 3).

    A bone is a joint minus its parent. A velocity is the next frame minus this one, zero in the
    last frame and where the body is away in either.

    Args:
      joints: the joints.
      names: which, of `STREAMS`.
      parents: parent of each joint; a root is its own.
      backward: a velocity is this frame minus the one before instead, zero in the first frame.
    """
    bone = joints - joints[:, :, :, np.asarray(parents)]
    here = (joints != 0).any(axis=(3, 4), keepdims=True)
    both = here[:, :, 1:] & here[:, :, :-1]

    def velocity(x: jax.Array) -> jax.Array:
        moved = jnp.where(both, x[:, :, 1:] - x[:, :, :-1], 0.0)
        pad = (1, 0) if backward else (0, 1)
        return jnp.pad(moved, ((0, 0), (0, 0), pad, (0, 0), (0, 0)))

    derive = {
        "joint": lambda: joints,
        "bone": lambda: bone,
        "joint_velocity": lambda: velocity(joints),
        "bone_velocity": lambda: velocity(bone),
    }
    return {name: derive[name]() for name in names}


def _linear(key: jax.Array, rows: int, config: AugmentConfig) -> jax.Array:
    """Draw (B, 3, 3) matrices that shear, then rotate, then scale rows of coordinates."""
    angle_key, shear_key, scale_key = jax.random.split(key, 3)
    limits = jnp.asarray(config.rotation)
    angles = limits * jax.random.uniform(angle_key, (rows, 3), minval=-1.0)
    matrix = jnp.broadcast_to(jnp.eye(3), (rows, 3, 3))
    if config.shear:
        shear = config.shear * jax.random.uniform(shear_key, (rows, 3, 3), minval=-1.0)
        matrix = matrix + shear * (1.0 - jnp.eye(3))
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        cosine, sine = jnp.cos(angles[:, axis]), jnp.sin(angles[:, axis])
        turn = jnp.broadcast_to(jnp.eye(3), (rows, 3, 3))
        turn = turn.at[:, i, i].set(cosine).at[:, j, j].set(cosine)
        turn = turn.at[:, i, j].set(sine).at[:, j, i].set(-sine)
        matrix = matrix @ turn
    factor = 1.0 + config.scale * jax.random.uniform(scale_key, (rows, 1, 1), minval=-1.0)
    return matrix * factor
