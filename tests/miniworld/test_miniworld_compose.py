"""Scenes: pure functions of their request, physically possible, and blind to the category wherever it could leak."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pytest

from mtv.errors import UsageError
from mtv.miniworld.compose import make_scene
from mtv.miniworld.scene import Instance, Scene
from mtv.miniworld.settings import HELD_OUT_PATTERNS, SETTINGS
from mtv.miniworld.spec import PURPOSES, Purpose, SceneRequest, WorldSpec
from mtv.miniworld.vocabulary import CATEGORIES, COLOURS, PATTERNS

WORLD = WorldSpec()
SHIFTED = WorldSpec(shift=True)
FLAT = ("rug", "road")
MOUNTED = ("window", "door", "picture")


def request(purpose: Purpose, index: int, **more: object) -> SceneRequest:
    width = 318 if purpose == "road" else 96
    return SceneRequest(**{"split": "t", "index": index, "purpose": purpose, "width": width, "height": 96, **more})  # type: ignore[arg-type]


@lru_cache(maxsize=None)
def scenes(purpose: Purpose, count: int, spec: WorldSpec = WORLD, test: bool = False) -> tuple[Scene, ...]:
    return tuple(make_scene(spec, request(purpose, i, test=test)) for i in range(count))


def bits(scene: Scene) -> bytes:
    return repr(scene).encode()


def world_corners(instance: Instance) -> np.ndarray:
    """[P,8,3] corners of every part's box in the world."""
    return instance.to_world(instance.shape.corners)


def objects(scene: Scene) -> list[Instance]:
    return [i for i in scene.instances if i.is_object]


# --- purity -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_scene_depends_on_nothing_but_its_request(purpose: Purpose) -> None:
    forward = [bits(make_scene(WORLD, request(purpose, i))) for i in range(6)]
    backward = [bits(make_scene(WORLD, request(purpose, i))) for i in (5, 3, 1)]
    assert backward == [forward[5], forward[3], forward[1]]
    assert len(set(forward)) == 6


def test_another_process_makes_the_same_scene() -> None:
    code = (
        "import sys, hashlib\n"
        "from mtv.miniworld.compose import make_scene\n"
        "from mtv.miniworld.spec import *\n"
        "for p in PURPOSES:\n"
        "    r = SceneRequest(split='t', index=3, purpose=p, width=318 if p == 'road' else 96, height=96)\n"
        "    sys.stdout.write(repr(make_scene(WorldSpec(), r)) + '\\n')\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77", "PATH": ""}
    ).stdout
    assert out.splitlines() == [repr(make_scene(WORLD, request(p, 3))) for p in PURPOSES]


def test_splits_and_seeds_and_indices_share_no_scene() -> None:
    drawn = [
        make_scene(WorldSpec(seed=seed), request("several", index, split=split))
        for seed in (0, 1)
        for split in ("coco/train", "coco/val", "coco")
        for index in (0, 1, 11)
    ]
    cameras = {s.camera.position + s.camera.rotation[2] for s in drawn}
    assert len(cameras) == len(drawn)
    assert len({bits(s).split(b"setting=", 1)[1] for s in drawn}) == len(drawn)


def test_scenes_survive_pickling() -> None:
    scene = scenes("several", 3)[2]
    assert repr(pickle.loads(pickle.dumps(scene))) == repr(scene)


# --- physics ----------------------------------------------------------------------------------------------------------------


def hull_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest gap between the plans of two point sets along 180 directions: positive if a line separates them."""
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    across = np.stack([np.cos(angles), np.sin(angles)])
    pa, pb = a[:, :2] @ across, b[:, :2] @ across
    return float(np.maximum(pb.min(0) - pa.max(0), pa.min(0) - pb.max(0)).max())


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_stands_on_the_ground_does_not_overlap(purpose: Purpose) -> None:
    for scene in scenes(purpose, 40):
        standing = [
            world_corners(i).reshape(-1, 3)
            for i in scene.instances
            if i.on is None and i.name not in (*FLAT, *MOUNTED, "hill")
        ]
        for n, a in enumerate(standing):
            for b in standing[n + 1 :]:
                assert hull_gap(a, b) > 0, scene.id


@pytest.mark.parametrize("purpose", ["several", "indoor", "road"])
def test_small_objects_rest_on_their_host(purpose: Purpose) -> None:
    seen = 0
    for scene in scenes(purpose, 60):
        for instance in scene.instances:
            if instance.on is None:
                assert instance.position[2] == 0 or instance.name in MOUNTED
                continue
            seen += 1
            host = scene.instances[instance.on]
            foot = (np.array(instance.position) - np.array(host.position)) @ np.array(host.rotation) / host.scale
            under = [
                s for s in host.shape.supports if s.x[0] <= foot[0] <= s.x[1] and s.y[0] <= foot[1] <= s.y[1]
            ]
            assert any(abs(s.height - foot[2]) < 1e-9 for s in under)
            plan, below = world_corners(instance)[..., :2].reshape(-1, 2), world_corners(host)[..., :2].reshape(-1, 2)
            assert (plan.min(0) >= below.min(0) - 1e-6).all()
            assert (plan.max(0) <= below.max(0) + 1e-6).all()
    assert seen > 2


@pytest.mark.parametrize("purpose", ["single", "several", "indoor", "model"])
def test_rooms_hold_everything_and_stay_in_the_depth_sensor_range(purpose: Purpose) -> None:
    rooms = [s for s in scenes(purpose, 60) if not s.outdoor]
    assert len(rooms) > 12
    for scene in rooms:
        assert len(scene.surfaces) == 6
        normals = np.array([s.normal for s in scene.surfaces])
        offsets = np.array([s.offset for s in scene.surfaces])
        assert np.allclose(np.linalg.norm(normals, axis=1), 1)
        assert (normals @ scene.camera.position - offsets > 0.1).all()
        for instance in scene.instances:
            clear = world_corners(instance).reshape(-1, 3) @ normals.T - offsets
            walls = clear[:, 1:]
            least = -1e-6 if instance.name in MOUNTED else 0.03
            assert walls.min() > least, (scene.id, instance.name)
            assert clear[:, 0].min() > -0.1 * instance.scale or instance.name in ("rock", "bush")
        assert largest_depth(scene, normals, offsets) < 10


def largest_depth(scene: Scene, normals: np.ndarray, offsets: np.ndarray) -> float:
    """Largest camera z of the room's surfaces over a grid of pixels."""
    u, v = np.meshgrid(np.linspace(0, scene.camera.width, 9), np.linspace(0, scene.camera.height, 9))
    f, _, cx, cy = scene.camera.intrinsics
    rays = np.stack([(u - cx) / f, (v - cy) / f, np.ones_like(u)], -1).reshape(-1, 3) @ np.array(scene.camera.rotation)
    facing = rays @ normals.T
    clear = offsets - normals @ scene.camera.position
    t = np.where(facing < 0, clear / np.minimum(facing, -1e-9), np.inf)
    return float(t.min(1).max())


@pytest.mark.parametrize("purpose", PURPOSES)
def test_cameras_are_proper_and_outside_of_things(purpose: Purpose) -> None:
    for scene in scenes(purpose, 60):
        rotation = np.array(scene.camera.rotation)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.isclose(np.linalg.det(rotation), 1)
        assert rotation[1][2] < -0.4, "pixel rows go down in the world"
        assert scene.camera.position[2] > 0.1
        for instance in scene.instances:
            if instance.name in (*FLAT, *MOUNTED, "hill"):
                continue
            corners = world_corners(instance).reshape(-1, 3)
            at = np.array([scene.camera.position])
            inside_height = corners[:, 2].min() < scene.camera.position[2] < corners[:, 2].max()
            assert hull_gap(corners, at) > 0.02 or not inside_height


def rectangle(scene: Scene, instance: Instance) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the parts' boxes in pixels."""
    points = scene.camera.project(world_corners(instance).reshape(-1, 3))
    assert (points[:, 2] > 0).all()
    return (*points[:, :2].min(0), *points[:, :2].max(0))  # type: ignore[return-value]


def test_main_objects_fill_the_frame_alike_for_every_category() -> None:
    fills: dict[str, list[float]] = {c: [] for c in CATEGORIES}
    for scene in scenes("single", 700):
        left, top, right, bottom = rectangle(scene, scene.instances[0])
        fills[scene.instances[0].name].append(max(right - left, bottom - top) / 96)
    every = np.concatenate([np.array(f) for f in fills.values()])
    assert 0.3 < np.quantile(every, 0.01)
    assert np.quantile(every, 0.99) < 0.95
    means = [np.mean(f) for f in fills.values()]
    assert max(means) - min(means) < 0.12


def test_models_are_whole_and_alone() -> None:
    elevations, azimuths = [], []
    for scene in scenes("model", 200):
        main = scene.instances[0]
        left, top, right, bottom = rectangle(scene, main)
        assert min(left, top) >= 0
        assert max(right, bottom) <= 96
        assert objects(scene) == [main]
        low, high = main.shape.bounds
        assert 0.15 < main.scale * (high - low).max() < 0.45
        away = np.array(scene.camera.position) - main.to_world((low + high) / 2)
        assert 0.4 < np.linalg.norm(away) < 1.4
        elevations.append(math.degrees(math.asin(away[2] / np.linalg.norm(away))))
        azimuths.append(math.atan2(away[1], away[0]) % math.tau)
    assert min(elevations) > 0
    assert max(elevations) > 45
    assert np.ptp(elevations) > 40
    assert (np.histogram(azimuths, bins=4, range=(0, math.tau))[0] > 25).all()


def test_crowds_have_company() -> None:
    for purpose, most in (("several", 6), ("indoor", 8)):
        counts = [len(objects(s)) for s in scenes(purpose, 120)]  # type: ignore[arg-type]
        assert max(counts) <= most
        assert np.mean([c >= 2 for c in counts]) > 0.97
        assert len(set(counts)) >= 4
    twins = [max(Counter(o.name for o in objects(s)).values(), default=0) for s in scenes("several", 120)]
    assert np.mean([t >= 2 for t in twins]) > 0.2


def test_roads_reach_far() -> None:
    depths = [
        float(np.median(s.camera.project(world_corners(o).reshape(-1, 3))[:, 2])) for s in scenes("road", 60) for o in objects(s)
    ]
    assert np.quantile(depths, 0.95) > 30
    assert max(depths) < 85
    assert all(any(i.name == "road" for i in s.instances) for s in scenes("road", 60))


# --- shift, quiet, individuals ----------------------------------------------------------------------------------------------


def patterns_of(scene: Scene) -> Iterable[str]:
    yield from (s.material.pattern for s in scene.surfaces)
    for instance in scene.instances:
        yield from (m.pattern for slot, m in instance.materials.items() if slot != "dark")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_shift_keeps_settings_and_patterns_for_the_test(purpose: Purpose) -> None:
    held = {s.name for s in SETTINGS if s.held_out}
    train, test = scenes(purpose, 25, SHIFTED, False), scenes(purpose, 25, SHIFTED, True)
    assert not {s.setting for s in train} & held
    assert {s.setting for s in test} <= held
    assert not {p for s in train for p in patterns_of(s)} & set(HELD_OUT_PATTERNS)
    assert {p for s in test for p in patterns_of(s)} <= set(HELD_OUT_PATTERNS)


def test_without_shift_both_sides_use_everything() -> None:
    drawn = scenes("several", 120)
    assert {s.setting for s in drawn} == {s.name for s in SETTINGS}
    assert {p for s in drawn for p in patterns_of(s)} == set(PATTERNS)


def test_every_look_serves_both_sides_of_a_shift() -> None:
    from mtv.miniworld.clutter import CLUTTER
    from mtv.miniworld.settings.outdoors import ROAD, SEA

    looks = [x for s in SETTINGS for x in (s.ground, s.wall, s.ceiling) if x is not None]
    looks += [x for c in CLUTTER.values() for x in c.looks.values()] + [ROAD, SEA]
    for look in looks:
        names = {p for p, _ in look.patterns}
        assert names & set(HELD_OUT_PATTERNS), look.name
        assert names - set(HELD_OUT_PATTERNS), look.name


def test_individuals_keep_shape_and_materials() -> None:
    def main(index: int, individual: int, **more: object) -> Instance:
        return make_scene(WORLD, request("model", index, category="chair", individual=individual, **more)).instances[0]

    first = [main(i, 4) for i in range(5)] + [main(0, 4, split="other/split")]
    assert len({repr((m.shape, m.materials, m.scale, m.identity)) for m in first}) == 1
    assert len({repr(m.rotation) for m in first}) > 3
    others = [main(0, n) for n in range(4)] + [first[0], main(0, 4, test=True)]
    assert len({repr(m.shape) for m in others}) == len(others)
    assert len({m.identity for m in others}) == len(others)
    assert len({s.setting for s in scenes("model", 60)}) > 8


def test_quiet_scenes_hold_the_main_object_only() -> None:
    for i in range(30):
        scene = make_scene(WORLD, request("single", i, quiet=True))
        assert {x.name for x in scene.instances[1:]} <= {"road"}
        left, top, right, bottom = rectangle(scene, scene.instances[0])
        assert min(left, top) > -4
        assert max(right, bottom) < 100


# --- nothing gives the category away ----------------------------------------------------------------------------------------


def excess(pairs: list[tuple[str, str]]) -> float:
    """Chi-square statistic of independence, in standard deviations above its expectation."""
    rows, columns = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    table = np.zeros((len(rows), len(columns)))
    for a, b in pairs:
        table[rows.index(a), columns.index(b)] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = (len(rows) - 1) * (len(columns) - 1)
    return float((((table - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


def test_category_tells_nothing_about_setting_colour_or_pattern() -> None:
    mains = [(s, s.instances[0]) for s in scenes("single", 700)]
    crowd = [(s, o) for p in ("several", "indoor") for s in scenes(p, 120) for o in objects(s)]  # type: ignore[arg-type]
    assert excess([(o.name, s.setting) for s, o in mains]) < 4
    assert excess([(o.name, o.colour) for _, o in mains + crowd]) < 4
    assert excess([(o.name, o.materials["main"].pattern) for _, o in mains + crowd]) < 4
    assert excess([(o.name, str(len(s.instances))) for s, o in mains if len(s.instances) < 12]) < 4


def test_the_bound_on_independence_can_fail() -> None:
    """A mild leak (one category twice as often red) in as many scenes is found."""
    pairs = [
        (c, COLOURS[(i * 7 + k) % 12] if c != "mug" or i % 4 else "red")
        for k, c in enumerate(CATEGORIES)
        for i in range(44)
    ]
    assert excess(pairs) > 4


def test_categories_and_settings_are_about_equally_likely() -> None:
    drawn = scenes("single", 700)
    for counts, kinds in (
        (Counter(s.instances[0].name for s in drawn), len(CATEGORIES)),
        (Counter(s.setting for s in drawn), len(SETTINGS)),
    ):
        assert len(counts) == kinds
        fair = 700 / kinds
        assert all(abs(n - fair) < 4.5 * math.sqrt(fair) for n in counts.values()), counts


# --- errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"purpose": "single", "category": "muggs"}, "did you mean mug"),
        ({"purpose": "several", "category": "mug"}, "category is for single and model"),
        ({"purpose": "single", "individual": 2}, "individual is for model"),
        ({"purpose": "model", "individual": -1}, "must not be negative"),
    ],
)
def test_impossible_requests_are_refused(more: dict[str, object], message: str) -> None:
    asked = SceneRequest(**{"split": "t", "index": 0, "width": 96, "height": 96, **more})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        make_scene(WORLD, asked)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (16, 16), (512, 384), (120, 400), (640, 96)])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_any_frame_shape_gives_a_scene(purpose: Purpose, width: int, height: int) -> None:
    for i in range(3):
        scene = make_scene(WORLD, request(purpose, i, width=width, height=height))
        assert (scene.camera.width, scene.camera.height) == (width, height)
        assert objects(scene) or purpose in ("several", "indoor", "road")
