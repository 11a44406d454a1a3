"""Houses and trees."""

from __future__ import annotations

import math
from itertools import pairwise

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, beyond, box, drum, plank, rod
from mtv.miniworld.shapes import Part, Shape, Vec3, turn

HOUSE_KEYPOINTS = (
    "roof top",
    "front left eave",
    "front right eave",
    "rear left eave",
    "rear right eave",
    "door middle",
    "door top",
    "left window",
    "right window",
    "front left wall foot",
    "front right wall foot",
    "chimney top",
)
TREE_KEYPOINTS = (
    "top",
    "crown front",
    "crown rear",
    "crown left",
    "crown right",
    "trunk middle",
    "trunk base",
    "branch tip",
)


def build_house(draws: Draws) -> Shape:
    """Walls with a door in front (+x), windows, a gable roof along or across; or a round tower."""
    m = Model(HOUSE_KEYPOINTS)
    form = draws.choice(("front gable", "side gable", "tower"), (0.41, 0.41, 0.18))
    if form == "tower":
        _tower(m, draws)
    else:
        _cottage(m, draws, along_x=form == "front gable")
    return m.shape()


def _cottage(m: Model, draws: Draws, *, along_x: bool) -> None:
    deep, wide = draws.uniform(0.28, 0.44), draws.uniform(0.3, 0.46)
    walls = draws.uniform(0.34, 0.72)
    body = m.add(box((0, 0, walls / 2), (deep, wide, walls / 2), name="walls"))
    for name, side in SIDES:
        m.mark(f"front {name} wall foot", body, (1, side, -0.94))
    across, length = (wide, deep) if along_x else (deep, wide)
    rise = across * draws.uniform(0.6, 1.1)
    steep = 4 * length * math.hypot(across, rise) > 1.8 * walls * (deep + wide)
    slot = "main" if steep else draws.choice(("second", "second", "accent"))
    _gable_roof(m, draws, along_x, across, length, walls, rise, slot)
    _front_openings(m, draws, deep, wide, walls, slot)
    if draws.chance(0.6):
        through = (deep * draws.uniform(0.14, 0.22), wide * 1.012, walls * 0.14)
        m.add(box((draws.uniform(-0.3, 0.2) * deep, 0, walls * 0.6), through, slot="dark", name="windows"))
    if draws.chance(0.6):
        offset, shift = draws.choice((-0.5, 0.5)) * across, draws.uniform(-0.6, 0.6) * length
        x, y = (shift, offset) if along_x else (offset, shift)
        top = walls + rise * draws.uniform(0.95, 1.15)
        size = draws.uniform(0.045, 0.065)
        chimney = box((x, y, (walls + top) / 2), (size, size, (top - walls) / 2), slot="accent", name="chimney")
        m.mark("chimney top", m.add(chimney, trait="a chimney"), (0, 0, 1))
    if draws.chance(0.22):
        side = draws.choice((1.0, -1.0))
        half, tall = draws.uniform(0.11, 0.16), walls * draws.uniform(0.5, 0.65)
        y = side * (wide + half)
        m.add(box((-0.1 * deep, y, tall / 2), (deep * 0.75, half, tall / 2)), trait="an annex")
        m.add(box((-0.1 * deep, y, tall), (deep * 0.82, half * 1.1, 0.025), slot=slot))


def _gable_roof(
    m: Model, draws: Draws, along_x: bool, across: float, length: float, walls: float, rise: float, slot: str
) -> None:
    """Two slabs that meet on a ridge along x or y, and the triangles of wall below them."""
    over, thick = draws.uniform(0.04, 0.09), draws.uniform(0.018, 0.03)
    reach, low = across + over, walls - over * rise / across
    half = length + draws.uniform(0.03, 0.07)

    def at(a: float, b: float, z: float) -> Vec3:
        """Point from coordinates along the ridge, across it, and up."""
        return (a, b, z) if along_x else (b, a, z)

    lift = thick * math.hypot(across, rise) / across
    for sign in (1.0, -1.0):
        edge, top = at(0, sign * reach, low + lift), at(0, 0, walls + rise + lift)
        slab = m.add(plank(edge, top, (half, thick) if along_x else (thick, half), slot=slot, name="roof"))
        for a in (1.0, -1.0):
            end = ("front" if a > 0 else "rear") if along_x else ("front" if sign > 0 else "rear")
            name = ("left" if sign > 0 else "right") if along_x else ("left" if a > 0 else "right")
            m.mark(f"{end} {name} eave", slab, (a, 0, -1) if along_x else (0, a, -1))
    ridge = m.add(rod(at(-half, 0, walls + rise + lift), at(half, 0, walls + rise + lift), thick * 1.5, slot=slot))
    m.mark("roof top", ridge, (-1, 0, 0) if along_x else (0, -1, 0))
    size = (0.012, across) if along_x else (across, 0.012)
    for a in (length - 0.012, 0.012 - length):
        m.add(rod(at(a, 0, walls), at(a, 0, walls + rise), size, taper=0.0, name="gable"))


def _front_openings(m: Model, draws: Draws, x: float, wide: float, walls: float, roof: str) -> None:
    """A door in the front wall at `x`, and windows through to the rear wall, in two storeys on high walls."""
    tall = min(draws.uniform(0.12, 0.15), walls * 0.36)
    place = draws.choice((0.0, 0.0, 0.5, -0.5)) * wide
    half = wide * draws.uniform(0.17, 0.22)
    _door(m, draws, x, place, half, tall)
    if draws.chance(0.2):
        _porch(m, x, place, half, 2 * tall + 0.05, roof)
    size = draws.uniform(0.055, 0.075)
    rows = [tall * 1.25] if walls < 0.48 else [tall * 1.1, walls - 0.11]
    for name, side in SIDES:
        y = side * wide * 0.58
        if abs(y - place) < 0.3 * wide and len(rows) == 1:
            continue
        spots = rows[-1:] if abs(y - place) < 0.3 * wide else rows
        for z in spots:
            window = m.add(box((0, y, z), (x + 0.012, size, size), slot="dark", name="window"))
        m.mark(f"{name} window", window, (1, 0, 0))


def _door(m: Model, draws: Draws, x: float, y: float, half: float, tall: float) -> None:
    slot = draws.choice(("accent", "dark"))
    door = m.add(box((x, y, tall), (0.018, half, tall), slot=slot, name="door"))
    m.mark("door middle", door, (1, 0, 0))
    m.mark("door top", door, (1, 0, 1))


def _porch(m: Model, x: float, y: float, half: float, height: float, slot: str) -> None:
    """A little roof on two posts before the door."""
    m.add(box((x + 0.08, y, height), (0.1, half * 1.5, 0.02), rotation=turn(y=12), slot=slot), trait="a porch")
    for _, side in SIDES:
        m.add(box((x + 0.15, y + side * half * 1.35, height / 2), (0.016, 0.016, height / 2), slot=slot))


def _tower(m: Model, draws: Draws) -> None:
    """Round, under a cone."""
    radius, walls = draws.uniform(0.22, 0.32), draws.uniform(0.42, 0.75)
    m.add(drum((0, 0, walls / 2), radius, walls / 2, taper=draws.uniform(0.88, 1.0), name="walls"))
    half = draws.uniform(0.14, 0.22)
    slot = draws.choice(("second", "accent"))
    roof = drum(
        (0, 0, walls + half - 0.01), radius * draws.uniform(1.15, 1.35), half, taper=0.0, slot=slot, name="roof"
    )
    m.mark("roof top", m.add(roof), (0, 0, 1))
    _door(m, draws, radius * 0.97, 0.0, radius * 0.34, walls * draws.uniform(0.22, 0.28))
    for name, side in SIDES:
        angle = math.radians(52 * side)
        spot = (radius * 0.95 * math.cos(angle), radius * 0.95 * math.sin(angle), walls * 0.7)
        window = box(spot, (0.03, 0.05, 0.06), slot="dark", rotation=turn(z=52 * side), name="window")
        m.mark(f"{name} window", m.add(window), (1, 0, 0))
    if draws.chance(0.4):
        chimney = box((-radius * 0.55, 0, walls + half), (0.045, 0.045, half * 0.8), slot="accent")
        m.mark("chimney top", m.add(chimney, trait="a chimney"), (0, 0, 1))


def build_tree(draws: Draws) -> Shape:
    """A trunk with cones, round, slim or flat crowns, or palm leaves; a branch or the lean shows the front."""
    m = Model(TREE_KEYPOINTS)
    form = draws.choice(("conifer", "round", "poplar", "umbrella", "palm"), (0.26, 0.3, 0.12, 0.14, 0.18))
    if form == "palm":
        _palm(m, draws)
        return m.shape()
    thick = draws.uniform(0.04, 0.065)
    start = {"conifer": (0.24, 0.34), "round": (0.3, 0.45), "poplar": (0.22, 0.3), "umbrella": (0.5, 0.62)}[form]
    crown = draws.uniform(*start)
    trunk = m.add(rod((0, 0, 0), (0, 0, crown + 0.12), thick, taper=0.75, slot="second", name="trunk"))
    m.mark("trunk base", trunk, (1, 0, -0.94))
    if form == "conifer":
        wide = _cones(m, draws, crown)
    elif form == "umbrella":
        wide = _tiers(m, draws, crown)
    else:
        wide = _crowns(m, draws, crown, slim=form == "poplar")
    root = _branch(m, draws, crown, wide * draws.uniform(0.9, 1.15), low=form == "conifer")
    m.mark("trunk middle", trunk, (1, 0, root / (crown + 0.12) - 1))
    return m.shape()


def _mark_crown(m: Model, part: Part, z: float) -> None:
    for where, x, y in (("front", 1.0, 0.0), ("rear", -1.0, 0.0), ("left", 0.0, 1.0), ("right", 0.0, -1.0)):
        m.mark(f"crown {where}", part, (x, y, z))


def _cones(m: Model, draws: Draws, start: float) -> float:
    """Stacked cones up to height 1; returns the largest radius."""
    count, wide = draws.integer(2, 5), draws.uniform(0.22, 0.34)
    step = (1 - start) / count
    for k in range(count):
        radius = wide * (1 - 0.68 * k / count)
        low = start + k * step
        half = step * (0.8 if k < count - 1 else 0.5)
        cone = m.add(drum((0, 0, low + half), radius, half, taper=0.05, name="crown"))
        if k == 0:
            _mark_crown(m, cone, -0.97)
    m.mark("top", cone, (0, 0, 1))
    return wide


def _crowns(m: Model, draws: Draws, start: float, *, slim: bool) -> float:
    """One large crown to height 1, with smaller ones on the diagonals; returns its radius."""
    half = (1 - start) / 2
    wide = half * (draws.uniform(0.36, 0.5) if slim else draws.uniform(0.75, 1.15))
    crown = m.add(ball((0, 0, start + half), (wide, wide, half), name="crown"))
    _mark_crown(m, crown, 0.0)
    m.mark("top", crown, (0, 0, 1))
    count = draws.integer(0, 3) if slim else draws.integer(3, 6)
    for k in range(count):
        angle = math.radians(45 + 90 * k + draws.uniform(-10, 10))
        size = draws.uniform(0.5, 0.62) * min(half, wide)
        away, up = wide * draws.uniform(0.55, 0.75), half * draws.uniform(-0.55, 0.45)
        m.add(ball((away * math.cos(angle), away * math.sin(angle), start + half + up), (size, size, size * 0.85)))
    if draws.chance(0.35) and not slim:
        for k in range(4):
            angle = math.radians(20 + 90 * k)
            spot = (
                0.93 * wide * math.cos(angle),
                0.93 * wide * math.sin(angle),
                start + half * draws.uniform(0.8, 1.3),
            )
            m.add(ball(spot, 0.045, slot="accent"), trait="" if k else "fruit")
    return wide


def _tiers(m: Model, draws: Draws, start: float) -> float:
    """Flat crowns like clouds, the widest lowest; returns its radius."""
    wide, count = draws.uniform(0.32, 0.48), draws.integer(2, 4)
    z = start + 0.1
    for k in range(count):
        radius, half = wide * (1 - 0.3 * k), draws.uniform(0.08, 0.12)
        tier = m.add(ball((0, 0, z), (radius, radius, half), name="crown"))
        if k == 0:
            _mark_crown(m, tier, 0.0)
        z += half * 1.5
    m.mark("top", tier, (0, 0, 1))
    return wide


def _branch(m: Model, draws: Draws, crown: float, reach: float, *, low: bool) -> float:
    """A bare branch forward with a tuft at its end; returns the height of its root."""
    z = crown * (0.35 if low else draws.uniform(0.4, 0.6))
    tip = (reach, 0.0, z + reach * (0.2 if low else draws.uniform(0.3, 0.6)))
    m.add(rod((0, 0, z), tip, 0.026, taper=0.7, slot="second", name="branch"))
    tuft = m.add(ball(tip, (0.07, 0.07, 0.055)))
    m.mark("branch tip", tuft, (1, 0, 0))
    return z


def _palm(m: Model, draws: Draws) -> None:
    """A trunk that leans forward, four leaves along the axes and some between."""
    lean, tall, thick = draws.uniform(0.1, 0.3), draws.uniform(0.6, 0.8), draws.uniform(0.035, 0.05)
    bends = [(lean * s * s, 0.0, tall * s) for s in (0.0, 0.4, 0.72, 1.0)]
    trunk = [m.add(rod(a, b, thick, taper=0.88, slot="second", name="trunk")) for a, b in pairwise(bends)]
    m.mark("trunk base", trunk[0], (1, 0, -0.9))
    m.mark("trunk middle", trunk[1], (1, 0, 0))
    top = bends[-1]
    length, droop, wide = draws.uniform(0.19, 0.26), draws.uniform(12, 38), draws.uniform(0.06, 0.085)
    leaves = {"front": 0.0, "left": 90.0, "rear": 180.0, "right": 270.0}
    extra = draws.sample((45.0, 135.0, 225.0, 315.0), draws.integer(1, 5))
    for where, angle in (*leaves.items(), *(("", a) for a in extra)):
        rotation = turn(y=droop - (18 if not where else 0), z=angle)
        leaf = m.add(
            ball(beyond(top, rotation, (0.9 * length, 0, 0)), (length, wide, 0.022), rotation=rotation, name="leaf")
        )
        if where:
            m.mark(f"crown {where}", leaf, (1, 0, 0))
    heart = m.add(ball((top[0], 0, top[2]), (0.06, 0.06, 0.045)))
    m.mark("top", heart, (0, 0, 1))
    if draws.chance(0.5):
        for k, (_, side) in enumerate(SIDES):
            nut = (top[0] + 0.05, 0.05 * side, top[2] - 0.055)
            m.add(ball(nut, 0.045, slot="accent"), trait="" if k else "coconuts")


HOUSE = Category(
    name="house",
    plural="houses",
    article="a",
    build=build_house,
    size=(1.2, 1.5),
    keypoints=HOUSE_KEYPOINTS,
)
TREE = Category(
    name="tree",
    plural="trees",
    article="a",
    build=build_tree,
    size=(1.1, 1.5),
    keypoints=TREE_KEYPOINTS,
)
