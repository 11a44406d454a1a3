"""Clutter: things of the surroundings that are no category, and what they are made of.

Artefacts take any material, as objects do; plants, stones and parts of buildings have looks of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mtv.draws import Draws
from mtv.miniworld import clutter_shapes as forms
from mtv.miniworld.materials import Material, draw_material, draw_pigment
from mtv.miniworld.settings.base import Look, Tint
from mtv.miniworld.settings.building import surface_material
from mtv.miniworld.settings.tints import BRICKS, DEEP, GRASSES, GREYS, PASTEL, SANDS, WHITES, WOODS
from mtv.miniworld.shapes import Part, Shape

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
    "crate": Clutter(name="crate", build=forms.crate),
    "pillar": Clutter(name="pillar", build=forms.pillar),
    "bush": Clutter(
        name="bush",
        build=forms.bush,
        looks={"main": _look("bush", GRASSES + DEEP[:3] + DEEP[3:5] * 2, _ROUGH, 0.08, 0.25)},
    ),
    "rock": Clutter(
        name="rock", build=forms.rock, looks={"main": _look("rock", GREYS * 2 + SANDS + BRICKS, _ROUGH, 0.15, 0.5)}
    ),
    "fence": Clutter(
        name="fence",
        build=forms.fence,
        looks={slot: _look("fence", _PAINTED, _SMOOTH, 0.2, 0.6) for slot in ("main", "second")},
    ),
    "hill": Clutter(
        name="hill", build=forms.hill, looks={"main": _look("hill", GRASSES * 2 + SANDS + GREYS, _ROUGH, 6.0, 20.0)}
    ),
    "window": Clutter(
        name="window",
        build=forms.window,
        looks={
            "main": _look("window", _PAINTED, _SMOOTH, 0.1, 0.4),
            "second": _look("window", _GLASS, _GLASS_PATTERNS, 0.3, 1.0),
        },
    ),
    "door": Clutter(
        name="door",
        build=forms.door,
        looks={slot: _look("door", _PAINTED, _SMOOTH, 0.15, 0.5) for slot in ("main", "second")},
    ),
    "picture": Clutter(name="picture", build=forms.picture),
    "board": Clutter(name="picture", build=forms.board),
    "rug": Clutter(name="rug", build=forms.rug),
}
"""Every kind; `board` is a large picture."""


def road_strip(
    draws: Draws, look: Look, *, half_width: float, scale: float, patterns: Sequence[str]
) -> tuple[Shape, dict[str, Material]]:
    """A straight road along x with a dashed line, and its materials.

    Args:
        draws: the stream.
        look: the material of the road.
        half_width: metres.
        scale: size of what stands around over its ordinary size.
        patterns: patterns that the split may use.
    """
    thick = 0.002 * scale
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
