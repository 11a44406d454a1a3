"""The object categories: parametric families of shapes with keypoints, supports and traits.

Convention: a shape stands on z = 0 over the origin, x forward, y left, and its longest side is exactly 1, so that
`Instance.scale` is that side in metres (`Category.size` gives the usual range). `main` covers the largest visible area;
which parts the other slots cover varies between members, and no slot is tied to a colour.
"""

from __future__ import annotations

from collections.abc import Mapping

from mtv.draws import Draws
from mtv.errors import unknown
from mtv.miniworld.categories.cars import CAR
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.craft import BOAT, PLANE
from mtv.miniworld.categories.creatures import BIRD, DOG
from mtv.miniworld.categories.furniture import BED, TABLE
from mtv.miniworld.categories.outdoors import HOUSE, TREE
from mtv.miniworld.categories.robots import ROBOT
from mtv.miniworld.categories.seating import CHAIR, SOFA
from mtv.miniworld.categories.study import BOOK, LAMP
from mtv.miniworld.categories.tableware import BOTTLE, MUG
from mtv.miniworld.shapes import Shape
from mtv.miniworld.vocabulary import CATEGORIES

_ALL = (MUG, BOTTLE, BOOK, LAMP, CHAIR, TABLE, SOFA, BED, CAR, PLANE, BOAT, HOUSE, TREE, DOG, BIRD, ROBOT)

CATALOGUE: Mapping[str, Category] = {name: {c.name: c for c in _ALL}[name] for name in CATEGORIES}
"""Every category by name, in the order of `CATEGORIES`."""


def build_shape(name: str, draws: Draws) -> Shape:
    """One member of a category's family.

    Raises:
        UsageError: unknown category.
    """
    if name not in CATALOGUE:
        raise unknown("category", name, CATALOGUE)
    return CATALOGUE[name].build(draws)


__all__ = ["CATALOGUE", "Category", "build_shape"]
