"""Chairs and sofas."""

from __future__ import annotations

import math

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, box, drum, four_legs, plank, ring, rod
from mtv.miniworld.shapes import Mat3, Part, Shape, turn

CHAIR_KEYPOINTS = (
    "back top left",
    "back top middle",
    "back top right",
    "seat front left",
    "seat front right",
    "left armrest front",
    "right armrest front",
    "front left foot",
    "front right foot",
    "rear left foot",
    "rear right foot",
)
SOFA_KEYPOINTS = (
    "back top left",
    "back top middle",
    "back top right",
    "left arm front top",
    "right arm front top",
    "seat front left",
    "seat front right",
    "base front left",
    "base front middle",
    "base front right",
)


def build_chair(draws: Draws) -> Shape:
    """A seat on legs, a star, a disc or runners, with a solid, slatted, round or hoop back; sometimes with armrests."""
    m = Model(CHAIR_KEYPOINTS)
    height = draws.uniform(0.4, 0.5)
    wide, deep = draws.uniform(0.21, 0.29), draws.uniform(0.21, 0.27)
    thick = draws.uniform(0.022, 0.04)
    seat = m.add(box((0, 0, height - thick), (deep, wide, thick), name="seat"))
    for name, side in SIDES:
        m.mark(f"seat front {name}", seat, (1, side, 1))
    _chair_base(m, draws, height - 2 * thick, deep, wide)
    rise = draws.uniform(0.3, 0.6)
    _chair_back(m, draws, -deep, wide, height, rise)
    if draws.chance(0.35):
        _armrests(m, draws, deep, wide, height)
    if draws.chance(0.3):
        pad = 0.025
        m.add(box((0.01, 0, height + pad), (deep * 0.9, wide * 0.9, pad), slot="accent"), trait="a cushion")
        height += 2 * pad
    m.support(height, (-0.75 * deep, 0.85 * deep), (-0.85 * wide, 0.85 * wide))
    return m.shape()


def _chair_base(m: Model, draws: Draws, top: float, deep: float, wide: float) -> None:
    slot = draws.choice(("main", "main", "second", "dark"))
    form = draws.choice(("legs", "splayed", "runners", "star", "disc"), (0.36, 0.22, 0.18, 0.16, 0.08))
    thick = draws.uniform(0.022, 0.036)
    if form in ("legs", "splayed"):
        spread = draws.uniform(1.12, 1.3) if form == "splayed" else 1.0
        square = draws.chance(0.5)
        four_legs(m, top, deep - thick, wide - thick, thick, spread=spread, square=square, slot=slot)
    elif form == "runners":
        for name, side in SIDES:
            y = side * (wide - thick)
            runner = m.add(box((0, y, thick), (deep, thick, thick), slot=slot))
            m.mark(f"front {name} foot", runner, (1, side, -0.5))
            m.mark(f"rear {name} foot", runner, (-1, side, -0.5))
            for x in (-deep + thick, deep - thick):
                m.add(box((x, y, top / 2), (thick, thick, top / 2), slot=slot))
    else:
        m.add(rod((0, 0, 0.03), (0, 0, top), draws.uniform(0.035, 0.05), slot=slot))
        if form == "disc":
            m.add(drum((0, 0, 0.025), deep * draws.uniform(0.85, 1.05), 0.025, taper=0.8, slot=slot))
        else:
            _star(m, deep, wide, slot)


def _star(m: Model, deep: float, wide: float, slot: str) -> None:
    """Two crossed feet under a column."""
    for name, side in SIDES:
        beam = m.add(plank((-deep, -side * wide, 0.035), (deep, side * wide, 0.035), (0.03, 0.03), slot=slot))
        other = "right" if name == "left" else "left"
        m.mark(f"front {name} foot", beam, (0, 0, 1))
        m.mark(f"rear {other} foot", beam, (0, 0, -1))


def _chair_back(m: Model, draws: Draws, x: float, wide: float, seat: float, rise: float) -> None:
    """Everything behind the seat's rear edge at `x`, leaning backwards."""
    lean = rise * math.tan(math.radians(draws.uniform(0, 14)))
    form = draws.choice(("slab", "gap", "slats", "ladder", "round", "hoop"), (0.26, 0.14, 0.2, 0.16, 0.12, 0.12))
    thick = draws.uniform(0.022, 0.032)

    def at(share: float, y: float = 0.0) -> tuple[float, float, float]:
        """A point of the back's plane: share 0 at the seat, 1 at the top."""
        return x - thick - lean * share, y, seat + rise * share

    if form == "slab":
        _mark_back(m, m.add(plank(at(-0.15), at(1), (thick, wide), name="back")))
    elif form == "round":
        back = m.add(ball(at(0.5), (thick * 1.2, wide * 1.05, rise * 0.62), rotation=_tilt(lean, rise), name="back"))
        _mark_back(m, back, corner=0.7)
    elif form == "hoop":
        size = (rise * 0.6, wide * 1.02, wide * 0.7)
        rotation = turn(y=-math.degrees(math.atan2(lean, rise)) - 90)
        hoop = m.add(ring(at(0.45), size, 0.13, rotation=rotation, name="back"))
        for name, side in SIDES:
            m.mark(f"back top {name}", hoop, (1, side, 0))
        m.mark("back top middle", hoop, (1, 0, 0))
        m.add(plank(at(-0.1), at(1), (thick * 0.7, thick * 2), slot="second"))
    else:
        for _, side in SIDES:
            edge = side * (wide - thick)
            m.add(plank(at(-0.15, edge), at(0.97, edge), (thick, thick)))
        start = draws.uniform(0.45, 0.62) if form == "gap" else draws.uniform(0.78, 0.86)
        _mark_back(m, m.add(plank(at(start), at(1), (thick * 1.1, wide), name="back")))
        count = 0 if form == "gap" else draws.integer(1, 4)
        for share in ((k + 1) / (count + 1) for k in range(count)):
            if form == "slats":
                y = wide * (2 * share - 1)
                m.add(plank(at(-0.1, y), at(start, y), (thick * 0.6, thick)))
            else:
                m.add(plank(at(start * share - 0.05), at(start * share + 0.06), (thick * 0.8, wide)))


def _tilt(lean: float, rise: float) -> Mat3:
    return turn(y=-math.degrees(math.atan2(lean, rise)))


def _mark_back(m: Model, back: Part, corner: float = 1.0) -> None:
    """Corners of a plank, or points at `corner` of the half width on a round back."""
    for name, side in SIDES:
        m.mark(f"back top {name}", back, (0, side * corner, 1))
    m.mark("back top middle", back, (0, 0, 1))


def _armrests(m: Model, draws: Draws, deep: float, wide: float, seat: float) -> None:
    slot = draws.choice(("main", "second", "dark"))
    height, thick = seat + draws.uniform(0.15, 0.22), draws.uniform(0.022, 0.03)
    front = deep * draws.uniform(0.6, 0.95)
    for name, side in SIDES:
        y = side * (wide + thick)
        middle, half = (front - deep - 0.03) / 2, (front + deep + 0.03) / 2
        arm = m.add(box((middle, y, height), (half, thick * 1.3, thick), slot=slot, name="armrest"))
        m.add(
            box((front - thick, y, (height + seat) / 2 - 0.03), (thick, thick, (height - seat) / 2 + 0.03), slot=slot)
        )
        m.mark(f"{name} armrest front", arm, (1, 0, 1))
    m.trait("armrests")


def build_sofa(draws: Draws) -> Shape:
    """A long base with cushions, a back and two arms: boxy, with rolled arms, without arms, or with a long corner."""
    m = Model(SOFA_KEYPOINTS)
    deep, wide = draws.uniform(0.19, 0.25), 0.5
    floor = draws.uniform(0.03, 0.07) if draws.chance(0.7) else 0.0
    seat = floor + draws.uniform(0.1, 0.14)
    arm = draws.choice(("box", "rolled", "none"), (0.5, 0.36, 0.14))
    arm_half = 0.0 if arm == "none" else draws.uniform(0.035, 0.06)
    base = m.add(box((0, 0, (floor + seat) / 2), (deep, wide, (seat - floor) / 2), name="base"))
    m.mark("base front middle", base, (1, 0, -0.6))
    for name, side in SIDES:
        m.mark(f"base front {name}", base, (1, side, -0.6))
    rest = draws.uniform(0.045, 0.065)
    _sofa_back(m, draws, -deep + rest, rest, seat, seat + draws.uniform(0.2, 0.3))
    if arm != "none":
        _sofa_arms(m, arm, deep, wide - arm_half, arm_half, floor, seat + draws.uniform(0.09, 0.15))
    if floor:
        slot = draws.choice(("second", "dark"))
        for y in (-0.9 * wide, 0.9 * wide):
            m.add(box((0, y, floor / 2), (0.85 * deep, 0.03, floor / 2), slot=slot))
    _seat_cushions(m, draws, (-deep + 2 * rest, deep * 1.03), wide - 2 * arm_half, seat, floor)
    return m.shape()


def _sofa_back(m: Model, draws: Draws, x: float, rest: float, seat: float, top: float) -> None:
    lean = draws.uniform(0.0, 0.05)
    back = m.add(plank((x, 0, seat - 0.05), (x - lean, 0, top), (rest, 0.5), name="back"))
    _mark_back(m, back)
    if draws.chance(0.25):
        hump = m.add(ball((x - lean, 0, top - 0.01), (rest * 0.9, 0.36, draws.uniform(0.05, 0.09))))
        m.mark("back top middle", hump, (0, 0, 1))


def _sofa_arms(m: Model, form: str, deep: float, y: float, half: float, floor: float, top: float) -> None:
    for name, side in SIDES:
        arm = m.add(box((0, side * y, (floor + top) / 2), (deep * 1.02, half, (top - floor) / 2), name="arm"))
        if form == "rolled":
            roll = half * 1.35
            arm = m.add(drum((0, side * y, top), roll, deep * 1.05, rotation=turn(y=90), name="arm"))
            m.mark(f"{name} arm front top", arm, (-0.8, 0, 1))
        else:
            m.mark(f"{name} arm front top", arm, (1, 0, 1))


def _seat_cushions(m: Model, draws: Draws, x: tuple[float, float], wide: float, seat: float, floor: float) -> None:
    """One to three pads from `x[0]` to `x[1]`; an outer one may reach far forward; pillows lie on outer ones."""
    count, pad = draws.integer(1, 4), draws.uniform(0.025, 0.04)
    slot = draws.choice(("main", "second", "second"))
    gap, half = 0.006, wide / count
    longer = draws.choice((0, count - 1)) if count > 1 and draws.chance(0.35) else None
    pillows = [k for k in sorted({0, count - 1}) if draws.chance(0.35)]
    for k in range(count):
        y, front = wide - (2 * k + 1) * half, x[1]
        if k == longer:
            front += 0.85 * (x[1] - x[0])
            middle = (x[1] + front) / 2 - 0.01
            corner = box((middle, y, (floor + seat) / 2), (front - middle - 0.01, half, (seat - floor) / 2))
            m.add(corner, trait="a long corner seat")
            m.mark(f"base front {'left' if k == 0 else 'right'}", corner, (1, 1 if k == 0 else -1, -0.6))
        size = ((front - x[0]) / 2, half - gap, pad)
        cushion = m.add(box((x[0] + size[0], y, seat + pad), size, slot=slot, name="seat"))
        if k == 0:
            m.mark("seat front left", cushion, (1, 1, 1))
        if k == count - 1:
            m.mark("seat front right", cushion, (1, -1, 1))
        if k in pillows:
            side = 0.5 * half if count == 1 else 0.0
            tilt = turn(y=-20, z=draws.uniform(-20, 20))
            spot = (x[0] + 0.055, y + side, seat + 2 * pad + 0.075)
            m.add(
                box(spot, (0.026, 0.08, 0.08), rotation=tilt, slot="accent"),
                trait="a pillow" if k == pillows[0] else "",
            )
        else:
            m.support(seat + 2 * pad, (x[0] + 0.02, front - 0.01), (y - half + 0.03, y + half - 0.03))


CHAIR = Category(
    name="chair",
    plural="chairs",
    article="a",
    build=build_chair,
    size=(0.85, 1.1),
    keypoints=CHAIR_KEYPOINTS,
    seat=True,
)
SOFA = Category(
    name="sofa",
    plural="sofas",
    article="a",
    build=build_sofa,
    size=(1.15, 1.45),
    keypoints=SOFA_KEYPOINTS,
    seat=True,
)
