"""Cameras: portraits that frame one object, overviews of a place, and the view along a road.

Notable choices: a portrait puts the camera where the object fills the wanted share of the picture, so the picture
size of an object does not depend on its category; the camera moves rather than the focal length, which is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.blocks import Rect
from mtv.miniworld.scene import Camera
from mtv.miniworld.settings.base import Range
from mtv.miniworld.shapes import Vec3

_LOWEST = 0.12
"""Smallest height of a camera over the ground in metres."""
_CLOSEST = 1.25
"""Smallest focal length in units of the object's picture: keeps the camera outside and the perspective mild."""
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a portrait shows its object."""

    fill: Range
    """Longer side of the object's rectangle over the shorter side of the picture."""
    field: Range
    """Horizontal field of view, degrees."""
    elevation: Range
    """Degrees of the camera above the horizon, seen from the object."""
    distance: Range
    """From the camera to the object's middle, metres."""
    drift: float
    """How far off the middle the object may be, share of the picture's sides."""
    cut: float
    """Probability that the border cuts a little off the object."""


SINGLE = Framing(fill=(0.38, 0.76), field=(35, 75), elevation=(5, 40), distance=(0.5, 6.3), drift=0.2, cut=0.08)
"""One main object in a picture of its surroundings."""
MODEL = Framing(fill=(0.45, 0.74), field=(22, 60), elevation=(10, 60), distance=(0.5, 1.2), drift=0.12, cut=0.0)
"""One small individual, whole, from all sides."""


def look(position: Vec3, aim: Vec3, *, focal: float, width: int, height: int, roll: float = 0.0) -> Camera:
    """A camera at `position` that sees `aim` in the middle, itself turned clockwise by `roll` degrees."""
    fx, fy, fz = aim[0] - position[0], aim[1] - position[1], aim[2] - position[2]
    norm = math.sqrt(fx * fx + fy * fy + fz * fz)
    fx, fy, fz = fx / norm, fy / norm, fz / norm
    flat = math.hypot(fx, fy)
    rx, ry = fy / flat, -fx / flat
    dx, dy, dz = -fz * ry, fz * rx, fx * ry - fy * rx
    c, s = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    rotation = (
        (c * rx + s * dx, c * ry + s * dy, s * dz),
        (c * dx - s * rx, c * dy - s * ry, c * dz),
        (fx, fy, fz),
    )
    return Camera(width=width, height=height, focal=focal, rotation=rotation, position=position)


def draw_azimuth(draws: Draws, *, narrow: bool) -> float:
    """Direction of view in the plan, radians: anywhere, or along x in a narrow room."""
    if not narrow:
        return draws.uniform(0, math.tau)
    return math.radians(draws.uniform(-14, 14)) + (math.pi if draws.chance(0.5) else 0.0)


def portrait(
    draws: Draws, framing: Framing, points_N3: np.ndarray, *, azimuth: float, top: float, width: int, height: int
) -> Camera:
    """A camera that shows one object.

    Args:
        draws: the stream.
        framing: how.
        points_N3: float64 [N,3] world points whose hull is the object's.
        azimuth: direction of view in the plan, radians.
        top: largest height of the camera, metres.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    short = min(width, height)
    fill, field = draws.uniform(*framing.fill), draws.uniform(*framing.field)
    elevation = math.radians(draws.uniform(*framing.elevation))
    roll = draws.normal(0, 1.5)
    focal = max(width / 2 / math.tan(math.radians(field / 2)), _CLOSEST * fill * short)
    low, high = points_N3.min(axis=0), points_N3.max(axis=0)
    x, y, z = ((low + high) / 2).tolist()
    centre, size = (x, y, z), float((high - low).max())
    near, far = framing.distance
    distance = min(far, max(near, focal * size / (fill * short)))
    for _ in range(_ROUNDS):
        position = _around(centre, distance, azimuth, elevation, top)
        camera = look(position, centre, focal=focal, width=width, height=height)
        rect = _seen(camera, points_N3)
        ratio = max(rect.right - rect.left, rect.bottom - rect.top) / (fill * short)
        distance = min(far, max(near, max(1.05 * size, distance * ratio)))
    focal /= ratio
    moves, cut = _moves(draws.child("drift"), framing, rect, ratio, width, height)
    for _ in range(_ROUNDS):
        # Off the middle a lens stretches things, so what should be whole may have to come nearer to it.
        aim = _aim(camera, centre, moves, focal)
        shifted = look(position, aim, focal=focal, width=width, height=height, roll=roll)
        rect = _seen(shifted, points_N3)
        if cut or (min(rect.left, rect.top) >= 0 and rect.right <= width and rect.bottom <= height):
            break
        moves = (0.5 * moves[0], 0.5 * moves[1])
    return shifted


def _seen(camera: Camera, points_N3: np.ndarray) -> Rect:
    u, v, z = camera.project(points_N3).T
    return Rect(float(u.min()), float(v.min()), float(u.max()), float(v.max()), float(z.min()))


def _around(centre: Vec3, distance: float, azimuth: float, elevation: float, top: float) -> Vec3:
    rise = min(max(math.sin(elevation), (_LOWEST - centre[2]) / distance), (top - centre[2]) / distance)
    flat = distance * math.sqrt(1 - rise * rise)
    return (
        centre[0] - flat * math.cos(azimuth),
        centre[1] - flat * math.sin(azimuth),
        centre[2] + distance * rise,
    )


def _moves(
    draws: Draws, framing: Framing, rect: Rect, ratio: float, width: int, height: int
) -> tuple[tuple[float, float], bool]:
    """How far off the middle the object is to be, right and down in pixels, and whether the border cuts it."""
    moves = []
    cut_axis = draws.integer(0, 2) if draws.chance(framing.cut) else -1
    for axis, (side, extent) in enumerate(((width, rect.right - rect.left), (height, rect.bottom - rect.top))):
        free = (side - extent / ratio) / 2
        most = min(max(0.0, free - 0.03 * side), framing.drift * side)
        move = draws.uniform(-most, most)
        if axis == cut_axis:
            move = math.copysign(free + draws.uniform(0.04, 0.16) * extent / ratio, move)
        moves.append(move)
    return (moves[0], moves[1]), cut_axis >= 0


def _aim(camera: Camera, centre: Vec3, moves: tuple[float, float], focal: float) -> Vec3:
    """Where to look so that `centre`, now in the middle, moves by pixels."""
    distance = math.dist(camera.position, centre)
    across, fall = -moves[0] * distance / focal, -moves[1] * distance / focal
    right, down, _ = camera.rotation
    return (
        centre[0] + across * right[0] + fall * down[0],
        centre[1] + across * right[1] + fall * down[1],
        centre[2] + across * right[2] + fall * down[2],
    )


def overview(draws: Draws, *, azimuth: float, top: float, width: int, height: int) -> Camera:
    """A camera over the world's origin that looks at a place some metres ahead, 5 to 40 degrees down."""
    ahead = draws.uniform(2.0, 4.5)
    pitch = math.radians(draws.uniform(5, 40))
    aim = draws.uniform(0.1, 0.5)
    position = (0.0, 0.0, min(top, max(0.45, aim + ahead * math.tan(pitch))))
    target = (ahead * math.cos(azimuth), ahead * math.sin(azimuth), aim)
    focal = width / 2 / math.tan(math.radians(draws.uniform(40, 75) / 2))
    return look(position, target, focal=focal, width=width, height=height, roll=draws.normal(0, 1.5))


def along_road(draws: Draws, *, width: int, height: int) -> Camera:
    """A camera at a driver's height over the world's origin that looks along x, with a wide field of view."""
    azimuth, pitch = math.radians(draws.normal(0, 5)), math.radians(draws.uniform(0, 8))
    position = (0.0, 0.0, draws.uniform(1.3, 2.2))
    target = (10 * math.cos(azimuth), 10 * math.sin(azimuth), position[2] - 10 * math.tan(pitch))
    focal = width / 2 / math.tan(math.radians(draws.uniform(60, 85) / 2))
    return look(position, target, focal=focal, width=width, height=height, roll=draws.normal(0, 1.0))
