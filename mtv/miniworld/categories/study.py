"""Books and lamps."""

from __future__ import annotations

import math

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import Model, ball, box, drum, on_surface, rod
from mtv.miniworld.shapes import Part, Shape, Vec3, turn

BOOK_KEYPOINTS = (
    "spine top",
    "spine bottom",
    "front cover top corner",
    "front cover bottom corner",
    "back cover top corner",
    "back cover bottom corner",
    "title middle",
    "bookmark end",
)
LAMP_KEYPOINTS = (
    "shade top",
    "shade rim front",
    "shade rim rear",
    "shade rim left",
    "shade rim right",
    "pole top",
    "pole middle",
    "elbow",
    "base front",
    "base rear",
)


def build_book(draws: Draws) -> Shape:
    """Two covers, a spine and pages; closed and lying or standing, open and lying, or standing like a tent.

    Built lying with the front cover up, its top towards -x and the spine towards -y; standing turns the top upwards.
    """
    m = Model(BOOK_KEYPOINTS)
    pose = draws.choice(("lying", "standing", "open", "tent"), (0.28, 0.24, 0.28, 0.2))
    width = draws.uniform(0.62, 0.85)
    cover = draws.uniform(0.014, 0.022)
    if pose in ("lying", "standing"):
        _closed_book(m, draws, width, draws.uniform(0.13, 0.34), cover)
    else:
        angle = draws.uniform(8, 24) if pose == "open" else 90 - draws.uniform(20, 42)
        _open_book(m, draws, width, cover, angle, outside=pose == "tent")
    if pose in ("standing", "tent"):
        m.pose(turn(y=90))
    return m.shape()


def _closed_book(m: Model, draws: Draws, width: float, thick: float, cover: float) -> None:
    half = thick / 2
    back = m.add(box((0, 0, cover - half), (0.5, width / 2, cover), name="back cover"))
    front = m.add(box((0, 0, half - cover), (0.5, width / 2, cover), name="front cover"))
    inset = draws.uniform(0.03, 0.05)
    m.add(box((0, -inset / 2, 0), (0.5 - inset, width / 2 - inset / 2, half - cover), slot="second", name="pages"))
    if draws.chance(0.5):
        spine = m.add(drum((0, -width / 2, 0), (half, half * draws.uniform(0.25, 0.5)), 0.5, rotation=turn(y=90)))
        m.mark("spine top", spine, (0, -0.9, -1))
        m.mark("spine bottom", spine, (0, -0.9, 1))
    else:
        spine = m.add(box((0, -width / 2, 0), (0.5, cover, half), slot=draws.choice(("main", "accent"))))
        m.mark("spine top", spine, (-1, -1, 0))
        m.mark("spine bottom", spine, (1, -1, 0))
    for cap, sign, name in ((front, 1, "front"), (back, -1, "back")):
        m.mark(f"{name} cover top corner", cap, (-1, 1, sign))
        m.mark(f"{name} cover bottom corner", cap, (1, 1, sign))
    if draws.chance(0.75):
        size = (draws.uniform(0.08, 0.2), width * draws.uniform(0.2, 0.34), 0.012)
        title = m.add(box((draws.uniform(-0.25, 0), 0, half), size, slot="accent"), trait="a title plate")
        m.mark("title middle", title, (0, 0, 1))
    if draws.chance(0.22):
        strap = (draws.uniform(0.025, 0.05), width / 2 + 0.012, half + 0.012)
        m.add(box((draws.uniform(0.2, 0.36), 0, 0), strap, slot="accent"), trait="a strap")
    if draws.chance(0.35):
        _bookmark(m, draws.uniform(-0.2, 0.3) * width, 0.0)


def _open_book(m: Model, draws: Draws, width: float, cover: float, angle: float, *, outside: bool) -> None:
    """Two halves that rise by `angle` degrees from the hinge on the x axis; `outside`: covers in view."""
    thick = draws.uniform(0.03, 0.07)
    covers, pages = ("main", "second") if outside else ("second", "main")
    spine = m.add(drum((0, 0, 0), 2 * cover, 0.5, slot=covers, rotation=turn(y=90)))
    m.mark("spine top", spine, (0.5, 0, -1))
    m.mark("spine bottom", spine, (0.5, 0, 1))
    plate = (draws.uniform(0.14, 0.28), width * draws.uniform(0.22, 0.32), 0.01)
    illustrated = not outside and draws.chance(0.6)
    for name, side in (("back", 1.0), ("front", -1.0)):
        middle = side * width / 2
        board = m.add(_hinged((0, middle, 0), (0.5, width / 2, cover), angle, side, covers))
        m.mark(f"{name} cover top corner", board, (-1, side, 1))
        m.mark(f"{name} cover bottom corner", board, (1, side, 1))
        leaves = (0.46, width / 2 - 0.03, thick)
        m.add(_hinged((0, middle - 0.02 * side, thick + cover), leaves, angle, side, pages))
        if illustrated:
            picture = _hinged((-0.08 * side, middle, 2 * thick + cover), plate, angle, side, "accent")
            m.add(picture, trait="pictures on its pages" if side > 0 else "")
    if outside:
        title = m.add(_hinged((-0.15, -width / 2, -cover), plate, angle, -1.0, "accent"), trait="a title plate")
        m.mark("title middle", title, (0, 0, -1))
    if draws.chance(0.35):
        _bookmark(m, 0.0, 0.06)


def _bookmark(m: Model, y: float, z: float) -> None:
    strip = m.add(box((-0.52, y, z), (0.1, 0.05, 0.012), slot="accent", name="bookmark"), trait="a bookmark")
    m.mark("bookmark end", strip, (-1, 0, 0))


def _hinged(centre: Vec3, half: Vec3, angle: float, side: float, slot: str) -> Part:
    """A box given as if the book lay flat, turned up about the x axis on its side of the hinge."""
    cos, sin = math.cos(math.radians(angle)), side * math.sin(math.radians(angle))
    x, y, z = centre
    return box((x, cos * y - sin * z, sin * y + cos * z), half, slot=slot, rotation=turn(x=side * angle))


def build_lamp(draws: Draws) -> Shape:
    """A shade on a table base, a pole, three legs, a jointed arm or an arc; a chain or a knob marks the front."""
    m = Model(LAMP_KEYPOINTS)
    form = draws.choice(("table", "floor", "tripod", "desk", "arc"), (0.3, 0.2, 0.14, 0.22, 0.14))
    if form == "desk":
        _desk_lamp(m, draws)
    elif form == "arc":
        _arc_lamp(m, draws)
    else:
        _upright_lamp(m, draws, form)
    return m.shape()


def _shade(m: Model, draws: Draws, rim: Vec3, radius: float, half_height: float, tilt: float = 0.0) -> None:
    """An open shade whose rim has this middle and radius; `tilt` turns the opening forward, degrees."""
    ratio = draws.uniform(1.5, 2.8) if tilt or draws.chance(0.65) else draws.uniform(1.0, 1.2)
    sin, cos = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    centre = (rim[0] - sin * half_height, rim[1], rim[2] + cos * half_height)
    down = turn(x=180, y=-tilt)
    shade = m.add(drum(centre, radius / ratio, half_height, taper=ratio, open=True, rotation=down, name="shade"))
    for where, x, y in (("front", 1.0, 0.0), ("rear", -1.0, 0.0), ("left", 0.0, -1.0), ("right", 0.0, 1.0)):
        m.mark(f"shade rim {where}", shade, (x, y, 1))
    m.mark("shade top", shade, (0, 0, -1))


def _upright_lamp(m: Model, draws: Draws, form: str) -> None:
    """Table, floor and tripod lamps: everything on one axis but the chain or knob."""
    metal = draws.choice(("second", "dark"))
    low = form == "table"
    half_shade = draws.uniform(0.15, 0.22) if low else draws.uniform(0.11, 0.16)
    radius = half_shade * draws.uniform(1.3, 1.9)
    rim = 1 - 2 * half_shade
    _shade(m, draws, (0, 0, rim), radius, half_shade)
    foot = 0.0 if form == "floor" else rim * (0.7 if low else 0.85)
    pole = m.add(rod((0, 0, foot), (0, 0, 1 - half_shade), draws.uniform(0.024, 0.036), slot=metal, name="pole"))
    if low:
        base = _table_base(m, draws, rim)
        m.mark("pole middle", base, (1, 0, 0))
    elif form == "floor":
        base = m.add(drum((0, 0, 0.025), draws.uniform(0.13, 0.2), 0.025, taper=0.85, name="base"))
        m.mark("pole middle", pole, (1, 0, -0.2))
    else:
        base = _tripod(m, draws, rim, metal)
    length = 1 - half_shade - foot
    m.mark("pole top", pole, (1, 0, 2 * (rim - 0.03 - foot) / length - 1))
    m.mark("base front", base, (1, 0, -0.9))
    if form != "tripod":
        m.mark("base rear", base, (-1, 0, -0.9))
    if low and draws.chance(0.4):
        knob = m.add(ball(on_surface(base, (1, 0, 0)), 0.05, slot="accent"), trait="a knob on its base")
        m.mark("pole middle", knob, (1, 0, 0))
    else:
        x, end = 0.75 * radius, rim - draws.uniform(0.12, 0.2)
        m.add(rod((x, 0, rim + 0.04), (x, 0, end), 0.014, slot="dark"), trait="a pull chain")
        m.add(ball((x, 0, end), 0.038, slot="accent"))
    if draws.chance(0.4):
        m.mark("shade top", m.add(ball((0, 0, 1.02), 0.04, slot="accent")), (0, 0, 1))


def _table_base(m: Model, draws: Draws, rim: float) -> Part:
    """Fills the height below the shade: a vase on a foot, a column, or a box."""
    slot = draws.choice(("second", "main", "main", "accent"))
    top = rim * draws.uniform(0.72, 0.88)
    form = draws.choice(("vase", "column", "block", "cone"))
    wide = draws.uniform(0.13, 0.19)
    if form == "vase":
        m.add(drum((0, 0, 0.03), wide * 0.75, 0.03, slot=slot))
        return m.add(ball((0, 0, 0.03 + top / 2), (wide, wide, top / 2 - 0.03), slot=slot, name="base"))
    if form == "block":
        return m.add(box((0, 0, top / 2), (wide * 0.8, wide * 0.8, top / 2), slot=slot, name="base"))
    if form == "cone":
        return m.add(drum((0, 0, top / 2), wide * 1.1, top / 2, taper=0.25, slot=slot, name="base"))
    column = m.add(drum((0, 0, top / 2), wide * 0.5, top / 2, taper=draws.uniform(0.8, 1.3), slot=slot, name="base"))
    m.add(drum((0, 0, 0.025), wide * 1.15, 0.025, slot=slot))
    return column


def _tripod(m: Model, draws: Draws, rim: float, slot: str) -> Part:
    """Three legs; returns the one that points forward."""
    spread, top = draws.uniform(0.18, 0.28), rim * 0.95
    legs = []
    for angle in (0.0, 120.0, 240.0):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        legs.append(m.add(rod((spread * c, spread * s, 0.0), (0.02 * c, 0.02 * s, top), 0.024, slot=slot)))
    m.mark("pole middle", legs[0], (1, 0, 0.2))
    return legs[0]


def _desk_lamp(m: Model, draws: Draws) -> None:
    """Base, two arms that meet in an elbow behind it, and a shade that looks forward and down, with its bulb."""
    metal = draws.choice(("second", "second", "dark"))
    base = m.add(drum((0, 0, 0.035), draws.uniform(0.17, 0.25), 0.035, taper=0.8, name="base"))
    elbow = (-draws.uniform(0.1, 0.32), 0.0, draws.uniform(0.42, 0.62))
    head = (draws.uniform(0.12, 0.36), 0.0, draws.uniform(0.72, 0.9))
    thick = draws.uniform(0.024, 0.034)
    lower = m.add(rod((0, 0, 0.05), elbow, thick, slot=metal, name="lower arm"))
    upper = m.add(rod(elbow, head, thick, slot=metal, name="upper arm"))
    joint = m.add(ball(elbow, thick * 1.8, slot="accent", name="elbow"))
    tilt, half_height = draws.uniform(20, 55), draws.uniform(0.11, 0.16)
    sin, cos = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    rim = (head[0] + half_height * sin + 0.06 * cos, 0.0, head[2] - half_height * cos + 0.06 * sin)
    radius = half_height * draws.uniform(1.25, 1.7)
    _shade(m, draws, rim, radius, half_height, tilt)
    bulb = (rim[0] - 0.25 * half_height * sin, 0.0, rim[2] + 0.25 * half_height * cos)
    m.add(ball(bulb, radius * 0.42, slot="accent", name="bulb"))
    m.mark("pole middle", lower, (1, 0, 0.1))
    m.mark("pole top", upper, (1, 0, 0.5))
    m.mark("elbow", joint, (-1, 0, 0))
    m.mark("base front", base, (1, 0, -0.9))
    m.mark("base rear", base, (-1, 0, -0.9))


def _arc_lamp(m: Model, draws: Draws) -> None:
    """A base behind, a pole that bends forward in two steps, and a shade that hangs from its end."""
    metal = draws.choice(("second", "dark"))
    reach, thick = draws.uniform(0.36, 0.6), draws.uniform(0.024, 0.034)
    base = m.add(drum((0, 0, 0.035), draws.uniform(0.14, 0.2), 0.035, name="base"))
    bend, crown = (0.0, 0.0, draws.uniform(0.6, 0.75)), (reach * 0.38, 0.0, 0.97)
    end = (reach, 0.0, draws.uniform(0.8, 0.92))
    pole = m.add(rod((0, 0, 0.05), bend, thick, slot=metal, name="pole"))
    m.add(rod(bend, crown, thick, slot=metal))
    last = m.add(rod(crown, end, thick, slot=metal))
    for joint in (bend, crown):
        m.add(ball(joint, thick, slot=metal))
    half_height = draws.uniform(0.09, 0.13)
    _shade(m, draws, (end[0], 0, end[2] - 2 * half_height + 0.02), half_height * draws.uniform(1.2, 1.8), half_height)
    m.mark("shade top", last, (1, 0, 0.75))
    m.mark("pole middle", pole, (1, 0, 0))
    m.mark("pole top", pole, (1, 0, 0.9))
    m.mark("elbow", last, (1, 0, -0.9))
    m.mark("base front", base, (1, 0, -0.9))
    m.mark("base rear", base, (-1, 0, -0.9))


BOOK = Category(
    name="book",
    plural="books",
    article="a",
    build=build_book,
    size=(0.5, 0.68),
    keypoints=BOOK_KEYPOINTS,
    small=True,
)
LAMP = Category(
    name="lamp",
    plural="lamps",
    article="a",
    build=build_lamp,
    size=(0.7, 1.0),
    keypoints=LAMP_KEYPOINTS,
    small=True,
)
