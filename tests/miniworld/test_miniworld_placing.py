"""Scenes are physically possible and their objects are seen: no overlap, nothing in walls, cameras in the open."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from scene_samples import objects, request, scenes, world_corners

from mtv.miniworld.compose import make_scene
from mtv.miniworld.render import render
from mtv.miniworld.scene import Scene
from mtv.miniworld.spec import PURPOSES, Purpose, WorldSpec

FLAT = ("rug", "road", "hill")
MOUNTED = ("window", "door", "picture")


def hull_gap(a_N3: np.ndarray, b_N3: np.ndarray) -> float:
    """Largest gap between the plans of two point sets along 180 directions: positive if a line separates them."""
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    across = np.stack([np.cos(angles), np.sin(angles)])
    a, b = a_N3[:, :2] @ across, b_N3[:, :2] @ across
    return float(np.maximum(b.min(0) - a.max(0), a.min(0) - b.max(0)).max())


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_stands_on_the_ground_does_not_overlap(purpose: Purpose) -> None:
    for scene in scenes(purpose, 30):
        standing = [
            world_corners(i).reshape(-1, 3) for i in scene.instances if i.on is None and i.name not in (*FLAT, *MOUNTED)
        ]
        for n, a in enumerate(standing):
            for b in standing[n + 1 :]:
                assert hull_gap(a, b) > -0.01, scene.id


@pytest.mark.parametrize("purpose", ["several", "indoor", "road"])
def test_small_objects_rest_on_their_host(purpose: Purpose) -> None:
    perched = 0
    for scene in scenes(purpose, 60):
        for instance in scene.instances:
            if instance.on is None:
                assert instance.position[2] == 0 or instance.name in MOUNTED
                continue
            perched += 1
            host = scene.instances[instance.on]
            feet = (world_corners(instance) - np.array(host.position)) @ np.array(host.rotation) / host.scale
            low, high = feet.min((0, 1)), feet.max((0, 1))
            origin = (np.array(instance.position) - np.array(host.position)) @ np.array(host.rotation) / host.scale
            assert any(
                abs(s.height - origin[2]) < 1e-9
                and s.x[0] - 0.01 <= low[0] <= high[0] <= s.x[1] + 0.01
                and s.y[0] - 0.01 <= low[1] <= high[1] <= s.y[1] + 0.01
                for s in host.shape.supports
            )
    assert perched > 5


@pytest.mark.parametrize("purpose", ["single", "several", "indoor", "model"])
def test_rooms_hold_everything_within_the_range_of_a_depth_sensor(purpose: Purpose) -> None:
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
            least = -1e-6 if instance.name in MOUNTED else 0.03
            assert clear[:, 1:].min() > least, (scene.id, instance.name)
            if instance.name in (*MOUNTED, "crate", "pillar", "fence"):
                assert clear[:, 0].min() > -1e-6, (scene.id, instance.name)
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
            corners = world_corners(instance).reshape(-1, 3)
            level = corners[:, 2].min() < scene.camera.position[2] < corners[:, 2].max()
            if level and instance.name not in MOUNTED:
                assert hull_gap(corners, np.array([scene.camera.position])) > 0.02


def test_main_objects_are_seen_and_of_a_good_size() -> None:
    seen = [f.seen[0] for f in render(scenes("single", 40))]
    sides = [max(s.box[2] - s.box[0], s.box[3] - s.box[1]) / 96 for s in seen if s.box]
    assert len(sides) == 40
    assert min(sides) > 0.25
    assert max(sides) < 0.9
    assert np.std(sides) > 0.07
    assert np.mean([s.visibility >= 0.5 for s in seen]) > 0.97
    assert np.mean([s.visibility >= 0.9 for s in seen]) > 0.85
    assert np.mean([s.cut for s in seen]) < 0.3


def test_models_are_whole_and_alone() -> None:
    elevations, azimuths = [], []
    for scene in scenes("model", 200):
        main = scene.instances[0]
        assert objects(scene) == [main]
        low, high = main.shape.bounds
        assert 0.19 < main.scale * (high - low).max() < 0.42
        away = np.array(scene.camera.position) - main.to_world((low + high) / 2)
        assert 0.4 < np.linalg.norm(away) < 1.4
        elevations.append(math.degrees(math.asin(away[2] / np.linalg.norm(away))))
        azimuths.append(math.atan2(away[1], away[0]) % math.tau)
    assert min(elevations) > 0
    assert np.quantile(elevations, 0.9) > 45
    assert (np.histogram(azimuths, bins=4, range=(0, math.tau))[0] > 25).all()
    seen = [f.seen[0] for f in render(scenes("model", 200)[:30])]
    assert np.mean([s.cut for s in seen]) < 0.1
    assert min(s.visibility for s in seen) > 0.8


def test_crowds_have_company() -> None:
    for purpose, most in (("several", 6), ("indoor", 7)):
        counts = [len(objects(s)) for s in scenes(purpose, 120)]  # type: ignore[arg-type]
        assert max(counts) == most
        assert np.mean([c >= 2 for c in counts]) > 0.97
        assert len(set(counts)) >= 4
    twins = [max(Counter(o.name for o in objects(s)).values(), default=0) for s in scenes("several", 120)]
    assert np.mean([t >= 2 for t in twins]) > 0.2
    visible = [len(f.objects()) for f in render(scenes("several", 120)[:30])]
    assert np.mean([n >= 2 for n in visible]) > 0.9


def test_roads_reach_far() -> None:
    roads = scenes("road", 60)
    depths = [float(np.median(s.camera.project(world_corners(o))[..., 2])) for s in roads for o in objects(s)]
    assert np.quantile(depths, 0.95) > 30
    assert max(depths) < 85
    assert all(any(i.name == "road" for i in s.instances) for s in roads)


def test_quiet_scenes_hold_the_main_object_only() -> None:
    quiet = [make_scene(WorldSpec(), request("single", i, quiet=True)) for i in range(16)]
    frames = render(quiet)
    for frame in frames:
        assert {x.name for x in frame.scene.instances[1:]} <= {"road"}
        assert frame.seen[0].visibility > 0.98, "a road may bury a row of pixels"
    assert np.mean([f.seen[0].cut for f in frames]) < 0.2


@pytest.mark.parametrize(("width", "height"), [(32, 32), (16, 16), (512, 384), (120, 400), (640, 96)])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_any_frame_shape_gives_a_scene(purpose: Purpose, width: int, height: int) -> None:
    for i in range(3):
        scene = make_scene(WorldSpec(), request(purpose, i, width=width, height=height))
        assert (scene.camera.width, scene.camera.height) == (width, height)
        assert scene.camera.focal > 0
