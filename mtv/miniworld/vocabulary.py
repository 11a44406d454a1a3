"""The words of the miniature world: categories, semantic classes, colours, finishes, patterns. Facts only, no logic."""

from __future__ import annotations

CATEGORIES = (
    "mug",
    "bottle",
    "book",
    "lamp",
    "chair",
    "table",
    "sofa",
    "bed",
    "car",
    "plane",
    "boat",
    "house",
    "tree",
    "dog",
    "bird",
    "robot",
)
"""Object categories, in the order of their class index."""

BACKGROUND = (
    "wall",
    "floor",
    "ceiling",
    "sky",
    "grass",
    "road",
    "sand",
    "snow",
    "window",
    "door",
    "picture",
    "rug",
    "crate",
    "pillar",
    "bush",
    "rock",
    "fence",
    "hill",
)
"""Surroundings and clutter: never a class of the classification, keypoint or counting tasks."""

SEMANTIC = ("other", *CATEGORIES, *BACKGROUND)
"""Semantic classes; the index is the value in the mask, 0 = other."""

COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "white", "grey", "black")
"""Colour names; every category may have every colour."""

FINISHES = ("matte", "glossy")
"""Surface finish."""

PATTERNS = ("plain", "striped", "checked", "dotted", "marbled", "shaded")
"""Texture: one colour; stripes, checks or dots of two; noise between two; a gradient between two."""


def semantic_id(name: str) -> int:
    """Mask value of a class name."""
    return SEMANTIC.index(name)
