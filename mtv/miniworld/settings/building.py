"""Builds a setting's surfaces around what the picture is about: floor, walls and ceiling of a room, or ground and sea.

The room is drawn around the camera and the places that must be free, so a camera never stands in a wall and nothing is
rejected.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.materials import RGB, Material
from mtv.miniworld.scene import Surface
from mtv.miniworld.settings.base import Look, Setting, Tint
from mtv.miniworld.shapes import Vec3

LONGEST = 9.4
"""Largest diagonal of a room in metres, so that depth stays under 10 m."""
_GAP = 0.15
_SEA_SLOPE = math.radians(0.15)
"""The sea is a plane that leaves the ground at the shore with this slope; a flat part of its size would cost the
shadows their resolution."""


def surface_material(
    draws: Draws, look: Look, *, patterns: Sequence[str], detail: float, axis: Vec3 = (1.0, 0.0, 0.0)
) -> Material:
    """One material of a look.

    Args:
        draws: the stream.
        look: the distribution.
        patterns: patterns that the split may use.
        detail: factor on the period, for views from near or far.
        axis: unit direction across stripes and along gradients.
    """
    allowed = [(p, w) for p, w in look.patterns if p in patterns]
    if not allowed:
        raise UsageError(f"the look of {look.name} has none of the patterns {', '.join(patterns)}")
    pattern = draws.choice([p for p, _ in allowed], [w for _, w in allowed])
    tint = draws.choice(look.tints)
    pigment = _pigment(draws, tint)
    other = draws.choice(look.tints)
    factor = draws.uniform(*look.contrast)
    if draws.chance(0.3):
        factor = 1 / factor
    second = (min(1.0, pigment[0] * factor), min(1.0, pigment[1] * factor), min(1.0, pigment[2] * factor))
    mixed = draws.chance(look.mixed)
    plain = pattern == "plain"
    return Material(
        colour=tint.colour,
        pigment=pigment,
        second_colour=other.colour if mixed and not plain else tint.colour,
        second_pigment=pigment if plain else _pigment(draws, other) if mixed else second,
        pattern=pattern,
        finish="glossy" if draws.chance(0.1) else "matte",
        period=draws.uniform(*look.period) * detail,
        axis=axis,
        phase=draws.uniform(0, 64),
    )


def _pigment(draws: Draws, tint: Tint) -> RGB:
    return colorsys.hsv_to_rgb(
        draws.uniform(*tint.hue) % 1.0, draws.uniform(*tint.saturation), draws.uniform(*tint.value)
    )


def room_surfaces(
    draws: Draws, setting: Setting, *, keep: Sequence[Vec3], height: float, patterns: Sequence[str], detail: float
) -> tuple[Surface, ...]:
    """Floor, ceiling and walls around `keep`, at most six planes; the floor comes first.

    Args:
        draws: the stream.
        setting: a room.
        keep: world points that lie inside: the camera, corners of the main object, places to fill.
        height: of the room in metres.
        patterns: as in `surface_material`.
        detail: as in `surface_material`.
    """
    wall, ceiling = setting.wall, setting.ceiling
    if wall is None or ceiling is None:
        raise UsageError(f"setting {setting.name} is not a room")
    looks = draws.child("looks")
    planks: Vec3 = (1.0, 0.0, 0.0) if looks.chance(0.5) else (0.0, 1.0, 0.0)
    upright = looks.chance(0.75)
    floor = surface_material(looks, setting.ground, patterns=patterns, detail=detail, axis=planks)
    top = surface_material(looks, ceiling, patterns=patterns, detail=detail, axis=planks)
    paint = surface_material(looks, wall, patterns=patterns, detail=detail)
    accent = surface_material(looks, wall, patterns=patterns, detail=detail) if looks.chance(0.25) else paint
    across_x = replace(accent, axis=(1.0, 0.0, 0.0) if upright else (0.0, 0.0, 1.0))
    across_y = replace(paint, axis=(0.0, 1.0, 0.0) if upright else (0.0, 0.0, 1.0))
    x0, x1, y0, y1 = _plan(draws.child("plan"), setting, keep)
    surfaces = (
        Surface(name=setting.ground.name, normal=(0.0, 0.0, 1.0), offset=0.0, material=floor),
        Surface(name=ceiling.name, normal=(0.0, 0.0, -1.0), offset=-height, material=top),
        Surface(name=wall.name, normal=(1.0, 0.0, 0.0), offset=x0, material=across_y),
        Surface(name=wall.name, normal=(-1.0, 0.0, 0.0), offset=-x1, material=across_y),
    )
    if setting.form == "tent":
        return (*surfaces, *_slopes(draws.child("slopes"), keep, top))
    return (
        *surfaces,
        Surface(name=wall.name, normal=(0.0, 1.0, 0.0), offset=y0, material=across_x),
        Surface(name=wall.name, normal=(0.0, -1.0, 0.0), offset=-y1, material=across_x),
    )


def _slopes(draws: Draws, keep: Sequence[Vec3], material: Material) -> list[Surface]:
    """The two sloped ceilings of a tent with its ridge along x."""
    out = []
    for sign in (1.0, -1.0):
        steep = math.radians(draws.uniform(54, 70))
        normal = (0.0, sign * math.sin(steep), -math.cos(steep))
        inside = min(normal[1] * y + normal[2] * z for _, y, z in keep)
        out.append(
            Surface(name="ceiling", normal=normal, offset=inside - _GAP - draws.uniform(0.0, 0.7), material=material)
        )
    return out


def _plan(draws: Draws, setting: Setting, keep: Sequence[Vec3]) -> tuple[float, float, float, float]:
    """x0, x1, y0, y1 of the walls."""
    lows, needs = [], []
    for axis in (0, 1):
        values = [p[axis] for p in keep]
        lows.append(min(values) - _GAP)
        needs.append(max(values) - min(values) + 2 * _GAP)
    width, depth = draws.uniform(*setting.width), draws.uniform(*setting.depth)
    x_is_long = setting.form != "box" or needs[0] > needs[1]
    sides = [max(n, s) for n, s in zip(needs, (depth, width) if x_is_long else (width, depth), strict=True)]
    for axis in (0, 1) if x_is_long else (1, 0):
        room = math.sqrt(max(0.0, LONGEST**2 - sides[1 - axis] ** 2))
        sides[axis] = max(needs[axis], min(sides[axis], room))
    x0, y0 = (low - draws.uniform(0, s - n) for low, s, n in zip(lows, sides, needs, strict=True))
    return x0, x0 + sides[0], y0, y0 + sides[1]


def ground_surface(draws: Draws, setting: Setting, *, patterns: Sequence[str], detail: float) -> Surface:
    """The ground of an outdoor setting, z = 0."""
    angle = draws.uniform(0, math.tau)
    axis = (math.cos(angle), math.sin(angle), 0.0)
    material = surface_material(draws, setting.ground, patterns=patterns, detail=detail, axis=axis)
    return Surface(name=setting.ground.name, normal=(0.0, 0.0, 1.0), offset=0.0, material=material)


def sea_surface(draws: Draws, look: Look, *, shore: float, azimuth: float, patterns: Sequence[str]) -> Surface:
    """Water behind a straight shore line.

    Args:
        draws: the stream.
        look: its material.
        shore: distance of the shore from the world's origin in metres.
        azimuth: direction towards the sea, radians.
        patterns: as in `surface_material`.
    """
    axis = (math.cos(azimuth), math.sin(azimuth), 0.0)
    normal = (-math.sin(_SEA_SLOPE) * axis[0], -math.sin(_SEA_SLOPE) * axis[1], math.cos(_SEA_SLOPE))
    material = surface_material(draws, look, patterns=patterns, detail=1.0, axis=axis)
    return Surface(name=look.name, normal=normal, offset=-math.sin(_SEA_SLOPE) * shore, material=material)
