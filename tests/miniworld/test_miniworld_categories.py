"""Members of the category families: standing, keypoints on surfaces, slots, supports, variety, purity, visible colour.

The oracle is an implicit function per primitive, written from the words of `Part` and not from the package's helpers.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from mtv.draws import Draws
from mtv.errors import UsageError
from mtv.miniworld.categories import CATALOGUE, Category, build_shape
from mtv.miniworld.categories.solids import ball, box, drum, on_surface, plank, ring, rod, span
from mtv.miniworld.materials import Material
from mtv.miniworld.render import render
from mtv.miniworld.scene import Camera, Instance, Light, Scene, Sensor, Sky
from mtv.miniworld.shapes import Part, Shape, turn
from mtv.miniworld.vocabulary import CATEGORIES

MEMBERS = 200
SLOTS = ("main", "second", "accent", "dark")
every_category = pytest.mark.parametrize("name", CATEGORIES)


@cache
def family(name: str) -> tuple[Shape, ...]:
    """The first members of a category."""
    return tuple(build_shape(name, Draws(11, "categories", name, i)) for i in range(MEMBERS))


def implicit(part: Part, points_N3: np.ndarray) -> np.ndarray:
    """Negative inside, zero on the surface, positive outside; in units of the half extents."""
    own = (points_N3 - np.array(part.centre)) @ np.array(part.rotation) / np.array(part.half)
    x, y, z = np.moveaxis(own, -1, 0)
    flat = np.hypot(x, y)
    if part.kind == "box":
        return np.abs(own).max(axis=-1) - 1
    if part.kind == "ellipsoid":
        return np.sqrt((own**2).sum(axis=-1)) - 1
    if part.kind == "frustum":
        low, high = 1.0, part.taper
        return np.maximum(np.abs(z) - 1, flat - (low + (high - low) * (z + 1) / 2))
    middle, tube = 1 / (1 + part.tube), part.tube / (1 + part.tube)
    return np.hypot(flat - middle, z) - tube


def surface_points(part: Part, fine: int = 8) -> np.ndarray:
    """float64 [N,3]: many points on the surface, object frame."""
    u, v = (g.ravel() for g in np.meshgrid(np.linspace(0, 2 * np.pi, 3 * fine + 1), np.linspace(-1, 1, fine + 1)))
    if part.kind == "box":
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 3)] * 3), axis=-1).reshape(-1, 3)
        own = grid[np.abs(grid).max(axis=1) == 1]
    elif part.kind == "ellipsoid":
        own = np.stack([np.cos(u) * np.sqrt(1 - v**2), np.sin(u) * np.sqrt(1 - v**2), v], axis=-1)
    elif part.kind == "frustum":
        radius = 1 + (part.taper - 1) * (v + 1) / 2
        own = np.stack([radius * np.cos(u), radius * np.sin(u), v], axis=-1)
    else:
        middle, tube = 1 / (1 + part.tube), part.tube / (1 + part.tube)
        around = middle + tube * np.cos(np.pi * v)
        own = np.stack([around * np.cos(u), around * np.sin(u), tube * np.sin(np.pi * v)], axis=-1)
    return (own * np.array(part.half)) @ np.array(part.rotation).T + np.array(part.centre)


SAMPLES = (
    box((0.1, -0.2, 0.3), (0.5, 0.2, 0.1), rotation=turn(x=20, y=30, z=40)),
    ball((0.1, -0.2, 0.3), (0.5, 0.2, 0.1), rotation=turn(x=20, y=30, z=40)),
    drum((0.1, -0.2, 0.3), (0.5, 0.2), 0.4, taper=0.3, rotation=turn(x=20, y=30, z=40)),
    drum((0.1, -0.2, 0.3), 0.1, 0.4, taper=2.5, rotation=turn(x=70)),
    rod((0, 0, 0), (0.3, 0.4, 0.5), (0.2, 0.1), taper=0.0),
    rod((0, 0, 0), (-0.3, 0.0, 0.0), 0.1),
    plank((0, 0, 0), (0.3, -0.4, -0.5), (0.2, 0.1)),
    ring((0.1, -0.2, 0.3), (0.5, 0.3, 0.4), 0.4, rotation=turn(x=20, y=30, z=40)),
)


@pytest.mark.parametrize("part", SAMPLES)
def test_on_surface_lies_on_the_surface(part: Part) -> None:
    draws = Draws(3, part.kind)
    for _ in range(200):
        direction = (draws.normal(), draws.normal(), draws.normal())
        assert abs(implicit(part, np.array(on_surface(part, direction)))) < 1e-9


@pytest.mark.parametrize("part", SAMPLES)
def test_span_is_the_exact_extent(part: Part) -> None:
    points = surface_points(part, 64)
    for axis in range(3):
        low, high = span(part, axis)
        assert low <= points[:, axis].min() + 1e-9
        assert high >= points[:, axis].max() - 1e-9
        assert low == pytest.approx(points[:, axis].min(), abs=1e-3)
        assert high == pytest.approx(points[:, axis].max(), abs=1e-3)


@pytest.mark.parametrize(("start", "end"), [((0, 0, 0), (0, 0, 1)), ((0, 1, 0), (1, -1, 3)), ((2, 0, 0), (-1, 0, 0))])
def test_rods_and_planks_join_their_ends_with_right_handed_axes(start: tuple, end: tuple) -> None:
    for part in (rod(start, end, 0.1), plank(start, end, (0.1, 0.2))):
        rotation = np.array(part.rotation)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert on_surface(part, (0, 0, -1)) == pytest.approx(start)
        assert on_surface(part, (0, 0, 1)) == pytest.approx(end)


def test_the_catalogue_holds_every_category_in_order() -> None:
    assert tuple(CATALOGUE) == CATEGORIES
    for name, category in CATALOGUE.items():
        assert isinstance(category, Category)
        assert category.name == name
        assert 0.4 <= category.size[0] < category.size[1] <= 1.6
    with pytest.raises(UsageError, match="unknown category 'dogg'"):
        build_shape("dogg", Draws(0))


@every_category
def test_members_stand_on_the_ground_with_longest_side_one(name: str) -> None:
    for shape in family(name):
        assert min(span(p, 2)[0] for p in shape.parts) == pytest.approx(0, abs=1e-6)
        spans = np.array([[span(p, axis) for axis in range(3)] for p in shape.parts])
        assert (spans[..., 1].max(axis=0) - spans[..., 0].min(axis=0)).max() == pytest.approx(1)
    for shape in family(name)[:12]:
        points = np.concatenate([surface_points(p, 16) for p in shape.parts])
        assert points[:, 2].min() >= -1e-6
        assert points[:, 2].min() < 0.01
        low, high = points.min(axis=0), points.max(axis=0)
        assert (high - low).max() == pytest.approx(1, abs=0.01)
        assert np.abs((low + high)[:2]).max() < 0.02


@every_category
def test_members_are_well_formed(name: str) -> None:
    category = CATALOGUE[name]
    counts = [len(s.parts) for s in family(name)]
    assert min(counts) >= 3
    assert max(counts) <= 18
    assert np.median(counts) <= 15
    for shape in family(name):
        assert {p.slot for p in shape.parts} <= set(SLOTS)
        assert any(p.slot == "main" for p in shape.parts)
        assert tuple(k for k, _ in shape.keypoints) == category.keypoints
        assert sum(p is not None for _, p in shape.keypoints) >= 4
        assert len(set(shape.traits)) == len(shape.traits)
        assert bool(shape.supports) <= category.seat
        rotations = np.array([p.rotation for p in shape.parts])
        assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9


@every_category
def test_keypoints_lie_on_a_part_and_seldom_inside_another(name: str) -> None:
    inside: dict[str, int] = {}
    for shape in family(name):
        names = [k for k, p in shape.keypoints if p is not None]
        points = np.array([p for _, p in shape.keypoints if p is not None])
        values = np.stack([implicit(p, points) for p in shape.parts])
        assert np.abs(values).min(axis=0).max() < 1e-6
        solid = np.array([not p.open for p in shape.parts])
        for k in np.flatnonzero((values[solid] < -0.03).any(axis=0)):
            inside[names[k]] = inside.get(names[k], 0) + 1
    assert max(inside.values(), default=0) <= 0.1 * MEMBERS, inside


@every_category
def test_keypoints_are_seen_from_some_ordinary_view(name: str) -> None:
    hidden: dict[str, int] = {}
    members = family(name)[:12]
    angles = [(a, p) for a in range(0, 360, 30) for p in (8, 35)]
    azimuth, pitch = np.radians(np.array(angles)).T
    towards_V3 = np.stack([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), np.sin(pitch)], axis=-1)
    steps = 0.004 + np.linspace(0, 1, 40) ** 1.5 * 1.2
    for shape in members:
        present = [(k, p) for k, p in shape.keypoints if p is not None]
        points = np.array([p for _, p in present])
        rays = points[:, None, None] + steps[:, None] * towards_V3[:, None]
        blocked = np.zeros(rays.shape[:2], bool)
        for part in shape.parts:
            if not part.open:
                blocked |= (implicit(part, rays) < -0.01).any(axis=-1)
        for k in np.flatnonzero(blocked.all(axis=1)):
            hidden[present[k][0]] = hidden.get(present[k][0], 0) + 1
    assert max(hidden.values(), default=0) <= 0.17 * len(members), hidden


@pytest.mark.parametrize("name", [n for n, c in CATALOGUE.items() if c.seat])
def test_supports_are_flat_and_free(name: str) -> None:
    shapes = [s for s in family(name) if s.supports]
    assert len(shapes) > 0.6 * MEMBERS
    for shape in shapes[:40]:
        for support in shape.supports:
            assert support.x[1] - support.x[0] > 0.1
            assert support.y[1] - support.y[0] > 0.1
            x, y = (g.ravel() for g in np.meshgrid(np.linspace(*support.x, 7), np.linspace(*support.y, 7)))
            below = np.stack([x, y, np.full_like(x, support.height - 2e-3)], axis=-1)
            assert (np.min([implicit(p, below) for p in shape.parts], axis=0) < 0).all()
            for rise in (2e-3, 0.02, 0.08, 0.2, 0.5):
                above = np.stack([x, y, np.full_like(x, support.height + rise)], axis=-1)
                assert np.min([implicit(p, above) for p in shape.parts]) > 0, (name, support, rise)


@every_category
def test_families_vary_in_structure_and_proportion(name: str) -> None:
    shapes = family(name)
    structures = {tuple((p.kind, p.slot) for p in s.parts) for s in shapes}
    kinds = {tuple(sorted(p.kind for p in s.parts)) for s in shapes}
    assert len(structures) >= 15
    assert len(kinds) >= 6
    sizes = np.array([np.subtract(*s.bounds[::-1]) for s in shapes])
    spread = np.percentile(sizes, 95, axis=0) / np.percentile(sizes, 5, axis=0)
    assert spread.max() > 1.25
    assert len({round(float(v), 9) for v in sizes[:, :].min(axis=1)}) > 0.9 * MEMBERS


@every_category
def test_members_are_pure_functions_of_their_key(name: str) -> None:
    key = (11, "categories", name, 7)
    first, again = build_shape(name, Draws(*key)), build_shape(name, Draws(*key))
    assert first == again == family(name)[7]
    assert first != build_shape(name, Draws(12, *key[1:]))


GREY = Material(colour="grey", pigment=(0.5, 0.5, 0.5), second_colour="grey", second_pigment=(0.5, 0.5, 0.5))
LIGHT = Light(direction=(0.0, 0.0, 1.0), strength=(1, 1, 1), ambient_up=(0, 0, 0), ambient_down=(0, 0, 0), softness=0.0)
SKY = Sky(zenith=(0, 0, 0), horizon=(0, 0, 0), clouds=0.0, phase=0.0)
SENSOR = Sensor(exposure=1.0, balance=(1, 1, 1), blur=0.0, noise=0.0, seed=0)


def slot_scene(shape: Shape, *, azimuth: float, pitch: float) -> tuple[list[str], Scene]:
    """The slots in use, and a scene with one instance per slot, so that masks tell the slots apart."""
    slots = [s for s in SLOTS if any(p.slot == s for p in shape.parts)]
    instances = tuple(
        Instance(
            name="robot",
            shape=Shape(parts=tuple(p for p in shape.parts if p.slot == slot)),
            scale=1.0,
            rotation=turn(z=azimuth),
            position=(0.0, 0.0, 0.0),
            materials={slot: GREY},
        )
        for slot in slots
    )
    sin, cos = math.sin(math.radians(pitch)), math.cos(math.radians(pitch))
    camera = Camera(
        width=48,
        height=48,
        focal=130.0,
        rotation=((0.0, 1.0, 0.0), (-sin, 0.0, -cos), (-cos, 0.0, -sin)),
        position=(4 * cos, 0.0, 0.4 + 4 * sin),
    )
    scene = Scene(
        id="slots/0",
        setting="nowhere",
        phrase="nowhere",
        outdoor=True,
        instances=instances,
        surfaces=(),
        light=LIGHT,
        sky=SKY,
        camera=camera,
        sensor=SENSOR,
    )
    return slots, scene


@every_category
def test_main_covers_the_largest_visible_area(name: str) -> None:
    draws = Draws(4, name)
    views = [
        slot_scene(shape, azimuth=draws.uniform(0, 360), pitch=draws.uniform(5, 40)) for shape in family(name)[:20]
    ]
    frames = render([scene for _, scene in views])
    largest = 0
    for (slots, _), frame in zip(views, frames, strict=True):
        pixels = {slot: seen.pixels for slot, seen in zip(slots, frame.seen, strict=True)}
        largest += pixels["main"] == max(pixels.values())
    assert largest >= 0.7 * len(views)
