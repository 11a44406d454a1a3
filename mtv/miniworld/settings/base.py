"""What a setting is: the looks of its surfaces, its light and sky, and which clutter stands in it. Data only.

Settings know nothing of categories, so that a background never gives an object away. Their colours are drawn from broad
ranges: a setting has habits (tiles in a kitchen, planks in an attic), not one look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtv.errors import UsageError
from mtv.miniworld.vocabulary import COLOURS, PATTERNS, SEMANTIC

Range = tuple[float, float]
Form = Literal["box", "narrow", "tent"]
Strip = Literal["", "road", "sea"]


@dataclass(frozen=True, kw_only=True)
class Tint:
    """A range of pigments of a surface."""

    colour: str
    """The colour name that comes nearest, from `COLOURS`."""
    hue: Range
    """HSV hue, 1 is a full turn; may start below 0."""
    saturation: Range
    """HSV saturation, 0..1."""
    value: Range
    """HSV value, 0..1."""

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise UsageError(f"Tint.colour must be one of {', '.join(COLOURS)}, got {self.colour!r}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Distribution of the material of one surface."""

    name: str
    """Semantic class of the surface, from `SEMANTIC`."""
    tints: tuple[Tint, ...]
    """Main colours, equally likely."""
    patterns: tuple[tuple[str, float], ...]
    """Patterns and their weights."""
    period: Range
    """Repeat of the pattern in metres at a view of ordinary size."""
    contrast: Range = (0.72, 0.94)
    """Brightness of the other colour of a pattern over that of the main one, or the inverse."""
    mixed: float = 0.15
    """Probability that the other colour of a pattern is another of the tints."""

    def __post_init__(self) -> None:
        if self.name not in SEMANTIC:
            raise UsageError(f"Look.name must be a semantic class, got {self.name!r}")
        strange = {p for p, _ in self.patterns} - set(PATTERNS)
        if strange or not self.tints or not self.patterns:
            raise UsageError(f"Look.patterns of {self.name} must be among {', '.join(PATTERNS)}, and tints not empty")


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much of one kind of clutter a setting has."""

    kind: str
    """Name of the clutter, a key of `clutter.CLUTTER`."""
    low: int
    """Smallest number."""
    high: int
    """Largest number, inclusive."""


@dataclass(frozen=True, kw_only=True)
class LightRange:
    """Distribution of the light of a setting."""

    elevation: Range
    """Degrees of the main light above the horizon."""
    strength: Range
    """Linear intensity of the main light."""
    ambient: Range
    """Linear intensity of the light from above."""
    warmth: Range
    """Red over blue of the main light."""
    softness: Range
    """Radius of the penumbra in metres."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A kind of place."""

    name: str
    """Unique name."""
    phrase: str
    """As captions say it: `in a kitchen`."""
    outdoor: bool
    """Under the sky, or in a closed room."""
    ground: Look
    """Floor or ground."""
    wall: Look | None = None
    """Walls, rooms only."""
    ceiling: Look | None = None
    """Ceiling, rooms only."""
    width: Range = (3.0, 7.0)
    """Shorter side of a room in metres."""
    depth: Range = (3.5, 9.0)
    """Longer side of a room in metres."""
    height: Range = (2.4, 3.2)
    """Height of a room in metres."""
    form: Form = "box"
    """`narrow`: seen along the room; `tent`: two sloped ceilings instead of the long walls."""
    light: LightRange
    """Light."""
    near: tuple[tuple[str, float], ...]
    """Clutter that stands among the objects, with weights."""
    mounted: tuple[Amount, ...] = ()
    """Clutter on the walls and the rug."""
    far: tuple[Amount, ...] = ()
    """Clutter behind everything, outdoors."""
    strip: Strip = ""
    """A road across the ground, or the sea behind it."""
    held_out: bool = False
    """Only in the test splits of a world with `shift`."""

    def __post_init__(self) -> None:
        if self.outdoor == (self.wall is not None) or self.outdoor == (self.ceiling is not None):
            raise UsageError(f"Setting.wall and ceiling of {self.name}: rooms have both, outdoor settings neither")
        if self.strip == "road" and not self.outdoor:
            raise UsageError(f"Setting.strip of {self.name}: rooms have no road")
