"""Mugs and bottles."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import Model, ball, box, drum, ring, rod
from mtv.miniworld.shapes import Part, Shape, turn

MUG_KEYPOINTS = (
    "rim beside the handle",
    "rim opposite the handle",
    "rim left",
    "rim right",
    "handle top",
    "handle middle",
    "handle bottom",
    "side opposite the handle",
    "foot opposite the handle",
)
BOTTLE_KEYPOINTS = (
    "cap top",
    "neck front",
    "shoulder front",
    "shoulder left",
    "shoulder right",
    "label middle",
    "label top",
    "label bottom",
    "base front",
    "base left",
    "base right",
)


def build_mug(draws: Draws) -> Shape:
    """A vessel with something in it and a handle towards x: straight, cup or tankard; sometimes a saucer or a band."""
    m = Model(MUG_KEYPOINTS)
    form = draws.choice(("straight", "cup", "tankard"), (0.5, 0.25, 0.25))
    radius = 0.5
    half_height = radius * draws.uniform(*{"straight": (0.85, 1.3), "cup": (0.6, 0.9), "tankard": (1.3, 1.8)}[form])
    taper = draws.uniform(*{"straight": (0.92, 1.15), "cup": (1.35, 1.75), "tankard": (0.72, 0.92)}[form])
    bottom = 0.0
    if draws.chance(0.35 if form == "cup" else 0.12):
        wide = radius * draws.uniform(1.2, 1.35)
        m.add(drum((0, 0, 0.04), wide, 0.04, taper=1.3, slot="second"), trait="a saucer")
        bottom = 0.08
    body = m.add(drum((0, 0, bottom + half_height), radius, half_height, taper=taper, open=True, name="body"))
    level = draws.uniform(0.2, 0.6) if form == "cup" else draws.uniform(0.5, 0.82)
    inside = 0.94 * radius
    fill = level + 1
    m.add(
        drum(
            (0, 0, bottom + half_height * fill / 2 + 0.01),
            inside,
            half_height * fill / 2,
            taper=1 + (taper - 1) * fill / 2,
            slot=draws.choice(("second", "dark")),
        )
    )
    if draws.chance(0.35):
        m.add(_band(draws, body), trait="a band")
    _add_handle(m, draws, body)
    m.mark("rim beside the handle", body, (1, 0, 1))
    m.mark("rim opposite the handle", body, (-1, 0, 1))
    m.mark("rim left", body, (0, 1, 1))
    m.mark("rim right", body, (0, -1, 1))
    m.mark("side opposite the handle", body, (-1, 0, 0))
    m.mark("foot opposite the handle", body, (-1, 0, -0.9))
    return m.shape()


def _radius_at(body: Part, z: float) -> float:
    """Radius of a frustum at own z in -1..1."""
    return body.half[0] * (1 + (body.taper - 1) * (z + 1) / 2)


def _band(draws: Draws, body: Part) -> Part:
    low = draws.uniform(0.15, 0.5)
    high = low + draws.uniform(0.15, 0.4)
    first, last = (1.015 * _radius_at(body, z) for z in (low, high))
    middle = body.centre[2] + body.half[2] * (low + high) / 2
    half_height = body.half[2] * (high - low) / 2
    return drum((0, 0, middle), first, half_height, taper=last / first, slot="accent", open=True)


def _add_handle(m: Model, draws: Draws, body: Part) -> None:
    slot = draws.choice(("main", "main", "second", "accent"))
    middle = draws.uniform(-0.1, 0.15)
    reach = body.half[2] * draws.uniform(0.5, 0.72)
    thick = min(draws.uniform(0.06, 0.095), 0.3 * reach)
    z = body.centre[2] + body.half[2] * middle
    wall = _radius_at(body, middle)
    out = draws.uniform(0.32, 0.5)
    form = draws.choice(("round", "round", "square", "slanted"))
    if form == "round":
        tube = thick / (reach - thick)
        wide = min(reach, out + 0.12)
        flat = reach * draws.uniform(0.9, 1.3)
        centre = (wall + out - wide, 0.0, z)
        loop = m.add(ring(centre, (wide, reach, flat), tube, rotation=turn(x=90), slot=slot, name="handle"))
        m.mark("handle top", loop, (0.7, 1, 0))
        m.mark("handle middle", loop, (1, 0, 0))
        m.mark("handle bottom", loop, (0.7, -1, 0))
        return
    lift = reach if form == "square" else reach * draws.uniform(-0.1, 0.5)
    top, low = body.half[2] * middle + reach, body.half[2] * middle - reach
    feet = [0.93 * _radius_at(body, h / body.half[2]) for h in (top, low)]
    x = wall + out - thick
    base = body.centre[2]
    upper, lower = (x, 0.0, z + lift), (x, 0.0, z - (reach if form == "square" else -lift))
    size = (thick, thick * 1.2)
    arm = m.add(rod((feet[0], 0, base + top), upper, size, slot=slot, name="handle"))
    leg = m.add(rod((feet[1], 0, base + low), lower, size, slot=slot))
    if form == "square":
        grip = m.add(box((x, 0, z), (thick, thick * 1.2, reach + thick), slot=slot))
        m.mark("handle middle", grip, (1, 0, 0))
        m.mark("handle top", grip, (1, 0, 1))
        m.mark("handle bottom", grip, (1, 0, -1))
        return
    knee = m.add(ball(upper, (thick * 1.25, thick * 1.25, thick * 1.25), slot=slot))
    m.mark("handle middle", knee, (1, 0, 0))
    m.mark("handle top", arm, (1, 0, 0.2))
    m.mark("handle bottom", leg, (1, 0, 0))


def build_bottle(draws: Draws) -> Shape:
    """Body, shoulder, neck and cap, with a label in front: round, square or a belly on a foot; slim or stout."""
    m = Model(BOTTLE_KEYPOINTS)
    form = draws.choice(("round", "square", "belly"), (0.55, 0.2, 0.25))
    radius = draws.uniform(0.24, 0.42) if form != "belly" else draws.uniform(0.36, 0.5)
    tall = draws.uniform(0.75, 1.25) if form != "belly" else radius * draws.uniform(1.6, 2.1)
    neck = radius * draws.uniform(0.28, 0.5)
    body = m.add(_bottle_body(form, radius, tall))
    foot = body
    if form == "belly":
        foot = m.add(drum((0, 0, 0.04), radius * 0.75, 0.05, slot=draws.choice(("main", "second"))))
    rise = draws.uniform(0.12, 0.32) if form != "belly" else 0.12
    start = tall if form != "belly" else tall * 0.93
    wide = {"round": radius, "square": radius * 0.97, "belly": radius * 0.55}[form]
    shoulder = m.add(drum((0, 0, start + rise / 2), wide, rise / 2, taper=neck / wide, name="shoulder"))
    length = draws.uniform(0.12, 0.45)
    top = start + rise + length
    throat = m.add(drum((0, 0, top - length / 2 - 0.01), neck, length / 2 + 0.01, name="neck"))
    if draws.chance(0.25):
        m.add(
            drum((0, 0, top - length * 0.5), neck * 1.06, length * 0.2, slot="second"), trait="a ring around its neck"
        )
    cap = _bottle_cap(m, draws, neck, top, radius)
    _add_label(m, draws, form, radius, tall)
    m.mark("cap top", cap, (0, 0, 1))
    m.mark("neck front", throat, (1, 0, -0.6))
    for where, direction in (("front", (1.0, 0.0)), ("left", (0.0, 1.0)), ("right", (0.0, -1.0))):
        x, y = direction
        m.mark(f"shoulder {where}", shoulder, (x, y, -0.3))
        m.mark(f"base {where}", foot, (x, y, -0.95))
    return m.shape()


def _bottle_cap(m: Model, draws: Draws, neck: float, top: float, reach: float) -> Part:
    """A flat cap, a round stopper, or a pump that points forward; returns its uppermost part."""
    half, radius = draws.uniform(0.05, 0.1), neck * draws.uniform(1.1, 1.35)
    slot = draws.choice(("accent", "second", "dark"))
    form = draws.choice(("flat", "stopper", "pump"), (0.6, 0.2, 0.2))
    middle = (0.0, 0.0, top + half * 0.6)
    if form == "stopper":
        size = (radius, radius, half * 1.3)
        return m.add(ball(middle, size, slot=slot, name="cap"), trait="a round stopper")
    cap = m.add(drum(middle, radius, half, slot=slot, name="cap"))
    if form == "flat":
        return cap
    height, arm = top + draws.uniform(0.2, 0.28), reach * draws.uniform(0.45, 0.7)
    m.add(drum((0, 0, (top + height) / 2), neck * 0.35, (height - top) / 2, slot=slot))
    return m.add(box((arm * 0.7, 0, height), (arm, neck * 0.55, 0.03), slot=slot), trait="a pump")


def _bottle_body(form: str, radius: float, tall: float) -> Part:
    if form == "square":
        return box((0, 0, tall / 2), (radius, radius, tall / 2), name="body")
    if form == "belly":
        return ball((0, 0, tall / 2), (radius, radius, tall / 2), name="body")
    return drum((0, 0, tall / 2), radius, tall / 2, name="body")


def _add_label(m: Model, draws: Draws, form: str, radius: float, tall: float) -> None:
    middle = tall * draws.uniform(0.42, 0.55)
    half = tall * draws.uniform(0.16, 0.28)
    slot = draws.choice(("second", "accent"))
    up = (1.0, 0.0, 1.0)
    if form == "round":
        narrow = radius * draws.uniform(0.72, 0.88)
        label = drum((1.03 * radius - narrow, 0, middle), narrow, half, slot=slot, name="label")
    elif form == "square":
        label = box((radius, 0, middle), (0.02, radius * draws.uniform(0.55, 0.85), half), slot=slot, name="label")
    else:
        middle, half = tall * 0.5, tall * draws.uniform(0.18, 0.25)
        label = ball((radius * 0.8, 0, middle), (radius * 0.26, radius * 0.5, half), slot=slot, name="label")
        up = (0.6, 0.0, 0.8)
    m.add(label)
    m.mark("label middle", label, (1, 0, 0))
    m.mark("label top", label, up)
    m.mark("label bottom", label, (up[0], 0, -up[2]))


MUG = Category(
    name="mug",
    plural="mugs",
    article="a",
    build=build_mug,
    size=(0.45, 0.58),
    keypoints=MUG_KEYPOINTS,
    small=True,
)
BOTTLE = Category(
    name="bottle",
    plural="bottles",
    article="a",
    build=build_bottle,
    size=(0.52, 0.72),
    keypoints=BOTTLE_KEYPOINTS,
    small=True,
)
