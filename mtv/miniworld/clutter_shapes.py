"""Shapes of the clutter: each kind is a small parametric family, built at its natural toy size in metres.

Standing clutter has its origin on the ground under its middle. Mounted clutter has it on the wall at its lower edge,
x out of the wall.
"""

from __future__ import annotations

import math

from mtv.draws import Draws
from mtv.miniworld.shapes import Kind, Part, Shape, Support, turn


def crate(draws: Draws) -> Shape:
    """A box, plain or with rims; small objects may stand on it."""
    half = (draws.uniform(0.14, 0.32), draws.uniform(0.14, 0.32), draws.uniform(0.12, 0.3))
    parts = [Part(kind="box", centre=(0, 0, half[2]), half=half, name="crate")]
    if draws.chance(0.6):
        bar = draws.uniform(0.015, 0.035)
        for height in (bar, 2 * half[2] - bar):
            rim = (half[0] + 0.012, half[1] + 0.012, bar)
            parts.append(Part(kind="box", centre=(0, 0, height), half=rim, slot="second"))
    top = 2 * half[2]
    return Shape(parts=tuple(parts), supports=(Support(height=top, x=(-half[0], half[0]), y=(-half[1], half[1])),))


def pillar(draws: Draws) -> Shape:
    """A post or column, with or without foot and head."""
    radius, height = draws.uniform(0.05, 0.13), draws.uniform(0.8, 1.9)
    shaft: Kind = "frustum" if draws.chance(0.6) else "box"
    parts = [
        Part(
            kind=shaft,
            centre=(0, 0, height / 2),
            half=(radius, radius, height / 2),
            taper=draws.uniform(0.75, 1.0),
        )
    ]
    if draws.chance(0.7):
        parts.append(Part(kind="box", centre=(0, 0, 0.04), half=(1.4 * radius, 1.4 * radius, 0.04), slot="second"))
    if draws.chance(0.5):
        parts.append(
            Part(kind="box", centre=(0, 0, height - 0.03), half=(1.3 * radius, 1.3 * radius, 0.03), slot="second")
        )
    return Shape(parts=tuple(parts))


def bush(draws: Draws) -> Shape:
    """A few round tufts."""
    parts = []
    for i in range(draws.integer(2, 6)):
        angle, away = draws.uniform(0, math.tau), 0.0 if i == 0 else draws.uniform(0.1, 0.24)
        half = (draws.uniform(0.14, 0.28), draws.uniform(0.14, 0.28), draws.uniform(0.14, 0.32))
        centre = (away * math.cos(angle), away * math.sin(angle), half[2] * draws.uniform(0.7, 0.95))
        parts.append(Part(kind="ellipsoid", centre=centre, half=half))
    return Shape(parts=tuple(parts))


def rock(draws: Draws) -> Shape:
    """One to three boulders, partly in the ground."""
    parts = []
    for i in range(draws.integer(1, 4)):
        angle, away = draws.uniform(0, math.tau), 0.0 if i == 0 else draws.uniform(0.15, 0.3)
        size = draws.uniform(0.12, 0.3) * (1.0 if i == 0 else 0.6)
        half = (size * draws.uniform(0.8, 1.3), size * draws.uniform(0.6, 1.0), size * draws.uniform(0.4, 0.8))
        parts.append(
            Part(
                kind="box" if draws.chance(0.3) else "ellipsoid",
                centre=(away * math.cos(angle), away * math.sin(angle), 0.5 * half[2]),
                half=half,
                rotation=turn(x=draws.uniform(-20, 20), y=draws.uniform(-20, 20), z=draws.uniform(0, 180)),
            )
        )
    return Shape(parts=tuple(parts))


def fence(draws: Draws) -> Shape:
    """Posts along y with one to three rails."""
    posts, gap = draws.integer(4, 8), draws.uniform(0.28, 0.5)
    height, thick = draws.uniform(0.45, 0.8), draws.uniform(0.018, 0.03)
    length = (posts - 1) * gap
    parts = [
        Part(
            kind="box",
            centre=(0, i * gap - length / 2, height / 2),
            half=(thick, draws.uniform(0.03, 0.07), height / 2),
        )
        for i in range(posts)
    ]
    for share in draws.choice(((0.35, 0.8), (0.6,), (0.3, 0.6, 0.9))):
        rail = (0.8 * thick, length / 2 + 0.08, draws.uniform(0.025, 0.05))
        parts.append(Part(kind="box", centre=(1.2 * thick, 0, share * height), half=rail, slot="second"))
    return Shape(parts=tuple(parts))


def hill(draws: Draws) -> Shape:
    """One or two broad mounds, metres high, partly in the ground."""
    parts = []
    for i in range(draws.integer(1, 3)):
        half = (draws.uniform(18, 45), draws.uniform(18, 55), draws.uniform(5, 17))
        centre = (0.0, 0.0 if i == 0 else draws.uniform(-30, 30), -0.2 * half[2])
        parts.append(Part(kind="ellipsoid", centre=centre, half=half))
    return Shape(parts=tuple(parts))


def window(draws: Draws) -> Shape:
    """A frame with a pane, with or without bars."""
    wide, tall, bar = draws.uniform(0.35, 0.8), draws.uniform(0.4, 0.65), draws.uniform(0.03, 0.05)
    parts = [
        Part(kind="box", centre=(0.01, 0, tall), half=(0.01, wide + bar, tall + bar), name="frame"),
        Part(kind="box", centre=(0.014, 0, tall), half=(0.014, wide, tall), slot="second", name="glass"),
    ]
    if draws.chance(0.8):
        parts.append(Part(kind="box", centre=(0.02, 0, tall), half=(0.02, bar / 2, tall)))
    if draws.chance(0.6):
        parts.append(Part(kind="box", centre=(0.02, 0, tall), half=(0.02, wide, bar / 2)))
    return Shape(parts=tuple(parts))


def door(draws: Draws) -> Shape:
    """A door leaf in its frame, with a knob, with or without a pane."""
    wide, tall = draws.uniform(0.35, 0.48), draws.uniform(0.9, 1.02)
    knob = wide * draws.choice((-0.8, 0.8))
    parts = [
        Part(
            kind="box",
            centre=(0.01, 0, tall + 0.03),
            half=(0.01, wide + 0.06, tall + 0.03),
            slot="second",
            name="frame",
        ),
        Part(kind="box", centre=(0.015, 0, tall), half=(0.015, wide, tall), name="leaf"),
        Part(kind="ellipsoid", centre=(0.035, knob, tall), half=(0.018, 0.04, 0.04), slot="accent", name="knob"),
    ]
    if draws.chance(0.6):
        pane = (0.02, 0.65 * wide, 0.32 * tall)
        parts.append(Part(kind="box", centre=(0.02, 0, 1.45 * tall), half=pane, slot="second"))
    return Shape(parts=tuple(parts))


def picture(draws: Draws) -> Shape:
    """A canvas in a frame."""
    return _framed(draws, draws.uniform(0.18, 0.5), draws.uniform(0.18, 0.4))


def board(draws: Draws) -> Shape:
    """A wide board in a frame."""
    return _framed(draws, draws.uniform(0.8, 1.4), draws.uniform(0.4, 0.6))


def _framed(draws: Draws, wide: float, tall: float) -> Shape:
    bar = draws.uniform(0.025, 0.05)
    return Shape(
        parts=(
            Part(
                kind="box", centre=(0.012, 0, tall), half=(0.012, wide + bar, tall + bar), slot="second", name="frame"
            ),
            Part(kind="box", centre=(0.016, 0, tall), half=(0.016, wide, tall), name="canvas"),
        )
    )


def rug(draws: Draws) -> Shape:
    """A thin rug, round or with a border."""
    half = (draws.uniform(0.6, 1.1), draws.uniform(0.6, 1.1), 0.006)
    if draws.chance(0.3):
        return Shape(parts=(Part(kind="frustum", centre=(0, 0, 0.006), half=half),))
    inner = (half[0] - 0.12, half[1] - 0.12, 0.008)
    return Shape(
        parts=(
            Part(kind="box", centre=(0, 0, 0.006), half=half, slot="second", name="border"),
            Part(kind="box", centre=(0, 0, 0.008), half=inner, name="field"),
        )
    )
