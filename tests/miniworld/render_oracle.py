"""A slow, separate ray caster: inside tests on a fine grid of distances, then bisection. float64, one ray at a time.

It shares no formula with the renderer: a part is only an inside test, and a hit is the first change of it along a ray.
"""

from __future__ import annotations

import numpy as np

from mtv.miniworld.scene import Instance, Scene
from mtv.miniworld.shapes import Part


def inside(part: Part, points_N3: np.ndarray) -> np.ndarray:
    """bool [N]: points (in the object's frame) that lie in the solid; an open frustum is solid too."""
    q = (points_N3 - np.array(part.centre)) @ np.array(part.rotation) / np.array(part.half)
    x, y, z = q.T
    if part.kind == "ellipsoid":
        return x**2 + y**2 + z**2 <= 1
    if part.kind == "box":
        return np.abs(q).max(axis=1) <= 1
    if part.kind == "frustum":
        radius = 1 + (part.taper - 1) * (z + 1) / 2
        return (np.abs(z) <= 1) & (np.hypot(x, y) <= radius)
    ring = 1 / (1 + part.tube)
    return np.hypot(np.hypot(x, y) - ring, z) <= 1 - ring


def first_hits(scene: Scene, column: int, row: int, *, step: float = 0.002, far: float = 9.0) -> tuple[float, int]:
    """Camera z of the first surface at a pixel's centre and the instance (-1: plane or sky; z is inf in the sky)."""
    cam = scene.camera
    ray = np.array([(column + 0.5 - cam.width / 2) / cam.focal, (row + 0.5 - cam.height / 2) / cam.focal, 1.0])
    direction = np.array(cam.rotation).T @ ray
    origin = np.array(cam.position)
    best, who = np.inf, -1
    for surface in scene.surfaces:
        facing = np.dot(surface.normal, direction)
        if facing < 0:
            t = (surface.offset - np.dot(surface.normal, origin)) / facing
            if t < best:
                best, who = t, -1
    t_N = np.arange(0.05, min(far, best), step)
    for number, instance in enumerate(scene.instances):
        for part in instance.shape.parts:
            hit = _first(part, instance, origin, direction, t_N)
            if hit < best:
                best, who = hit, number
    return best, who


def _first(part: Part, instance: Instance, origin: np.ndarray, direction: np.ndarray, t_N: np.ndarray) -> float:
    def solid(t: np.ndarray) -> np.ndarray:
        world = origin + t[:, None] * direction
        return inside(part, (world - np.array(instance.position)) @ np.array(instance.rotation) / instance.scale)

    where = np.flatnonzero(solid(t_N))
    if not len(where):
        return np.inf
    low, high = t_N[max(0, where[0] - 1)], t_N[where[0]]
    for _ in range(40):
        middle = (low + high) / 2
        if solid(np.array([middle]))[0]:
            high = middle
        else:
            low = middle
    return float(high)
