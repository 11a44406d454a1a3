"""Primitives in few words, points on their surfaces, and the model that turns them into a `Shape`.

Notable choices:

* A keypoint is given as a part and a direction in the part's own axes, so that it lies on the part by construction.
* Shapes are built in any unit; `Model.shape` measures the exact extent (support functions, no boxes around boxes),
  moves the shape to z = 0 over the origin and scales its longest side to 1, so that `Instance.scale` is that side in
  metres.
* A thin elliptic cone is a triangle: sails and gables. A drum through a head is two eyes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtv.errors import UsageError
from mtv.miniworld.shapes import IDENTITY, Kind, Mat3, Part, Shape, Support, Vec3, turn

Size = float | tuple[float, float]
"""A radius, or radii along the own x and y."""
SIDES = (("left", 1.0), ("right", -1.0))
"""Names of the sides and their sign along y."""


def box(centre: Vec3, half: Vec3, *, slot: str = "main", name: str = "", rotation: Mat3 = IDENTITY) -> Part:
    """A cuboid."""
    return Part(kind="box", centre=centre, half=half, rotation=rotation, slot=slot, name=name)


def ball(centre: Vec3, half: float | Vec3, *, slot: str = "main", name: str = "", rotation: Mat3 = IDENTITY) -> Part:
    """A sphere or ellipsoid."""
    size = half if isinstance(half, tuple) else (half, half, half)
    return Part(kind="ellipsoid", centre=centre, half=size, rotation=rotation, slot=slot, name=name)


def drum(
    centre: Vec3,
    radius: Size,
    half_height: float,
    *,
    taper: float = 1.0,
    open: bool = False,
    slot: str = "main",
    name: str = "",
    rotation: Mat3 = IDENTITY,
) -> Part:
    """A cylinder, cone or frustum along its own z; `radius` is that of the end at own z = -1."""
    rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
    half = (rx, ry, half_height)
    return Part(
        kind="frustum", centre=centre, half=half, rotation=rotation, taper=taper, open=open, slot=slot, name=name
    )


def rod(start: Vec3, end: Vec3, radius: Size, *, taper: float = 1.0, slot: str = "main", name: str = "") -> Part:
    """A frustum from `start` (own z = -1, with this radius) to `end`; own x stays as near to object x as it can."""
    middle, half, rotation = _along(start, end)
    return drum(middle, radius, half, taper=taper, slot=slot, name=name, rotation=rotation)


def plank(start: Vec3, end: Vec3, half: tuple[float, float], *, slot: str = "main", name: str = "") -> Part:
    """A cuboid from `start` to `end` with these half extents across; axes as in `rod`."""
    middle, half_length, rotation = _along(start, end)
    return box(middle, (*half, half_length), slot=slot, name=name, rotation=rotation)


def _along(start: Vec3, end: Vec3) -> tuple[Vec3, float, Mat3]:
    """Middle, half length and the axes of a part whose own z goes from `start` to `end`."""
    dx, dy, dz = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    wx, wy, wz = dx / length, dy / length, dz / length
    across = math.hypot(wy, wz)
    vy, vz = (wz / across, -wy / across) if across > 1e-9 else (1.0, 0.0)
    ux, uy, uz = vy * wz - vz * wy, vz * wx, -vy * wx
    middle = (start[0] + dx / 2, start[1] + dy / 2, start[2] + dz / 2)
    return middle, length / 2, ((ux, 0.0, wx), (uy, vy, wy), (uz, vz, wz))


def ring(
    centre: Vec3, half: Vec3, tube: float, *, slot: str = "main", name: str = "", rotation: Mat3 = IDENTITY
) -> Part:
    """A torus around its own z; see `Part` for `half` and `tube`."""
    return Part(kind="torus", centre=centre, half=half, tube=tube, rotation=rotation, slot=slot, name=name)


def wheel(centre: Vec3, radius: float, half_width: float, side: float, *, slot: str, name: str = "") -> Part:
    """A disc that rolls along x, its outer face (own z = +1) towards `side` * y."""
    rotation = turn(x=-90 * side)
    return drum(centre, radius, half_width, taper=0.88, slot=slot, name=name, rotation=rotation)


def on_surface(part: Part, direction: Vec3) -> Vec3:
    """The point of the part's surface in a direction of its own axes, in the object's frame.

    Lengths count in half extents: (1, 1, 1) is a corner of a box, (1, 0, 1) a point of the top rim of a frustum
    whatever its taper, (0.5, 0, 1) lies half-way on its lid. On a torus the direction's horizontal part chooses the
    place on the ring, and the point is the tube's farthest in the direction.
    """
    x, y, z = direction
    if part.kind == "box":
        scale = 1 / max(abs(x), abs(y), abs(z))
        own = (x * scale, y * scale, z * scale)
    elif part.kind == "ellipsoid":
        scale = 1 / math.sqrt(x * x + y * y + z * z)
        own = (x * scale, y * scale, z * scale)
    elif part.kind == "frustum":
        scale = 1 / max(math.hypot(x, y), abs(z))
        radius = scale * (1 + (part.taper - 1) * (z * scale + 1) / 2)
        own = (x * radius, y * radius, z * scale)
    else:
        flat, norm = math.hypot(x, y), math.sqrt(x * x + y * y + z * z)
        ring_radius, tube_radius = 1 / (1 + part.tube), part.tube / (1 + part.tube)
        around = ring_radius / flat + tube_radius / norm
        own = (x * around, y * around, z * tube_radius / norm)
    hx, hy, hz = part.half
    return beyond(part.centre, part.rotation, (own[0] * hx, own[1] * hy, own[2] * hz))


def rotate(rotation: Mat3, point: Vec3) -> Vec3:
    """The rotated point."""
    x, y, z = point
    (a, b, c), (d, e, f), (g, h, i) = rotation
    return (a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z)


def beyond(start: Vec3, rotation: Mat3, step: Vec3) -> Vec3:
    """The point reached from `start` by a step along the rotated axes."""
    x, y, z = rotate(rotation, step)
    return start[0] + x, start[1] + y, start[2] + z


def between(start: Vec3, end: Vec3, share: float) -> Vec3:
    """The point at this share of the way."""
    (ax, ay, az), (bx, by, bz) = start, end
    return ax + share * (bx - ax), ay + share * (by - ay), az + share * (bz - az)


def compose(second: Mat3, first: Mat3) -> Mat3:
    """The rotation that does `first`, then `second`."""
    columns = [rotate(second, (first[0][k], first[1][k], first[2][k])) for k in range(3)]
    (a, d, g), (b, e, h), (c, f, i) = columns
    return ((a, b, c), (d, e, f), (g, h, i))


def span(part: Part, axis: int) -> tuple[float, float]:
    """Exact lowest and highest coordinate of the part along an axis (0 to 2) of the object's frame."""
    (rx, ry, rz), (hx, hy, hz) = part.rotation[axis], part.half
    dx, dy, dz = rx * hx, ry * hy, rz * hz
    middle = part.centre[axis]
    if part.kind == "frustum":
        flat = math.hypot(dx, dy)
        low = min(-dz - flat, dz - flat * part.taper)
        high = max(-dz + flat, dz + flat * part.taper)
        return middle + low, middle + high
    if part.kind == "box":
        reach = abs(dx) + abs(dy) + abs(dz)
    elif part.kind == "ellipsoid":
        reach = math.sqrt(dx * dx + dy * dy + dz * dz)
    else:
        reach = (math.hypot(dx, dy) + part.tube * math.sqrt(dx * dx + dy * dy + dz * dz)) / (1 + part.tube)
    return middle - reach, middle + reach


class Model:
    """Collects parts, keypoints, supports and traits of one shape, in any unit and anywhere.

    Args:
        keypoints: names of the category's keypoints, in order.
    """

    def __init__(self, keypoints: Sequence[str]) -> None:
        self._marks: dict[str, Vec3 | None] = dict.fromkeys(keypoints)
        self._parts: list[Part] = []
        self._supports: list[Support] = []
        self._traits: list[str] = []

    def add(self, part: Part, *, trait: str = "") -> Part:
        """Add a part, an optional one if it has a `trait`; returns it."""
        self._parts.append(part)
        if trait:
            self.trait(trait)
        return part

    def trait(self, text: str) -> None:
        """Say that an optional thing is there."""
        self._traits.append(text)

    def mark(self, keypoint: str, part: Part, direction: Vec3) -> None:
        """Place a keypoint on a part, see `on_surface`."""
        if keypoint not in self._marks:
            raise UsageError(f"keypoint {keypoint!r} is not one of the category's {', '.join(self._marks)}")
        self._marks[keypoint] = on_surface(part, direction)

    def support(self, height: float, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Declare a flat free top."""
        self._supports.append(Support(height=height, x=x, y=y))

    def pose(self, rotation: Mat3) -> None:
        """Rotate everything added so far about the origin; supports must come after."""
        self._parts = [_moved(p, 1.0, (0.0, 0.0, 0.0), rotation) for p in self._parts]
        self._marks = {k: rotate(rotation, p) if p else None for k, p in self._marks.items()}

    def shape(self) -> Shape:
        """The finished shape: on z = 0, centred over the origin, longest side 1."""
        spans = [[span(p, axis) for p in self._parts] for axis in range(3)]
        low = [min(s[0] for s in along) for along in spans]
        high = [max(s[1] for s in along) for along in spans]
        scale = 1 / max(h - b for b, h in zip(low, high, strict=True))
        shift = (-scale * (low[0] + high[0]) / 2, -scale * (low[1] + high[1]) / 2, -scale * low[2])
        marks = {k: _shifted(p, scale, shift) if p else None for k, p in self._marks.items()}
        return Shape(
            parts=tuple(_moved(p, scale, shift, IDENTITY) for p in self._parts),
            keypoints=tuple(marks.items()),
            supports=tuple(_moved_support(s, scale, shift) for s in self._supports),
            traits=tuple(self._traits),
        )


def _shifted(point: Vec3, scale: float, shift: Vec3) -> Vec3:
    return (scale * point[0] + shift[0], scale * point[1] + shift[1], scale * point[2] + shift[2])


def _moved(part: Part, scale: float, shift: Vec3, rotation: Mat3) -> Part:
    same = rotation is IDENTITY
    kind: Kind = part.kind
    return Part(
        kind=kind,
        centre=_shifted(part.centre if same else rotate(rotation, part.centre), scale, shift),
        half=(scale * part.half[0], scale * part.half[1], scale * part.half[2]),
        rotation=part.rotation if same else compose(rotation, part.rotation),
        taper=part.taper,
        tube=part.tube,
        open=part.open,
        slot=part.slot,
        name=part.name,
    )


def _moved_support(support: Support, scale: float, shift: Vec3) -> Support:
    return Support(
        height=scale * support.height + shift[2],
        x=(scale * support.x[0] + shift[0], scale * support.x[1] + shift[0]),
        y=(scale * support.y[0] + shift[1], scale * support.y[1] + shift[1]),
    )


def four_legs(
    m: Model, top: float, x: float, y: float, thick: float, *, spread: float = 1.0, square: bool = True, slot: str
) -> None:
    """Legs from the corners (+-x, +-y) at height `top` to the floor, `spread` times as far out there.

    Places the keypoints `front left foot`, `front right foot`, `rear left foot`, `rear right foot`.
    """
    for side_name, side in SIDES:
        for end_name, end in (("front", 1.0), ("rear", -1.0)):
            foot, head = (end * spread * x, side * spread * y, 0.0), (end * x, side * y, top)
            leg = plank(foot, head, (thick, thick), slot=slot) if square else rod(foot, head, thick, slot=slot)
            m.mark(f"{end_name} {side_name} foot", m.add(leg), (end, side if square else 0.4 * side, -0.9))
