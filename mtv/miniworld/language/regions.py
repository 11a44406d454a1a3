"""Boxes with names at several levels, as detectors with open vocabularies label pictures: `red mug`, `mug`.

Colour names follow the same rules as captions: both colours are said where neither covers the larger part for certain.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtv.miniworld.frame import Frame
from mtv.miniworld.language.facts import Thing
from mtv.miniworld.language.grammar import PATTERN_ADJECTIVES
from mtv.miniworld.language.observe import facts_of


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named box."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom (exclusive) of the visible pixels."""
    name: str
    """What is in it, without article."""
    level: int
    """0 category, 1 with colour, 2 with pattern and colour."""
    index: int
    """Position in `Scene.instances`."""


def regions(frame: Frame) -> tuple[Region, ...]:
    """All regions of a frame: objects in the order of the scene, each from level 0 upwards, then scenery (level 0).

    Plain objects have two levels, patterned ones three; objects of which the colours cannot be told have one.
    """
    facts = facts_of(frame)
    out = [
        Region(box=t.box, name=name, level=level, index=t.index)
        for t in facts.things
        for level, name in enumerate(_names(t))
    ]
    return (*out, *(Region(box=s.box, name=s.name, level=0, index=s.index) for s in facts.scenery))


def _names(thing: Thing) -> list[str]:
    look = thing.look
    if not (look.alone or look.both):
        return [thing.name]
    coloured = f"{look.colours[0] if look.alone else ' and '.join(look.colours[:2])} {thing.name}"
    if look.plain or not look.pattern:
        return [thing.name, coloured]
    return [thing.name, coloured, f"{PATTERN_ADJECTIVES[look.pattern][0]} {coloured}"]
