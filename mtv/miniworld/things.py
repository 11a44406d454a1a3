"""Things: shapes with materials and a size that have no place yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtv.draws import Draws
from mtv.miniworld.blocks import Bounds, shape_bounds
from mtv.miniworld.categories import CATALOGUE
from mtv.miniworld.materials import Material, draw_material, draw_pigment
from mtv.miniworld.shapes import Shape

_SLOTS = (("main", 0.4), ("second", 0.75), ("accent", 0.85))
"""Slots of an object with their share of plain materials."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that is drawn but has no place yet."""

    name: str
    """Semantic class."""
    shape: Shape
    """Shape."""
    bounds: Bounds
    """Box around the shape."""
    scale: float
    """As `Instance.scale`."""
    materials: Mapping[str, Material]
    """As `Instance.materials`."""
    identity: str = ""
    """As `Instance.identity`."""
    host: bool = False
    """Whether small objects may stand on its supports."""

    @property
    def size(self) -> float:
        """Longest side in metres."""
        return self.scale * max(high - low for low, high in zip(*self.bounds, strict=True))

    def scaled(self, factor: float) -> Thing:
        """The same thing at another size."""
        return replace(self, scale=factor * self.scale)


def draw_object(
    draws: Draws,
    name: str,
    *,
    patterns: Sequence[str],
    size: tuple[float, float],
    identity: str = "",
    colour: str | None = None,
) -> Thing:
    """A member of a category.

    Args:
        draws: the stream.
        name: category.
        patterns: patterns that the split may use.
        size: range of the longest side in metres.
        identity: as `Instance.identity`.
        colour: main colour, or drawn.
    """
    category = CATALOGUE[name]
    shape = category.build(draws.child("shape"))
    scale = draws.uniform(*size)
    return Thing(
        name=name,
        shape=shape,
        bounds=shape_bounds(shape),
        scale=scale,
        materials=draw_materials(draws.child("materials"), shape, size=scale, patterns=patterns, colour=colour),
        identity=identity,
        host=category.seat,
    )


def draw_materials(
    draws: Draws, shape: Shape, *, size: float, patterns: Sequence[str], colour: str | None = None
) -> dict[str, Material]:
    """Materials of an object: the same distribution for every category.

    Args:
        draws: the stream.
        shape: whose slots are filled.
        size: longest side in metres; patterns repeat 3 to 9 times on it.
        patterns: patterns that the split may use.
        colour: main colour, or drawn.
    """
    used = {part.slot for part in shape.parts} | {"main"}
    out = {}
    for slot, plain_share in _SLOTS:
        if slot in used:
            out[slot] = draw_material(
                draws,
                period=(0.11 * size, 0.34 * size),
                colour=colour if slot == "main" else None,
                patterns=tuple(patterns),
                plain_share=plain_share,
            )
    if "dark" in used:
        pigment = draw_pigment(draws, "black")
        # Tyres, screens and noses stay plain even in a world with `shift`.
        out["dark"] = Material(colour="black", pigment=pigment, second_colour="black", second_pigment=pigment)
    return out
