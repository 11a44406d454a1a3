"""Hand-made scenes for the renderer's tests: a few parts of every kind in a plain room, drawn from a key."""

from __future__ import annotations

import math

import numpy as np

from mtv.draws import Draws
from mtv.miniworld.materials import Material, draw_material
from mtv.miniworld.scene import Camera, Instance, Light, Scene, Sensor, Sky, Surface
from mtv.miniworld.shapes import Mat3, Part, Shape, Vec3, turn

PLAIN = Material(colour="grey", pigment=(0.5, 0.5, 0.5), second_colour="grey", second_pigment=(0.5, 0.5, 0.5))


def camera(
    width: int = 48, height: int = 40, *, pitch: float = 20.0, yaw: float = 0.0, at: Vec3 = (0, 0, 1.4)
) -> Camera:
    """A camera that looks along x, turned left by `yaw` and down by `pitch` degrees."""
    p, w = math.radians(pitch), math.radians(yaw)
    ahead = np.array([math.cos(p) * math.cos(w), math.cos(p) * math.sin(w), -math.sin(p)])
    right = np.array([math.sin(w), -math.cos(w), 0.0])
    rows = (right, np.cross(ahead, right), ahead)
    rotation: Mat3 = tuple(tuple(float(v) for v in row) for row in rows)  # type: ignore[assignment]
    return Camera(width=width, height=height, focal=0.9 * width, rotation=rotation, position=at)


def light(direction: Vec3 = (-0.48, 0.36, 0.8), **changes: object) -> Light:
    """A sun from behind the camera, above."""
    fields = {"strength": (1.0, 1.0, 1.0), "ambient_up": (0.2,) * 3, "ambient_down": (0.1,) * 3, "softness": 0.0}
    return Light(direction=direction, **{**fields, **changes})  # type: ignore[arg-type]


def instance(
    *parts: Part, at: Vec3 = (3, 0, 0), name: str = "mug", material: Material = PLAIN, **kw: object
) -> Instance:
    """One instance of plain material; `keypoints`, `scale` and `rotation` may be given."""
    keypoints = kw.pop("keypoints", ())
    slots = {p.slot for p in parts} | {"main"}
    fields = {"scale": 1.0, "rotation": turn(), **kw}
    shape = Shape(parts=parts, keypoints=keypoints)  # type: ignore[arg-type]
    return Instance(name=name, shape=shape, position=at, materials=dict.fromkeys(slots, material), **fields)  # type: ignore[arg-type]


def scene(*instances: Instance, cam: Camera | None = None, sun: Light | None = None, wall: float | None = 6.0) -> Scene:
    """Instances on a grey floor, before a wall at x = `wall` (None: open sky), without blur or noise."""
    floor = Surface(name="floor", normal=(0, 0, 1), offset=0, material=PLAIN)
    back = [] if wall is None else [Surface(name="wall", normal=(-1, 0, 0), offset=-wall, material=PLAIN)]
    return Scene(
        id="test/0",
        setting="room",
        phrase="in a room",
        outdoor=wall is None,
        instances=instances,
        surfaces=(floor, *back),
        light=sun or light(),
        sky=Sky(zenith=(0.2, 0.4, 0.9), horizon=(0.8, 0.9, 1.0), clouds=0.0, phase=0.0),
        camera=cam or camera(),
        sensor=Sensor(exposure=1.0, balance=(1, 1, 1), blur=0.0, noise=0.0, seed=1),
    )


def random_scene(key: int, *, width: int = 48, height: int = 40) -> Scene:
    """Eight random parts of all kinds, turned, stretched and coloured, some cut by the border, some hidden."""
    draws = Draws("renderer test", key)
    instances = []
    for i in range(8):
        d = draws.child(i)
        kind = ("ellipsoid", "box", "frustum", "torus")[i % 4]
        half = tuple(d.uniform(0.1, 0.5) for _ in range(3))
        part = Part(
            kind=kind,  # type: ignore[arg-type]
            centre=(d.uniform(-0.1, 0.1), 0.0, d.uniform(0.2, 0.6)),
            half=(half[0], half[0], half[0]) if kind == "torus" else half,  # type: ignore[arg-type]
            rotation=turn(x=d.uniform(0, 360), y=d.uniform(0, 360), z=d.uniform(0, 360)),
            taper=d.choice([0.0, 0.4, 1.0, 1.7]),
            tube=d.uniform(0.15, 0.6),
            open=d.chance(0.5),
        )
        at = (d.uniform(2.0, 5.0), d.uniform(-1.8, 1.8), 0.0)
        material = draw_material(d.child("look"), period=(0.1, 0.4))
        turned = turn(z=d.uniform(0, 360))
        instances.append(instance(part, at=at, material=material, scale=d.uniform(0.6, 1.4), rotation=turned))
    cam = camera(width, height, pitch=draws.uniform(5, 35), yaw=draws.uniform(-20, 20))
    return scene(*instances, cam=cam, wall=6.0 if key % 2 else None)
