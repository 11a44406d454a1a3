"""Ranges of surface colours that the settings share. Data only."""

from __future__ import annotations

from mtv.miniworld.settings.base import Range, Tint

_HUES = {
    "red": (-0.03, 0.03),
    "orange": (0.05, 0.10),
    "yellow": (0.12, 0.17),
    "green": (0.26, 0.40),
    "teal": (0.46, 0.53),
    "blue": (0.56, 0.66),
    "purple": (0.72, 0.80),
    "pink": (0.87, 0.95),
}


def _every_hue(saturation: Range, value: Range) -> tuple[Tint, ...]:
    return tuple(Tint(colour=c, hue=h, saturation=saturation, value=value) for c, h in _HUES.items())


PASTEL = _every_hue((0.08, 0.32), (0.68, 0.95))
"""Painted walls."""
DEEP = _every_hue((0.35, 0.65), (0.32, 0.65))
"""Strong paint and carpets."""
WHITES = (
    Tint(colour="white", hue=(0.05, 0.17), saturation=(0.0, 0.10), value=(0.82, 0.97)),
    Tint(colour="white", hue=(0.50, 0.65), saturation=(0.0, 0.08), value=(0.82, 0.97)),
)
"""Plaster."""
GREYS = (
    Tint(colour="grey", hue=(0.50, 0.66), saturation=(0.0, 0.10), value=(0.35, 0.70)),
    Tint(colour="grey", hue=(0.05, 0.14), saturation=(0.0, 0.12), value=(0.35, 0.70)),
)
"""Concrete, stone, asphalt."""
WOODS = (
    Tint(colour="brown", hue=(0.05, 0.10), saturation=(0.35, 0.65), value=(0.28, 0.50)),
    Tint(colour="brown", hue=(0.06, 0.11), saturation=(0.30, 0.55), value=(0.50, 0.78)),
    Tint(colour="grey", hue=(0.06, 0.10), saturation=(0.08, 0.22), value=(0.45, 0.70)),
)
"""Planks, dark to bleached."""
BRICKS = (
    Tint(colour="red", hue=(0.0, 0.04), saturation=(0.40, 0.65), value=(0.45, 0.68)),
    Tint(colour="orange", hue=(0.05, 0.09), saturation=(0.25, 0.50), value=(0.55, 0.80)),
)
"""Brick and terracotta."""
GRASSES = (
    Tint(colour="green", hue=(0.20, 0.28), saturation=(0.35, 0.70), value=(0.35, 0.65)),
    Tint(colour="green", hue=(0.27, 0.37), saturation=(0.30, 0.65), value=(0.30, 0.58)),
    Tint(colour="yellow", hue=(0.13, 0.19), saturation=(0.30, 0.55), value=(0.50, 0.75)),
)
"""Lush to dry grass."""
SANDS = (
    Tint(colour="yellow", hue=(0.10, 0.14), saturation=(0.15, 0.40), value=(0.70, 0.95)),
    Tint(colour="orange", hue=(0.06, 0.10), saturation=(0.25, 0.50), value=(0.62, 0.88)),
    Tint(colour="grey", hue=(0.08, 0.14), saturation=(0.08, 0.20), value=(0.55, 0.80)),
)
"""Pale, reddish and grey sand."""
SNOWS = (
    Tint(colour="white", hue=(0.54, 0.64), saturation=(0.0, 0.10), value=(0.84, 0.98)),
    Tint(colour="white", hue=(0.60, 0.75), saturation=(0.05, 0.16), value=(0.72, 0.90)),
)
"""Fresh snow and snow in shade."""
SEAS = (
    Tint(colour="blue", hue=(0.54, 0.63), saturation=(0.35, 0.70), value=(0.40, 0.75)),
    Tint(colour="teal", hue=(0.46, 0.52), saturation=(0.30, 0.60), value=(0.40, 0.75)),
    Tint(colour="grey", hue=(0.52, 0.62), saturation=(0.05, 0.20), value=(0.45, 0.65)),
)
"""Water."""
