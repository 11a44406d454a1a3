"""Clutter: things of the surroundings that are no category. Each kind is a small parametric family, built at its natural toy size.

Standing clutter has its origin on the ground under its middle. Mounted clutter has it on the wall at its lower edge, x out of the wall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mtv.miniworld.draws import Draws
from mtv.miniworld.materials import Material, draw_material, draw_pigment
from mtv.miniworld.settings.base import Look, Tint
from mtv.miniworld.settings.building import surface_material
from mtv.miniworld.settings.tints import BRICKS, DEEP, GRASSES, GREYS, PASTEL, SANDS, WHITES, WOODS
from mtv.miniworld.shapes import Part, Shape, Support, turn

_ROUGH = (("marbled", 3.0), ("plain", 1.0), ("shaded", 1.0))
_SMOOTH = (("plain", 4.0), ("marbled", 1.0), ("striped", 1.0), ("checked", 0.5))


@dataclass(frozen=True, kw_only=True)
class Clutter:
    """A kind of clutter."""

    name: str
    """Semantic class."""
    build: Callable[[Draws], Shape]
    """One member of the family, in metres."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """Material distribution of each slot; slots without one take any material, as objects do."""


def clutter_materials(
    draws: Draws, clutter: Clutter, shape: Shape, *, scale: float, patterns: Sequence[str]
) -> dict[str, Material]:
    """Materials of one member.

    Args:
        draws: the stream.
        clutter: the kind.
        shape: the member.
        scale: its size in the world over its natural one.
        patterns: patterns that the split may use.
    """
    out = {}
    for slot in sorted({part.slot for part in shape.parts}):
        if slot in clutter.looks:
            out[slot] = surface_material(draws, clutter.looks[slot], patterns=patterns, detail=scale)
        else:
            out[slot] = draw_material(draws, period=(0.08 * scale, 0.4 * scale), patterns=tuple(patterns))
    return out


def _crate(draws: Draws) -> Shape:
    half = (draws.uniform(0.14, 0.32), draws.uniform(0.14, 0.32), draws.uniform(0.12, 0.3))
    parts = [Part(kind="box", centre=(0, 0, half[2]), half=half, name="crate")]
    if draws.chance(0.6):
        bar = draws.uniform(0.015, 0.035)
        for height in (bar, 2 * half[2] - bar):
            rim = (half[0] + 0.012, half[1] + 0.012, bar)
            parts.append(Part(kind="box", centre=(0, 0, height), half=rim, slot="second"))
    top = 2 * half[2]
    return Shape(parts=tuple(parts), supports=(Support(height=top, x=(-half[0], half[0]), y=(-half[1], half[1])),))


def _pillar(draws: Draws) -> Shape:
    radius, height = draws.uniform(0.05, 0.13), draws.uniform(0.8, 1.9)
    shaft = "frustum" if draws.chance(0.6) else "box"
    parts = [
        Part(
            kind=shaft,  # type: ignore[arg-type]
            centre=(0, 0, height / 2),
            half=(radius, radius, height / 2),
            taper=draws.uniform(0.75, 1.0),
        )
    ]
    if draws.chance(0.7):
        parts.append(Part(kind="box", centre=(0, 0, 0.04), half=(1.4 * radius, 1.4 * radius, 0.04), slot="second"))
    if draws.chance(0.5):
        parts.append(Part(kind="box", centre=(0, 0, height - 0.03), half=(1.3 * radius, 1.3 * radius, 0.03), slot="second"))
    return Shape(parts=tuple(parts))


def _bush(draws: Draws) -> Shape:
    parts = []
    for i in range(draws.integer(2, 6)):
        angle, away = draws.uniform(0, math.tau), 0.0 if i == 0 else draws.uniform(0.1, 0.24)
        half = (draws.uniform(0.14, 0.28), draws.uniform(0.14, 0.28), draws.uniform(0.14, 0.32))
        centre = (away * math.cos(angle), away * math.sin(angle), half[2] * draws.uniform(0.7, 0.95))
        parts.append(Part(kind="ellipsoid", centre=centre, half=half))
    return Shape(parts=tuple(parts))


def _rock(draws: Draws) -> Shape:
    parts = []
    for i in range(draws.integer(1, 4)):
        angle, away = draws.uniform(0, math.tau), 0.0 if i == 0 else draws.uniform(0.15, 0.3)
        size = draws.uniform(0.12, 0.3) * (1.0 if i == 0 else 0.6)
        half = (size * draws.uniform(0.8, 1.3), size * draws.uniform(0.6, 1.0), size * draws.uniform(0.4, 0.8))
        parts.append(
            Part(
                kind="box" if draws.chance(0.3) else "ellipsoid",
                centre=(away * math.cos(angle), away * math.sin(angle), 0.5 * half[2]),
                half=half,
                rotation=turn(x=draws.uniform(-20, 20), y=draws.uniform(-20, 20), z=draws.uniform(0, 180)),
            )
        )
    return Shape(parts=tuple(parts))


def _fence(draws: Draws) -> Shape:
    posts, gap = draws.integer(4, 8), draws.uniform(0.28, 0.5)
    height, thick = draws.uniform(0.45, 0.8), draws.uniform(0.018, 0.03)
    length = (posts - 1) * gap
    parts = [
        Part(
            kind="box",
            centre=(0, i * gap - length / 2, height / 2),
            half=(thick, draws.uniform(0.03, 0.07), height / 2),
        )
        for i in range(posts)
    ]
    for share in draws.choice(((0.35, 0.8), (0.6,), (0.3, 0.6, 0.9))):
        rail = (0.8 * thick, length / 2 + 0.08, draws.uniform(0.025, 0.05))
        parts.append(Part(kind="box", centre=(1.2 * thick, 0, share * height), half=rail, slot="second"))
    return Shape(parts=tuple(parts))


def _hill(draws: Draws) -> Shape:
    parts = []
    for i in range(draws.integer(1, 3)):
        half = (draws.uniform(18, 45), draws.uniform(18, 55), draws.uniform(5, 17))
        centre = (0.0, 0.0 if i == 0 else draws.uniform(-30, 30), -0.2 * half[2])
        parts.append(Part(kind="ellipsoid", centre=centre, half=half))
    return Shape(parts=tuple(parts))


def _window(draws: Draws) -> Shape:
    wide, tall, bar = draws.uniform(0.35, 0.8), draws.uniform(0.4, 0.65), draws.uniform(0.03, 0.05)
    parts = [
        Part(kind="box", centre=(0.01, 0, tall), half=(0.01, wide + bar, tall + bar), name="frame"),
        Part(kind="box", centre=(0.014, 0, tall), half=(0.014, wide, tall), slot="second", name="glass"),
    ]
    if draws.chance(0.8):
        parts.append(Part(kind="box", centre=(0.02, 0, tall), half=(0.02, bar / 2, tall)))
    if draws.chance(0.6):
        parts.append(Part(kind="box", centre=(0.02, 0, tall), half=(0.02, wide, bar / 2)))
    return Shape(parts=tuple(parts))


def _door(draws: Draws) -> Shape:
    wide, tall = draws.uniform(0.35, 0.48), draws.uniform(0.9, 1.02)
    knob = wide * draws.choice((-0.8, 0.8))
    parts = [
        Part(kind="box", centre=(0.01, 0, tall + 0.02), half=(0.01, wide + 0.06, tall + 0.04), slot="second", name="frame"),
        Part(kind="box", centre=(0.015, 0, tall), half=(0.015, wide, tall), name="leaf"),
        Part(kind="ellipsoid", centre=(0.035, knob, tall), half=(0.018, 0.04, 0.04), slot="accent", name="knob"),
    ]
    if draws.chance(0.6):
        pane = (0.02, 0.65 * wide, 0.32 * tall)
        parts.append(Part(kind="box", centre=(0.015, 0, 1.45 * tall), half=pane, slot="second"))
    return Shape(parts=tuple(parts))


def _picture(draws: Draws) -> Shape:
    return _framed(draws, draws.uniform(0.18, 0.5), draws.uniform(0.18, 0.4))


def _board(draws: Draws) -> Shape:
    return _framed(draws, draws.uniform(0.8, 1.4), draws.uniform(0.4, 0.6))


def _framed(draws: Draws, wide: float, tall: float) -> Shape:
    bar = draws.uniform(0.025, 0.05)
    return Shape(
        parts=(
            Part(kind="box", centre=(0.012, 0, tall), half=(0.012, wide + bar, tall + bar), slot="second", name="frame"),
            Part(kind="box", centre=(0.016, 0, tall), half=(0.016, wide, tall), name="canvas"),
        )
    )


def _rug(draws: Draws) -> Shape:
    half = (draws.uniform(0.6, 1.1), draws.uniform(0.6, 1.1), 0.006)
    if draws.chance(0.3):
        return Shape(parts=(Part(kind="frustum", centre=(0, 0, 0.006), half=half),))
    inner = (half[0] - 0.12, half[1] - 0.12, 0.008)
    return Shape(
        parts=(
            Part(kind="box", centre=(0, 0, 0.006), half=half, slot="second", name="border"),
            Part(kind="box", centre=(0, 0, 0.008), half=inner, name="field"),
        )
    )


def _look(name: str, tints: tuple[Tint, ...], patterns: tuple[tuple[str, float], ...], low: float, high: float) -> Look:
    return Look(name=name, tints=tints, patterns=patterns, period=(low, high), contrast=(0.65, 0.9), mixed=0.25)


_GLASS = (
    Tint(colour="white", hue=(0.5, 0.62), saturation=(0.05, 0.25), value=(0.85, 1.0)),
    Tint(colour="blue", hue=(0.54, 0.62), saturation=(0.25, 0.5), value=(0.7, 0.95)),
    Tint(colour="black", hue=(0.58, 0.68), saturation=(0.3, 0.6), value=(0.1, 0.25)),
)
_GLASS_PATTERNS = (("plain", 2.0), ("shaded", 2.0), ("marbled", 1.0))
_PAINTED = WOODS + WHITES + PASTEL + DEEP

CLUTTER: Mapping[str, Clutter] = {
    "crate": Clutter(name="crate", build=_crate),
    "pillar": Clutter(name="pillar", build=_pillar),
    "bush": Clutter(
        name="bush",
        build=_bush,
        looks={"main": _look("bush", GRASSES + DEEP[:3] + DEEP[3:5] * 2, _ROUGH, 0.08, 0.25)},
    ),
    "rock": Clutter(name="rock", build=_rock, looks={"main": _look("rock", GREYS * 2 + SANDS + BRICKS, _ROUGH, 0.15, 0.5)}),
    "fence": Clutter(
        name="fence",
        build=_fence,
        looks={slot: _look("fence", _PAINTED, _SMOOTH, 0.2, 0.6) for slot in ("main", "second")},
    ),
    "hill": Clutter(
        name="hill", build=_hill, looks={"main": _look("hill", GRASSES * 2 + SANDS + GREYS, _ROUGH, 6.0, 20.0)}
    ),
    "window": Clutter(
        name="window",
        build=_window,
        looks={
            "main": _look("window", _PAINTED, _SMOOTH, 0.1, 0.4),
            "second": _look("window", _GLASS, _GLASS_PATTERNS, 0.3, 1.0),
        },
    ),
    "door": Clutter(
        name="door",
        build=_door,
        looks={slot: _look("door", _PAINTED, _SMOOTH, 0.15, 0.5) for slot in ("main", "second")},
    ),
    "picture": Clutter(name="picture", build=_picture),
    "board": Clutter(name="picture", build=_board),
    "rug": Clutter(name="rug", build=_rug),
}
"""Every kind; `board` is a large picture."""


def road_strip(draws: Draws, look: Look, *, half_width: float, scale: float, patterns: Sequence[str]) -> tuple[Shape, dict[str, Material]]:
    """A straight road along x with a dashed line, and its materials.

    Args:
        draws: the stream.
        look: the material of the road.
        half_width: metres.
        scale: size of what stands around over its ordinary size.
        patterns: patterns that the split may use.
    """
    thick = 0.004 * scale
    colour = draws.choice(("white", "white", "yellow"))
    road = surface_material(draws, look, patterns=patterns, detail=scale)
    marking = Material(
        colour=colour,
        pigment=draw_pigment(draws, colour),
        second_colour=road.colour,
        second_pigment=road.pigment,
        # Both leave gaps along a thin strip.
        pattern="striped" if "striped" in patterns else "checked",
        period=draws.uniform(1.0, 2.0) * scale,
        axis=(1.0, 0.0, 0.0),
        phase=draws.uniform(0, 64),
    )
    length = 150.0
    parts = (
        Part(kind="box", centre=(0, 0, 0), half=(length, half_width, thick)),
        Part(kind="box", centre=(0, 0, thick), half=(length, 0.02 * half_width, thick), slot="accent", name="line"),
    )
    return Shape(parts=parts), {"main": road, "accent": marking}
