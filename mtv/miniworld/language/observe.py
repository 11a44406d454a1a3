"""Facts of a frame: what can be named and told, read off masks, visible pigments, keypoints and the scene.

* An object is nameable if enough of it is seen (`Frame.objects`), and clear if its colours can be told too.
* A count is certain only if every instance of the category with any visible pixel is nameable.
* An optional part is told only if one of its keypoints is visible.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from mtv.miniworld.frame import Frame, Seen
from mtv.miniworld.language.facts import Facts, Glimpse, Thing
from mtv.miniworld.language.looks import UNTOLD, look_of
from mtv.miniworld.language.words import FRONTED, SCENERY, content_words
from mtv.miniworld.scene import Camera, Instance
from mtv.miniworld.shapes import SLOTS
from mtv.miniworld.vocabulary import CATEGORIES

NAMEABLE_PIXELS = 12
"""Fewest visible pixels of an object that is named."""
NAMEABLE_SHARE = 0.0012
"""Smallest visible share of the picture of an object that is named (12 pixels at 96 x 96 and above)."""
NAMEABLE_VISIBILITY = 0.25
"""Smallest visible share of the object itself."""
CLEAR_SHARE = 0.005
"""Smallest share of the picture at which colours, patterns and parts are told."""
CLEAR_VISIBILITY = 0.5
"""Smallest visible share of the object at which colours, patterns and parts are told."""
SCENERY_SHARE = 0.012
"""Smallest share of the picture of clutter that is named."""
SCENERY_VISIBILITY = 0.5
"""Smallest visible share of clutter that is named."""
FACING_COSINE = 0.8
"""Least cosine between where an object faces and left, right, the camera or away from it."""


@lru_cache(maxsize=1)
def facts_of(frame: Frame) -> Facts:
    """Everything that may be said of a frame; kept for the next kind of text about it."""
    width, height = frame.size
    least = max(NAMEABLE_PIXELS, math.ceil(NAMEABLE_SHARE * width * height))
    named = frame.objects(min_pixels=least, min_visibility=NAMEABLE_VISIBILITY)
    things = tuple(_thing(i, s, frame) for i, s in named)
    glimpsed: dict[str, list[Glimpse]] = {}
    for instance, seen in zip(frame.scene.instances, frame.seen, strict=True):
        if seen.pixels:
            glimpsed.setdefault(instance.name, []).append(_glimpse(seen.index, instance))
    nameable = {c: sum(t.name == c for t in things) for c in CATEGORIES}
    return Facts(
        width=width,
        height=height,
        setting=frame.scene.setting,
        phrase=frame.scene.phrase,
        outdoor=frame.scene.outdoor,
        downward=-frame.scene.camera.rotation[2][2],
        things=things,
        scenery=_scenery(frame),
        counts={c: n for c, n in nameable.items() if n == len(glimpsed.get(c, ()))},
        glimpsed={name: tuple(found) for name, found in glimpsed.items()},
    )


def _thing(instance: Instance, seen: Seen, frame: Frame) -> Thing:
    assert seen.box is not None
    camera = frame.scene.camera
    low, high = instance.shape.bounds
    centre = instance.to_world((low + high) / 2)
    share = seen.pixels / (camera.width * camera.height)
    clear = instance.is_object and share >= CLEAR_SHARE and seen.visibility >= CLEAR_VISIBILITY
    return Thing(
        index=seen.index,
        name=instance.name,
        look=look_of(instance, _pigments(frame, seen), camera.focal / seen.depth) if clear else UNTOLD,
        worn=_glimpse(seen.index, instance).colours,
        traits=_seen_traits(instance, seen.index, frame),
        facing=_facing(instance, centre, camera),
        box=seen.box,
        share=share,
        clear=clear,
        depth=seen.depth,
        nearest=seen.nearest,
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        extent=instance.scale * float((high - low).max()),
        support=instance.on,
    )


def _pigments(frame: Frame, seen: Seen) -> np.ndarray:
    """int64: visible pixels of an instance per code of `Frame.pigment_HW`."""
    assert seen.box is not None
    left, top, right, bottom = seen.box
    own = frame.instance_HW[top:bottom, left:right] == seen.index + 1
    return np.bincount(frame.pigment_HW[top:bottom, left:right][own], minlength=2 * len(SLOTS) + 1)


def _glimpse(index: int, instance: Instance) -> Glimpse:
    used = [instance.materials[slot] for slot in {p.slot for p in instance.shape.parts}]
    colours = frozenset(c for m in used for c in (m.colour, m.second_colour))
    return Glimpse(index=index, colours=colours, patterns=frozenset(m.pattern for m in used))


def _seen_traits(instance: Instance, number: int, frame: Frame) -> tuple[str, ...]:
    """The traits of which a keypoint is visible; a trait without keypoints may be hidden and is not said."""
    if not instance.shape.traits:
        return ()
    visible = {word for k in frame.keypoints(number) if k.visible for word in k.name.split()}
    return tuple(t for t in instance.shape.traits if content_words(t) & visible)


def _facing(instance: Instance, centre: np.ndarray, camera: Camera) -> str | None:
    """Where the object's x axis points, seen from the camera."""
    if instance.name not in FRONTED:
        return None
    ahead = np.array(instance.rotation)[:, 0]
    sight = centre - np.array(camera.position)
    sight /= np.linalg.norm(sight)
    right = np.array(camera.rotation)[0]
    right = right - (right @ sight) * sight
    aside, away = float(ahead @ right / np.linalg.norm(right)), float(ahead @ sight)
    if abs(aside) >= FACING_COSINE:
        return "right" if aside > 0 else "left"
    if abs(away) >= FACING_COSINE:
        return "away" if away > 0 else "towards"
    return None


def _scenery(frame: Frame) -> tuple[Thing, ...]:
    least = SCENERY_SHARE * frame.instance_HW.size
    pairs = zip(frame.scene.instances, frame.seen, strict=True)
    return tuple(
        _thing(i, s, frame)
        for i, s in pairs
        if i.name in SCENERY and s.pixels >= least and s.visibility >= SCENERY_VISIBILITY
    )
