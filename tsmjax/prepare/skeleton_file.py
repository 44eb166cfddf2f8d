"""``.skeleton`` files of NTU RGB+D: text, read and written.

    frames
      bodies                                     of each frame
        number, 9 properties of the body         of each body
        25
          x y z, depth x y, colour x y, orientation w x y z, state     of each joint

x points to the sensor's left, y up, z away from it, in metres; the state is 0 (not tracked),
1 (inferred) or 2 (tracked).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tsmjax.errors import InputError
from tsmjax.prepare.denoise import Body

JOINTS, VALUES, PROPERTIES = 25, 12, 10
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
# How C libraries print what is not a number.
_NOT_FINITE = re.compile(r"[+-]?(\d\.)?#?(nan|inf|infinity|ind|qnan|snan)(\(.*\))?0*", re.I)


class Name(NamedTuple):
    """What the name of a file tells."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int


def parse_name(name: str) -> Name | None:
    """Return what a name such as S001C002P003R002A013 tells; None when it is of another form."""
    match = _NAME.fullmatch(name.removesuffix(".skeleton"))
    found = Name(*map(int, match.groups())) if match else None
    return found if found and min(found) > 0 else None


def parse(path: Path) -> tuple[list[Body], int]:
    """Read a file.

    Joints with a coordinate that is not finite are NaN; so are those of state 0 at the origin.
    Blank lines count nothing.

    Returns:
      The bodies in the order in which they appear, and the number of frames.

    Raises:
      InputError: with the line, when the file ends early, goes on after its frames, or holds
        something else than is said above.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}): copy it again.") from error
    lines = _Lines(path, text)
    frames = lines.count("number of frames", 0)
    seen: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    for frame in range(frames):
        for _ in range(lines.count(f"number of bodies of frame {frame + 1} of {frames}", 0)):
            number = lines.fields(PROPERTIES, "properties of a body")[0]
            joints = lines.count("number of joints", 0)
            if joints != JOINTS:
                lines.fail(f"says {joints} joints, but a body has {JOINTS}")
            at, found = seen.setdefault(number, ([], []))
            if at and at[-1] == frame:
                lines.fail(f"is of body {number}, which is twice in frame {frame + 1}")
            at.append(frame)
            found.append(lines.joints())
    if (rest := lines.rest()) is not None:
        raise InputError(
            f"{path} goes on in line {rest} after its {frames} frames: the number of frames in its "
            "first line is wrong, or two files were put together."
        )
    bodies = [
        Body(number, np.asarray(at), np.stack(found).astype(np.float32))
        for number, (at, found) in seen.items()
    ]
    return bodies, frames


class _Lines:
    """The lines of a file that are not blank, one after the other."""

    def __init__(self, path: Path, text: str):
        self._path = path
        self._lines = text.splitlines()
        self._at = -1

    def count(self, what: str, least: int) -> int:
        """Return the whole number that the next line holds."""
        line = self._next(what).strip()
        if not line.isdecimal() or int(line) < least:
            self.fail(f"is {line[:40]!r}, but must be the {what}")
        return int(line)

    def fields(self, number: int, what: str) -> list[str]:
        """Return the fields of the next line."""
        fields = self._next(what).split()
        if len(fields) != number:
            self.fail(f"has {len(fields)} values, but {number} {what} belong there")
        return fields

    def joints(self) -> np.ndarray:
        """Return (joints, 3) coordinates of the next lines."""
        block = [self.fields(VALUES, "values of a joint") for _ in range(JOINTS)]
        try:
            values = np.array([[*fields[:3], fields[11]] for fields in block], np.float64)
        except ValueError:
            first = self._at - JOINTS
            values = np.array(
                [[self._number(text, first) for text in (*f[:3], f[11])] for f in block]
            )
        xyz = values[:, :3]
        lost = ~np.isfinite(xyz).all(axis=1)
        lost |= (values[:, 3] == 0) & ~xyz.any(axis=1)
        xyz[lost] = np.nan
        return xyz

    def rest(self) -> int | None:
        """Return the number of the next line that is not blank, None at the end."""
        for number in range(self._at + 1, len(self._lines)):
            if self._lines[number].strip():
                return number + 1
        return None

    def fail(self, why: str) -> None:
        """Raise an error about the line that was read last."""
        raise InputError(f"{self._path}, line {self._at + 1} {why}: copy the file again.")

    def _next(self, what: str) -> str:
        while True:
            self._at += 1
            if self._at >= len(self._lines):
                raise InputError(
                    f"{self._path} ends after line {len(self._lines)}, where the {what} should "
                    "follow: it was cut off, copy it again."
                )
            if self._lines[self._at].strip():
                return self._lines[self._at]

    def _number(self, text: str, line: int) -> float:
        try:
            return float(text)
        except ValueError:
            if _NOT_FINITE.fullmatch(text):
                return np.nan
            raise InputError(
                f"{self._path} holds {text[:40]!r} after line {max(line, 0) + 1}, where a number "
                "belongs: copy the file again."
            ) from None


def write(path: Path, joints: np.ndarray, numbers: Sequence[str] = ()) -> None:
    """Write a clip in the exact format; what a camera would add is made up.

    Args:
      path: the file.
      joints: (bodies, frames, 25, 3) metres; a body of NaN alone is away in that frame.
      numbers: the sensor's numbers of the bodies.
    """
    bodies, frames = joints.shape[:2]
    numbers = numbers or [str(72057594037931101 + body) for body in range(bodies)]
    lines = [str(frames)]
    for frame in range(frames):
        here = [body for body in range(bodies) if not np.isnan(joints[body, frame]).all()]
        lines.append(str(len(here)))
        for body in here:
            lines += [f"{numbers[body]} 0 1 1 1 1 0 0.0106243 -0.0290646 2", str(JOINTS)]
            for x, y, z in joints[body, frame]:
                with np.errstate(divide="ignore", invalid="ignore"):
                    depth = f"{256 + 366 * x / z:.4f} {212 - 366 * y / z:.4f}"
                    colour = f"{960 + 1060 * x / z:.3f} {540 - 1060 * y / z:.3f}"
                state = 2 if np.isfinite((x, y, z)).all() else 0
                place = f"{x:.7g} {y:.7g} {z:.7g}"
                lines.append(f"{place} {depth} {colour} -0.2 0.05 0.97 -0.02 {state}")
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
