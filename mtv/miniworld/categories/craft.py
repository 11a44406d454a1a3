"""Planes and boats."""

from __future__ import annotations

import math

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, beyond, box, drum, plank, rod, wheel
from mtv.miniworld.shapes import Part, Shape, Vec3, turn

PLANE_KEYPOINTS = (
    "nose",
    "cockpit",
    "left wing tip",
    "right wing tip",
    "left wing root",
    "right wing root",
    "left tailplane tip",
    "right tailplane tip",
    "tail fin top",
    "left engine",
    "right engine",
)
BOAT_KEYPOINTS = (
    "bow",
    "stern",
    "left gunwale",
    "right gunwale",
    "bow foot",
    "mast top",
    "sail corner",
    "cabin roof front left",
    "cabin roof front right",
    "cabin roof rear left",
    "cabin roof rear right",
    "funnel top",
)


def build_plane(draws: Draws) -> Shape:
    """Airliner, propeller plane, biplane, jet or glider: fuselage along x, two wings, tailplane and fin."""
    m = Model(PLANE_KEYPOINTS)
    form = draws.choice(("airliner", "propeller", "biplane", "jet", "glider"), (0.3, 0.25, 0.15, 0.18, 0.12))
    radius = draws.uniform(*{"airliner": (0.06, 0.085), "glider": (0.045, 0.06)}.get(form, (0.065, 0.09)))
    _fuselage(m, draws, form, radius)
    wing_z = _wings(m, draws, form, radius)
    _tail(m, draws, form, radius)
    if form == "airliner":
        _jet_engines(m, draws, radius)
    if form in ("propeller", "biplane"):
        _propeller(m, draws, crossed=form == "propeller" and draws.chance(0.4))
        _undercarriage(m, draws, radius)
    if form == "biplane":
        _upper_wing(m, draws, radius, wing_z)
    return m.shape()


def _fuselage(m: Model, draws: Draws, form: str, radius: float) -> None:
    if form in ("airliner", "biplane"):
        back, front = -0.2, 0.36 if form == "airliner" else 0.42
        m.add(rod((back, 0, 0), (front, 0, 0), radius, name="fuselage"))
        m.add(rod((back, 0, 0), (-0.5, 0, radius * 0.5), radius, taper=0.3, name="fuselage"))
        nose = m.add(ball((front, 0, 0), (0.5 - front + 0.02, radius, radius), name="nose"))
    else:
        nose = m.add(ball((0, 0, 0), (0.5, radius, radius * draws.uniform(1.0, 1.15)), name="fuselage"))
    m.mark("nose", nose, (1, 0, 0))
    glass = draws.choice(("dark", "second"))
    if form == "airliner":
        cockpit = m.add(ball((0.38, 0, radius * 0.5), (0.075, radius * 0.72, radius * 0.5), slot=glass))
        m.add(box((0.06, 0, radius * 0.25), (0.26, radius * 1.02, radius * 0.16), slot=glass))
    else:
        x = draws.uniform(0.1, 0.24)
        half = (draws.uniform(0.08, 0.13), radius * 0.62, radius * draws.uniform(0.6, 0.85))
        cockpit = m.add(ball((x, 0, radius * 0.75), half, slot=glass, name="cockpit"))
    m.mark("cockpit", cockpit, (0.2, 0, 1))


def _wings(m: Model, draws: Draws, form: str, radius: float) -> float:
    """The two (lower) wings; returns their height."""
    ranges = {
        "airliner": ((0.4, 0.54), (0.1, 0.14), (0.12, 0.28), (0.35, 0.6)),
        "propeller": ((0.4, 0.54), (0.09, 0.13), (0.0, 0.06), (0.7, 1.0)),
        "biplane": ((0.38, 0.48), (0.09, 0.12), (0.0, 0.03), (0.9, 1.0)),
        "jet": ((0.28, 0.38), (0.16, 0.24), (0.16, 0.3), (0.15, 0.4)),
        "glider": ((0.6, 0.75), (0.055, 0.08), (0.0, 0.06), (0.5, 0.8)),
    }
    span, chord, sweep, taper = (draws.uniform(*r) for r in ranges[form])
    z = -0.5 * radius if form in ("airliner", "biplane") else radius * draws.choice((-0.5, 0.0, 0.6))
    x, lift = draws.uniform(0.0, 0.1), draws.uniform(0.0, 0.06)
    thick = max(0.014, chord * 0.13)
    slot = "main" if form != "airliner" or draws.chance(0.75) else "second"
    for name, side in SIDES:
        tip = (x - sweep, side * span, z + lift)
        wing = m.add(rod((x, 0, z), tip, (chord, thick), taper=taper, slot=slot, name="wing"))
        m.mark(f"{name} wing tip", wing, (0, 0, 1))
        m.mark(f"{name} wing root", wing, (1, 0, -1 + 2.6 * radius / span))
    return z


def _tail(m: Model, draws: Draws, form: str, radius: float) -> None:
    slot = draws.choice(("main", "second", "accent"))
    height, chord = draws.uniform(0.13, 0.2), draws.uniform(0.05, 0.075)
    fin = m.add(rod((-0.42, 0, 0), (-0.49, 0, radius + height), (chord, 0.014), taper=0.6, slot=slot, name="fin"))
    m.mark("tail fin top", fin, (0, 0, 1))
    span = draws.uniform(0.15, 0.21)
    z = radius + height * 0.92 if form != "biplane" and draws.chance(0.2) else radius * 0.4
    for name, side in SIDES:
        tip = (-0.48, side * span, z)
        plane = m.add(rod((-0.44, 0, z), tip, (chord * 0.9, 0.014), taper=0.6, slot=slot, name="tailplane"))
        m.mark(f"{name} tailplane tip", plane, (0, 0, 1))


def _jet_engines(m: Model, draws: Draws, radius: float) -> None:
    """Under the wings, two or four, or two beside the tail."""
    slot = draws.choice(("second", "accent", "dark"))
    size, half = draws.uniform(0.032, 0.045), draws.uniform(0.06, 0.085)
    at_tail = draws.chance(0.25)
    pairs = [(-0.27, radius + size * 0.9, radius * 0.4) if at_tail else (0.1, 0.17, -0.5 * radius - size)]
    if not at_tail and draws.chance(0.35):
        pairs.append((0.03, 0.31, -0.35 * radius - size))
    for k, (x, y, z) in enumerate(pairs):
        for name, side in SIDES:
            engine = drum((x, side * y, z), size, half, taper=1.12, slot=slot, rotation=turn(y=90), name="engine")
            m.add(engine)
            if k == 0:
                m.mark(f"{name} engine", engine, (0, 0, 1))
    if len(pairs) == 2:
        m.trait("four engines")


def _propeller(m: Model, draws: Draws, *, crossed: bool) -> None:
    spinner = m.add(ball((0.5, 0, 0), (0.05, 0.028, 0.028), slot="accent"))
    m.mark("nose", spinner, (1, 0, 0))
    reach, angle = draws.uniform(0.13, 0.19), draws.uniform(0, 90)
    blade = (0.012, reach, 0.022)
    m.add(box((0.515, 0, 0), blade, rotation=turn(x=angle), slot="dark"), trait="a propeller")
    if crossed:
        m.add(box((0.515, 0, 0), blade, rotation=turn(x=angle + 90), slot="dark"))


def _undercarriage(m: Model, draws: Draws, radius: float) -> None:
    """Two wheels on a strut, or two floats."""
    down = radius + draws.uniform(0.05, 0.08)
    floats, apart = draws.chance(0.3), draws.uniform(0.09, 0.12)
    for _, side in SIDES:
        y = side * apart
        m.add(rod((0.1, 0, -radius * 0.6), (0.1, y, -down), 0.014, slot="second"))
        if floats:
            m.add(ball((0.06, y, -down - 0.02), (0.27, 0.035, 0.035), slot="accent"))
        else:
            m.add(wheel((0.1, y, -down), 0.045, 0.02, side, slot="dark"))
    if floats:
        m.trait("floats")


def _upper_wing(m: Model, draws: Draws, radius: float, low: float) -> None:
    span, z, x = draws.uniform(0.4, 0.48), radius + draws.uniform(0.09, 0.14), draws.uniform(0.06, 0.12)
    m.add(box((x, 0, z), (0.1, span, 0.014), name="wing"), trait="two pairs of wings")
    for _, side in SIDES:
        y = side * span * 0.7
        m.add(rod((x, y, low), (x, y, z), 0.014, slot="second"))


def build_boat(draws: Draws) -> Shape:
    """A hull along x with sails, a square sail, funnels, a motor boat's cabin, or oars."""
    m = Model(BOAT_KEYPOINTS)
    form = draws.choice(("sail", "square", "steamer", "motor", "rowing"), (0.32, 0.13, 0.25, 0.17, 0.13))
    beam, half = draws.uniform(0.13, 0.19), draws.uniform(0.065, 0.095)
    flare = draws.uniform(1.15, 1.45)
    is_open = form in ("square", "rowing")
    slot = "second" if form == "sail" and draws.chance(0.4) else "main"
    size = (0.5 / flare, beam / flare)
    hull = m.add(drum((0, 0, half), size, half, taper=flare, open=is_open, slot=slot, name="hull"))
    deck = 2 * half
    m.mark("stern", hull, (-1, 0, 1))
    m.mark("bow foot", hull, (1, 0, -0.9))
    for name, side in SIDES:
        m.mark(f"{name} gunwale", hull, (0, side, 1))
    tip = (0.5 + draws.uniform(0.02, 0.07), 0.0, deck + draws.uniform(0.03, 0.09 if form != "square" else 0.22))
    prow = m.add(rod((0.41, 0, half * 1.3), tip, (0.06, 0.032), taper=0.45, slot=slot, name="prow"))
    m.mark("bow", prow, (0, 0, 1))
    if not is_open:
        m.add(drum((0, 0, deck), (0.41, beam * 0.76), 0.008, slot=draws.choice(("main", "second", "accent"))))
    builders = {"sail": _sails, "square": _square_sail, "steamer": _steamer, "motor": _motor, "rowing": _oars}
    builders[form](m, draws, deck, beam)
    return m.shape()


def _mast(m: Model, x: float, deck: float, top: float) -> None:
    mast = m.add(rod((x, 0, deck * 0.3), (x, 0, top), 0.019, taper=0.8, slot="dark", name="mast"))
    m.mark("mast top", mast, (0, 0, 1))


def _sails(m: Model, draws: Draws, deck: float, beam: float) -> None:
    x, top = draws.uniform(-0.02, 0.12), deck + draws.uniform(0.6, 0.85)
    _mast(m, x, deck, top + 0.04)
    angle, yaw = draws.uniform(15, 22), draws.uniform(-28, 28)
    edge = top - deck - draws.uniform(0.06, 0.12)
    sail = m.add(_triangle((x - 0.02, 0.0, top), edge, angle, yaw, "main"))
    m.mark("sail corner", sail, (-1, 0, -1))
    if draws.chance(0.65):
        height = deck + (top - deck) * draws.uniform(0.7, 0.95)
        lean = math.degrees(math.atan2(0.46 - x, height - deck - 0.08)) / 2
        length = math.hypot(0.46 - x, height - deck - 0.08)
        slot = draws.choice(("main", "second", "accent"))
        m.add(_triangle((x + 0.02, 0.0, height), length, -lean, yaw * 0.3, slot), trait="two sails")
    if draws.chance(0.4):
        m.add(box((x - 0.2, 0, deck + 0.03), (0.12, beam * 0.55, 0.035), slot="accent"))


def _triangle(apex: Vec3, edge: float, angle: float, yaw: float, slot: str) -> Part:
    """A flat cone whose near edge hangs straight down from the apex, for `angle` > 0 reaching backwards, degrees."""
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    rotation = turn(y=angle, z=yaw)
    half = edge * cos / 2
    return drum(
        beyond(apex, rotation, (0, 0, -half)),
        (edge * abs(sin), 0.018),
        half,
        taper=0.0,
        slot=slot,
        name="sail",
        rotation=rotation,
    )


def _square_sail(m: Model, draws: Draws, deck: float, beam: float) -> None:
    top = deck + draws.uniform(0.55, 0.75)
    _mast(m, 0.0, deck, top + 0.08)
    half, wide, yaw = draws.uniform(0.17, 0.23), draws.uniform(0.22, 0.32), turn(z=draws.uniform(-30, 30))
    sail = m.add(box((0.03, 0, top - half), (0.018, wide, half), rotation=yaw, name="sail"), trait="a square sail")
    m.mark("sail corner", sail, (1, 1, -1))
    m.add(box((0.03, 0, top), (0.026, wide * 1.08, 0.024), rotation=yaw, slot="dark"))
    for x in (-0.25, 0.25):
        m.add(box((x, 0, deck * 0.7), (0.03, beam * 0.75, 0.012), slot="second"))
    post = m.add(rod((-0.42, 0, deck * 0.7), (-0.53, 0, deck + 0.14), (0.05, 0.03), taper=0.5))
    m.mark("stern", post, (0, 0, 1))


def _mark_cabin(m: Model, cabin: Part) -> None:
    for name, side in SIDES:
        m.mark(f"cabin roof front {name}", cabin, (1, side, 1))
        m.mark(f"cabin roof rear {name}", cabin, (-1, side, 1))


def _steamer(m: Model, draws: Draws, deck: float, beam: float) -> None:
    length, tall = draws.uniform(0.16, 0.28), draws.uniform(0.05, 0.075)
    x = draws.uniform(-0.12, 0.0)
    slot = draws.choice(("main", "second"))
    cabin = m.add(box((x, 0, deck + tall), (length, beam * 0.68, tall), slot=slot, name="cabin"))
    m.add(box((x, 0, deck + tall * 1.15), (length * 0.9, beam * 0.69, tall * 0.32), slot="dark"))
    _mark_cabin(m, cabin)
    roof = deck + 2 * tall
    bridge = x + length * draws.uniform(0.3, 0.6)
    m.add(box((bridge, 0, roof + 0.04), (length * 0.32, beam * 0.5, 0.045), slot="accent", name="bridge"))
    count = draws.integer(1, 3)
    tall_funnel, size = draws.uniform(0.1, 0.17), draws.uniform(0.04, 0.055)
    for k in range(count):
        foot = x - length * (0.15 + 0.5 * k)
        end = (foot - 0.03, 0.0, roof + tall_funnel)
        funnel = m.add(
            rod((foot, 0, roof - 0.01), end, size, slot="second" if slot == "main" else "main", name="funnel")
        )
        m.add(rod(end, (end[0] - 0.012, 0, end[2] + 0.04), size * 1.02, slot="dark"))
        if k == 0:
            m.mark("funnel top", funnel, (1, 0, 0.85))
    m.trait("two funnels" if count == 2 else "a funnel")
    if draws.chance(0.4):
        _mast(m, 0.32, deck, deck + draws.uniform(0.25, 0.4))


def _motor(m: Model, draws: Draws, deck: float, beam: float) -> None:
    length, tall = draws.uniform(0.12, 0.2), draws.uniform(0.05, 0.08)
    x = draws.uniform(0.0, 0.1)
    slot = draws.choice(("main", "second"))
    cabin = m.add(box((x, 0, deck + tall), (length, beam * 0.7, tall), slot=slot, name="cabin"))
    front = x + length
    m.add(plank((front + 0.07, 0, deck), (front - 0.01, 0, deck + 2 * tall), (0.02, beam * 0.62), slot="dark"))
    m.add(box((x, 0, deck + tall * 1.2), (length * 0.85, beam * 0.715, tall * 0.4), slot="dark"))
    _mark_cabin(m, cabin)
    m.add(box((-0.2, 0, deck + 0.035), (0.05, beam * 0.6, 0.035), slot="accent"))
    if draws.chance(0.7):
        motor = m.add(box((-0.5, 0, deck), (0.045, 0.05, 0.07), slot="dark"), trait="an outboard motor")
        m.mark("stern", motor, (-1, 0, 1))
    if draws.chance(0.5):
        m.add(rod((x - length * 0.6, 0, deck + 2 * tall), (x - length, 0, deck + 2 * tall + 0.2), 0.016, slot="accent"))


def _oars(m: Model, draws: Draws, deck: float, beam: float) -> None:
    for x in (-0.28, 0.0, 0.25)[: draws.integer(2, 4)]:
        width = beam * math.sqrt(1 - (x / 0.5) ** 2) * 0.95
        m.add(box((x, 0, deck * 0.75), (0.04, width, 0.014), slot="second"))
    x, reach, trail = draws.uniform(-0.22, -0.1), beam + draws.uniform(0.14, 0.24), draws.uniform(0.05, 0.15)
    for _, side in SIDES:
        end = (x - trail, side * reach, 0.06)
        m.add(rod((x, side * beam * 0.4, deck + 0.06), end, 0.018, slot="accent"))
        m.add(ball(end, (0.06, 0.035, 0.035), slot="accent"))
    m.trait("oars")


PLANE = Category(
    name="plane",
    plural="planes",
    article="a",
    build=build_plane,
    size=(1.05, 1.35),
    keypoints=PLANE_KEYPOINTS,
)
BOAT = Category(
    name="boat",
    plural="boats",
    article="a",
    build=build_boat,
    size=(1.05, 1.35),
    keypoints=BOAT_KEYPOINTS,
)
