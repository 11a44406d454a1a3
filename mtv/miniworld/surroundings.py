"""What surrounds the objects of a scene: clutter among and behind them, on the walls, on the horizon, and the road."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtv.draws import Draws
from mtv.miniworld.blocks import Block, block_at, clearance, collide, rect_of, shape_bounds
from mtv.miniworld.clutter import CLUTTER, clutter_materials, road_strip
from mtv.miniworld.placing import Reach, Stage
from mtv.miniworld.settings.base import Setting
from mtv.miniworld.settings.outdoors import ROAD
from mtv.miniworld.things import Thing

_SILL = {"window": (0.75, 1.15), "picture": (0.9, 1.5), "board": (0.75, 1.0), "door": (0.0, 0.0)}
"""Height of the lower edge on the wall, metres."""


def draw_clutter(draws: Draws, kind: str, *, scale: float, patterns: Sequence[str]) -> Thing:
    """One thing of a kind of clutter, `scale` times its natural size."""
    clutter = CLUTTER[kind]
    shape = clutter.build(draws)
    materials = clutter_materials(draws, clutter, shape, scale=scale, patterns=patterns)
    bounds = shape_bounds(shape)
    return Thing(
        name=clutter.name, shape=shape, bounds=bounds, scale=scale, materials=materials, host=bool(shape.supports)
    )


def add_near(
    draws: Draws, stage: Stage, setting: Setting, *, count: int, reach: Reach, patterns: Sequence[str]
) -> None:
    """Clutter that stands among the objects."""
    kinds, weights = zip(*setting.near, strict=True)
    for i in range(count):
        stream = draws.child(i)
        kind = stream.choice(kinds, weights)
        thing = draw_clutter(stream, kind, scale=stage.unit * stream.uniform(0.75, 1.3), patterns=patterns)
        stage.scatter(stream, thing, reach)


def add_far(
    draws: Draws, stage: Stage, setting: Setting, *, depths: tuple[float, float], patterns: Sequence[str]
) -> None:
    """Clutter behind everything, outdoors; hills stand on the horizon."""
    for amount in setting.far:
        stream = draws.child(amount.kind)
        for _ in range(stream.integer(amount.low, amount.high + 1)):
            hill = amount.kind == "hill"
            scale = stream.uniform(0.7, 1.3) if hill else stage.unit * stream.uniform(1.0, 2.2)
            thing = draw_clutter(stream, amount.kind, scale=scale, patterns=patterns)
            reach = Reach(columns=(-0.1, 1.1), depths=(75.0, 170.0) if hill else depths, hides=0.02, tries=6)
            stage.scatter(stream, thing, reach, solid=not hill)


def add_mounted(draws: Draws, stage: Stage, setting: Setting, *, patterns: Sequence[str]) -> None:
    """Windows, doors and pictures on the walls that are in view, and the rug."""
    taken: list[tuple[int, Block]] = []
    for amount in setting.mounted:
        stream = draws.child(amount.kind)
        for _ in range(stream.integer(amount.low, amount.high + 1)):
            scale = 1.0 if amount.kind != "rug" else min(1.2, stage.unit) * stream.uniform(0.9, 1.4)
            thing = draw_clutter(stream, amount.kind, scale=scale, patterns=patterns)
            if amount.kind == "rug":
                reach = Reach(columns=(0.2, 0.8), depths=(1.2 * stage.unit, 4.0 * stage.unit), inside=0.3)
                stage.scatter(stream, thing, reach, solid=False)
            else:
                _mount(stream, stage, thing, _SILL[amount.kind], taken)


def _mount(draws: Draws, stage: Stage, thing: Thing, sill: tuple[float, float], taken: list[tuple[int, Block]]) -> None:
    for _ in range(6):
        wall, x, y, _ = stage.wall_at(draws.uniform(0, 1) * stage.camera.width)
        surface = stage.surfaces[wall]
        if surface.name != "wall":
            continue
        position = (x, y, draws.uniform(*sill))
        yaw = math.atan2(surface.normal[1], surface.normal[0])
        block = block_at(thing.bounds, scale=thing.scale, yaw=yaw, position=position)
        rect = rect_of(stage.camera, block.corners())
        others = (s for i, s in enumerate(stage.surfaces) if i not in (0, wall))
        if rect is None or stage.inside(rect) < 0.05 or any(clearance(block, s) < 0.03 for s in others):
            continue
        if not any(w == wall and collide(block, b, 0.05) for w, b in taken):
            stage.put(thing, position=position, yaw=yaw, rect=rect, solid=False)
            taken.append((wall, block))
            return


def add_road(draws: Draws, stage: Stage, *, patterns: Sequence[str]) -> None:
    """A road along x past the camera, whose lane it is in."""
    half_width = draws.uniform(1.0, 1.5) * stage.unit
    shape, materials = road_strip(draws, ROAD, half_width=half_width, scale=stage.unit, patterns=patterns)
    thing = Thing(name="road", shape=shape, bounds=shape_bounds(shape), scale=1.0, materials=materials)
    centre = half_width * draws.choice((-1.0, 1.0)) * draws.uniform(0.1, 0.8)
    stage.put(thing, position=(0.0, centre, 0.0), yaw=0.0, rect=None, solid=False)
