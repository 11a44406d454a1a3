"""What an object looks like in the picture: its colours, pattern and finish by what shows, not by what it is made of.

A bed may be red under blue bedding, and of a striped wall one stripe may be seen: colours count by visible pixels. What
covers too little, or repeats too finely for the pixels, is not told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtv.miniworld.scene import Instance
from mtv.miniworld.shapes import SLOTS
from mtv.miniworld.vocabulary import COLOURS

COAT_SHARE = 0.55
"""Least visible share of the object that one material must cover for its pattern and finish to be told."""
PLAIN_SHARE = 0.7
"""Least visible share of the first colour of a plain object."""
MINOR_SHARE = 0.2
"""Least visible share of the second colour for both to be told, of the object and of its pattern alike."""
PAIR_SHARE = 0.75
"""Least visible share that two told colours cover together."""
ALONE_SHARE = 0.5
"""Least visible share of a colour that is told alone."""
ALONE_RATIO = 1.25
"""Least ratio of a colour that is told alone to the next one."""
BLEND_SHARE = 0.7
"""Least visible share of a colour that is told alone of an object whose pattern blends two."""
KNOWN_SHARE = 0.5
"""Least visible share of pixels that show one pigment and no blend, for any colour to be told."""
REPEAT_PIXELS = 3.0
"""Least length of a pattern's repeat in pixels."""

_BLENDS = ("marbled", "shaded")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How an object appears."""

    colours: tuple[str, ...]
    """Visible colours, the most frequent first."""
    alone: bool
    """Whether the first colour may be said without the second."""
    both: bool
    """Whether the first two colours may be said together."""
    pattern: str
    """From `PATTERNS`; empty if it cannot be told."""
    finish: str
    """From `FINISHES`; empty if it cannot be told."""

    @property
    def plain(self) -> bool:
        """Whether it is of one colour."""
        return self.pattern == "plain"


UNTOLD = Look(colours=(), alone=False, both=False, pattern="", finish="")
"""The look of an object that is seen too little."""


def look_of(instance: Instance, pigments: np.ndarray, pixels_per_metre: float) -> Look:
    """The look of an instance.

    Args:
        instance: the object.
        pigments: int [2 len(SLOTS) + 1]: visible pixels per code of `Frame.pigment_HW`; code 0 are blends.
        pixels_per_metre: at the object's depth.
    """
    seen, known = dict.fromkeys(COLOURS, 0), int(pigments[1:].sum())
    if known < KNOWN_SHARE * pigments.sum():
        return UNTOLD
    coat, covered, minor = "main", -1, 0
    for k, slot in enumerate(SLOTS):
        first, second = int(pigments[1 + 2 * k]), int(pigments[2 + 2 * k])
        if first + second > 0:
            seen[instance.materials[slot].colour] += first
            seen[instance.materials[slot].second_colour] += second
        if first + second > covered:
            coat, covered, minor = slot, first + second, min(first, second)
    order = sorted((c for c in COLOURS if seen[c]), key=lambda c: -seen[c])
    one, two, *_ = *(seen[c] / known for c in order), 0.0
    material, coated = instance.materials[coat], covered >= COAT_SHARE * known
    if material.pattern == "plain":
        sure = one >= PLAIN_SHARE
    else:
        pair = {material.colour, material.second_colour} == set(order[:2])
        fine = material.period * pixels_per_metre < REPEAT_PIXELS
        sure = pair and minor >= MINOR_SHARE * covered and not fine
    pure = one * known / int(pigments.sum())
    return Look(
        colours=tuple(order),
        alone=one >= ALONE_RATIO * two and pure >= (BLEND_SHARE if material.pattern in _BLENDS else ALONE_SHARE),
        both=two >= MINOR_SHARE and one + two >= PAIR_SHARE,
        pattern=material.pattern if coated and sure else "",
        finish=material.finish if coated else "",
    )
