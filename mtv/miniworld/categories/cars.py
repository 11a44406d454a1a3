"""Cars: the family reaches from the open two-seater to the bus."""

from __future__ import annotations

from mtv.draws import Draws
from mtv.miniworld.categories.category import Category
from mtv.miniworld.categories.solids import SIDES, Model, ball, box, drum, on_surface, plank, wheel
from mtv.miniworld.shapes import Part, Shape, Vec3, turn

CAR_KEYPOINTS = (
    "front left wheel",
    "front right wheel",
    "rear left wheel",
    "rear right wheel",
    "left headlight",
    "right headlight",
    "front middle",
    "tail middle",
    "roof front left",
    "roof front right",
    "roof rear left",
    "roof rear right",
)
_FORMS = ("sedan", "hatchback", "pickup", "van", "bus", "truck", "open")
_WEIGHTS = (0.22, 0.18, 0.13, 0.13, 0.11, 0.12, 0.11)


def build_car(draws: Draws) -> Shape:
    """Four wheels under a sedan, hatchback, pickup, van, bus, truck or open car, 1 long along x before normalising."""
    m = Model(CAR_KEYPOINTS)
    form = draws.choice(_FORMS, _WEIGHTS)
    wide = draws.uniform(0.19, 0.24)
    radius = draws.uniform(0.08, 0.115)
    low = radius * draws.uniform(0.6, 0.9)
    hood = low + draws.uniform(0.12, 0.16)
    glass = draws.choice(("second", "dark"))
    if form in ("sedan", "hatchback", "open"):
        _low_body(m, draws, wide, low, hood)
    if form in ("sedan", "hatchback"):
        rear = draws.uniform(-0.34, -0.24) if form == "sedan" else -0.46
        _greenhouse(m, draws, rear, draws.uniform(0.1, 0.24), wide, hood, glass)
    elif form == "open":
        _open_top(m, draws, wide, hood, glass)
    elif form == "pickup":
        _pickup(m, draws, wide, low, hood, glass)
    elif form == "truck":
        _truck(m, draws, wide, low, glass)
    else:
        _tall_body(m, draws, form, wide, low, glass)
    _wheels(m, draws, wide, radius, 0.34 if form in ("bus", "truck") else 0.3)
    return m.shape()


def _wheels(m: Model, draws: Draws, wide: float, radius: float, base: float) -> None:
    half_width = draws.uniform(0.028, 0.04)
    front, rear = base + draws.uniform(-0.04, 0.04), -base + draws.uniform(-0.04, 0.04)
    for name, side in SIDES:
        for end, x in (("front", front), ("rear", rear)):
            centre = (x, side * (wide - half_width + 0.02), radius)
            m.mark(f"{end} {name} wheel", m.add(wheel(centre, radius, half_width, side, slot="dark")), (0, 0, 1))


def _lights(m: Model, spots: dict[str, Vec3], size: float) -> None:
    for name, spot in spots.items():
        m.mark(f"{name} headlight", m.add(ball(spot, size, slot="accent")), (1, 0, 0.2))


def _front(m: Model, nose: Part, wide: float, height: float) -> None:
    """Lights and the front keypoint on a flat nose."""
    m.mark("front middle", nose, (1, 0, 0))
    x = nose.centre[0] + nose.half[0]
    _lights(m, {name: (x, side * wide * 0.72, height) for name, side in SIDES}, 0.032)


def _low_body(m: Model, draws: Draws, wide: float, low: float, hood: float) -> None:
    """A cuboid, or one with a round nose and tail."""
    middle, half = (low + hood) / 2, (hood - low) / 2
    if draws.chance(0.45):
        body = m.add(box((0, 0, middle), (0.5, wide, half), name="body"))
        m.mark("tail middle", body, (-1, 0, 0))
        _front(m, body, wide, middle + 0.25 * half)
        return
    curve = draws.uniform(0.08, 0.16)
    m.add(box((0, 0, middle), (0.5 - curve, wide, half), name="body"))
    ends = [
        m.add(drum((x, 0, middle), (curve, half), wide, rotation=turn(x=90), name="body"))
        for x in (0.5 - curve, curve - 0.5)
    ]
    m.mark("front middle", ends[0], (1, 0, 0))
    m.mark("tail middle", ends[1], (-1, 0, 0))
    _lights(m, {name: on_surface(ends[0], (0.9, 0.35, -0.66 * side)) for name, side in SIDES}, 0.034)


def _greenhouse(m: Model, draws: Draws, rear: float, front: float, wide: float, base: float, glass: str) -> None:
    """The cabin from `rear` to `front` on the height `base`: a roof on windows all around, or a dome."""
    middle, half = (rear + front) / 2, (front - rear) / 2
    if draws.chance(0.4):
        top = _dome(m, draws, middle, half, wide, base, glass)
    else:
        rise, thick = draws.uniform(0.09, 0.13), draws.uniform(0.014, 0.022)
        m.add(box((middle, 0, base + rise / 2), (half * 0.9, wide * 0.88, rise / 2), slot=glass))
        slope = min(0.1, half * 0.5)
        m.add(plank((front, 0, base), (front - slope, 0, base + rise), (0.015, wide * 0.84), slot=glass))
        size = (half - slope / 2, wide * 0.92, thick)
        roof = m.add(box((middle - slope / 2, 0, base + rise + thick), size, name="roof"))
        _mark_roof(m, roof)
        middle, top = middle - slope / 2, base + rise + 2 * thick
    extra = draws.choice(("", "luggage on its roof", "a roof sign"), (0.7, 0.17, 0.13))
    if extra:
        size = (half * 0.4, wide * 0.5, 0.03) if extra.startswith("luggage") else (0.03, wide * 0.4, 0.03)
        m.add(box((middle, 0, top + 0.02), size, slot="accent"), trait=extra)


def _dome(m: Model, draws: Draws, middle: float, half: float, wide: float, base: float, glass: str) -> float:
    """A roof line like an arch with windows in its sides, front and rear; returns its height."""
    rise = draws.uniform(0.14, 0.18)
    across = turn(x=90)
    shell = m.add(drum((middle, 0, base), (half, rise), wide * 0.9, rotation=across, name="roof"))
    m.add(drum((middle, 0, base + 0.01), (half * 0.76, rise * 0.72), wide * 0.92, slot=glass, rotation=across))
    m.add(drum((middle, 0, base), (half * 1.05, rise * 0.86), wide * 0.76, slot=glass, rotation=across))
    for name, side in SIDES:
        m.mark(f"roof front {name}", shell, (0.5, 0.87, -side))
        m.mark(f"roof rear {name}", shell, (-0.5, 0.87, -side))
    return base + rise


def _mark_roof(m: Model, roof: Part) -> None:
    for name, side in SIDES:
        m.mark(f"roof front {name}", roof, (1, side, 1))
        m.mark(f"roof rear {name}", roof, (-1, side, 1))


def _open_top(m: Model, draws: Draws, wide: float, hood: float, glass: str) -> None:
    x = draws.uniform(0.08, 0.16)
    m.add(plank((x, 0, hood - 0.02), (x - 0.06, 0, hood + 0.1), (0.012, wide * 0.88), slot=glass))
    m.add(box((-0.1, 0, hood), (0.16, wide * 0.82, 0.004), slot="dark"))
    for _, side in SIDES:
        back = (-0.2, side * wide * 0.42)
        m.add(plank((*back, hood - 0.02), (back[0] - 0.03, back[1], hood + 0.09), (0.025, wide * 0.3), slot="accent"))
    m.trait("an open top")


def _pickup(m: Model, draws: Draws, wide: float, low: float, hood: float, glass: str) -> None:
    rear = draws.uniform(-0.12, 0.0)
    middle, half = (low + hood) / 2, (hood - low) / 2
    nose = m.add(box(((0.5 + rear) / 2, 0, middle), ((0.5 - rear) / 2, wide, half), name="body"))
    _front(m, nose, wide, middle + 0.25 * half)
    bed_half = (rear + 0.5) / 2
    m.add(box((rear - bed_half, 0, low + half * 0.6), (bed_half, wide * 0.98, half * 0.6), slot="main"))
    for _, side in SIDES:
        m.add(box((rear - bed_half, side * (wide - 0.012), middle), (bed_half, 0.012, half)))
    gate = m.add(box((-0.49, 0, middle), (0.012, wide, half)))
    m.mark("tail middle", gate, (-1, 0, 0))
    _greenhouse(m, draws, rear + 0.01, rear + draws.uniform(0.26, 0.32), wide, hood, glass)
    if draws.chance(0.4):
        cargo = (bed_half * 0.6, wide * 0.6, half * 0.5)
        m.add(box((rear - bed_half, 0, hood), cargo, slot="accent"), trait="a load on its back")


def _tall_body(m: Model, draws: Draws, form: str, wide: float, low: float, glass: str) -> None:
    """Vans, with a short hood and a slanted windscreen, and buses, with windows all along."""
    top = low + (draws.uniform(0.28, 0.36) if form == "van" else draws.uniform(0.3, 0.38))
    front = draws.uniform(0.3, 0.37) if form == "van" else 0.5
    half = (top - low) / 2
    size = ((front + 0.5) / 2, wide, half)
    body = m.add(box((front - size[0], 0, low + half), size, name="body"))
    m.mark("tail middle", body, (-1, 0, 0))
    _mark_roof(m, body)
    if form == "van":
        rise = half * draws.uniform(0.95, 1.15)
        hood = m.add(box(((0.5 + front) / 2, 0, low + rise / 2), ((0.5 - front) / 2, wide, rise / 2), name="hood"))
        _front(m, hood, wide, low + rise * 0.55)
        m.add(plank((0.44, 0, low + rise), (front, 0, top - 0.03), (0.02, wide * 0.9), slot=glass))
        x, length = front - 0.12, 0.1
    else:
        _front(m, body, wide, low + half * 0.4)
        x, length = 0.0, 0.505
    m.add(box((x, 0, top - half * 0.6), (length, wide * 1.012, half * 0.36), slot=glass))
    if form == "bus" and draws.chance(0.5):
        m.add(box((0, 0, low + half * 0.62), (0.503, wide * 1.01, half * 0.12), slot="accent"), trait="a side stripe")


def _truck(m: Model, draws: Draws, wide: float, low: float, glass: str) -> None:
    rear = draws.uniform(0.14, 0.24)
    cab_top = low + draws.uniform(0.24, 0.3)
    half = (cab_top - low) / 2
    slot = draws.choice(("main", "second"))
    middle = (0.5 + rear) / 2
    cab = m.add(box((middle, 0, low + half), ((0.5 - rear) / 2, wide * 0.95, half), slot=slot, name="cab"))
    m.add(
        box(
            (middle + 0.02, 0, cab_top - half * 0.55), ((0.5 - rear) / 2 - 0.012, wide * 0.965, half * 0.35), slot=glass
        )
    )
    _front(m, cab, wide * 0.9, low + half * 0.45)
    _mark_roof(m, cab)
    m.add(box((-0.1, 0, low + 0.02), (0.38, wide * 0.7, 0.025), slot="dark"))
    end = rear - 0.03
    tall = draws.uniform(0.14, 0.2)
    size = ((end + 0.5) / 2, wide * 1.02, tall)
    cargo = m.add(box((end - size[0], 0, low + 0.05 + tall), size, name="cargo box"))
    m.mark("tail middle", cargo, (-1, 0, 0))
    m.trait("a cargo box")


CAR = Category(
    name="car",
    plural="cars",
    article="a",
    build=build_car,
    size=(1.05, 1.35),
    keypoints=CAR_KEYPOINTS,
)
