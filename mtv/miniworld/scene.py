"""What a scene is: instances, surfaces, light, sky, camera, sensor. Plain data that determines every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtv.errors import UsageError
from mtv.miniworld.materials import RGB, Material
from mtv.miniworld.shapes import Mat3, Shape, Vec3
from mtv.miniworld.vocabulary import CATEGORIES, SEMANTIC


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A coloured shape in the world: an object of a category, or clutter (window, crate, bush ...)."""

    name: str
    """Semantic class, from `SEMANTIC`; an object if it is in `CATEGORIES`."""
    shape: Shape
    """Its shape in its own frame, unscaled."""
    scale: float
    """Object frame to metres of the world."""
    rotation: Mat3
    """Object frame to world."""
    position: Vec3
    """World position of the object's origin, metres."""
    materials: Mapping[str, Material]
    """Material of every slot that the shape's parts name."""
    on: int | None = None
    """Index in `Scene.instances` of what it stands on; None for the ground, the floor or a wall."""
    identity: str = ""
    """Names the individual where it appears in several scenes (geometric correspondence); empty otherwise."""

    def __post_init__(self) -> None:
        if self.name not in SEMANTIC:
            raise UsageError(f"Instance.name must be a semantic class, got {self.name!r}")
        lacking = {p.slot for p in self.shape.parts} - set(self.materials)
        if lacking:
            raise UsageError(f"Instance.materials of {self.name} lacks the slots {', '.join(sorted(lacking))}")

    @property
    def is_object(self) -> bool:
        """Whether it belongs to one of the object categories."""
        return self.name in CATEGORIES

    @property
    def colour(self) -> str:
        """Colour name of the main slot."""
        return self.materials["main"].colour

    def to_world(self, points_N3: np.ndarray) -> np.ndarray:
        """float64 [...,3] object frame to world."""
        return self.scale * points_N3 @ np.array(self.rotation).T + np.array(self.position)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """An infinite plane seen from one side: wall, floor, ceiling, ground. The free side is n . x > offset."""

    name: str
    """Semantic class."""
    normal: Vec3
    """Unit normal in the world, towards the free side."""
    offset: float
    """n . x on the plane, metres."""
    material: Material
    """Its look; the pattern lies in world coordinates."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """One directional light with soft shadows, and light from above and below."""

    direction: Vec3
    """Unit vector towards the light."""
    strength: RGB
    """Linear intensity."""
    ambient_up: RGB
    """Linear ambient light on surfaces that face up."""
    ambient_down: RGB
    """Linear ambient light on surfaces that face down."""
    softness: float
    """Radius of the penumbra in metres, 0 for sharp shadows."""
    fill_direction: Vec3 | None = None
    """Unit vector towards a second light without shadows."""
    fill_strength: RGB = (0.0, 0.0, 0.0)
    """Its linear intensity."""


@dataclass(frozen=True, kw_only=True)
class Sky:
    """Background of outdoor scenes; indoors the surfaces close the room and it is never seen."""

    zenith: RGB
    """sRGB colour straight up."""
    horizon: RGB
    """sRGB colour at the horizon."""
    clouds: float
    """Share of cloud, 0..1."""
    phase: float
    """Which clouds."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera: x right, y down, z forward; square pixels, principal point in the middle."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    focal: float
    """Pixels."""
    rotation: Mat3
    """World to camera."""
    position: Vec3
    """World position of the centre of projection, metres."""

    @property
    def world_to_camera(self) -> np.ndarray:
        """float64 [4,4]: X_cam = W X_world."""
        out = np.eye(4)
        out[:3, :3] = self.rotation
        out[:3, 3] = -out[:3, :3] @ np.array(self.position)
        return out

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels."""
        return self.focal, self.focal, self.width / 2, self.height / 2

    def project(self, points_N3: np.ndarray) -> np.ndarray:
        """float64 [...,3] world to (x pixels, y pixels, z metres)."""
        w = self.world_to_camera
        cam = points_N3 @ w[:3, :3].T + w[:3, 3]
        x, y, z = np.moveaxis(cam, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([self.focal * x / z + self.width / 2, self.focal * y / z + self.height / 2, z], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What the camera does to the light."""

    exposure: float
    """Factor on linear light."""
    balance: RGB
    """Factor per channel."""
    blur: float
    """Standard deviation of the blur in pixels; 0 for none."""
    noise: float
    """Standard deviation of the noise, sRGB 0..1."""
    seed: int
    """Seed of the noise, 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that determines a picture and its truth."""

    id: str
    """`split/index`, unique in a world."""
    setting: str
    """Name of the room or outdoor setting (`kitchen`, `meadow`)."""
    phrase: str
    """The setting as captions say it: `in a kitchen`, `on a beach`."""
    outdoor: bool
    """Whether the sky is seen."""
    instances: tuple[Instance, ...]
    """Objects and clutter."""
    surfaces: tuple[Surface, ...]
    """Planes; together they close the room, or are the ground."""
    light: Light
    """Illumination."""
    sky: Sky
    """Background."""
    camera: Camera
    """Camera."""
    sensor: Sensor
    """Sensor."""
