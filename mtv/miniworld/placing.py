"""Where things stand: on the ground or on each other, in view, without touching, without hiding too much of an object.

Positions are drawn in the picture (a column and a depth), so that every part of the view is filled alike; what
collides, leaves the room or hides an object is drawn again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from mtv.draws import Draws
from mtv.miniworld.blocks import (
    Block,
    Rect,
    block_at,
    clearance,
    collide,
    distance_in_plan,
    ground_depths,
    ground_point,
    rect_of,
    yaw_matrix,
)
from mtv.miniworld.scene import Camera, Instance, Surface
from mtv.miniworld.shapes import Support, Vec3
from mtv.miniworld.things import Thing

GAP = 0.04
"""Smallest distance between the plans of two things, in units of the scene's scale (metres in ordinary scenes)."""
_WALL_GAP = 0.06
_HEAD_ROOM = 0.25
"""Smallest distance in the plan between the camera and a thing, in units of the scene's scale."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where in the picture a thing may stand, and what it may hide."""

    columns: tuple[float, float]
    """Range of the column of its foot, share of the width."""
    depths: tuple[float, float]
    """Range of its camera z in metres, drawn log-uniformly."""
    fills: tuple[float, float] | None = None
    """Range of its longest side over the shorter side of the picture; narrows `depths`, and so does the ground in
    view."""
    hides: float = 0.35
    """Largest share of any object's rectangle that may be hidden in all."""
    inside: float = 0.0
    """Smallest share of its own rectangle that must lie in the frame."""
    tries: int = 24
    """Draws before giving up."""


@dataclass(kw_only=True)
class Stage:
    """A scene in the making."""

    camera: Camera
    """Camera."""
    surfaces: tuple[Surface, ...]
    """Planes, the ground first."""
    unit: float = 1.0
    """Scale of the scene: 1 in ordinary ones, less among models, more along roads."""
    instances: list[Instance] = field(default_factory=list)
    """What stands there."""
    blocks: list[Block] = field(default_factory=list)
    """The room that each instance takes."""
    rects: list[Rect | None] = field(default_factory=list)
    """Where each instance lands in the picture, None if that is not known."""
    ground: list[int] = field(default_factory=list)
    """Instances that others must not run into."""
    hosts: list[int] = field(default_factory=list)
    """Instances on whose supports small objects may stand."""
    hidden: dict[int, float] = field(default_factory=dict)
    """Share of each object's rectangle that nearer things cover, at most."""

    def put(
        self,
        thing: Thing,
        *,
        position: Vec3,
        yaw: float,
        rect: Rect | None,
        solid: bool = True,
        on: int | None = None,
        watched: bool = False,
    ) -> int:
        """Places a thing without questions and returns its index.

        Args:
            thing: what.
            position: of its origin, world.
            yaw: turn about z in radians.
            rect: where it lands in the picture.
            solid: whether others must not run into it.
            on: host.
            watched: whether it is an object that nothing may hide too much of.
        """
        index = len(self.instances)
        block = block_at(thing.bounds, scale=thing.scale, yaw=yaw, position=position)
        instance = Instance(
            name=thing.name,
            shape=thing.shape,
            scale=thing.scale,
            rotation=yaw_matrix(block.cos, block.sin),
            position=position,
            materials=thing.materials,
            on=on,
            identity=thing.identity,
        )
        if rect is not None:
            for other in self.hidden:
                seen = self.rects[other]
                if seen is not None and other != on and rect.near < seen.near:
                    self.hidden[other] += rect.overlap(seen) / max(1.0, seen.area)
        self.instances.append(instance)
        self.blocks.append(block)
        self.rects.append(rect)
        if solid:
            self.ground.append(index)
        if thing.host and thing.shape.supports:
            self.hosts.append(index)
        if watched and rect is not None:
            self.hidden[index] = self._covered(rect, on)
        return index

    def wall_at(self, column: float) -> tuple[int, float, float, float]:
        """What the level ray through a pixel column hits first: index of the surface, x, y, and the camera z of the
        ground below; infinite if nothing."""
        right, _, forward = self.camera.rotation
        across = (column - self.camera.width / 2) / self.camera.focal
        dx, dy = right[0] * across + forward[0], right[1] * across + forward[1]
        px, py, pz = self.camera.position
        best, index = math.inf, 0
        for i, surface in enumerate(self.surfaces):
            nx, ny, nz = surface.normal
            facing = nx * dx + ny * dy
            if facing < -1e-6:
                away = (surface.offset - nx * px - ny * py - nz * pz) / facing
                if away < best:
                    best, index = away, i
        return index, px + best * dx, py + best * dy, best * (forward[0] * dx + forward[1] * dy) - forward[2] * pz

    @cached_property
    def _walls(self) -> list[tuple[float, float, float]]:
        """Normal and offset of what bounds the ground, for a quick no."""
        return [(s.normal[0], s.normal[1], s.offset) for s in self.surfaces[1:] if s.normal[2] > -0.99]

    @cached_property
    def deepest(self) -> float:
        """About the largest depth of the ground in view, metres."""
        return max(self.wall_at(share * self.camera.width)[3] for share in (0.02, 0.3, 0.5, 0.7, 0.98))

    def in_room(self, block: Block) -> bool:
        """Whether a block pokes through no surface but the ground."""
        x, y = block.x, block.y
        for nx, ny, offset in self._walls:
            if nx * x + ny * y < offset:
                return False
        for surface in self.surfaces[1:]:
            gap = _WALL_GAP if surface.normal[2] < 0.5 else 0.0
            if clearance(block, surface) < gap:
                return False
        return True

    def free(self, block: Block) -> bool:
        """Whether a block touches neither a thing nor the camera."""
        x, y, _ = self.camera.position
        if distance_in_plan(block, x, y) < _HEAD_ROOM * self.unit:
            return False
        return not any(collide(block, self.blocks[i], GAP * self.unit) for i in self.ground)

    def _covered(self, rect: Rect, on: int | None) -> float:
        """Share of a rectangle that nearer things cover, at most; what it stands on does not count."""
        total = 0.0
        for i, other in enumerate(self.rects):
            if other is not None and other.near < rect.near and i != on:
                total += other.overlap(rect)
        return total / max(1.0, rect.area)

    def bearable(self, rect: Rect, *, hides: float, watched: bool, on: int | None = None) -> bool:
        """Whether a thing at `rect` leaves every object, itself too if it is one, seen well enough."""
        for i, share in self.hidden.items():
            other = self.rects[i]
            if other is not None and rect.near < other.near and i != on:
                more = rect.overlap(other) / max(1.0, other.area)
                if more > 0 and share + more > hides:
                    return False
        return not watched or self._covered(rect, on) <= hides

    def inside(self, rect: Rect) -> float:
        """Share of a rectangle that lies in the frame."""
        frame = Rect(0.0, 0.0, float(self.camera.width), float(self.camera.height), 0.0)
        return rect.overlap(frame) / max(1e-6, rect.area)

    def scatter(
        self, draws: Draws, thing: Thing, reach: Reach, *, watched: bool = False, solid: bool = True
    ) -> int | None:
        """Finds a place on the ground in view; returns the index, or None if none of the tries fits."""
        depths = self._depths(thing, reach)
        if depths is None:
            return None
        for _ in range(reach.tries):
            column = draws.uniform(*reach.columns) * self.camera.width
            x, y = ground_point(self.camera, column, log_uniform(draws, depths))
            yaw = draws.uniform(0, math.tau)
            # The cheap questions come first: most draws fail one of them.
            block = block_at(thing.bounds, scale=thing.scale, yaw=yaw, position=(x, y, 0.0))
            if not self.in_room(block) or (solid and not self.free(block)):
                continue
            rect = rect_of(self.camera, block.corners())
            if rect is None or self.inside(rect) < reach.inside:
                continue
            if self.bearable(rect, hides=reach.hides, watched=watched):
                return self.put(thing, position=(x, y, 0.0), yaw=yaw, rect=rect, solid=solid, watched=watched)
        return None

    def _depths(self, thing: Thing, reach: Reach) -> tuple[float, float] | None:
        """Depths at which the thing has the wanted size and its foot is seen; None if there are none."""
        low, high = reach.depths[0], min(reach.depths[1], self.deepest)
        if reach.fills is not None:
            image = self.camera.focal * thing.size / min(self.camera.width, self.camera.height)
            first, last = ground_depths(self.camera)
            low = max(low, first, image / reach.fills[1])
            high = min(high, last, image / reach.fills[0])
        return (low, high) if low < high else None

    def perch(self, draws: Draws, thing: Thing, *, hides: float, inside: float, tries: int = 8) -> int | None:
        """Finds a place for a small object on a support of another thing; None if there is none."""
        for _ in range(tries if self.hosts else 0):
            host = draws.choice(self.hosts)
            support = draws.choice(self.instances[host].shape.supports)
            spot = self._spot(draws, thing, host, support)
            if spot is None:
                continue
            position, yaw = spot
            block = block_at(thing.bounds, scale=thing.scale, yaw=yaw, position=position)
            neighbours = [i for i, other in enumerate(self.instances) if other.on == host]
            rect = rect_of(self.camera, block.corners())
            if (
                rect is None
                or self.inside(rect) < inside
                or any(collide(block, self.blocks[i], 0.01) for i in neighbours)
            ):
                continue
            if self.in_room(block) and self.bearable(rect, hides=hides, watched=True, on=host):
                return self.put(thing, position=position, yaw=yaw, rect=rect, solid=False, on=host, watched=True)
        return None

    def _spot(self, draws: Draws, thing: Thing, host: int, support: Support) -> tuple[Vec3, float] | None:
        """Position and yaw on a support such that all of the thing's plan lies on it; None if it is too large."""
        base = self.instances[host]
        yaw = draws.uniform(0, math.tau)
        plan = block_at(thing.bounds, scale=thing.scale / base.scale, yaw=yaw, position=(0.0, 0.0, 0.0))
        reach_x = abs(plan.cos) * plan.half_x + abs(plan.sin) * plan.half_y
        reach_y = abs(plan.sin) * plan.half_x + abs(plan.cos) * plan.half_y
        (x0, x1), (y0, y1) = support.x, support.y
        if x1 - x0 < 2 * reach_x or y1 - y0 < 2 * reach_y:
            return None
        x = base.scale * (draws.uniform(x0 + reach_x, x1 - reach_x) - plan.x)
        y = base.scale * (draws.uniform(y0 + reach_y, y1 - reach_y) - plan.y)
        (r00, r01, _), (r10, r11, _), _ = base.rotation
        px, py, pz = base.position
        z = pz + base.scale * support.height
        return (px + r00 * x + r01 * y, py + r10 * x + r11 * y, z), yaw + math.atan2(r10, r00)


def log_uniform(draws: Draws, bounds: tuple[float, float]) -> float:
    """Uniform in the logarithm."""
    return math.exp(draws.uniform(math.log(bounds[0]), math.log(bounds[1])))
