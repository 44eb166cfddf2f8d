"""Random changes of windows that leave an activity what it is.

Source: Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring
using Convolutional Neural Networks" (2017), section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tsmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Augment:
    """How far training windows are changed; 0 leaves them as they are.

    Attributes:
      rotation: standard deviation, in degrees, of an angle by which the wearer's sensors all turn
        about one random axis, as if a person stood or moved in another attitude.
      scale: standard deviation of the logarithm of a factor on what moves, not on the level.
      stretch: standard deviation of a number whose size is the logarithm of the factor by which a
        random piece of the window, half of it at least, is stretched to the whole: people move at
        different speeds.
      jitter: standard deviation of noise, as a share of each channel's own.
    """

    rotation: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    jitter: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise InputError(
                    f"data.augment.{field.name} is {getattr(self, field.name)}, but must be at "
                    "least 0."
                )

    @property
    def enabled(self) -> bool:
        """Whether anything is changed."""
        return any(dataclasses.astuple(self))


def triads(channels: Sequence[str]) -> np.ndarray:
    """Return places (sensors, 3) of the x, y and z axes of each sensor: ``body_x_acc`` and so on.

    Raises:
      InputError: when no three names differ in x, y and z alone.
    """
    places = {name: place for place, name in enumerate(channels)}
    found = []
    for name in channels:
        parts = name.split("_")
        for at in (at for at, part in enumerate(parts) if part == "x"):
            axes = ["_".join([*parts[:at], axis, *parts[at + 1 :]]) for axis in "xyz"]
            if all(axis in places for axis in axes):
                found.append([places[axis] for axis in axes])
    if not found:
        raise InputError(
            f"data.augment.rotation needs channels in threes, as x_acc, y_acc and z_acc, but there "
            f"are {', '.join(channels)}: set it to 0."
        )
    return np.asarray(found)


def augment(
    windows: np.ndarray, config: Augment, sensors: np.ndarray | None, seed: int, draws: np.ndarray
) -> np.ndarray:
    """Change windows, each by a function of (seed, draw) alone.

    Args:
      windows: (B, C, T) in physical units.
      config: how far.
      sensors: `triads` of the channels; needed for rotations only.
      seed: of the training.
      draws: (B,) ordinals that the changes depend on.

    Returns:
      (B, C, T) float32.
    """
    x = windows.astype(np.float64)
    steps = x.shape[2]
    random = [np.random.default_rng([seed, draw]) for draw in draws.tolist()]
    normal = np.stack([one.standard_normal(6) for one in random])
    start = np.asarray([one.random() for one in random])
    if config.rotation:
        turn = _rotations(normal[:, :3], np.deg2rad(config.rotation) * normal[:, 3])
        for axes in sensors:
            x[:, axes] = turn @ x[:, axes]
    if config.scale:
        level = x.mean(axis=2, keepdims=True)
        x = level + (x - level) * np.exp(config.scale * normal[:, 4])[:, None, None]
    if config.stretch:
        share = np.maximum(np.exp(-config.stretch * np.abs(normal[:, 5])), 0.5)
        first = start * (1 - share) * (steps - 1)
        at = first[:, None] + np.linspace(0, 1, steps) * (share * (steps - 1))[:, None]
        low = np.minimum(at.astype(int), max(steps - 2, 0))
        high, part = np.minimum(low + 1, steps - 1), (at - low)[:, None]
        before, after = (np.take_along_axis(x, one[:, None], axis=2) for one in (low, high))
        x = before + part * (after - before)
    if config.jitter:
        noise = np.stack([one.standard_normal(x.shape[1:]) for one in random])
        x = x + config.jitter * x.std(axis=2, keepdims=True) * noise
    return x.astype(np.float32)


def _rotations(axes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return rotations (B, 3, 3) about `axes` (B, 3), of any length, by `angles` (B,) in radians.

    Source: Rodrigues' formula.
    """
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    cross = np.cross(np.eye(3)[None], axes[:, None])  # cross[b] @ v = axes[b] × v
    sine, cosine = (f(angles)[:, None, None] for f in (np.sin, np.cos))
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
