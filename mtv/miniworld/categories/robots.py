"""Robots."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, box, drum, rod
from mtv.miniworld.shapes import Part, Shape, turn

ROBOT_KEYPOINTS = (
    "head top",
    "left eye",
    "right eye",
    "chest panel",
    "left shoulder",
    "right shoulder",
    "left hand",
    "right hand",
    "left foot",
    "right foot",
    "antenna tip",
)


def build_robot(draws: Draws) -> Shape:
    """A torso with a head and two arms on legs, tracks or a skirt; each arm hangs, reaches forward or waves."""
    m = Model(ROBOT_KEYPOINTS)
    wide, deep = draws.uniform(0.15, 0.22), draws.uniform(0.11, 0.15)
    low = _robot_base(m, draws, wide, deep)
    tall = draws.uniform(0.28, 0.4)
    middle = (0.0, 0.0, low + tall / 2)
    form = draws.choice(("box", "drum", "egg"), (0.5, 0.3, 0.2))
    if form == "box":
        torso = m.add(box(middle, (deep, wide, tall / 2), name="torso"))
    elif form == "drum":
        taper = draws.uniform(0.85, 1.2)
        torso = m.add(drum(middle, (deep * 1.15 / taper, wide / taper), tall / 2, taper=taper, name="torso"))
    else:
        torso = m.add(ball(middle, (deep * 1.3, wide * 1.05, tall * 0.56), name="torso"))
    _chest_panel(m, draws, torso, form, wide, tall)
    for name, side in SIDES:
        m.mark(f"{name} shoulder", torso, (0, 0.7 * side, 0.75) if form == "egg" else (0, side, 1))
    shoulder = low + tall * (0.72 if form == "egg" else 0.84)
    _arms(m, draws, wide * (0.92 if form == "egg" else 1.0), shoulder)
    _robot_head(m, draws, low + tall, wide)
    return m.shape()


def _robot_base(m: Model, draws: Draws, wide: float, deep: float) -> float:
    """What the torso stands on; returns its height."""
    slot = draws.choice(("second", "main", "main"))
    form = draws.choice(("legs", "tracks", "skirt"), (0.6, 0.22, 0.18))
    if form == "skirt":
        tall = draws.uniform(0.14, 0.22)
        m.add(drum((0, 0, tall / 2), (deep * 1.5, wide * 1.2), tall / 2, taper=0.7, slot=slot))
        return tall
    if form == "tracks":
        radius, long = draws.uniform(0.07, 0.1), draws.uniform(1.6, 1.9)
        for name, side in SIDES:
            track = m.add(
                drum((0, side * wide, radius), (radius * long, radius), 0.055, slot="dark", rotation=turn(x=-90))
            )
            m.mark(f"{name} foot", track, (1, 0, 0.5 * side))
        m.add(box((0, 0, radius * 1.3), (deep * 0.8, wide * 0.8, radius * 0.8), slot=slot))
        return radius * 2
    tall, thick = draws.uniform(0.18, 0.32), draws.uniform(0.04, 0.06)
    for name, side in SIDES:
        y = side * wide * 0.55
        m.add(rod((0, y, 0.03), (0, y, tall + 0.04), thick, slot=slot, name="leg"))
        foot = m.add(box((0.035, y, 0.035), (0.11, thick * 1.35, 0.035), slot="dark", name="foot"))
        m.mark(f"{name} foot", foot, (1, 0, 1))
    return tall


def _chest_panel(m: Model, draws: Draws, torso: Part, form: str, wide: float, tall: float) -> None:
    x = torso.half[0] * (torso.taper + 1) / 2
    size = (0.02 if form == "box" else 0.05, wide * draws.uniform(0.4, 0.6), tall * draws.uniform(0.14, 0.22))
    z = torso.centre[2] + 0.04 * tall
    panel = m.add(box((x if form == "box" else x - 0.025, 0, z), size, slot="accent", name="chest panel"))
    m.mark("chest panel", panel, (1, 0, 0))


def _arms(m: Model, draws: Draws, wide: float, z: float) -> None:
    slot = draws.choice(("main", "second"))
    thick, length = draws.uniform(0.032, 0.045), draws.uniform(0.22, 0.32)
    ways = {"hangs": (0.02, 0.25, -0.97), "reaches": (0.85, 0.2, -0.3), "waves": (0.1, 0.5, 0.85)}
    for name, side in SIDES:
        joint = (0.0, side * (wide + thick * 0.9), z)
        way = draws.choice(("hangs", "reaches", "waves"), (0.55, 0.22, 0.23))
        x, y, up = ways[way]
        hand = (length * x, joint[1] + side * length * y, z + length * up)
        m.add(rod(joint, hand, thick, slot=slot, name="arm"))
        fist = m.add(ball(hand, thick * 1.5, slot="accent", name="hand"))
        m.mark(f"{name} hand", fist, (x, side * y, up))


def _robot_head(m: Model, draws: Draws, low: float, wide: float) -> None:
    size, tall = wide * draws.uniform(0.62, 0.85), draws.uniform(0.075, 0.11)
    m.add(drum((0, 0, low + 0.01), size * 0.45, 0.04, slot="dark", name="neck"))
    z = low + 0.03 + tall
    form = draws.choice(("box", "drum", "dome"), (0.5, 0.25, 0.25))
    slot = draws.choice(("main", "main", "second"))
    front = size * 0.85
    if form == "box":
        head = m.add(box((0, 0, z), (front, size, tall), slot=slot, name="head"))
    elif form == "drum":
        front = size * 0.95
        head = m.add(drum((0, 0, z), size * 0.95, tall, slot=slot, name="head"))
    else:
        head = m.add(ball((0, 0, z), (size, size, tall * 1.15), slot=slot, name="head"))
        front = size * 0.92
    m.mark("head top", head, (0.5, 0, 0.85) if form == "dome" else (0.7, 0, 1))
    _face(m, draws, front, size, z + 0.15 * tall, tall)
    if draws.chance(0.55):
        top = z + tall * 1.1 + draws.uniform(0.06, 0.12)
        m.add(rod((0, 0, z), (0, 0, top), 0.016, slot="dark"))
        m.mark("antenna tip", m.add(ball((0, 0, top), 0.034, slot="accent"), trait="an antenna"), (0, 0, 1))
    elif draws.chance(0.5):
        m.add(drum((0, 0, z), tall * 0.45, size * 1.18, slot="accent", rotation=turn(x=90)), trait="bolts on its head")


def _face(m: Model, draws: Draws, front: float, size: float, z: float, tall: float) -> None:
    slot = draws.choice(("accent", "dark"))
    visor = draws.chance(0.35)
    if visor:
        bar = m.add(box((front * 0.85, 0, z), (front * 0.25, size * 0.7, tall * 0.28), slot=slot), trait="a visor")
    for name, side in SIDES:
        if visor:
            m.mark(f"{name} eye", bar, (1, 0.6 * side, 0))
        else:
            eye = m.add(ball((front * 0.92, side * size * 0.42, z), max(0.03, tall * 0.34), slot=slot, name="eye"))
            m.mark(f"{name} eye", eye, (1, 0, 0))


ROBOT = Category(
    name="robot",
    plural="robots",
    article="a",
    build=build_robot,
    size=(0.75, 1.0),
    keypoints=ROBOT_KEYPOINTS,
)
