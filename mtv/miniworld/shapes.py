"""Shapes: objects as rigid groups of analytic primitives in the object's frame (x forward, y left, z up, metres).

A category is a function `build(draws) -> Shape` that returns one member of its parametric family at its natural toy
size, standing on z = 0. Placing, scaling and colouring happen elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mtv.errors import UsageError

Vec3 = tuple[float, float, float]
Mat3 = tuple[Vec3, Vec3, Vec3]
Kind = Literal["ellipsoid", "box", "frustum", "torus"]
KINDS: tuple[Kind, ...] = ("ellipsoid", "box", "frustum", "torus")
SLOTS = ("main", "second", "accent", "dark")
"""Material slots of objects; every part names one."""
IDENTITY: Mat3 = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One primitive. In its own axes it fills (at most) the cube [-1, 1]^3 scaled by `half`."""

    kind: Kind
    """`ellipsoid`; `box`; `frustum`: cylinder, cone or between, along the own z axis; `torus`: ring around own z."""
    centre: Vec3
    """Position in the object's frame, metres."""
    half: Vec3
    """Half extents along the own axes, metres. Torus: set all three to the outer radius for a round tube."""
    rotation: Mat3 = IDENTITY
    """Own axes to object frame."""
    taper: float = 1.0
    """Frustum: radius at the top (own z = +1) over radius at the bottom, which `half` holds; 1 a cylinder, 0 a cone,
    above 1 wider at the top."""
    tube: float = 0.25
    """Torus: tube radius over ring radius; outer radius is 1 in own axes, so ring 1 / (1 + tube)."""
    open: bool = False
    """Frustum: without lid (own z = +1) so that the inside is seen: mugs, lamp shades."""
    slot: str = "main"
    """Material slot, from `SLOTS`."""
    name: str = ""
    """Name of the part: `handle`, `seat`, `left front wheel`; empty for nameless ones."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"Part.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.slot not in SLOTS:
            raise UsageError(f"Part.slot must be one of {', '.join(SLOTS)}, got {self.slot!r}")
        if min(self.half) <= 0 or not all(map(math.isfinite, (*self.half, *self.centre))):
            raise UsageError(f"Part.half must be positive and finite, got {self.half} at {self.centre}")
        if not 0 <= self.taper <= 4 or not 0 < self.tube <= 1:
            raise UsageError(f"Part.taper must be in [0, 4] and tube in (0, 1], got {self.taper} and {self.tube}")

    @property
    def reach(self) -> Vec3:
        """Half extents of the box in own axes that holds the part, metres."""
        x, y, z = self.half
        if self.kind == "frustum":
            widest = max(1.0, self.taper)
            return x * widest, y * widest, z
        if self.kind == "torus":
            return x, y, z * self.tube / (1 + self.tube)
        return self.half


@dataclass(frozen=True, kw_only=True, slots=True)
class Support:
    """A flat top on which something can stand: an axis-aligned rectangle in the object's frame."""

    height: float
    """z of the surface."""
    x: tuple[float, float]
    """Range along x."""
    y: tuple[float, float]
    """Range along y."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One member of a category's family."""

    parts: tuple[Part, ...]
    """Primitives."""
    keypoints: tuple[tuple[str, Vec3 | None], ...] = ()
    """Named points on the surfaces of parts, object frame; same names in the same order for every member of the
    category; None where an optional part is absent."""
    supports: tuple[Support, ...] = ()
    """Places where a smaller object can stand."""
    traits: tuple[str, ...] = ()
    """Optional parts that are there, in words a caption may use after `with`: `a handle`, `a chimney`."""
    _corners: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, float64 [3] each, of the axis-aligned box that holds all parts' boxes."""
        corners = self.corners
        return corners.min(axis=(0, 1)), corners.max(axis=(0, 1))

    @property
    def corners(self) -> np.ndarray:
        """float64 [P,8,3]: corners of the box around every part, object frame."""
        if "all" not in self._corners:
            self._corners["all"] = np.stack([part_corners(p) for p in self.parts])
        return self._corners["all"]


_SIGNS_83 = np.array([(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


def part_corners(part: Part) -> np.ndarray:
    """float64 [8,3]: corners of the box around a part, object frame."""
    local_83 = _SIGNS_83 * np.array(part.reach)
    return local_83 @ np.array(part.rotation).T + np.array(part.centre)


def turn(*, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mat3:
    """Rotation by degrees about x, then y, then z (fixed axes), as rows.

    >>> [round(v, 6) for v in turn(z=90)[0]]
    [0.0, -1.0, 0.0]
    """
    cx, sx = math.cos(math.radians(x)), math.sin(math.radians(x))
    cy, sy = math.cos(math.radians(y)), math.sin(math.radians(y))
    cz, sz = math.cos(math.radians(z)), math.sin(math.radians(z))
    return (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
