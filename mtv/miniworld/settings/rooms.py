"""The rooms. Data only."""

from __future__ import annotations

from mtv.miniworld.settings.base import Amount, LightRange, Look, Setting
from mtv.miniworld.settings.tints import BRICKS, DEEP, GREYS, PASTEL, WHITES, WOODS

_DAY = LightRange(
    elevation=(35, 75), strength=(0.55, 0.95), ambient=(0.45, 0.75), warmth=(0.95, 1.2), softness=(0.05, 0.25)
)
_LAMP = LightRange(
    elevation=(50, 85), strength=(0.5, 0.9), ambient=(0.35, 0.6), warmth=(1.05, 1.45), softness=(0.03, 0.15)
)

_PAINT = Look(
    name="wall",
    tints=PASTEL + WHITES + WHITES + GREYS[:1],
    patterns=(("plain", 6), ("striped", 1.5), ("shaded", 1), ("dotted", 0.7), ("checked", 0.5), ("marbled", 1)),
    period=(0.25, 0.8),
)
_CEILING = Look(
    name="ceiling", tints=WHITES + WHITES + PASTEL[1:3], patterns=(("plain", 4), ("marbled", 1)), period=(1.0, 2.0)
)
_PLANKS = Look(name="floor", tints=WOODS, patterns=(("striped", 4), ("plain", 1), ("marbled", 1)), period=(0.12, 0.35))
_TILES = Look(
    name="floor",
    tints=WHITES + GREYS + BRICKS + PASTEL,
    patterns=(("checked", 4), ("dotted", 1), ("plain", 1), ("striped", 0.5)),
    period=(0.25, 0.6),
    contrast=(0.45, 0.85),
    mixed=0.4,
)
_CARPET = Look(
    name="floor",
    tints=PASTEL + DEEP + GREYS,
    patterns=(("plain", 3), ("marbled", 1.5), ("dotted", 1), ("striped", 0.7), ("shaded", 0.7), ("checked", 0.4)),
    period=(0.15, 0.6),
)
_CONCRETE = Look(
    name="floor", tints=GREYS, patterns=(("marbled", 3), ("plain", 2), ("shaded", 1), ("checked", 1)), period=(0.6, 1.8)
)

ROOMS = (
    Setting(
        name="kitchen",
        phrase="in a kitchen",
        outdoor=False,
        ground=_TILES,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(3.0, 5.0),
        depth=(3.5, 6.5),
        light=_DAY,
        near=(("crate", 2), ("pillar", 1)),
        mounted=(Amount(kind="window", low=1, high=3), Amount(kind="door", low=0, high=1)),
    ),
    Setting(
        name="bedroom",
        phrase="in a bedroom",
        outdoor=False,
        ground=_CARPET,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(3.0, 5.0),
        depth=(3.5, 6.0),
        light=_LAMP,
        near=(("crate", 2), ("pillar", 0.5)),
        mounted=(
            Amount(kind="rug", low=0, high=1),
            Amount(kind="window", low=0, high=2),
            Amount(kind="picture", low=0, high=3),
        ),
    ),
    Setting(
        name="living room",
        phrase="in a living room",
        outdoor=False,
        ground=_PLANKS,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(4.0, 6.5),
        depth=(4.5, 8.0),
        light=_DAY,
        near=(("crate", 1), ("pillar", 1), ("bush", 1)),
        mounted=(
            Amount(kind="rug", low=1, high=1),
            Amount(kind="window", low=1, high=3),
            Amount(kind="picture", low=1, high=4),
        ),
    ),
    Setting(
        name="office",
        phrase="in an office",
        outdoor=False,
        ground=_CARPET,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(4.0, 7.0),
        depth=(5.0, 9.0),
        light=_DAY,
        near=(("crate", 2), ("pillar", 2), ("bush", 1)),
        mounted=(Amount(kind="window", low=2, high=5), Amount(kind="door", low=0, high=1)),
        held_out=True,
    ),
    Setting(
        name="hallway",
        phrase="in a hallway",
        outdoor=False,
        ground=_TILES,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(1.8, 2.8),
        depth=(5.0, 9.0),
        form="narrow",
        light=_LAMP,
        near=(("crate", 1), ("pillar", 1), ("bush", 0.5)),
        mounted=(Amount(kind="door", low=1, high=4), Amount(kind="picture", low=0, high=3)),
    ),
    Setting(
        name="classroom",
        phrase="in a classroom",
        outdoor=False,
        ground=_PLANKS,
        wall=_PAINT,
        ceiling=_CEILING,
        width=(5.0, 7.0),
        depth=(6.0, 9.0),
        height=(2.7, 3.2),
        light=_DAY,
        near=(("crate", 2), ("pillar", 1)),
        mounted=(
            Amount(kind="board", low=1, high=1),
            Amount(kind="window", low=1, high=3),
            Amount(kind="picture", low=0, high=2),
        ),
    ),
    Setting(
        name="garage",
        phrase="in a garage",
        outdoor=False,
        ground=_CONCRETE,
        wall=Look(
            name="wall",
            tints=GREYS + BRICKS + WHITES,
            patterns=(("plain", 2), ("checked", 2), ("marbled", 2), ("striped", 1)),
            period=(0.2, 0.6),
        ),
        ceiling=Look(name="ceiling", tints=GREYS + WHITES, patterns=(("plain", 1), ("marbled", 1)), period=(1.0, 2.0)),
        width=(3.5, 6.0),
        depth=(5.0, 8.0),
        light=_LAMP,
        near=(("crate", 3), ("pillar", 2), ("rock", 0.5)),
        mounted=(Amount(kind="door", low=0, high=2),),
    ),
    Setting(
        name="attic",
        phrase="in an attic",
        outdoor=False,
        ground=_PLANKS,
        wall=Look(
            name="wall",
            tints=WOODS + WHITES + BRICKS,
            patterns=(("striped", 2), ("plain", 1), ("marbled", 1)),
            period=(0.15, 0.5),
        ),
        ceiling=Look(
            name="ceiling",
            tints=WOODS + WHITES,
            patterns=(("striped", 3), ("plain", 1), ("marbled", 1)),
            period=(0.15, 0.5),
        ),
        width=(3.5, 6.0),
        depth=(4.0, 8.0),
        form="tent",
        light=_LAMP,
        near=(("crate", 4), ("pillar", 1)),
        mounted=(Amount(kind="window", low=0, high=1), Amount(kind="rug", low=0, high=1)),
        held_out=True,
    ),
)
"""Every room."""
