"""Composes scenes: from a request to everything that determines the picture.

A scene is a pure function of (world, request). Every aspect draws from a stream of its own, so that a new draw in one
moves no other, and the surroundings are drawn without knowing the category. The first instance of `single` and
`model` scenes is the main object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtv.draws import Draws
from mtv.errors import UsageError, unknown
from mtv.miniworld import views
from mtv.miniworld.blocks import block_at, ground_point, hull_points, rect_of, yaw_matrix
from mtv.miniworld.categories import CATALOGUE
from mtv.miniworld.placing import Reach, Stage
from mtv.miniworld.scene import Camera, Scene, Surface
from mtv.miniworld.settings import Setting, patterns_for, settings_for
from mtv.miniworld.settings.building import ground_surface, room_surfaces, sea_surface
from mtv.miniworld.settings.outdoors import SEA
from mtv.miniworld.settings.weather import draw_light, draw_sensor, draw_sky
from mtv.miniworld.shapes import Vec3
from mtv.miniworld.spec import SceneRequest, WorldSpec
from mtv.miniworld.surroundings import add_far, add_mounted, add_near, add_road
from mtv.miniworld.things import Thing, draw_object
from mtv.miniworld.vocabulary import CATEGORIES, COLOURS

_GOLDEN = (math.sqrt(5) - 1) / 2
_MODEL_SIZE = (0.2, 0.35)
_HEAD_GAP = 0.25


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What every step of one scene needs."""

    draws: Draws
    """Stream of the scene."""
    request: SceneRequest
    """The request."""
    setting: Setting
    """Where it happens."""
    patterns: tuple[str, ...]
    """Patterns that the split may use."""
    height: float
    """Height of the room in metres; indoors only."""

    @property
    def top(self) -> float:
        """Largest height of the camera in metres."""
        return 2.8 if self.setting.outdoor else self.height - _HEAD_GAP


def make_scene(spec: WorldSpec, request: SceneRequest) -> Scene:
    """The scene of a request.

    Raises:
        UsageError: the request names an unknown category, or asks for what its purpose does not have.
    """
    _check(request)
    draws = Draws(spec.seed, request.split, request.index)
    setting = draws.child("setting").choice(settings_for(spec, request))
    plan = _Plan(
        draws=draws,
        request=request,
        setting=setting,
        patterns=patterns_for(spec, request),
        height=draws.child("height").uniform(*setting.height),
    )
    if request.purpose == "single":
        stage = _portrait_stage(plan, _draw_main(plan), views.SINGLE)
    elif request.purpose == "model":
        stage = _portrait_stage(plan, _draw_individual(spec, plan), views.MODEL)
    elif request.purpose == "road":
        stage = _road_stage(plan)
    else:
        stage = _crowd_stage(plan)
    light = draw_light(draws.child("light"), setting.light, outdoor=setting.outdoor, detail=stage.unit)
    return Scene(
        id=f"{request.split}/{request.index}",
        setting=setting.name,
        phrase=setting.phrase,
        outdoor=setting.outdoor,
        instances=tuple(stage.instances),
        surfaces=stage.surfaces,
        light=light,
        sky=draw_sky(draws.child("sky")),
        camera=stage.camera,
        sensor=draw_sensor(draws.child("sensor"), light, stage.surfaces[0].material.pigment),
    )


def _check(request: SceneRequest) -> None:
    if request.category is not None and request.category not in CATEGORIES:
        raise unknown("SceneRequest.category", request.category, CATEGORIES)
    if request.category is not None and request.purpose not in ("single", "model"):
        raise UsageError(
            f"SceneRequest.category is for single and model scenes, not for {request.purpose!r}",
            "Leave it out: the objects of such a scene are drawn.",
        )
    if request.individual != 0 and request.purpose != "model":
        raise UsageError(f"SceneRequest.individual is for model scenes, not for {request.purpose!r}")
    if request.individual < 0:
        raise UsageError(f"SceneRequest.individual must not be negative, got {request.individual}")


def _category(plan: _Plan) -> str:
    return plan.request.category or plan.draws.child("category").choice(CATEGORIES)


def _draw_main(plan: _Plan) -> Thing:
    name = _category(plan)
    return draw_object(plan.draws.child("main"), name, patterns=plan.patterns, size=CATALOGUE[name].size)


def _draw_individual(spec: WorldSpec, plan: _Plan) -> Thing:
    """The individual of a `model` scene: it depends on nothing that changes between its scenes."""
    name, number = _category(plan), plan.request.individual
    side = "test" if plan.request.test else "train"
    draws = Draws(spec.seed, "individual", side, name, number)
    return draw_object(draws, name, patterns=plan.patterns, size=_MODEL_SIZE, identity=f"{side}/{name}/{number}")


def _side(index: int, share: float) -> float:
    """From which side a model is seen, radians: golden steps, so that few views surround it and each has a neighbour.

    Among any four consecutive indices the nearest side is less than 0.24 turns away, and the jitter adds 0.04 at most.
    """
    return math.tau * (index * _GOLDEN + 0.04 * (share - 0.5))


def _portrait_stage(plan: _Plan, thing: Thing, framing: views.Framing) -> Stage:
    """One main object at the world's origin, a camera that frames it, and a place around both."""
    draws, request = plan.draws, plan.request
    model = request.purpose == "model"
    narrow = plan.setting.form == "narrow"
    azimuth = views.draw_azimuth(draws.child("azimuth"), narrow=narrow)
    turn = draws.child("yaw").uniform(0, 1)
    yaw = azimuth - _side(request.index, turn) if model else math.tau * turn
    block = block_at(thing.bounds, scale=thing.scale, yaw=yaw, position=(0.0, 0.0, 0.0))
    if request.quiet:
        framing = replace(framing, cut=0.0)
    points_N3 = thing.scale * hull_points(thing.shape) @ np.array(yaw_matrix(block.cos, block.sin)).T
    camera = views.portrait(
        draws.child("view"),
        framing,
        points_N3,
        azimuth=azimuth,
        top=plan.top,
        width=request.width,
        height=request.height,
    )
    unit = min(1.4, max(0.28, thing.scale))
    surfaces = _surfaces(plan, [*block.corners(), *_around(camera)], azimuth, unit=unit, behind=3.0 * thing.scale)
    stage = Stage(camera=camera, surfaces=surfaces, unit=unit)
    rect = rect_of(camera, block.corners())
    stage.put(thing, position=(0.0, 0.0, 0.0), yaw=yaw, rect=rect, watched=True)
    hides = 0.28 if not model and draws.child("occluded").chance(0.35) else 0.03
    distance = math.dist(camera.position, (0.0, 0.0, 0.0))
    reach = Reach(columns=(-0.1, 1.1), depths=(0.55 * distance, 2.4 * distance), hides=hides, tries=10)
    _surround(plan, stage, near=draws.child("near").integer(0, 4), reach=reach, far=(2.5 * distance, 7 * distance))
    return stage


def _around(camera: Camera) -> list[Vec3]:
    """Points that keep a wall from touching the camera."""
    x, y, z = camera.position
    return [(x + dx, y + dy, z) for dx, dy in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2))]


def _surfaces(plan: _Plan, keep: list[Vec3], azimuth: float, *, unit: float, behind: float) -> tuple[Surface, ...]:
    """Room or ground and sea; the sea begins `behind` metres past the farthest of `keep`."""
    draws, setting = plan.draws.child("surfaces"), plan.setting
    detail = min(1.6, max(0.4, unit))
    if not setting.outdoor:
        return room_surfaces(draws, setting, keep=keep, height=plan.height, patterns=plan.patterns, detail=detail)
    ground = ground_surface(draws.child("ground"), setting, patterns=plan.patterns, detail=detail)
    if setting.strip != "sea":
        return (ground,)
    stream = draws.child("sea")
    towards = azimuth + stream.uniform(-0.7, 0.7)
    farthest = max(x * math.cos(towards) + y * math.sin(towards) for x, y, _ in keep)
    shore = farthest + behind + stream.uniform(0, 8) * unit
    return ground, sea_surface(stream, SEA, shore=shore, azimuth=towards, patterns=plan.patterns)


def _surround(plan: _Plan, stage: Stage, *, near: int, reach: Reach, far: tuple[float, float]) -> None:
    """Road and clutter."""
    draws, setting = plan.draws, plan.setting
    if setting.strip == "road":
        add_road(draws.child("road"), stage, patterns=plan.patterns)
    if plan.request.quiet:
        return
    add_near(draws.child("near things"), stage, setting, count=near, reach=reach, patterns=plan.patterns)
    add_far(draws.child("far things"), stage, setting, depths=far, patterns=plan.patterns)
    add_mounted(draws.child("mounted things"), stage, setting, patterns=plan.patterns)


def _draw_crowd(plan: _Plan, count: int, unit: float) -> list[Thing]:
    """Objects of a scene with several: some of one category, some of one colour; those that bear others first."""
    draws = plan.draws.child("objects")
    shared = draws.choice(COLOURS) if draws.chance(0.2) else None
    names: list[str] = []
    things = []
    for i in range(count):
        stream = draws.child(i)
        repeat = bool(names) and stream.chance(0.28)
        name = stream.choice(names) if repeat else stream.choice(CATEGORIES)
        names.append(name)
        low, high = CATALOGUE[name].size
        colour = shared if shared and stream.chance(0.8) else None
        things.append(draw_object(stream, name, patterns=plan.patterns, size=(low * unit, high * unit), colour=colour))
    return sorted(things, key=lambda t: CATALOGUE[t.name].small)


def _fill(plan: _Plan, stage: Stage, things: Sequence[Thing], reach: Reach) -> None:
    """Places objects; small ones stand on others now and then; one that fits nowhere comes smaller, or not at all.

    The first two are placed in worse ways rather than left out: a crowd needs company.
    """
    draws = plan.draws.child("places")
    low, high = reach.fills or (0.1, 1.0)
    looser = replace(reach, fills=(0.5 * low, 1.25 * high), inside=0.9 * reach.inside, hides=1.2 * reach.hides)
    anywhere = replace(reach, fills=None, inside=0.5, hides=0.7, tries=40)
    for i, thing in enumerate(things):
        stream = draws.child(i)
        if CATALOGUE[thing.name].small and stream.chance(0.8):
            little = thing.scaled(stream.uniform(0.55, 0.85))
            if stage.perch(stream, little, hides=reach.hides, inside=reach.inside) is not None:
                continue
        ways = [(1.0, reach), (0.85, looser), (0.6, looser)]
        if len(stage.hidden) < 2:
            ways += [(0.6, anywhere), (0.4, anywhere)]
        for smaller, where in ways:
            if stage.scatter(stream, thing.scaled(smaller), where, watched=True) is not None:
                break


def _crowd_stage(plan: _Plan) -> Stage:
    """Two to six objects in a place that the camera overlooks."""
    draws, request = plan.draws, plan.request
    indoor = request.purpose == "indoor"
    azimuth = views.draw_azimuth(draws.child("azimuth"), narrow=plan.setting.form == "narrow")
    camera = views.overview(
        draws.child("view"), azimuth=azimuth, top=plan.top, width=request.width, height=request.height
    )
    stream = draws.child("crowd")
    deep = stream.uniform(3.0, 6.5)
    columns = (0.5,) if plan.setting.form == "narrow" else (0.3, 0.7)
    spots = [ground_point(camera, c * request.width, deep) for c in columns]
    keep = [*_around(camera), *((x, y, z) for x, y in spots for z in (0.0, 1.2))]
    surfaces = _surfaces(plan, keep, azimuth, unit=1.0, behind=4.0)
    stage = Stage(camera=camera, surfaces=surfaces)
    count = stream.integer(3, 8) if indoor else stream.choice((2, 3, 4, 5, 6), (2, 3, 3, 2, 1))
    unit = stream.uniform(0.9, 1.3) if indoor else 1.0
    fills = (0.14, 0.8) if indoor else (0.23, 0.65)
    reach = Reach(columns=(0.04, 0.96), depths=(0.7, 12.0), fills=fills, hides=0.5, inside=0.75, tries=18)
    _fill(plan, stage, _draw_crowd(plan, count, unit), reach)
    loose = Reach(columns=(-0.1, 1.1), depths=(1.0, 9.0), hides=0.3, tries=10)
    _surround(plan, stage, near=stream.integer(0, 5 if indoor else 4), reach=loose, far=(6.0, 18.0))
    return stage


def _road_stage(plan: _Plan) -> Stage:
    """Large objects along a road, near to far."""
    draws, request = plan.draws, plan.request
    camera = views.along_road(draws.child("view"), width=request.width, height=request.height)
    stream = draws.child("crowd")
    unit = stream.uniform(2.2, 3.4)
    stage = Stage(camera=camera, surfaces=_surfaces(plan, [], 0.0, unit=unit, behind=0.0), unit=unit)
    reach = Reach(columns=(0.03, 0.97), depths=(4.0, 75.0), fills=(0.1, 0.7), hides=0.4, inside=0.8, tries=18)
    _fill(plan, stage, _draw_crowd(plan, stream.integer(4, 9), unit), reach)
    loose = Reach(columns=(-0.05, 1.05), depths=(5.0, 60.0), hides=0.25, tries=10)
    _surround(plan, stage, near=stream.integer(3, 8), reach=loose, far=(20.0, 75.0))
    return stage
