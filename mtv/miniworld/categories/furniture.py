"""Tables and beds."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, box, drum, four_legs, plank, rod
from mtv.miniworld.shapes import Part, Shape, turn

TABLE_KEYPOINTS = (
    "front left corner",
    "front edge middle",
    "front right corner",
    "rear left corner",
    "rear edge middle",
    "rear right corner",
    "drawer knob",
    "front left foot",
    "front right foot",
    "rear left foot",
    "rear right foot",
)
_BED_SLOTS = (
    ("main", "main", "accent"),
    ("second", "main", "accent"),
    ("main", "second", "main"),
    ("main", "main", "dark"),
)
"""Slots of the frame, the blanket and the mattress."""
_BED_WEIGHTS = (0.3, 0.22, 0.24, 0.24)
BED_KEYPOINTS = (
    "headboard top left",
    "headboard top right",
    "left pillow end",
    "right pillow end",
    "blanket fold left",
    "blanket fold right",
    "foot end left corner",
    "foot end right corner",
    "foot end left leg",
    "foot end right leg",
)


def build_table(draws: Draws) -> Shape:
    """A square-cut or oval top on legs, trestles or a column; a knob on a drawer or cabinet shows the front."""
    m = Model(TABLE_KEYPOINTS)
    oval = draws.chance(0.28)
    wide = 0.5
    deep = draws.uniform(0.3, 0.48) if oval else draws.uniform(0.24, 0.42)
    height = draws.uniform(0.3, 0.42) if draws.chance(0.3) else draws.uniform(0.48, 0.76)
    thick = draws.uniform(0.018, 0.035)
    middle = (0.0, 0.0, height - thick)
    top = m.add(drum(middle, (deep, wide), thick, name="top") if oval else box(middle, (deep, wide, thick), name="top"))
    for end, x in (("front", 1.0), ("rear", -1.0)):
        m.mark(f"{end} edge middle", top, (x, 0, 1))
        for name, side in SIDES:
            m.mark(f"{end} {name} corner", top, (x, side, 1))
    inner = 0.68 if oval else 0.94
    m.support(height, (-inner * deep, inner * deep), (-inner * wide, inner * wide))
    under = height - 2 * thick
    form = _table_base(m, draws, under, deep * (0.66 if oval else 1), wide * (0.66 if oval else 1))
    cabinet = not oval and form == "legs" and height > 0.48 and draws.chance(0.3)
    _drawer(m, draws, deep, wide, under, cabinet=cabinet)
    if not oval and not cabinet and form == "legs" and draws.chance(0.35):
        low = height * draws.uniform(0.18, 0.35)
        m.add(
            box((0, 0, low), (deep * 0.88, wide * 0.9, 0.016), slot=draws.choice(("main", "second"))), trait="a shelf"
        )
    return m.shape()


def _table_base(m: Model, draws: Draws, top: float, deep: float, wide: float) -> str:
    """What carries the top; returns its form."""
    slot = draws.choice(("main", "second", "second", "dark"))
    form = draws.choice(("legs", "splayed", "trestles", "column", "crossed"), (0.4, 0.18, 0.14, 0.14, 0.14))
    thick = draws.uniform(0.022, 0.038)
    if form in ("legs", "splayed"):
        spread = draws.uniform(1.05, 1.2) if form == "splayed" else 1.0
        inset = 0.94 - thick / wide if form == "legs" else 0.8
        square = draws.chance(0.5)
        four_legs(m, top, deep * inset, wide * inset, thick, spread=spread, square=square, slot=slot)
    elif form == "column":
        m.add(rod((0, 0, 0.03), (0, 0, top), draws.uniform(0.05, 0.08), slot=slot))
        m.add(drum((0, 0, 0.03), (deep * 0.6, wide * 0.55), 0.03, taper=0.8))
    else:
        for name, side in SIDES:
            y = side * wide * 0.82
            if form == "trestles":
                leg = m.add(box((0, y, top / 2), (deep * 0.8, thick * 0.8, top / 2)))
                m.mark(f"front {name} foot", leg, (1, side, -0.9))
                m.mark(f"rear {name} foot", leg, (-1, side, -0.9))
                continue
            for end, x in (("front", deep * 0.85), ("rear", -deep * 0.85)):
                beam = m.add(plank((x, y, thick), (-x, y, top), (thick, thick), slot=slot))
                m.mark(f"{end} {name} foot", beam, (0, side, -0.9))
    return form


def _drawer(m: Model, draws: Draws, deep: float, wide: float, under: float, *, cabinet: bool) -> None:
    """A drawer below the middle of the front edge, or a cabinet that fills the left side, and its knob."""
    slot = draws.choice(("main", "second", "accent"))
    if cabinet:
        half, half_width, y = under * 0.42, wide * 0.3, wide * 0.62
        trait = "a cabinet on one side"
    else:
        half, half_width, y = draws.uniform(0.035, 0.055), wide * draws.uniform(0.26, 0.42), 0.0
        trait = "a drawer"
    reach = deep * draws.uniform(0.86, 0.93)
    m.add(box((reach / 2, y, under - half), (reach / 2, half_width, half), slot=slot, name="drawer"), trait=trait)
    knob = m.add(ball((reach + 0.008, y, under - half), draws.uniform(0.022, 0.032), slot="dark", name="knob"))
    m.mark("drawer knob", knob, (1, 0, 0))


def build_bed(draws: Draws) -> Shape:
    """Mattress, blanket and pillows before a headboard; sometimes a footboard or a canopy. The foot end is +x."""
    m = Model(BED_KEYPOINTS)
    wide = draws.uniform(0.2, 0.29) if draws.chance(0.45) else draws.uniform(0.32, 0.42)
    legs = draws.uniform(0.04, 0.12)
    frame = legs + draws.uniform(0.035, 0.06)
    top = frame + draws.uniform(0.06, 0.1)
    slot, cover, sheet = draws.choice(_BED_SLOTS, _BED_WEIGHTS)
    m.add(box((0, 0, (legs + frame) / 2), (0.5, wide, (frame - legs) / 2), slot=slot, name="frame"))
    m.add(box((0, 0, (frame + top) / 2), (0.485, wide * 0.96, (top - frame) / 2), slot=sheet, name="mattress"))
    blanket = _blanket(m, draws, wide, frame, top, cover)
    _pillows(m, draws, wide, top)
    rise = top + draws.uniform(0.14, 0.28)
    canopy = draws.chance(0.16)
    foot = draws.uniform(0.02, 0.06) if draws.chance(0.45) and not canopy else 0.0
    _headboard(m, draws, wide, rise, slot, bars=0.0 if canopy else 0.25)
    if foot:
        m.add(box((0.52, 0, (top + foot) / 2), (0.02, wide, (top + foot) / 2), slot=slot), trait="a footboard")
    if canopy:
        _canopy(m, draws, wide, slot)
        return m.shape()
    m.support(blanket, (0.12, 0.46), (-wide * 0.95, wide * 0.95))
    for name, side in SIDES:
        leg = m.add(box((0.47, side * (wide - 0.03), legs / 2), (0.03, 0.03, legs / 2), slot=slot))
        m.mark(f"foot end {name} leg", leg, (0 if foot else 1, side, -0.8))
    return m.shape()


def _blanket(m: Model, draws: Draws, wide: float, frame: float, top: float, slot: str) -> float:
    """Covers the foot end; returns the height of its top."""
    start = draws.uniform(-0.26, -0.08) if slot == "main" else draws.uniform(-0.05, 0.06)
    low = frame - draws.uniform(0.0, 0.035)
    size = ((0.497 - start) / 2, wide * 1.02, (top + 0.02 - low) / 2)
    blanket = m.add(box((start + size[0], 0, low + size[2]), size, slot=slot, name="blanket"))
    for name, side in SIDES:
        m.mark(f"blanket fold {name}", blanket, (-1, side, 1))
        m.mark(f"foot end {name} corner", blanket, (1, side, 1))
    if draws.chance(0.5):
        m.add(box((start, 0, top + 0.012), (0.045, wide * 1.025, 0.02), slot="accent"))
    return top + 0.02


def _pillows(m: Model, draws: Draws, wide: float, top: float) -> None:
    slot = draws.choice(("second", "accent", "main", "dark"))
    count = 2 if wide > 0.3 else 1
    puffy = draws.chance(0.6)
    deep = draws.uniform(0.08, 0.11)
    half = wide * (0.78 if count == 1 else 0.42)
    for name, side in SIDES if count == 2 else (("", 0.0),):
        centre = (-0.46 + deep, side * wide * 0.47, top + 0.025)
        if puffy:
            pillow = ball(centre, (deep, half, 0.06), slot=slot, name="pillow")
        else:
            pillow = box(centre, (deep, half, 0.035), slot=slot, name="pillow", rotation=turn(y=8))
        m.add(pillow)
        for other, direction in SIDES:
            if name in ("", other):
                m.mark(f"{other} pillow end", pillow, (0, direction, 0.3))


def _headboard(m: Model, draws: Draws, wide: float, rise: float, slot: str, *, bars: float) -> None:
    form = draws.choice(("board", "arch", "bars"), (0.5, 0.25, bars))
    x, thick = -0.52, draws.uniform(0.018, 0.03)
    board: Part
    if form == "bars":
        for _, side in SIDES:
            m.add(box((x, side * (wide - thick), rise / 2), (thick, thick, rise / 2), slot=slot))
        for k in range(3):
            m.add(box((x, wide * 0.45 * (k - 1), rise * 0.5), (thick * 0.6, thick, rise * 0.46), slot=slot))
        board = m.add(box((x, 0, rise - 0.02), (thick * 1.1, wide, 0.03), slot=slot, name="headboard"))
    else:
        flat = rise if form == "board" else rise * 0.8
        board = m.add(box((x, 0, flat / 2), (thick, wide, flat / 2), slot=slot, name="headboard"))
        if form == "arch":
            m.add(drum((x, 0, flat), (wide * 0.5, wide), thick, slot=slot, rotation=turn(y=90)))
    for name, side in SIDES:
        m.mark(f"headboard top {name}", board, (0, side, 1))


def _canopy(m: Model, draws: Draws, wide: float, slot: str) -> None:
    height = draws.uniform(0.62, 0.8)
    for x in (-0.49, 0.49):
        for name, side in SIDES:
            post = m.add(box((x, side * (wide - 0.02), height / 2), (0.02, 0.02, height / 2), slot=slot))
            if x > 0:
                m.mark(f"foot end {name} leg", post, (1, side, -0.95))
    if draws.chance(0.5):
        m.add(box((0, 0, height), (0.5, wide, 0.022), slot=slot), trait="a canopy")
    else:
        for _, side in SIDES:
            m.add(box((0, side * (wide - 0.02), height), (0.5, 0.025, 0.025), slot=slot))
        m.add(box((0.48, 0, height), (0.025, wide, 0.025), slot=slot), trait="four posts")


TABLE = Category(
    name="table",
    plural="tables",
    article="a",
    build=build_table,
    size=(0.95, 1.25),
    keypoints=TABLE_KEYPOINTS,
    seat=True,
)
BED = Category(
    name="bed",
    plural="beds",
    article="a",
    build=build_bed,
    size=(1.2, 1.5),
    keypoints=BED_KEYPOINTS,
    seat=True,
)
