"""Skeletons as data: joints, parents, body regions, mirror pairs.

Joints are numbered from 0. A joint that is its own parent is a root.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tsmjax.errors import InputError, closest

REGIONS = ("left_arm", "right_arm", "left_leg", "right_leg", "torso")


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """What the models, the streams and the augmentations know of a set of joints.

    Attributes:
      joints: name of each joint.
      bones: tables of parents, by name; a bone is joint − parent. The first is the default.
      graph: the table whose bones are the edges of the graph.
      centre: joint from which the graph's subsets measure distance.
      regions: joints of each of `REGIONS`; every joint is in exactly one.
      mirror: pairs (left, right) that a left–right mirror exchanges.
    """

    joints: tuple[str, ...]
    bones: Mapping[str, tuple[int, ...]]
    graph: str
    centre: int
    regions: Mapping[str, tuple[int, ...]]
    mirror: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of joints, V."""
        return len(self.joints)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Edges (child, parent) of the graph."""
        return tuple((c, p) for c, p in enumerate(self.bones[self.graph]) if c != p)

    def parents(self, table: str | None = None) -> tuple[int, ...]:
        """Parent of each joint in a table of bones; None takes the default one.

        Raises:
          InputError: when there is no such table.
        """
        name = next(iter(self.bones)) if table is None else table
        if name not in self.bones:
            raise InputError(
                f"There is no table of bones {name!r}{closest(name, self.bones)}; known are "
                f"{', '.join(self.bones)}."
            )
        return self.bones[name]

    @property
    def permutation(self) -> tuple[int, ...]:
        """Where a mirrored joint takes its coordinates from."""
        order = list(range(self.size))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return tuple(order)


def skeleton(name: str) -> Skeleton:
    """Return a skeleton by name.

    Raises:
      InputError: when there is none of that name.
    """
    if name not in SKELETONS:
        raise InputError(
            f"There is no skeleton {name!r}{closest(name, SKELETONS)}; known are "
            f"{', '.join(SKELETONS)}."
        )
    return SKELETONS[name]


def _sides(*parts: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for side in ("left", "right") for part in parts)


_ARM, _LEG = ("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot")
_LIMBS = (*_sides(*_ARM), *_sides(*_LEG))
_LIMB_PAIRS = ((4, 8), (5, 9), (6, 10), (7, 11), (12, 16), (13, 17), (14, 18), (15, 19))
_LIMB_REGIONS = {
    **{"left_arm": (4, 5, 6, 7), "right_arm": (8, 9, 10, 11)},
    **{"left_leg": (12, 13, 14, 15), "right_leg": (16, 17, 18, 19), "torso": (0, 1, 2, 3)},
}
_KINECT_V1 = ("hip_centre", "spine", "shoulder_centre", "head", *_LIMBS)
# Parents of the four limbs of 20-joint skeletons, hung on the shoulder centre and the hip centre.
_FROM_SHOULDERS, _FROM_HIPS = (2, 4, 5, 6, 2, 8, 9, 10), (0, 12, 13, 14, 0, 16, 17, 18)

SKELETONS: dict[str, Skeleton] = {
    # Kinect v2, as in NTU RGB+D.
    "ntu25": Skeleton(
        joints=(
            *("spine_base", "spine_mid", "neck", "head", *_LIMBS, "spine_shoulder"),
            *("left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"),
        ),
        bones={
            # Rooted at the spine base, with thumbs on the wrists.
            "anatomical": (
                *(0, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
                *(1, 7, 6, 11, 10),
            ),
            # Rooted at the spine shoulder: the pairs of CTR-GCN and most of its successors.
            "ctr_gcn": (
                *(1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
                *(20, 22, 7, 24, 11),
            ),
        },
        graph="ctr_gcn",
        centre=20,
        regions={
            **{"left_arm": (4, 5, 6, 7, 21, 22), "right_arm": (8, 9, 10, 11, 23, 24)},
            **{"left_leg": (12, 13, 14, 15), "right_leg": (16, 17, 18, 19)},
            "torso": (0, 1, 2, 3, 20),
        },
        mirror=(*_LIMB_PAIRS, (21, 23), (22, 24)),
    ),
    # Kinect v1, rooted at the hip centre.
    "kinect20": Skeleton(
        joints=_KINECT_V1,
        bones={"anatomical": (0, 0, 1, 2, *_FROM_SHOULDERS, *_FROM_HIPS)},
        graph="anatomical",
        centre=2,
        regions=_LIMB_REGIONS,
        mirror=_LIMB_PAIRS,
    ),
    # Kinect v1 as in Northwestern-UCLA, rooted at the shoulder centre.
    "ucla20": Skeleton(
        joints=_KINECT_V1,
        bones={"ctr_gcn": (1, 2, 2, 2, *_FROM_SHOULDERS, *_FROM_HIPS)},
        graph="ctr_gcn",
        centre=2,
        regions=_LIMB_REGIONS,
        mirror=_LIMB_PAIRS,
    ),
    # Kinect v1 in the order of UTD-MHAD: head first, hips fourth.
    "utd20": Skeleton(
        joints=("head", "shoulder_centre", "spine", "hip_centre", *_LIMBS),
        bones={
            "anatomical": (1, 2, 3, 3, 1, 4, 5, 6, 1, 8, 9, 10, 3, 12, 13, 14, 3, 16, 17, 18),
        },
        graph="anatomical",
        centre=1,
        regions=_LIMB_REGIONS,
        mirror=_LIMB_PAIRS,
    ),
    # COCO key points, from 2D pose estimators.
    "coco17": Skeleton(
        joints=(
            *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
            *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
            *("left_wrist", "right_wrist", "left_hip", "right_hip"),
            *("left_knee", "right_knee", "left_ankle", "right_ankle"),
        ),
        bones={"anatomical": (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)},
        graph="anatomical",
        centre=0,
        regions={
            **{"left_arm": (5, 7, 9), "right_arm": (6, 8, 10)},
            **{"left_leg": (11, 13, 15), "right_leg": (12, 14, 16)},
            "torso": (0, 1, 2, 3, 4),
        },
        mirror=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    ),
}
