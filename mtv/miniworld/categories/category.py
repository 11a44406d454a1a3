"""What a category is: its words, its family of shapes and how it may be placed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.shapes import Shape
from mtv.miniworld.vocabulary import CATEGORIES


@dataclass(frozen=True, kw_only=True)
class Category:
    """A class of objects.

    Shapes stand on z = 0 over the origin, x forward, y left, longest side exactly 1: `Instance.scale` is that side in
    metres.
    """

    name: str
    """Singular noun, from `CATEGORIES`."""
    plural: str
    """Plural noun."""
    article: str
    """Indefinite article of the bare noun: `a` or `an`."""
    build: Callable[[Draws], Shape]
    """Returns one member of the family; a pure function of the stream's key and state."""
    size: tuple[float, float]
    """Range of the longest side at toy scale in ordinary scenes, metres."""
    keypoints: tuple[str, ...]
    """Names of the keypoints, in the order of every member's `Shape.keypoints`."""
    small: bool = False
    """Whether it may stand on a support of another object."""
    seat: bool = False
    """Whether members have supports on which small objects may stand."""

    def __post_init__(self) -> None:
        if self.name not in CATEGORIES:
            raise UsageError(f"Category.name must be one of {', '.join(CATEGORIES)}, got {self.name!r}")
        if self.article not in ("a", "an"):
            raise UsageError(f"Category.article must be a or an, got {self.article!r}")
        if not 0 < self.size[0] <= self.size[1]:
            raise UsageError(f"Category.size must be an increasing positive range, got {self.size}")
        if not 6 <= len(set(self.keypoints)) == len(self.keypoints) <= 12:
            raise UsageError(f"Category.keypoints of {self.name} must be 6 to 12 different names")
