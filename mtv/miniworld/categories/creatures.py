"""Dogs and birds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import (
    SIDES,
    Model,
    ball,
    between,
    beyond,
    box,
    drum,
    plank,
    ring,
    rod,
    rotate,
    span,
)
from mtv.miniworld.shapes import Mat3, Shape, Vec3, turn

DOG_KEYPOINTS = (
    "nose",
    "left eye",
    "right eye",
    "left ear tip",
    "right ear tip",
    "back middle",
    "tail tip",
    "left front paw",
    "right front paw",
    "left hind paw",
    "right hind paw",
)
BIRD_KEYPOINTS = (
    "beak tip",
    "left eye",
    "right eye",
    "head top",
    "breast",
    "left wing tip",
    "right wing tip",
    "tail tip",
    "left foot",
    "right foot",
)


def build_dog(draws: Draws) -> Shape:
    """A standing or sitting dog: long or short in body, legs, snout, ears and tail."""
    m = Model(DOG_KEYPOINTS)
    length, thick = draws.uniform(0.26, 0.4), draws.uniform(0.125, 0.175)
    legs = draws.uniform(0.1, 0.36)
    limb = draws.uniform(0.038, 0.055)
    if draws.chance(0.3):
        front, rear = _sitting_body(m, length, thick, legs, limb)
    else:
        front, rear = _standing_body(m, length, thick, legs, limb)
    size = draws.uniform(0.115, 0.15)
    head = (front[0] + draws.uniform(0.04, 0.12), 0.0, front[2] + draws.uniform(0.14, 0.24))
    m.add(rod((front[0] - 0.04, 0, front[2]), head, thick * 0.72, taper=0.8, name="neck"))
    if draws.chance(0.45):
        band = rod(between(front, head, 0.25), between(front, head, 0.5), thick * 0.74, slot="accent", name="collar")
        m.add(band, trait="a collar")
    _dog_head(m, draws, head, size)
    _dog_tail(m, draws, rear)
    return m.shape()


def _standing_body(m: Model, length: float, thick: float, legs: float, limb: float) -> tuple[Vec3, Vec3]:
    """Body and legs; returns where the neck and the tail begin."""
    z = legs + 0.8 * thick
    body = m.add(ball((0, 0, z), (length, 0.95 * thick, thick), name="body"))
    m.mark("back middle", body, (0, 0, 1))
    for name, side in SIDES:
        for end, x in (("front", 0.66 * length), ("hind", -0.68 * length)):
            y = side * 0.55 * thick
            leg = m.add(rod((x, y, 0), (x, y, z), limb, taper=1.25, name="leg"))
            m.mark(f"{name} {end} paw", leg, (1, 0, -0.9))
    return (0.74 * length, 0.0, z + 0.2 * thick), (-0.9 * length, 0.0, z + 0.35 * thick)


def _sitting_body(m: Model, length: float, thick: float, legs: float, limb: float) -> tuple[Vec3, Vec3]:
    """As `_standing_body`, with the rump on the ground and the chest up."""
    length *= 0.9
    tilt = 40 + 40 * legs
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    z = 0.72 * length * sin + 0.62 * thick
    body = m.add(ball((0, 0, z), (length, 0.95 * thick, thick), rotation=turn(y=-tilt), name="body"))
    m.mark("back middle", body, (0, 0, 1))
    chest, rump = 0.62 * length * cos + 0.04, -0.6 * length * cos
    for name, side in SIDES:
        y = side * 0.5 * thick
        leg = m.add(rod((chest + 0.02, y, 0), (chest, y, z + 0.3 * length * sin), limb, taper=1.2, name="leg"))
        m.mark(f"{name} front paw", leg, (1, 0, -0.9))
        m.add(ball((rump + 0.05, side * 0.85 * thick, 0.1), (0.13, 0.06, 0.1), name="haunch"))
        paw = m.add(ball((rump + 0.19, side * 0.95 * thick, 0.032), (0.09, 0.042, 0.032), name="leg"))
        m.mark(f"{name} hind paw", paw, (1, 0, 0))
    m.trait("its hind legs folded")
    return (0.7 * length * cos, 0.0, z + 0.7 * length * sin), (rump - 0.1, 0.0, 0.1)


def _dog_head(m: Model, draws: Draws, head: Vec3, size: float) -> None:
    x, _, z = head
    m.add(ball(head, (size, 0.9 * size, 0.94 * size), name="head"))
    reach = x + size * draws.uniform(1.35, 1.95)
    muzzle = draws.choice(("main", "second"))
    m.add(rod((x + 0.4 * size, 0, z - 0.2 * size), (reach, 0, z - 0.32 * size), 0.5 * size, taper=0.72, slot=muzzle))
    nose = m.add(ball((reach, 0, z - 0.2 * size), 0.3 * size, slot="dark", name="nose"))
    m.mark("nose", nose, (1, 0, 0))
    eyes = m.add(
        drum((x + 0.6 * size, 0, z + 0.34 * size), 0.21 * size, 0.69 * size, slot="dark", rotation=turn(x=-90))
    )
    pointed, slot = draws.chance(0.5), draws.choice(("main", "second", "accent"))
    long = size * draws.uniform(0.8, 1.3)
    for name, side in SIDES:
        m.mark(f"{name} eye", eyes, (0, 0, side))
        if pointed:
            root, tip = (
                (x - 0.2 * size, side * 0.5 * size, z + 0.55 * size),
                (x - 0.3 * size, side * 0.7 * size, z + 0.6 * size + long),
            )
            ear = m.add(rod(root, tip, (0.28 * size, 0.42 * size), taper=0.0, slot=slot, name="ear"))
            m.mark(f"{name} ear tip", ear, (0, 0, 1))
        else:
            spot = (x - 0.2 * size, side * 0.96 * size, z + 0.5 * size - 0.6 * long)
            ear = m.add(
                ball(spot, (0.4 * size, 0.2 * size, 0.75 * long), rotation=turn(x=8 * side), slot=slot, name="ear")
            )
            m.mark(f"{name} ear tip", ear, (0, 0, -1))
    m.trait("pointed ears" if pointed else "floppy ears")


def _dog_tail(m: Model, draws: Draws, rear: Vec3) -> None:
    x, _, z = rear
    form = draws.choice(("up", "back", "curl", "stub"), (0.35, 0.3, 0.2, 0.15))
    long = draws.uniform(0.16, 0.28)
    slot = draws.choice(("main", "second"))
    if form == "curl":
        ring_half = (0.1, 0.1, 0.1)
        tail = m.add(ring((x - 0.02, 0, z + 0.09), ring_half, 0.42, rotation=turn(x=90), slot=slot, name="tail"))
        m.mark("tail tip", tail, (0, 1, 0))
    elif form == "stub":
        tail = m.add(ball((x - 0.05, 0, z + 0.03), (0.07, 0.05, 0.05), slot=slot, name="tail"))
        m.mark("tail tip", tail, (-1, 0, 0.3))
    else:
        end = (x - 0.35 * long, 0.0, z + long) if form == "up" else (x - long, 0.0, z + draws.uniform(-0.02, 0.1))
        tail = m.add(rod((x + 0.03, 0, z - 0.02), end, 0.042, taper=0.6, slot=slot, name="tail"))
        m.mark("tail tip", tail, (0, 0, 1))


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Ranges and habits of one kind of bird, in units of about its length."""

    body: Vec3
    """Half extents of the body before it tilts."""
    tilt: tuple[float, float]
    """Degrees that the breast is raised."""
    neck: tuple[float, float]
    """How far the head's middle is above the breast."""
    ahead: tuple[float, float]
    """How far the head's middle is in front of the breast."""
    head: tuple[float, float]
    """Radius of the head."""
    beak: tuple[float, float]
    """Length of the beak."""
    flat: bool = False
    """A flat broad beak."""
    legs: tuple[float, float] = (0.07, 0.2)
    """Length of the legs."""
    tail: tuple[float, float] = (0.16, 0.34)
    """Length of the tail."""


_BIRDS = {
    "songbird": _Plan(
        body=(0.28, 0.17, 0.17),
        tilt=(12, 38),
        neck=(0.08, 0.15),
        ahead=(0.02, 0.07),
        head=(0.12, 0.15),
        beak=(0.09, 0.18),
    ),
    "duck": _Plan(
        body=(0.33, 0.2, 0.17),
        tilt=(0, 10),
        neck=(0.2, 0.32),
        ahead=(0.03, 0.1),
        head=(0.1, 0.125),
        beak=(0.12, 0.17),
        flat=True,
        legs=(0.03, 0.07),
        tail=(0.08, 0.16),
    ),
    "heron": _Plan(
        body=(0.25, 0.12, 0.13),
        tilt=(8, 25),
        neck=(0.3, 0.45),
        ahead=(0.06, 0.16),
        head=(0.075, 0.095),
        beak=(0.16, 0.28),
        legs=(0.32, 0.46),
        tail=(0.08, 0.16),
    ),
    "penguin": _Plan(
        body=(0.36, 0.19, 0.17),
        tilt=(74, 86),
        neck=(0.1, 0.16),
        ahead=(-0.02, 0.03),
        head=(0.12, 0.15),
        beak=(0.08, 0.14),
        legs=(0.01, 0.03),
        tail=(0.08, 0.12),
    ),
}


def build_bird(draws: Draws) -> Shape:
    """A songbird, duck, heron or penguin on its feet, wings folded or, some songbirds and ducks, spread."""
    m = Model(BIRD_KEYPOINTS)
    form = draws.choice(tuple(_BIRDS), (0.42, 0.22, 0.2, 0.16))
    plan = _BIRDS[form]
    grow = draws.uniform(0.88, 1.12)
    half = (plan.body[0] * grow, plan.body[1] * draws.uniform(0.88, 1.12), plan.body[2] * draws.uniform(0.9, 1.1))
    tilt = turn(y=-draws.uniform(*plan.tilt))
    legs = draws.uniform(*plan.legs)
    z = legs - span(ball((0, 0, 0), half, rotation=tilt), 2)[0]
    body = m.add(ball((0, 0, z), half, rotation=tilt, name="body"))
    m.mark("breast", body, (0.7, 0, -0.55) if form != "penguin" else (0.2, 0, -1))

    def on_body(x: float, y: float, up: float) -> Vec3:
        """Object coordinates of a point given in half extents of the tilted body."""
        return beyond((0, 0, z), tilt, (x * half[0], y * half[1], up * half[2]))

    _bird_head(m, draws, plan, on_body(0.62, 0, 0.25))
    if draws.chance(0.3):
        spot = on_body(0.35, 0, -0.5) if form != "penguin" else on_body(-0.1, 0, -0.55)
        size = (0.55 * half[0], 0.7 * half[1], 0.56 * half[2])
        patch = m.add(ball(spot, size, rotation=tilt, slot="accent"), trait="a belly patch")
        m.mark("breast", patch, (0.7, 0, -0.7) if form != "penguin" else (0.2, 0, -1))
    spread = form in ("songbird", "duck") and draws.chance(0.3)
    _bird_wings(m, draws, half, tilt, on_body, spread=spread)
    start = on_body(-0.75, 0, 0.1)
    length = draws.uniform(*plan.tail)
    a, _, c = rotate(tilt, (-length, 0, length * draws.uniform(0.0, 0.4)))
    if form == "penguin":
        a, c = -length, -start[2] + 0.02
    tail = m.add(
        plank(start, (start[0] + a - 0.06, 0, start[2] + c), (0.02, 0.4 * half[1]), slot="second", name="tail")
    )
    m.mark("tail tip", tail, (0, 0, 1))
    _bird_feet(m, draws, legs, half, z)
    return m.shape()


def _bird_head(m: Model, draws: Draws, plan: _Plan, breast: Vec3) -> None:
    size = draws.uniform(*plan.head)
    head = (breast[0] + draws.uniform(*plan.ahead), 0.0, breast[2] + draws.uniform(*plan.neck))
    slot = draws.choice(("main", "main", "main", "second"))
    m.add(rod(breast, head, size * (0.95 if plan.neck[1] < 0.2 else 0.7), taper=0.85, slot=slot, name="neck"))
    skull = m.add(ball(head, (size * 1.08, size * 0.95, size), slot=slot, name="head"))
    m.mark("head top", skull, (0, 0, 1))
    x, _, z = head
    length = draws.uniform(*plan.beak)
    thick = (0.3 * size, 0.75 * size) if plan.flat else (0.42 * size, 0.42 * size)
    tip = (x + size + length, 0.0, z - 0.15 * size)
    beak = m.add(rod((x + 0.6 * size, 0, z - 0.08 * size), tip, thick, taper=0.6 if plan.flat else 0.06, slot="accent"))
    m.mark("beak tip", beak, (0, 0, 1))
    eyes = m.add(drum((x + 0.5 * size, 0, z + 0.3 * size), 0.2 * size, 0.8 * size, slot="dark", rotation=turn(x=-90)))
    for name, side in SIDES:
        m.mark(f"{name} eye", eyes, (0, 0, side))
    if draws.chance(0.25):
        crest = rod(
            (x, 0, z + 0.7 * size),
            (x - 0.6 * size, 0, z + 1.9 * size),
            (0.4 * size, 0.15 * size),
            taper=0.0,
            slot="accent",
        )
        m.mark("head top", m.add(crest, trait="a crest"), (0, 0, 1))


def _bird_wings(
    m: Model, draws: Draws, half: Vec3, tilt: Mat3, on_body: Callable[[float, float, float], Vec3], *, spread: bool
) -> None:
    slot = draws.choice(("second", "main")) if not spread else draws.choice(("main", "main", "second"))
    rise, reach, chord = draws.uniform(8, 40), draws.uniform(0.26, 0.36), draws.uniform(0.11, 0.15)
    for name, side in SIDES:
        if spread:
            root = on_body(0.1, 0.5 * side, 0.4)
            rotation = turn(x=side * rise, z=side * 14)
            centre = beyond(root, rotation, (0, 0.85 * reach * side, 0))
            wing = ball(centre, (chord, reach, 0.028), rotation=rotation, slot=slot, name="wing")
            m.mark(f"{name} wing tip", m.add(wing), (0, side, 0))
        else:
            size = (0.72 * half[0], 0.04, 0.52 * half[2])
            wing = ball(on_body(-0.3, 0.9 * side, 0.15), size, rotation=tilt, slot=slot, name="wing")
            m.mark(f"{name} wing tip", m.add(wing), (-1, 0, 0))
    if spread:
        m.trait("spread wings")


def _bird_feet(m: Model, draws: Draws, legs: float, half: Vec3, z: float) -> None:
    slot = draws.choice(("accent", "dark"))
    for name, side in SIDES:
        y = side * 0.42 * half[1]
        if legs > 0.05:
            m.add(rod((0, y, 0), (0, y, z), 0.019, slot=slot, name="leg"))
        long = 0.06 if legs > 0.05 else 0.1
        foot = m.add(box((0.05 if legs > 0.05 else 0.09, y, 0.014), (long, 0.04, 0.014), slot=slot, name="foot"))
        m.mark(f"{name} foot", foot, (1, 0, 1))


DOG = Category(
    name="dog",
    plural="dogs",
    article="a",
    build=build_dog,
    size=(0.75, 1.0),
    keypoints=DOG_KEYPOINTS,
)
BIRD = Category(
    name="bird",
    plural="birds",
    article="a",
    build=build_bird,
    size=(0.55, 0.75),
    keypoints=BIRD_KEYPOINTS,
    small=True,
)
