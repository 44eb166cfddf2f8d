"""Clips of skeletons: what ``prepare ntu``, ``ucla`` and ``utd_mhad`` write, and batches of them.

A skeleton data set is an Arrow folder (`tsmjax.data.arrow`), a row a clip:

  item_id: string, name of the clip.
  target: list<list<float>>, (bodies · joints · 3, frames): x, y, z of each joint of each body in
    metres, every frame with anybody in it. NaN where a body is away or a joint was not tracked.
  label: whole number, place of the action in `SkeletonFacts.labels`.
  subject, camera, setup, repetition: whole numbers; 0 where the raw files do not tell.
  split: string, ``train`` or ``test`` where the raw files come split, else empty.

Joints are stored once; bones and velocities are derived on the device (`tsmjax.data.motion`).
Facts about the whole set stand in the metadata of the Arrow schema, key ``skeleton``: the fields of
`SkeletonFacts`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from tsmjax.data.arrow import SKELETON, ArrowSource
from tsmjax.data.counter import below, permute
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.errors import InputError, closest

log = logging.getLogger(__name__)

FIELDS = ("subject", "camera", "setup", "repetition")
_FRAMES, _HELD = 3, 4  # keep hashes apart from other uses of the same seed

# NTU-60 has those up to 40 alone.
NTU_TRAIN_SUBJECTS = frozenset(
    (
        *(1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38),
        *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96)),
        *(97, 98, 100, 103),
    )
)
# (data set, protocol) → which clips are trained on, from arrays of the fields.
# Sources: Shahroudy et al., "NTU RGB+D" (2016), section 3.2; Liu et al., "NTU RGB+D 120" (2019),
# section 3.3; Wang et al., "Cross-view Action Modeling" (2014), section 6; Chen et al., "UTD-MHAD"
# (2015), section 5.
PROTOCOLS: dict[tuple[str, str], Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    ("ntu60", "xsub"): lambda clip: np.isin(clip["subject"], list(NTU_TRAIN_SUBJECTS)),
    ("ntu60", "xview"): lambda clip: np.isin(clip["camera"], (2, 3)),
    ("ntu120", "xsub"): lambda clip: np.isin(clip["subject"], list(NTU_TRAIN_SUBJECTS)),
    ("ntu120", "xset"): lambda clip: clip["setup"] % 2 == 0,
    ("nw_ucla", "xview"): lambda clip: np.isin(clip["camera"], (1, 2)),
    ("utd_mhad", "xsub"): lambda clip: clip["subject"] % 2 == 1,
}


@dataclasses.dataclass(frozen=True)
class SkeletonFacts:
    """What is the same for all clips of a data set.

    Attributes:
      dataset: what it is, as ``ntu60``; decides which protocols there are.
      skeleton: name of the joint set, see `tsmjax.models.last.skeletons`.
      joints: names of the joints in the order of `target`.
      labels: names of the actions by label.
    """

    dataset: str
    skeleton: str
    joints: tuple[str, ...]
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The config section ``data`` of tasks on skeletons.

    Attributes:
      path: an Arrow folder that ``prepare`` wrote, or ``embedded:skeletons``.
      protocol: which clips are trained on and which are tested on: by subject, camera, setup, or as
        the raw files were "given".
      validation: share of the training clips that validates instead. 0 validates on the test part,
        as the literature does; the best checkpoint is then chosen by the scores that are told.
      bodies: bodies of a clip, the first ones; those that are not there are zeros.
      frames: frames that a clip is brought to before augmentation; 0 for the model's.
      sampling: how: every n-th frame, the last one repeated when there are too few ("uniform");
        linear interpolation ("resize"); or one random frame of each of as many segments, its middle
        in evaluation ("segments").
      centre: what is the origin: the spine of the first body in its "first_frame", or in
        "every_frame", or "none".
      scale: lengths are in units of the first body's mean "torso", or in metres ("none").
      upright: turn each clip about the vertical so that the shoulders of the first body's first
        frame lie along x.
      batch_size: clips of a global batch, over all hosts.
      workers: processes that assemble batches; 0 assembles them in threads of this process.
      prefetch: batches that are kept ready on the host.
    """

    path: str = ""
    protocol: Literal["xsub", "xview", "xset", "given"] = "xsub"
    validation: float = 0.0
    bodies: int = 1
    frames: int = 0
    sampling: Literal["uniform", "resize", "segments"] = "uniform"
    centre: Literal["first_frame", "every_frame", "none"] = "first_frame"
    scale: Literal["torso", "none"] = "none"
    upright: bool = False
    batch_size: int = 64
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self):
        least = {"bodies": 1, "frames": 0, "batch_size": 1, "workers": 0, "prefetch": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"The config field data.{name} is {getattr(self, name)}, "
                    f"but must be at least {low}."
                )
        if not 0 <= self.validation < 1:
            raise InputError(
                f"The config field data.validation is {self.validation}, but must be a share of "
                "the training clips, from 0 to below 1."
            )


class Landmarks(NamedTuple):
    """Joints by which clips are centred, scaled and turned: numbers of joints."""

    centre: int
    torso: tuple[int, int]
    shoulders: tuple[int, int]


def landmarks(joints: Sequence[str]) -> Landmarks:
    """Find the landmarks among names of joints.

    Raises:
      InputError: when one is missing.
    """

    def first(*names: str) -> int:
        for name in names:
            if name in joints:
                return list(joints).index(name)
        raise InputError(f"The skeleton has none of the joints {', '.join(names)}.")

    return Landmarks(
        first("spine_mid", "spine", "left_hip"),
        (first("spine_base", "hip_centre", "left_hip"), first("neck", "shoulder_centre", "nose")),
        (first("left_shoulder"), first("right_shoulder")),
    )


class SkeletonData:
    """A skeleton data set. Pickles as a path.

    Attributes:
      path: what was opened.
      facts: what is the same for all clips.
      labels: (clips,) int32.
      fields: name of `FIELDS` → (clips,) int.
    """

    def __init__(self, path: str):
        """Open `path`.

        Raises:
          InputError: when there is no data set, or one that is not of skeletons.
        """
        if not path:
            raise InputError("The config field data.path is empty: name an Arrow folder.")
        self.path = path
        self._source = ArrowSource(resolve(path))
        facts = self._source.common(SKELETON)
        if not facts:
            raise InputError(
                f"{path} holds no facts about skeletons in its schema: python -m tsmjax.prepare "
                "ntu, ucla, utd_mhad, pyskl and ctrgcn write skeleton data sets, and copies made "
                "by other programs may lose them."
            )
        lists = ("joints", "labels")
        self.facts = SkeletonFacts(**facts | {name: tuple(facts[name]) for name in lists})
        self.labels = self._source.column("label").to_numpy().astype(np.int32)
        self.fields = {name: self._source.column(name).to_numpy() for name in FIELDS}
        size = 3 * len(self.facts.joints)
        if (self._source.rows["targets"] % size).any():
            raise InputError(
                f"The clips of {path} are not of bodies with {len(self.facts.joints)} joints in "
                "space, as its facts say: prepare it again."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def __len__(self) -> int:
        return len(self._source)

    def name(self, clip: int) -> str:
        """Name of a clip."""
        return self._source.metadata(clip)["item_id"]

    def joints(self, clips: np.ndarray) -> list[np.ndarray]:
        """Read clips without copying them, each (bodies, joints, 3, frames)."""
        shape = (-1, len(self.facts.joints), 3)
        items = self._source.read(np.asarray(clips))
        return [item.target.reshape(*shape, item.target.shape[1]) for item in items]

    def part(self, part: str, config: DataConfig, seed: int) -> np.ndarray:
        """Numbers of the clips of "train", "validation" or "test", ascending.

        Raises:
          InputError: when the data set has no such protocol, or nothing is left to train on or to
            test on.
        """
        trained = self._trained(config.protocol)
        for name, some in (("train", trained.any()), ("test", (~trained).any())):
            if not some:
                raise InputError(
                    f"The protocol {config.protocol!r} leaves nothing of {self.path} to {name} on."
                )
        if not config.validation:
            return np.flatnonzero(trained if part == "train" else ~trained)
        chances = below(2**32, seed, _HELD, np.arange(len(self))) / 2**32
        held = trained & (chances < config.validation)
        parts = {"train": trained & ~held, "validation": held, "test": ~trained}
        return np.flatnonzero(parts[part])

    def _trained(self, protocol: str) -> np.ndarray:
        if protocol == "given":
            return self._source.column("split").to_numpy() == "train"
        rule = PROTOCOLS.get((self.facts.dataset, protocol))
        if rule is None:
            known = [name for dataset, name in PROTOCOLS if dataset == self.facts.dataset]
            raise InputError(
                f"The data set {self.path} ({self.facts.dataset}) has no protocol {protocol!r}"
                f"{closest(protocol, known)}; it has {', '.join([*known, 'given'])}."
            )
        return rule(self.fields)


class Reader:
    """Clips as arrays of one shape: filled, centred, scaled, sampled.

    Attributes:
      frames: frames of a clip.
    """

    def __init__(self, data: SkeletonData, config: DataConfig, frames: int, seed: int):
        self.data, self.frames = data, config.frames or frames
        self._config, self._seed = config, seed
        self._landmarks = landmarks(data.facts.joints)
        self._told: set[int] = set()

    def read(self, clips: np.ndarray, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Read clips.

        Args:
          clips: (B,) numbers of clips.
          draws: (B,) ordinals that random frames depend on; None in evaluation.

        Returns:
          ``joints`` (B, M, T, V, 3) float32, zeros where a body is away; ``present`` (B, M) bool;
          ``label`` (B,) int32; ``weight`` (B,) float32, 0 for a clip whose values are not finite,
          which is told by name once.
        """
        bodies, joints = self._config.bodies, len(self.data.facts.joints)
        x = np.zeros((len(clips), bodies, self.frames, joints, 3), np.float32)
        present = np.zeros((len(clips), bodies), bool)
        weight = np.ones(len(clips), np.float32)
        for row, raw in enumerate(self.data.joints(clips)):
            clip = raw[:bodies].astype(np.float32).transpose(0, 3, 1, 2)
            if np.isinf(clip).any() or np.isnan(clip).all():
                self._tell(int(clips[row]))
                weight[row] = 0.0
                continue
            clip = self._normalise(fill(clip))
            clip = self._sample(clip, None if draws is None else int(draws[row]))
            present[row, : len(clip)] = clip.any(axis=(1, 2, 3))
            x[row, : len(clip)] = clip
        return {
            "joints": x,
            "present": present,
            "label": self.data.labels[clips],
            "weight": weight,
        }

    def _normalise(self, clip: np.ndarray) -> np.ndarray:
        """Centre, scale and turn (M, T, V, 3); bodies that are away stay zeros."""
        config, marks = self._config, self._landmarks
        away = ~clip.any(axis=(2, 3), keepdims=True)
        seen = np.flatnonzero(~away[0, :, 0, 0])
        first = clip[0][seen] if len(seen) else clip[0]
        if config.centre == "first_frame":
            clip = clip - first[0, marks.centre]
        elif config.centre == "every_frame":
            # Where the first body is away, it stands where it was last seen.
            last = np.maximum.accumulate(np.where(~away[0, :, 0, 0], np.arange(clip.shape[1]), 0))
            clip = clip - clip[0][last][:, marks.centre][None, :, None]
        if config.upright:
            left, right = marks.shoulders
            across = first[0, right] - first[0, left]
            angle = np.arctan2(across[2], across[0])
            cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, z = clip[..., 0].copy(), clip[..., 2].copy()
            clip = np.stack([cosine * x + sine * z, clip[..., 1], cosine * z - sine * x], axis=-1)
        if config.scale == "torso":
            low, high = marks.torso
            length = np.linalg.norm(first[:, high] - first[:, low], axis=-1).mean()
            clip = clip / max(length, 1e-6)
        return np.where(away, np.float32(0), clip)

    def _sample(self, clip: np.ndarray, draw: int | None) -> np.ndarray:
        """Bring (M, T, V, 3) to `frames` frames."""
        length, frames = clip.shape[1], self.frames
        if self._config.sampling == "resize":
            places = np.linspace(0, length - 1, frames)
            low = places.astype(int)
            high = np.minimum(low + 1, length - 1)
            share = (places - low).astype(np.float32)[:, None, None]
            a, b = clip[:, low], clip[:, high]
            both = a.any(axis=(2, 3), keepdims=True) & b.any(axis=(2, 3), keepdims=True)
            near = np.where(share < 0.5, a, b)  # nothing lies between a body and none
            return np.where(both, a + share * (b - a), near)
        if self._config.sampling == "segments":
            ends = np.arange(frames + 1) * length // frames
            width = np.maximum(np.diff(ends), 1)
            if draw is None:
                return clip[:, ends[:-1] + width // 2]
            return clip[:, ends[:-1] + below(width, self._seed, _FRAMES, draw, np.arange(frames))]
        if length <= frames:
            return clip[:, np.minimum(np.arange(frames), length - 1)]
        return clip[:, np.linspace(0, length - 1, frames).astype(int)]

    def _tell(self, clip: int) -> None:
        if clip not in self._told:
            self._told.add(clip)
            log.warning(
                "The clip %s of %s holds values that are not finite, or none at all: it counts "
                "nothing.",
                self.data.name(clip),
                self.data.path,
            )


def fill(clip: np.ndarray) -> np.ndarray:
    """Fill what was not tracked in (M, T, V, 3): NaN becomes the joint's nearest earlier place.

    Before the first one it is the first; a joint that never was tracked takes the mean of the
    others. A body that is away, all joints NaN, becomes zeros.
    """
    missing = np.isnan(clip).any(axis=3)
    if not missing.any():
        return clip
    away = missing.all(axis=2)
    frames = np.arange(clip.shape[1])[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, frames), axis=1)
    first = np.argmin(missing, axis=1)  # the first frame in which a joint was tracked
    last = np.where(last < 0, first[:, None], last)
    filled = np.take_along_axis(clip, last[..., None], axis=1)
    never = missing.all(axis=1)
    if (never & ~away.all(axis=1, keepdims=True)).any():
        known = np.where(np.isnan(filled), 0.0, filled)
        counts = np.maximum((~np.isnan(filled)).sum(axis=2, keepdims=True), 1)
        filled = np.where(np.isnan(filled), known.sum(axis=2, keepdims=True) / counts, filled)
    return np.where(away[..., None, None], 0.0, filled).astype(np.float32)


class SkeletonBatches:
    """Training batches by step, a pure function of (config, seed, step): see `Reader.read`.

    Every clip is drawn once an epoch, in an order that depends on (seed, epoch).

    Attributes:
      rows: clips of a global batch.
      steps_per_epoch: steps in which as many clips are drawn as there are.
    """

    def __init__(
        self,
        data: SkeletonData,
        config: DataConfig,
        *,
        frames: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
    ):
        """List the clips.

        Raises:
          InputError: when there are none, or hosts do not divide the batch.
        """
        if config.batch_size % hosts:
            raise InputError(
                f"The config field data.batch_size is {config.batch_size}, but must be a multiple "
                f"of {hosts} hosts."
            )
        self.rows, self._seed = config.batch_size, seed
        share = self.rows // hosts
        self._mine = np.arange(host * share, (host + 1) * share)
        self._clips = data.part("train", config, seed)
        self._reader = Reader(data, config, frames, seed)
        self.steps_per_epoch = len(self._clips) / self.rows

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's part of the batch of `step`, for any step from 0."""
        return self._reader.read(*self.drawn_clips(step))

    def drawn_clips(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the clips of this host's part of a batch, and their ordinals, (B,) each."""
        draws = step * self.rows + self._mine
        epoch, ordinal = np.divmod(draws, len(self._clips))
        return self._clips[permute(ordinal, len(self._clips), self._seed, epoch)], draws
