"""What may be said of a frame: its nameable objects, and how they relate in the eyes of somebody who looks at it.

Relations have margins wide enough that two people who look at the picture would agree; what falls between them is never
said. Left and right are picture order; in front and behind need depth order and overlap across the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mtv.miniworld.language.looks import Look

SIDE_MARGIN = 0.1
"""Least distance between the centres of two boxes, as a share of the picture's width, for left and right."""
SIDE_OVERLAP = 0.4
"""Largest overlap of two boxes across the picture, as a share of the narrower one, for left and right."""
DEPTH_RATIO = 1.15
"""Least ratio of two median depths for nearer and farther; the nearest points must be in the same order."""
DEPTH_MARGIN = 0.15
"""Least difference of two median depths in metres."""
FRONT_OVERLAP = 0.5
"""Least overlap of two boxes across the picture, as a share of the narrower one, for in front and behind."""
SIZE_RATIO = 1.6
"""Least ratio of longest sides, in the world and in the picture alike, for larger and smaller."""
NEXT_GAP = 0.35
"""Largest gap between two objects, as a share of the sum of their longest sides, for next to."""
DISTANCE_RATIO = 1.4
"""Least ratio of two distances between centres in the world for closer to a third object."""
DISTANCE_MARGIN = 0.25
"""Least difference of these distances in metres."""
POSITION_SIDE = 0.36
"""An object in the left half of the picture and centred in this share of the width is on the left; right likewise."""
POSITION_MIDDLE = 0.08
"""An object whose box is centred this near to the middle, as a share of the width, is in the middle."""
ABOVE_SINE = 0.5
"""Least sine of the camera's pitch for a view from above (30 degrees)."""
LEVEL_SINE = 0.2
"""Largest sine of the camera's pitch for a view from the side (12 degrees)."""
CLOSE_UP_SHARE = 0.4
"""Least share of the picture that the box of an object fills in a close-up."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A nameable object of a category, or a nameable piece of scenery (which has no look, traits or front)."""

    index: int
    """Position in `Scene.instances`."""
    name: str
    """Semantic class."""
    look: Look
    """Colours, pattern and finish as they appear; `UNTOLD` unless it is clear."""
    worn: frozenset[str]
    """Every colour on any of its parts, visible or not."""
    traits: tuple[str, ...]
    """Optional parts that are seen, as captions say them after `with`."""
    facing: str | None
    """`left`, `right`, `towards`, `away`, or None if in between or without a front."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the visible pixels."""
    share: float
    """Visible pixels as a share of the picture's."""
    clear: bool
    """Whether colours, pattern and parts can be told."""
    depth: float
    """Median camera z, metres."""
    nearest: float
    """Smallest camera z, metres."""
    centre: tuple[float, float, float]
    """Middle of its bounding box in the world, metres."""
    extent: float
    """Longest side in the world, metres."""
    support: int | None
    """Index of the object it stands on; None for ground and floor."""

    @property
    def middle(self) -> float:
        """Column of the box's centre, pixels."""
        return (self.box[0] + self.box[2]) / 2

    @property
    def width(self) -> int:
        """Width of the box, pixels."""
        return self.box[2] - self.box[0]

    @property
    def longest(self) -> int:
        """Longer side of the box, pixels."""
        return max(self.width, self.box[3] - self.box[1])


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """An instance with any visible pixel."""

    index: int
    """Position in `Scene.instances`."""
    colours: frozenset[str]
    """Every colour on any of its parts."""
    patterns: frozenset[str]
    """Every pattern on any of its parts."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that may be said of a frame."""

    width: int
    """Picture width, pixels."""
    height: int
    """Picture height, pixels."""
    setting: str
    """Name of the setting."""
    phrase: str
    """The setting as captions say it."""
    outdoor: bool
    """Whether the sky is seen."""
    downward: float
    """Sine of the angle by which the camera looks down."""
    things: tuple[Thing, ...]
    """Nameable objects in the order of the scene."""
    scenery: tuple[Thing, ...]
    """Nameable clutter in the order of the scene."""
    counts: Mapping[str, int]
    """Certain counts of categories, 0 included; a category is missing where the count is not certain."""
    glimpsed: Mapping[str, tuple[Glimpse, ...]]
    """Every instance with any visible pixel, nameable or not, by category: rivals of a definite description."""

    @property
    def from_above(self) -> bool:
        """Whether the camera looks down steeply."""
        return self.downward >= ABOVE_SINE

    @property
    def from_the_side(self) -> bool:
        """Whether the camera looks about horizontally."""
        return abs(self.downward) <= LEVEL_SINE

    def shows(self, name: str) -> bool:
        """Whether something of this class is seen well."""
        return any(t.name == name and t.clear for t in self.things) or any(s.name == name for s in self.scenery)

    def left_of(self, a: Thing, b: Thing) -> bool:
        """Whether `a` is clearly to the left of `b` in the picture."""
        return b.middle - a.middle >= SIDE_MARGIN * self.width and _overlap(a, b) <= SIDE_OVERLAP

    def nearer(self, a: Thing, b: Thing) -> bool:
        """Whether `a` is clearly closer to the camera than `b`."""
        return b.depth >= DEPTH_RATIO * a.depth and b.depth - a.depth >= DEPTH_MARGIN and a.nearest < b.nearest

    def in_front_of(self, a: Thing, b: Thing) -> bool:
        """Whether `a` is nearer than `b` and overlaps it across the picture, and neither stands on the other."""
        stacked = a.support == b.index or b.support == a.index
        return not stacked and self.nearer(a, b) and _overlap(a, b) >= FRONT_OVERLAP

    def on(self, a: Thing, b: Thing) -> bool:
        """Whether `a` stands on `b`."""
        return a.support == b.index

    def larger(self, a: Thing, b: Thing) -> bool:
        """Whether `a` is clearly larger than `b`, in the world and in the picture alike."""
        return a.extent >= SIZE_RATIO * b.extent and a.longest >= SIZE_RATIO * b.longest

    def next_to(self, a: Thing, b: Thing) -> bool:
        """Whether they stand side by side: left and right of each other, at about one depth, with little between."""
        beside = self.left_of(a, b) or self.left_of(b, a)
        level = not self.nearer(a, b) and not self.nearer(b, a) and a.support == b.support
        gap = math.dist(a.centre, b.centre) - (a.extent + b.extent) / 2
        return beside and level and gap <= NEXT_GAP * (a.extent + b.extent)

    def closer_to(self, anchor: Thing, a: Thing, b: Thing) -> bool:
        """Whether `a` is clearly closer to `anchor` than `b` is, between centres in the world."""
        near, far = math.dist(anchor.centre, a.centre), math.dist(anchor.centre, b.centre)
        return far >= DISTANCE_RATIO * near and far - near >= DISTANCE_MARGIN

    def position(self, thing: Thing) -> str | None:
        """`left`, `right` or `middle` of the picture, or None if in between."""
        middle = thing.middle / self.width
        if thing.box[2] <= self.width / 2 and middle <= POSITION_SIDE:
            return "left"
        if thing.box[0] >= self.width / 2 and middle >= 1 - POSITION_SIDE:
            return "right"
        return "middle" if abs(middle - 0.5) <= POSITION_MIDDLE else None

    def close_up(self, thing: Thing) -> bool:
        """Whether the object fills much of the picture."""
        left, top, right, bottom = thing.box
        return (right - left) * (bottom - top) >= CLOSE_UP_SHARE * self.width * self.height

    def alike(self, name: str) -> tuple[Thing, ...]:
        """The nameable objects of a category."""
        return tuple(t for t in self.things if t.name == name)


def _overlap(a: Thing, b: Thing) -> float:
    """Overlap of two boxes across the picture as a share of the narrower one."""
    shared = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    return max(0, shared) / min(a.width, b.width)
