"""Upright boxes: the room that a thing takes, whether two things collide, and where they land in the picture.

Plain Python on few numbers, because a scene asks thousands of such questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtv.miniworld.scene import Camera, Surface
from mtv.miniworld.shapes import Mat3, Part, Shape, Vec3

NEAREST = 0.05
"""Camera z in metres below which nothing counts as in the picture."""


@dataclass(frozen=True, slots=True)
class Block:
    """A box that stands upright, turned about z: centre of its plan, half sides, heights, and the turn."""

    x: float
    """World x of the centre."""
    y: float
    """World y of the centre."""
    half_x: float
    """Half side along the own x axis, metres."""
    half_y: float
    """Half side along the own y axis, metres."""
    low: float
    """World z of the bottom."""
    high: float
    """World z of the top."""
    cos: float
    """Cosine of the turn."""
    sin: float
    """Sine of the turn."""

    def corners(self) -> Iterator[Vec3]:
        """The eight corners in the world."""
        ax, ay = self.cos * self.half_x, self.sin * self.half_x
        bx, by = -self.sin * self.half_y, self.cos * self.half_y
        for z in (self.low, self.high):
            yield self.x + ax + bx, self.y + ay + by, z
            yield self.x + ax - bx, self.y + ay - by, z
            yield self.x - ax + bx, self.y - ay + by, z
            yield self.x - ax - bx, self.y - ay - by, z


class Bounds(NamedTuple):
    """The axis-aligned box around a shape, in the shape's own frame."""

    low: Vec3
    """Lowest corner."""
    high: Vec3
    """Highest corner."""


class Rect(NamedTuple):
    """Where a block lands in the picture."""

    left: float
    """Pixels."""
    top: float
    """Pixels."""
    right: float
    """Pixels."""
    bottom: float
    """Pixels."""
    near: float
    """Smallest camera z, metres."""

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: Rect) -> float:
        """Square pixels that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


def shape_bounds(shape: Shape) -> Bounds:
    """The box around a shape; tight for ellipsoids, the box around the part's box otherwise."""
    low, high = [math.inf] * 3, [-math.inf] * 3
    for part in shape.parts:
        for axis, extent in enumerate(_extents(part)):
            middle = part.centre[axis]
            low[axis] = min(low[axis], middle - extent)
            high[axis] = max(high[axis], middle + extent)
    return Bounds((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _extents(part: Part) -> Vec3:
    hx, hy, hz = part.reach
    a, b, c = part.rotation
    if part.kind == "ellipsoid":
        return _round(a, hx, hy, hz), _round(b, hx, hy, hz), _round(c, hx, hy, hz)
    return _square(a, hx, hy, hz), _square(b, hx, hy, hz), _square(c, hx, hy, hz)


def _round(row: Vec3, hx: float, hy: float, hz: float) -> float:
    return math.sqrt((row[0] * hx) ** 2 + (row[1] * hy) ** 2 + (row[2] * hz) ** 2)


def _square(row: Vec3, hx: float, hy: float, hz: float) -> float:
    return abs(row[0]) * hx + abs(row[1]) * hy + abs(row[2]) * hz


def hull_points(shape: Shape) -> np.ndarray:
    """float64 [N,3]: points whose convex hull is close to the shape's, object frame."""
    chunks = []
    for part in shape.parts:
        unit_N3 = _HULLS[part.kind]
        if part.kind == "frustum":
            unit_N3 = unit_N3 * np.where(unit_N3[:, 2:] > 0, (part.taper, part.taper, 1.0), 1.0)
        elif part.kind == "torus":
            unit_N3 = unit_N3 * (1.0, 1.0, part.tube / (1 + part.tube))
        chunks.append(unit_N3 * part.half @ np.array(part.rotation).T + part.centre)
    return np.concatenate(chunks)


def _ring(height: float) -> list[Vec3]:
    return [(math.cos(a), math.sin(a), height) for a in (k * math.tau / 8 for k in range(8))]


_CUBE = [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
_HULLS = {
    "ellipsoid": np.array(
        [(s * (i == 0), s * (i == 1), s * (i == 2)) for i in range(3) for s in (-1.0, 1.0)]
        + [tuple(c / math.sqrt(3) for c in corner) for corner in _CUBE]
    ),
    "box": np.array(_CUBE),
    "frustum": np.array(_ring(-1.0) + _ring(1.0)),
    "torus": np.array(_ring(-1.0) + _ring(1.0)),
}
"""Points on the hull of each kind in unit coordinates."""


def yaw_matrix(cos: float, sin: float) -> Mat3:
    """Rotation about z."""
    return (cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0)


def block_at(bounds: Bounds, *, scale: float, yaw: float, position: Vec3) -> Block:
    """The block of a shape whose origin stands at `position`, scaled and turned by `yaw` radians."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    low, high = bounds
    mx, my = scale * (low[0] + high[0]) / 2, scale * (low[1] + high[1]) / 2
    return Block(
        position[0] + cos * mx - sin * my,
        position[1] + sin * mx + cos * my,
        scale * (high[0] - low[0]) / 2,
        scale * (high[1] - low[1]) / 2,
        position[2] + scale * low[2],
        position[2] + scale * high[2],
        cos,
        sin,
    )


def collide(a: Block, b: Block, gap: float) -> bool:
    """Whether the plans of two blocks come closer than `gap` metres along every separating axis."""
    dx, dy = b.x - a.x, b.y - a.y
    reach = math.hypot(a.half_x, a.half_y) + math.hypot(b.half_x, b.half_y) + gap
    if dx * dx + dy * dy > reach * reach:
        return False
    c, s = abs(a.cos * b.cos + a.sin * b.sin), abs(a.cos * b.sin - a.sin * b.cos)
    return (
        abs(dx * a.cos + dy * a.sin) < a.half_x + b.half_x * c + b.half_y * s + gap
        and abs(dy * a.cos - dx * a.sin) < a.half_y + b.half_x * s + b.half_y * c + gap
        and abs(dx * b.cos + dy * b.sin) < b.half_x + a.half_x * c + a.half_y * s + gap
        and abs(dy * b.cos - dx * b.sin) < b.half_y + a.half_x * s + a.half_y * c + gap
    )


def clearance(block: Block, surface: Surface) -> float:
    """Metres from a surface to the nearest corner of a block, negative where the block pokes through."""
    nx, ny, nz = surface.normal
    along = abs(nx * block.cos + ny * block.sin) * block.half_x + abs(ny * block.cos - nx * block.sin) * block.half_y
    return nx * block.x + ny * block.y - along + min(nz * block.low, nz * block.high) - surface.offset


def distance_in_plan(block: Block, x: float, y: float) -> float:
    """Metres from a point of the ground to a block's plan, 0 inside."""
    dx, dy = x - block.x, y - block.y
    out_x = max(0.0, abs(dx * block.cos + dy * block.sin) - block.half_x)
    out_y = max(0.0, abs(dy * block.cos - dx * block.sin) - block.half_y)
    return math.hypot(out_x, out_y)


def rect_of(camera: Camera, points: Iterator[Vec3] | Sequence[Vec3]) -> Rect | None:
    """The rectangle around the projections of points; None if any is behind the camera or too near."""
    (r0, r1, r2), (d0, d1, d2), (f0, f1, f2) = camera.rotation
    px, py, pz = camera.position
    us, vs, near = [], [], math.inf
    for wx, wy, wz in points:
        x, y, z = wx - px, wy - py, wz - pz
        depth = f0 * x + f1 * y + f2 * z
        if depth < NEAREST:
            return None
        near = min(near, depth)
        us.append((r0 * x + r1 * y + r2 * z) / depth)
        vs.append((d0 * x + d1 * y + d2 * z) / depth)
    f, cx, cy = camera.focal, camera.width / 2, camera.height / 2
    return Rect(f * min(us) + cx, f * min(vs) + cy, f * max(us) + cx, f * max(vs) + cy, near)


def ground_point(camera: Camera, column: float, depth: float) -> tuple[float, float]:
    """World x and y of the point on z = 0 that is seen in a pixel column at a depth (camera z)."""
    right, down, forward = camera.rotation
    across = (column - camera.width / 2) / camera.focal * depth
    fall = (-camera.position[2] - right[2] * across - forward[2] * depth) / down[2]
    return (
        camera.position[0] + right[0] * across + down[0] * fall + forward[0] * depth,
        camera.position[1] + right[1] * across + down[1] * fall + forward[1] * depth,
    )


def ground_depths(camera: Camera) -> tuple[float, float]:
    """Smallest and largest depth (camera z) of the ground in the middle column, a little inside the frame."""
    rise = camera.position[2]
    down, forward = camera.rotation[1][2], camera.rotation[2][2]
    slope = camera.height / 2 / camera.focal
    steepest, flattest = (-(forward + share * slope * down) for share in (0.95, -0.9))
    return rise / max(1e-6, steepest), rise / flattest if flattest > 1e-6 else math.inf
