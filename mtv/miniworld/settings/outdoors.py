"""The outdoor settings. Data only."""

from __future__ import annotations

from mtv.miniworld.settings.base import Amount, LightRange, Look, Setting
from mtv.miniworld.settings.tints import BRICKS, GRASSES, GREYS, SANDS, SEAS, SNOWS

_SUN = LightRange(
    elevation=(22, 70), strength=(0.8, 1.25), ambient=(0.3, 0.5), warmth=(0.95, 1.35), softness=(0.0, 0.05)
)
_OVERCAST = LightRange(
    elevation=(35, 80), strength=(0.35, 0.8), ambient=(0.5, 0.8), warmth=(0.9, 1.1), softness=(0.05, 0.3)
)

_ROUGH = (("marbled", 4.0), ("plain", 1.0), ("shaded", 0.5))
_GRASS = Look(name="grass", tints=GRASSES, patterns=_ROUGH, period=(0.5, 2.5), mixed=0.3)
_SAND = Look(name="sand", tints=SANDS, patterns=(*_ROUGH, ("striped", 1.0)), period=(0.6, 3.0), contrast=(0.85, 0.96))
_SNOW = Look(name="snow", tints=SNOWS, patterns=_ROUGH, period=(0.8, 4.0), contrast=(0.85, 0.97))
_PAVEMENT = Look(
    name="floor",
    tints=GREYS + GREYS + BRICKS,
    patterns=(("checked", 3), ("plain", 1), ("marbled", 1), ("striped", 0.5)),
    period=(0.4, 1.2),
    mixed=0.05,
)

ROAD = Look(name="road", tints=GREYS, patterns=(("plain", 2), ("marbled", 2)), period=(0.5, 1.5), contrast=(0.85, 0.95))
"""Asphalt of a road strip."""
SEA = Look(
    name="other",
    tints=SEAS,
    patterns=(("striped", 1), ("marbled", 2), ("plain", 1)),
    period=(1.5, 5.0),
    contrast=(0.85, 0.95),
)
"""Water; the vocabulary has no class for it."""

OUTDOORS = (
    Setting(
        name="meadow",
        phrase="in a meadow",
        outdoor=True,
        ground=_GRASS,
        light=_SUN,
        near=(("bush", 2), ("rock", 2), ("fence", 1)),
        far=(Amount(kind="hill", low=1, high=4), Amount(kind="bush", low=0, high=3)),
    ),
    Setting(
        name="park",
        phrase="in a park",
        outdoor=True,
        ground=_GRASS,
        light=_OVERCAST,
        near=(("bush", 4), ("pillar", 1), ("rock", 1), ("crate", 0.5)),
        far=(Amount(kind="bush", low=3, high=6), Amount(kind="fence", low=0, high=2)),
        held_out=True,
    ),
    Setting(
        name="yard",
        phrase="in a yard",
        outdoor=True,
        ground=_GRASS,
        light=_SUN,
        near=(("crate", 2), ("bush", 2), ("rock", 0.5)),
        far=(Amount(kind="fence", low=3, high=5), Amount(kind="bush", low=0, high=2)),
    ),
    Setting(
        name="beach",
        phrase="on a beach",
        outdoor=True,
        ground=_SAND,
        light=_SUN,
        near=(("rock", 3), ("crate", 1), ("fence", 0.5)),
        far=(Amount(kind="rock", low=0, high=2),),
        strip="sea",
    ),
    Setting(
        name="desert",
        phrase="in a desert",
        outdoor=True,
        ground=_SAND,
        light=_SUN,
        near=(("rock", 4), ("pillar", 0.5), ("bush", 0.5)),
        far=(Amount(kind="hill", low=2, high=5), Amount(kind="rock", low=1, high=4)),
        held_out=True,
    ),
    Setting(
        name="snow field",
        phrase="in a snow field",
        outdoor=True,
        ground=_SNOW,
        light=_OVERCAST,
        near=(("rock", 2), ("fence", 1), ("bush", 1), ("crate", 0.5)),
        far=(Amount(kind="hill", low=1, high=4), Amount(kind="fence", low=0, high=1)),
    ),
    Setting(
        name="street",
        phrase="on a street",
        outdoor=True,
        ground=_PAVEMENT,
        light=_OVERCAST,
        near=(("pillar", 3), ("crate", 2), ("bush", 1), ("fence", 1)),
        far=(Amount(kind="pillar", low=1, high=4), Amount(kind="fence", low=1, high=3)),
        strip="road",
    ),
    Setting(
        name="country road",
        phrase="by a country road",
        outdoor=True,
        ground=_GRASS,
        light=_SUN,
        near=(("bush", 3), ("rock", 2), ("fence", 2), ("pillar", 1)),
        far=(Amount(kind="hill", low=1, high=4), Amount(kind="bush", low=1, high=3)),
        strip="road",
    ),
    Setting(
        name="winter road",
        phrase="by a winter road",
        outdoor=True,
        ground=_SNOW,
        light=_OVERCAST,
        near=(("rock", 2), ("bush", 1), ("fence", 2), ("pillar", 1)),
        far=(Amount(kind="hill", low=1, high=4), Amount(kind="pillar", low=0, high=3)),
        strip="road",
        held_out=True,
    ),
)
"""Every outdoor setting."""
